"""What tests of transports share: both of those that speak HTTP/1.1, and an upstream."""

from collections.abc import AsyncGenerator

import pytest

from gateway.engine.http1 import NativeTransport
from gateway.engine.httpx_transport import HttpxTransport
from gateway.engine.transport import Transport
from tests.script import ScriptedUpstream


@pytest.fixture(params=[NativeTransport, HttpxTransport])
async def transport(request: pytest.FixtureRequest) -> AsyncGenerator[Transport, None]:
    transport = request.param()
    yield transport
    await transport.close()


@pytest.fixture(params=[NativeTransport, HttpxTransport])
async def one_at_a_time(request: pytest.FixtureRequest) -> AsyncGenerator[Transport, None]:
    """A transport with a single connection: whoever comes next waits for it."""
    transport = request.param(most_connections=1)
    yield transport
    await transport.close()


@pytest.fixture
async def upstream() -> AsyncGenerator[ScriptedUpstream, None]:
    async with ScriptedUpstream() as upstream:
        yield upstream
