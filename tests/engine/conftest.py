"""What speaks to sockets is tested on both event loops: uvloop's is what serves, asyncio's is what may have to."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

ON_BOTH = {
    "test_transport_contract.py",
    "test_http1.py",
    "test_proxies.py",
    "test_dialing.py",
    "test_http2.py",
    "test_upload_contract.py",
}

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, LoopFactory]:
    """Tell pytest-asyncio which event loops a test runs on."""
    loops: dict[str, LoopFactory] = {"asyncio": asyncio.SelectorEventLoop}
    if item.path.name in ON_BOTH:
        loops["uvloop"] = uvloop.new_event_loop
    return loops
