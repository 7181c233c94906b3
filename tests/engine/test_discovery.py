"""When upstreams are asked for their lists, and what becomes of answers that are none: real sockets, no real time."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any

from gateway.core.secret import Secret
from gateway.engine import discovery
from gateway.engine.discovery import Discovery, Source, UpstreamList
from gateway.engine.http1 import NativeTransport
from gateway.providers.anthropic import AnthropicOptions
from gateway.providers.base import ModelPage
from tests.script import Asked, Fails, ScriptedUpstream
from tests.standins import StillClock

EVERY_S = 3600.0


class Rounds(StillClock):
    """Waits a number of times without waiting, and then for ever; remembers for how long it was to wait."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.waits: list[float] = []
        self.over = asyncio.Event()
        self._most = most

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.passed_s += seconds
        if len(self.waits) >= self._most:
            self.over.set()
            await asyncio.get_running_loop().create_future()


@contextlib.asynccontextmanager
async def following(upstream: ScriptedUpstream, clock: Rounds, **changes: Any) -> AsyncIterator[Discovery]:
    """Follow the list of an Anthropic until `clock` has waited all its times."""
    options = AnthropicOptions(base_url=upstream.origin, api_key=Secret("sk-upstream"))
    transport = NativeTransport(ssl.create_default_context())
    found = Discovery(clock)
    found.follow({"them": Source(options, changes.get("lister") or options.build("them"), transport, EVERY_S)})
    try:
        async with asyncio.timeout(20):
            await clock.over.wait()
        yield found
    finally:
        found.close()
        await transport.close()


def page(*ids: str, **more: object) -> Fails:
    return Fails(200, {"data": [{"id": id} for id in ids], **more})


async def test_a_list_is_asked_for_again_before_it_is_too_old_and_not_by_all_at_once():
    """A little early, by chance."""
    async with ScriptedUpstream() as upstream:
        upstream.always("models", page("a"))
        clock = Rounds(20)
        async with following(upstream, clock) as found:
            assert all(0.8 * EVERY_S <= wait <= EVERY_S for wait in clock.waits)
            assert len(set(clock.waits)) == upstream.asked == 20
            assert found.version == 1  # it said nothing new


async def test_who_fails_is_asked_again_soon_then_later_and_never_more_rarely_than_others():
    """Back within seconds of a hiccup, and no burden in an outage; once back, as before."""
    async with ScriptedUpstream() as upstream:
        upstream.will(page("a"), *[Fails(500)] * 12, page("b"))
        clock = Rounds(14)
        async with following(upstream, clock) as found:
            assert clock.waits[1:8] == [10, 20, 40, 80, 160, 320, 640]
            assert all(wait <= EVERY_S for wait in clock.waits) and clock.waits[13] >= 0.8 * EVERY_S
            assert (list(found.lists()["them"].models), found.lists()["them"].error) == (["b"], "")


async def test_pages_that_never_end_do():
    """A page that asks for itself, and one that always has another."""

    def more(asked: Asked) -> Fails:
        last = asked.query.rpartition("after_id=a")[2]
        number = int(last) + 1 if last.isdecimal() else 0
        return page(f"a{number}", has_more=True, last_id=f"a{number}")

    async with ScriptedUpstream() as upstream:
        upstream.will(page("a", has_more=True, last_id="same"), page("b", has_more=True, last_id="same"))
        async with following(upstream, Rounds(1)) as found:
            assert (upstream.asked, list(found.lists()["them"].models)) == (2, ["a", "b"])
    async with ScriptedUpstream() as upstream:
        upstream.always("models", more)
        async with following(upstream, Rounds(1)) as found:
            assert upstream.asked == len(found.lists()["them"].models) == discovery.MOST_PAGES


async def test_a_page_that_fails_leaves_the_whole_list_as_it_was():
    """Half a list would make models disappear."""
    async with ScriptedUpstream() as upstream:
        upstream.will(page("a", "b"), page("a", has_more=True, last_id="a"), Fails(429))
        async with following(upstream, Rounds(2)) as found:
            assert list(found.lists()["them"].models) == ["a", "b"]
            assert found.lists()["them"].error


async def test_a_redirect_is_not_followed():
    """It would carry the key elsewhere."""
    async with ScriptedUpstream() as upstream, ScriptedUpstream() as elsewhere:
        upstream.will(Fails(302, b"", {"location": f"{elsewhere.origin}/v1/models"}))
        async with following(upstream, Rounds(1)) as found:
            assert (elsewhere.asked, found.lists()["them"].told_s) == (0, None)
            assert "302" in found.lists()["them"].error


async def test_a_bug_of_a_provider_is_told_and_the_next_list_is_asked_for():
    """A third party's translator may raise anything."""

    class Clumsy:
        def __init__(self) -> None:
            self.asked = 0

        def list_request(self, page: str, wall_s: float) -> Any:
            return AnthropicOptions(base_url=upstream.origin).build("them").list_request(page, wall_s)

        def listed(self, body: bytes) -> ModelPage:
            self.asked += 1
            raise KeyError("data")

        def error(self, status: int, headers: dict[str, str], body: bytes) -> Any:
            raise AssertionError

    async with ScriptedUpstream() as upstream:
        clumsy = Clumsy()
        async with following(upstream, Rounds(2), lister=clumsy) as found:
            assert clumsy.asked == 2
            assert "KeyError" in found.lists()["them"].error


def test_a_list_is_fresh_until_it_is_older_than_it_may_be():
    """What the providers' page says."""
    assert UpstreamList(60.0).state(1000.0) == "never"
    assert UpstreamList(60.0, told_s=1000.0).state(1060.0) == "fresh"
    assert UpstreamList(60.0, told_s=1000.0).state(1061.0) == "stale"
