"""Every test's event loop, and the servers that tests share."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop
from hypothesis import HealthCheck, settings

from tests.steady import SteadyLoop
from tests.valkey import own_valkey, valkey_url  # noqa: F401

ON_BOTH = {
    "test_transport_contract.py",
    "test_http1.py",
    "test_proxies.py",
    "test_dialing.py",
    "test_http2.py",
    "test_upload_contract.py",
    "test_protocol.py",
    "test_link.py",
    "test_door.py",
}
"""What speaks to sockets is tested on both event loops: uvloop's is what serves, asyncio's is what may have to."""

settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
settings.register_profile("steady", settings.get_profile("explore"), derandomize=True)
settings.load_profile("steady")
"""A change is judged by the same examples as the change before it, however slow the machine is. Whoever wants to find
what nobody has thought of runs them with `--hypothesis-profile explore`."""

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, LoopFactory]:
    """Tell pytest-asyncio which event loops a test runs on."""
    loops: dict[str, LoopFactory] = {"asyncio": SteadyLoop}
    if item.path.name in ON_BOTH:
        loops["uvloop"] = uvloop.new_event_loop
    return loops
