"""Key sets: fetched when needed, kept when the issuer is away, and not to be hammered by strangers."""

import asyncio
import json
import subprocess
import sys
from typing import Any

import httpx
import pytest
import respx

from gateway.core.errors import Unavailable
from gateway.engine import jwks
from gateway.engine.jwks import FRESH_S, JWKS, MOST_BYTES, PAUSE_S, http_get
from tests.standins import StillClock

URL = "https://issuer.example/jwks.json"


class Issuer:
    """Publishes `keys`, or is down."""

    def __init__(self, *kids: str) -> None:
        self.asked = 0
        self.down: Exception | None = None
        self.publish(*kids)
        self.clock = StillClock()
        self.sets = JWKS(self.clock, self.get)

    def publish(self, *kids: str, **more: Any) -> None:
        self.body = json.dumps({"keys": [{"kty": "RSA", "kid": kid, **more} for kid in kids]}).encode()

    async def get(self, url: str) -> bytes:
        self.asked += 1
        await asyncio.sleep(0)
        if self.down is not None:
            raise self.down
        return self.body

    async def has(self, kid: str) -> bool:
        return await self.sets.find(URL, kid) is not None


async def test_a_set_is_fetched_once_for_all_who_ask_and_again_when_it_is_old():
    """A hundred first tokens are one fetch; ten minutes later a withdrawn key is gone."""
    issuer = Issuer("a", "b")
    assert await asyncio.gather(*(issuer.has(kid) for kid in "ab" * 50)) == [True] * 100
    assert issuer.asked == 1
    issuer.publish("b")
    issuer.clock.passed_s = FRESH_S - 1
    assert (await issuer.has("a"), issuer.asked) == (True, 1)
    issuer.clock.passed_s = FRESH_S
    assert (await issuer.has("a"), issuer.asked) == (False, 2)


async def test_a_new_key_is_found_at_once_and_made_up_ones_ask_no_more_than_twice_a_minute():
    """Issuers rotate keys without telling; strangers make key ids up without end."""
    issuer = Issuer("a")
    assert await issuer.has("a")
    issuer.publish("a", "b")
    issuer.clock.passed_s = PAUSE_S
    assert (await issuer.has("b"), issuer.asked) == (True, 2)
    for n in range(1000):
        assert not await issuer.has(f"made-up-{n}")
    assert issuer.asked == 2
    issuer.clock.passed_s += PAUSE_S
    await issuer.has("made-up")
    assert issuer.asked == 3


@pytest.mark.parametrize(
    "fault",
    [
        ConnectionRefusedError("refused"),
        TimeoutError(),
        ValueError("status 500"),
        OSError("dns"),
    ],
)
async def test_the_last_keys_are_kept_while_the_issuer_is_away(fault, caplog):
    """An outage of the identity provider locks out nobody who holds a token; operators read of it."""
    issuer = Issuer("a")
    await issuer.has("a")
    issuer.down = fault
    issuer.clock.passed_s = 10 * FRESH_S
    assert (await issuer.has("a"), await issuer.has("b"), issuer.asked) == (True, False, 2)
    assert "1 keys are kept" in caplog.text
    issuer.down = None
    issuer.publish("b")
    issuer.clock.passed_s += PAUSE_S
    assert (await issuer.has("b"), await issuer.has("a")) == (True, False)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"keys": []}', b'{"keys": "x"}', b'{"keys": [1]}'])
async def test_what_is_no_key_set_changes_nothing(body):
    """A proxy's error page with a 200 must not empty the set."""
    issuer = Issuer("a")
    await issuer.has("a")
    issuer.body, issuer.clock.passed_s = body, FRESH_S
    assert await issuer.has("a")


async def test_without_any_keys_yet_the_client_is_told_when_to_come_back():
    """We cannot say yes or no; the next try is made when the pause is over."""
    issuer = Issuer("a")
    issuer.down = OSError("down")
    with pytest.raises(Unavailable) as caught:
        await issuer.has("a")
    assert (caught.value.status, caught.value.retry_after_s) == (503, PAUSE_S)
    issuer.clock.passed_s = 20
    with pytest.raises(Unavailable) as caught:
        await issuer.has("a")
    assert (caught.value.retry_after_s, issuer.asked) == (PAUSE_S - 20, 1)
    issuer.down, issuer.clock.passed_s = None, PAUSE_S
    assert await issuer.has("a")


async def test_published_secrets_and_keys_for_encryption_are_no_keys_for_signatures():
    """`oct` would make everybody who can read the set a signer."""
    issuer = Issuer()
    kinds = [{"kty": "oct", "kid": "o"}, {"kty": "RSA", "kid": "e", "use": "enc"}, {"kty": "EC", "kid": "s"}]
    issuer.body = json.dumps({"keys": kinds}).encode()
    assert [await issuer.has(kid) for kid in "oes"] == [False, False, True]


async def test_a_token_that_names_no_key_means_the_only_one():
    """With several there is no telling; none is tried."""
    issuer = Issuer("a")
    assert await issuer.has("")
    issuer.publish("a", "b")
    issuer.clock.passed_s = FRESH_S
    assert not await issuer.has("")


async def test_a_client_that_leaves_does_not_end_the_fetch_for_the_others():
    """They wait for the same one."""
    issuer = Issuer("a")
    leaver, stayer = asyncio.create_task(issuer.has("a")), asyncio.create_task(issuer.has("a"))
    await asyncio.sleep(0)
    leaver.cancel()
    assert (await stayer, issuer.asked) == (True, 1)


async def test_an_issuer_that_never_answers_is_given_up(monkeypatch):
    """The clock is named FETCH_S."""
    monkeypatch.setattr(jwks, "FETCH_S", 0.05)

    async def silence(url: str) -> bytes:
        await asyncio.sleep(30)
        return b""

    with pytest.raises(Unavailable):
        await asyncio.wait_for(JWKS(StillClock(), silence).find(URL, "a"), 5)


@respx.mock
async def test_http_fetches_the_set_and_nothing_but_a_200_of_its_own_size():
    """A redirect may lead anywhere, and a body without end may fill our memory."""
    route = respx.get(URL).respond(200, json={"keys": []})
    assert await http_get(URL) == b'{"keys":[]}'
    for answer in (httpx.Response(404), httpx.Response(302, headers={"location": "https://evil.example/"})):
        route.mock(return_value=answer)
        with pytest.raises(ValueError, match=f"status {answer.status_code}"):
            await http_get(URL)
    for fault in (httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), httpx.DecodingError("gzip")):
        route.mock(side_effect=fault)
        with pytest.raises(OSError, match=str(fault)):
            await http_get(URL)
    route.mock(side_effect=None, return_value=httpx.Response(200, content=b" " * (MOST_BYTES + 1)))
    with pytest.raises(ValueError, match="more than"):
        await http_get(URL)


@pytest.mark.parametrize("url", ["https://", "gopher://x/", "https://[::1", "http://127.0.0.1:1/jwks.json"])
async def test_an_address_that_leads_nowhere_is_no_crash(url):
    """Whatever is configured, calls with a token are told that the keys cannot be had."""
    with pytest.raises(Unavailable):
        await JWKS(StillClock()).find(url, "a")


def test_httpx_is_not_imported_before_a_key_is_fetched():
    """It would take a third of the gateway's start."""
    check = "import sys, gateway.engine.jwks; sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], timeout=60).returncode == 0


async def test_a_proxy_that_httpx_cannot_speak_to_is_an_outage(monkeypatch):
    """Such as SOCKS, which the environment may name for other programs: the keys that there are stay."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(OSError, match="SOCKS"):
        await http_get("https://issuer.invalid/keys")
