from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.postgres import database, own_postgres, postgres_server

__all__ = ["own_postgres", "postgres_server", "url"]


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/calls.db"
        return
    async with database(request.getfixturevalue("postgres_server")) as url:
        yield url
