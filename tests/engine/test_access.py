"""Access tokens: fetched once for all who wait, renewed in the background, and precise when there are none."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import Struct

from gateway.core.errors import TimedOut, Unreachable, UpstreamFailed
from gateway.engine import access as access_module
from gateway.engine.access import EARLY_S, MARGIN_S, PAUSE_S, Access
from gateway.engine.http1 import NativeTransport
from gateway.engine.outgoing import default_tls
from gateway.engine.transport import Deadline
from gateway.providers.base import Request
from tests.script import Fails, Html, ScriptedUpstream, Silent
from tests.standins import StillClock

SECRET = "s3cr3t-Pr1vate-K3y"


class Grants(Struct, frozen=True):
    url: str

    def request(self, wall_s: float) -> Request:
        return Request(self.url, f"assertion={SECRET}".encode(), {"content-type": "text/plain"})


def gives(token: str, lasts_s: Any = 3600) -> Fails:
    return Fails(200, {"access_token": token, "expires_in": lasts_s, "token_type": "Bearer"})


class Issuer:
    """Who makes tokens, and who has to send one."""

    def __init__(self, upstream: ScriptedUpstream, transport: NativeTransport) -> None:
        self.upstream = upstream
        self.clock = StillClock()
        self.access = Access(Grants(f"{upstream.origin}/token"), transport, self.clock)

    async def sends(self, within_s: float = 30.0) -> str:
        """Return what a request is sent with."""
        request = Request("https://example.org", b"", {})
        await self.access.authorize(request, Deadline(asyncio.get_running_loop().time() + within_s, "headers"))
        return request.headers["authorization"]

    async def settle(self) -> None:
        """Wait for the fetch that is under way."""
        while (fetching := self.access._fetching) is not None:
            await asyncio.wait({fetching})


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    transport = NativeTransport(default_tls())
    async with ScriptedUpstream() as upstream:
        yield Issuer(upstream, transport)
        await transport.close()


async def test_many_who_need_a_token_at_once_fetch_one(issuer: Issuer):
    """A start with a thousand calls must not ask Google a thousand times."""
    issuer.upstream.will(gives("one"))
    assert set(await asyncio.gather(*(issuer.sends() for _ in range(50)))) == {"Bearer one"}
    issuer.clock.passed_s = 3600 - EARLY_S - 1
    assert await issuer.sends() == "Bearer one"
    assert issuer.upstream.asked == 1


async def test_a_token_is_renewed_before_it_ends_and_nobody_waits(issuer: Issuer):
    """What is still good is sent meanwhile."""
    issuer.upstream.will(gives("one"), Silent())
    await issuer.sends()
    issuer.clock.passed_s = 3600 - EARLY_S
    assert [await issuer.sends() for _ in range(5)] == ["Bearer one"] * 5
    await issuer.upstream.until(lambda: issuer.upstream.asked == 2)


async def test_the_new_token_is_sent_as_soon_as_it_is_here(issuer: Issuer):
    """The old one may end in the middle of what it was sent for."""
    issuer.upstream.will(gives("one"), gives("two"))
    await issuer.sends()
    issuer.clock.passed_s = 3600 - EARLY_S
    await issuer.sends()
    await issuer.settle()
    assert await issuer.sends() == "Bearer two"


async def test_an_outage_is_felt_only_when_the_token_has_ended(issuer: Issuer, caplog):
    """And operators read of it before."""
    issuer.upstream.will(gives("one"), Fails(503, {}), Fails(503, {}))
    await issuer.sends()
    issuer.clock.passed_s = 3600 - EARLY_S
    await issuer.sends()
    await issuer.settle()
    assert "the last token is good for 290 s" in caplog.text
    assert await issuer.sends() == "Bearer one"
    issuer.clock.passed_s = 3600 - MARGIN_S
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:\d+ answered 503"):
        await issuer.sends()


async def test_a_fetch_that_takes_long_is_not_doubled(issuer: Issuer):
    """However long after its beginning others need the token too."""
    issuer.upstream.will(Silent())
    waiting = [asyncio.create_task(issuer.sends(within_s=0.2)) for _ in range(3)]
    await issuer.upstream.until(lambda: issuer.upstream.asked)
    issuer.clock.passed_s = 2 * PAUSE_S
    waiting += [asyncio.create_task(issuer.sends(within_s=0.1)) for _ in range(3)]
    assert all(isinstance(one, TimedOut) for one in await asyncio.gather(*waiting, return_exceptions=True))
    assert issuer.upstream.asked == 1


async def test_who_waits_for_a_token_waits_no_longer_than_the_call_may(issuer: Issuer):
    """The clock that fires is the call's, and says its name; the fetch goes on for others."""
    issuer.upstream.will(Silent())
    with pytest.raises(TimedOut, match=r"timeouts\.headers"):
        await issuer.sends(within_s=0.02)


