"""What the transport on httpx promises beyond what every transport does."""

import asyncio
from collections.abc import AsyncGenerator

import httpx
import pytest
import respx

from gateway.core.errors import GatewayError, TimedOut, Unreachable
from gateway.engine import httpx_transport
from gateway.engine.httpx_transport import HttpxTransport
from gateway.providers.base import Request
from tests.engine.test_transport_contract import MOST, ask, begin, chat, within
from tests.script import ScriptedUpstream, Slow

URL = "https://api.example/v1/chat/completions"


@pytest.fixture
async def transport() -> AsyncGenerator[HttpxTransport, None]:
    transport = HttpxTransport()
    yield transport
    await transport.close()


@respx.mock(using="httpx")
async def test_an_answer_is_passed_on(transport: HttpxTransport, respx_mock: respx.MockRouter):
    """Status, headers and body, of any host, without a socket."""
    route = respx_mock.post(URL).respond(201, json={"a": 1}, headers={"X-Request-Id": "r1"})
    response = await begin(transport, Request(URL, b"{}", {"authorization": "Bearer k"}))
    assert (response.status, response.headers["x-request-id"]) == (201, "r1")
    assert await response.read(MOST) == b'{"a":1}'
    assert route.calls.last.request.headers["authorization"] == "Bearer k"


@pytest.mark.parametrize(
    ("raised", "error", "says"),
    [
        (httpx.ConnectTimeout("x"), TimedOut, r"timeouts\.connect "),
        (httpx.ConnectError("x"), Unreachable, "no connection"),
        (httpx.ProxyError("x"), Unreachable, "proxy"),
        (httpx.RemoteProtocolError("illegal status line"), Unreachable, "is no HTTP"),
        (httpx.RemoteProtocolError("Server disconnected without sending a response."), Unreachable, "before it"),
        (httpx.ReadError("x"), Unreachable, "before it answered"),
        (httpx.WriteError("x"), Unreachable, "before it answered"),
    ],
)
@respx.mock(using="httpx")
async def test_every_failure_of_httpx_has_our_name(
    transport: HttpxTransport,
    respx_mock: respx.MockRouter,
    raised: Exception,
    error: type[GatewayError],
    says: str,
):
    """Nothing of httpx's leaves this module, and its own words, which may hold an address, stay behind."""
    respx_mock.post(URL).mock(side_effect=raised)
    with pytest.raises(error, match=says) as caught:
        await ask(transport, Request(URL, b"{}", {}))
    assert caught.value.__cause__ is raised


@respx.mock(using="httpx")
async def test_redirects_are_not_followed(transport: HttpxTransport, respx_mock: respx.MockRouter):
    """They would carry the key to another place."""
    respx_mock.post(URL).respond(307, headers={"location": "https://elsewhere.example/"})
    response = await begin(transport, Request(URL, b"{}", {}))
    assert response.status == 307
    response.close()


@respx.mock(using="httpx")
async def test_cookies_reach_no_other_caller(transport: HttpxTransport, respx_mock: respx.MockRouter):
    """A client is used again for another caller's request; what the upstream told the first is not repeated."""
    route = respx_mock.post(URL).respond(200, headers={"set-cookie": "who=first; Path=/"})
    await ask(transport, Request(URL, b"{}", {}))
    await ask(transport, Request(URL, b"{}", {}))
    assert "cookie" not in route.calls.last.request.headers


async def test_callers_at_the_same_time_share_no_client():
    """What one of them breaks by leaving is nobody else's."""
    async with ScriptedUpstream() as upstream:
        transport = HttpxTransport()
        upstream.will(*[Slow(first_s=0.05)] * 5)
        await asyncio.gather(*(ask(transport, chat(upstream), within(5.0)) for _ in range(5)))
        assert upstream.accepted == 5
        await transport.close()


async def test_idle_clients_are_closed(monkeypatch: pytest.MonkeyPatch):
    """Before the upstream hangs up on them."""
    monkeypatch.setattr(httpx_transport, "IDLE_S", 0.05)
    async with ScriptedUpstream() as upstream:
        transport = HttpxTransport()
        await ask(transport, chat(upstream))
        assert upstream.connections
        await upstream.until(lambda: not upstream.connections)
        assert not transport._idle
        await transport.close()
