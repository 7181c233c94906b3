"""The page says what the tests show."""

import os

from gateway.core.shipped import shipped
from tests.translation.page import page

PAGE = shipped("gateway.yaml").parent / "docs/translation.md"


def test_the_page_is_written_from_the_tables():
    """What the docs promise is what is tested."""
    if os.environ.get("GATEWAY_WRITE_DOCS") == "1":
        PAGE.write_text(page())
    assert PAGE.read_text() == page(), "write it anew: GATEWAY_WRITE_DOCS=1"