async def test_an_endpoint_that_is_silent_is_given_up(issuer: Issuer, monkeypatch):
    """The clock is named FETCH_S, and the error says who was silent."""
    monkeypatch.setattr(access_module, "FETCH_S", 0.05)
    issuer.upstream.will(Silent())
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:\d+ gave none in 0\.05 seconds"):
        await issuer.sends()


async def test_a_client_that_leaves_does_not_end_the_fetch_for_the_others(issuer: Issuer):
    """They wait for the same one."""
    issuer.upstream.will(gives("one"))
    leaver, stayer = asyncio.create_task(issuer.sends()), asyncio.create_task(issuer.sends())
    await asyncio.sleep(0)
    leaver.cancel()
    assert await stayer == "Bearer one"
    assert issuer.upstream.asked == 1


async def test_a_credential_that_is_refused_is_told_without_it(issuer: Issuer, caplog):
    """Another provider may answer; asking this one again is in vain. What is repeated of the answer is masked."""
    told = f"Invalid JWT Signature for {SECRET}."
    issuer.upstream.will(Fails(400, {"error": "invalid_grant", "error_description": told}))
    with pytest.raises(UpstreamFailed) as raised:
        await issuer.sends()
    error = raised.value
    assert (error.status, error.code, error.retryable, error.elsewhere) == (502, "upstream_auth_failed", False, True)
    assert "400 invalid_grant: Invalid JWT Signature" in error.message
    assert "check the credentials of this provider" in error.message
    assert SECRET not in error.message + caplog.text


async def test_a_failed_fetch_is_not_repeated_at_once(issuer: Issuer):
    """Every call would knock at a door that is closed; they are told when the next knock is."""
    issuer.upstream.will(Fails(500, {}), gives("one"))
    for _ in range(5):
        with pytest.raises(Unreachable) as raised:
            await issuer.sends()
    assert raised.value.retry_after_s == PAUSE_S
    assert issuer.upstream.asked == 1
    issuer.clock.passed_s = PAUSE_S
    assert await issuer.sends() == "Bearer one"


@pytest.mark.parametrize(
    "answer",
    [
        Html(),
        Fails(200, {}),
        Fails(200, {"access_token": "a", "expires_in": MARGIN_S}),
        Fails(200, {"access_token": "a\r\nx: y", "expires_in": 3600}),
        Fails(200, {"access_token": "a", "expires_in": "soon"}),
        Fails(200, {"access_token": "a", "expires_in": "inf"}),
        Fails(200, {"access_token": "a"}),
        Fails(302, {}, {"location": "http://127.0.0.1:1/"}),
        Fails(200, {"access_token": "a" * 70_000, "expires_in": 3600}),
    ],
)
async def test_what_is_no_token_is_none(issuer: Issuer, answer):
    """A proxy's page with a 200, a redirect, a token that has ended on arrival or would break out of its header."""
    issuer.upstream.will(answer)
    with pytest.raises(Unreachable, match="no access token could be fetched"):
        await issuer.sends()


async def test_seconds_may_be_text(issuer: Issuer):
    """As Microsoft writes them."""
    issuer.upstream.will(gives("one", "3599"))
    assert await issuer.sends() == "Bearer one"


async def test_a_token_that_was_refused_is_not_sent_again(issuer: Issuer):
    """It was revoked before its time. One that has been replaced meanwhile changes nothing."""
    issuer.upstream.will(gives("one"), gives("two"))
    await issuer.sends()
    issuer.clock.passed_s = PAUSE_S
    refused = Request("https://example.org", b"", {"authorization": "Bearer one"})
    issuer.access.forget(refused)
    assert await issuer.sends() == "Bearer two"
    issuer.access.forget(refused)
    assert await issuer.sends() == "Bearer two"


async def test_a_token_that_is_refused_as_soon_as_it_is_here_is_told_so(issuer: Issuer):
    """Until the next fetch may begin: it is the token that is not accepted, not that nobody asked for one."""
    issuer.upstream.will(gives("one"), gives("two"))
    issuer.access.forget(Request("https://example.org", b"", {"authorization": await issuer.sends()}))
    issuer.clock.passed_s = 0.5
    with pytest.raises(Unreachable, match="the upstream refused the last access token") as raised:
        await issuer.sends()
    assert raised.value.retry_after_s == PAUSE_S - 0.5
    assert issuer.upstream.asked == 1
    issuer.clock.passed_s = PAUSE_S
    assert await issuer.sends() == "Bearer two"


def test_what_was_asked_of_the_endpoint_is_json_or_nothing():
    """Whatever it is, a failure has words."""
    for body in (b"", b"\xff", b"[" * 5000, b"[]", b'{"error": {"a": 1}}', json.dumps({"error": "x"}).encode()):
        failure = access_module.read(500, body, "host")
        assert isinstance(failure, access_module.Failure)
        assert "host answered 500" in failure.message
