"""A call ends once, however it ends; the engine alone, without HTTP."""

import asyncio

import pytest

from gateway.core.errors import Broke, Forbidden, Unreachable
from gateway.core.middleware import chain
from gateway.core.reply import Chunk, Reply
from gateway.core.usage import Usage
from gateway.engine.engine import Engine
from tests.calls import chunks_of
from tests.standins import PLACE, StillClock, call_of


def engine_of(*rooms, last):
    return Engine({"chat": chain(rooms, last)})


def answering(*pieces, fail=None):
    """A last handler that says `pieces`, and then perhaps fails."""

    async def rest():
        for piece in pieces[1:]:
            yield Chunk(piece.encode(), piece)
        if fail:
            raise fail

    async def last(call):
        return Reply(Chunk(pieces[0].encode(), pieces[0]), rest() if len(pieces) > 1 or fail else None)

    return last


async def outcome_of(engine, *, take=None, call=None):
    """Open a call, take some chunks or all, and return the closed receipt."""
    call = call or call_of(StillClock(), stream=True)
    ended = []
    call.at_end(lambda receipt: ended.append(receipt.outcome))
    try:
        async with engine.open(call) as reply:
            seen = 0
            async for _ in chunks_of(reply):
                seen += 1
                if seen == take:
                    break
    except (Broke, Forbidden, Unreachable):
        pass
    await engine.settle()
    assert ended == [call.receipt.outcome], "the ending runs exactly once, and sees how it ended"
    return call.receipt


async def test_a_stream_that_was_taken_whole_is_finished():
    """And its pieces are counted."""
    receipt = await outcome_of(engine_of(last=answering("a", "b", "c")))
    assert (receipt.outcome, receipt.chunks, receipt.completion_chars) == ("finished", 3, 3)


async def test_a_stream_that_was_left_is_abandoned_and_its_usage_estimated():
    """Usage that is lost when a client leaves is the commonest money bug there is."""
    receipt = await outcome_of(engine_of(last=answering("four" * 4, "b", "c")), take=1)
    assert (receipt.outcome, receipt.usage.estimated) == ("abandoned", True)
    assert receipt.usage.completion_tokens > 0


@pytest.mark.parametrize(
    ("fail", "outcome"), [(Broke("cut"), "broken"), (Unreachable("gone"), "broken"), (Forbidden("no"), "refused")]
)
async def test_a_stream_that_fails_is_broken(fail, outcome):
    """Whatever is raised behind the first chunk."""
    receipt = await outcome_of(engine_of(last=answering("a", fail=fail)))
    assert receipt.outcome == outcome and receipt.error == type(fail).__name__


async def test_no_answer_is_failed_or_refused():
    """By whose fault is in the word."""

    async def gone(call):
        raise Unreachable("x")

    async def forbidden(call):
        raise Forbidden("x")

    assert (await outcome_of(engine_of(last=gone))).outcome == "failed"
    assert (await outcome_of(engine_of(last=forbidden))).outcome == "refused"


async def test_endings_run_last_asked_first_and_survive_the_callers_cancellation():
    """The client is gone and its task cancelled; what was asked for at the end happens all the same."""
    order = []

    async def slow(_):
        await asyncio.sleep(0.05)
        order.append("slow")

    class Room:
        async def __call__(self, call, next):
            call.at_end(lambda _: order.append("outer"))
            call.at_end(slow)
            call.at_end(lambda _: order.append("inner"))
            return await next(call)

    async def never(call):
        await asyncio.sleep(60)

    engine, call = engine_of(Room(), last=never), call_of(StillClock())

    async def ask():
        async with engine.open(call):
            pass

    asking = asyncio.ensure_future(ask())
    await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await engine.settle()
    assert (order, call.receipt.outcome) == (["inner", "slow", "outer"], "abandoned")


async def test_an_ending_that_fails_keeps_nothing_from_the_others(caplog):
    """A bug in one room must not keep another's slot; it is told loudly."""
    call, ended = call_of(StillClock()), []
    call.at_end(lambda _: ended.append("first asked"))
    call.at_end(lambda _: 1 / 0)
    engine = engine_of(last=answering("a"))
    async with engine.open(call):
        pass
    assert ended == ["first asked"] and "ending of call c1 failed" in caplog.text


async def test_a_failed_attempts_endings_run_at_once_a_good_ones_with_the_call():
    """A slot of a deployment that failed is free while the next one is asked."""
    held, seen = {"a": 0, "b": 0}, []

    class Slots:
        async def __call__(self, call, next):
            name = call.deployment.model
            held[name] += 1
            call.at_end(lambda _: held.__setitem__(name, held[name] - 1))
            return await next(call)

    class Both:
        async def __call__(self, call, next):
            for name in "ab":
                try:
                    async with call.attempt(PLACE.__class__(f"p/{name}", "p", name)) as attempt:
                        return await next(attempt)
                except Unreachable:
                    continue
            raise AssertionError("both failed")

    async def last(call):
        seen.append(dict(held))
        if call.deployment.model == "a":
            raise Unreachable("no")
        return Reply(Chunk(b"{}", usage=Usage(1, 1)))

    call = call_of(StillClock())
    async with engine_of(Both(), Slots(), last=last).open(call):
        assert held == {"a": 0, "b": 1}
    assert seen == [{"a": 1, "b": 0}, {"a": 0, "b": 1}] and held == {"a": 0, "b": 0}
    assert [tried.error for tried in call.receipt.tried] == ["Unreachable", ""]


async def test_an_engine_is_busy_until_its_last_call_has_settled():
    """A reload keeps the old one for so long: its endings are waited for when the process stops."""
    waiting, call = asyncio.Event(), call_of(StillClock())

    async def slow(_):
        await waiting.wait()

    call.at_end(slow)
    engine = engine_of(last=answering("a"))
    seen = [engine.busy]
    async with engine.open(call):
        seen.append(engine.busy)
    seen.append(engine.busy)
    waiting.set()
    await engine.settle()
    assert [*seen, engine.busy] == [False, True, True, False]
