"""An upstream, and a Redis of its own behind a proxy that can misbehave."""

from collections.abc import AsyncIterator

import pytest

from tests.proxy import Proxy
from tests.script import ScriptedUpstream
from tests.valkey import Valkey


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
async def proxy(own_valkey: Valkey) -> AsyncIterator[Proxy]:
    async with Proxy(own_valkey.port) as proxy:
        yield proxy
