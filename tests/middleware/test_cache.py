"""A repeated call is answered without an upstream: to whom, in which form, and when not."""

import asyncio
import json
import logging
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from gateway.core.call import Call
from gateway.core.errors import Broke, Busy
from gateway.core.middleware import chain
from gateway.core.principal import Principal
from gateway.core.receipt import Receipt
from gateway.core.reply import Chunk, Reply
from gateway.core.resources import Resources
from gateway.core.route import Deployment, Route
from gateway.core.units import Duration, Size
from gateway.core.usage import Usage
from gateway.engine.clock import SystemClock
from gateway.engine.engine import Engine
from gateway.kv.memory import MemoryAnswers
from gateway.kv.redis import RedisStore
from gateway.middleware.cache import Cache, CacheOptions
from tests.calls import FakeClock, a_body, a_call, chunks_of

TEAM_A, TEAM_B = Principal("team-a", team="blue"), Principal("team-b", team="blue")
USAGE = Usage(12, 3, cached_tokens=4)


def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    said = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(said).encode() + b"\n\n"


def a_stream(finish: str = "stop") -> list[Chunk]:
    counted = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []}
    return [
        Chunk(event({"role": "assistant", "content": ""}) + event({"content": "fo"}), "fo"),
        Chunk(event({"content": "ur"}), "ur"),
        Chunk(event({}, finish), finish_reason=finish),
        Chunk(
            b"data: " + json.dumps({**counted, "usage": {"total_tokens": 15}}).encode() + b"\n\n",
            usage=USAGE,
            silent=True,
            usage_only=True,
        ),
    ]


def a_whole(finish: str = "stop", text: str = "four") -> list[Chunk]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    said = {"id": "c1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return [Chunk(json.dumps(said).encode(), text, USAGE, finish)]


class Room:
    """The room in an engine of its own, and behind it an upstream that answers as it is told."""

    def __init__(self, answers: Any = None, **options: Any) -> None:
        self.clock = FakeClock()
        self.answers = answers or MemoryAnswers(10_000_000, self.clock)
        self.asked = 0
        self.stream, self.whole = a_stream(), a_whole()
        self.breaks = False
        room = Cache(CacheOptions(**options), self.answers)
        self.engine = Engine({"chat": chain([room], self._answer)})

    async def _answer(self, call: Call) -> Reply:
        self.asked += 1
        first, *rest = self.stream if call.stream else self.whole
        return Reply(first, self._rest(rest)) if call.stream else Reply(first)

    async def _rest(self, rest: Sequence[Chunk]):
        for chunk in rest:
            yield chunk
            if self.breaks:
                raise Broke("it broke off")

    async def ask(self, principal: Principal = TEAM_A, **changes: Any) -> tuple[list[Chunk], Receipt]:
        call = a_call(clock=self.clock, principal=principal, **changes)
        async with self.engine.open(call) as reply:
            chunks = [chunk async for chunk in chunks_of(reply)]
        await self.engine.settle()
        return chunks, call.receipt


@pytest.mark.parametrize("stream", [True, False])
async def test_a_repeated_call_is_answered_as_it_was(stream: bool) -> None:
    """Chunk by chunk for streams, the one that tells the usage included; no upstream is asked, nothing is charged."""
    room = Room()
    first, told = await room.ask(stream=stream)
    second, again = await room.ask(stream=stream)
    assert (second, room.asked) == (first, 1)
    assert (told.cache, again.cache) == ("miss", "hit")
    assert (again.usage, again.cost_nusd, again.finish_reason) == (USAGE, 0, "stop")
    assert (again.outcome, again.tried) == ("finished", [])


async def test_a_streamed_answer_is_told_whole() -> None:
    room = Room()
    await room.ask(stream=True)
    (chunk,), receipt = await room.ask(stream=False)
    message = json.loads(chunk.data)["choices"][0]["message"]
    assert (message["role"], message["content"]) == ("assistant", "four")
    assert (chunk.text, chunk.usage, chunk.finish_reason) == ("four", USAGE, "stop")
    assert (receipt.cache, room.asked) == ("hit", 1)


async def test_a_whole_answer_is_told_as_a_stream() -> None:
    room = Room()
    await room.ask(stream=False)
    chunks, receipt = await room.ask(stream=True)
    assert "".join(chunk.text for chunk in chunks) == "four"
    assert all(chunk.data.startswith(b"data: ") for chunk in chunks)
    assert [chunk.usage_only for chunk in chunks] == [False, True]
    assert (receipt.cache, receipt.usage, receipt.finish_reason, room.asked) == ("hit", USAGE, "stop", 1)


@pytest.mark.parametrize(
    ("scope", "other", "asked"),
    [
        ("key", TEAM_B, 2),
        ("key", TEAM_A, 1),
        ("team", TEAM_B, 1),
        ("team", Principal("team-c", team="red"), 2),
        ("everyone", Principal("team-c", team="red"), 1),
    ],
)
async def test_answers_are_shared_only_as_far_as_asked_for(scope: Any, other: Principal, asked: int) -> None:
    """Two tenants, the same body: by default two upstream calls. A shared answer tells what another one asked."""
    room = Room(scope=scope)
    await room.ask(TEAM_A)
    await room.ask(other)
    assert room.asked == asked


async def test_answers_are_not_shared_by_those_who_may_not_ask_the_same() -> None:
    """The answer may be a fallback's, which is not for everyone."""
    room, route = Room(scope="everyone"), Route("fast", (), fallbacks=("dear",))
    await room.ask(Principal("a", models=("fast", "dear")), route=route)
    await room.ask(Principal("b", models=("fast",)), route=route)
    await room.ask(Principal("c"), route=route)
    assert room.asked == 2


async def test_those_without_a_team_are_not_a_team() -> None:
    room = Room(scope="team")
    await room.ask(Principal("a"))
    await room.ask(Principal("b"))
    await room.ask(Principal("c", team="a"))
    assert room.asked == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"body": a_body(messages=[{"role": "user", "content": "3 + 3?"}])},
        {"body": a_body(temperature=0.5)},
        {"body": a_body(max_tokens=5)},
        {"body": a_body(n=2)},
        {"body": a_body(a_field_of_tomorrow=True)},
        {"model": "slow"},
        {"route": Route("fast", (Deployment("groq/llama", "groq", "llama"),))},
    ],
)
async def test_what_can_change_the_answer_asks_anew(changes: dict[str, Any]) -> None:
    """Fields that nobody here knows included, and where the model's name leads after a reload."""
    room = Room()
    await room.ask()
    await room.ask(**changes)
    assert room.asked == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"stream_options": {"include_usage": True}},
        {"user": "ann"},
        {"metadata": {"run": "7"}},
        {"safety_identifier": "x"},
        {"prompt_cache_key": "x"},
        {"store": False},
    ],
)
async def test_what_cannot_change_the_answer_does_not(fields: dict[str, Any]) -> None:
    room = Room()
    await room.ask()
    await room.ask(body=a_body(**fields))
    assert room.asked == 1


async def test_the_order_of_fields_does_not_matter_but_their_borders_do() -> None:
    """`{"a": 12}` and `{"a1": 2}` are not one key."""
    room = Room()
    await room.ask(body=a_body(seed=12, top_p=1))
    await room.ask(body=a_body(top_p=1, seed=12))
    assert room.asked == 1
    await room.ask(body=a_body(seed1=2, top_p=1))
    assert room.asked == 2


async def test_no_cache_asks_again_and_keeps_the_new_answer() -> None:
    room = Room()
    await room.ask()
    room.whole = a_whole(text="vier")
    _, receipt = await room.ask(headers={"cache-control": "max-age=0, No-Cache"})
    (chunk,), again = await room.ask()
    assert (receipt.cache, again.cache, chunk.text, room.asked) == ("bypass", "hit", "vier", 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": {"cache-control": "no-store"}},
        {"body": a_body(store=True)},
        {"body": a_body(background=True)},
        {"body": a_body(n=2)},
    ],
)
async def test_some_calls_pass_the_cache_by(changes: dict[str, Any]) -> None:
    """`no-store` by the client's wish; what the upstream is to keep has to reach it; several answers differ."""
    room = Room()
    for _ in range(2):
        _, receipt = await room.ask(**changes)
        assert receipt.cache == "bypass"
    assert (room.asked, len(room.answers)) == (2, 0)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("finish", "kept"), [("stop", 1), ("length", 1), ("tool_calls", 1), ("content_filter", 0), ("", 0), ("error", 0)]
)
async def test_only_whole_answers_are_kept(finish: str, kept: int, stream: bool) -> None:
    """What a filter cut, or what ended for no reason given, is not repeated."""
    room = Room()
    room.stream, room.whole = a_stream(finish), a_whole(finish)
    await room.ask(stream=stream)
    assert len(room.answers) == kept


async def test_one_filtered_choice_of_several_is_enough() -> None:
    room = Room()
    room.stream = [*a_stream("content_filter"), *a_stream("stop")]
    await room.ask(stream=True)
    assert len(room.answers) == 0


async def test_a_broken_answer_is_not_kept() -> None:
    room = Room()
    room.breaks, room.stream = True, [*a_stream()[2:3], *a_stream()]
    with pytest.raises(Broke):
        await room.ask(stream=True)
    assert len(room.answers) == 0


async def test_an_answer_that_misses_a_word_is_not_kept() -> None:
    """The next client may have all of it."""
    room = Room()
    room.stream[1] = msgspec.structs.replace(room.stream[1], skipped=1)
    await room.ask(stream=True)
    await room.ask(stream=True)
    assert room.asked == 2


async def test_an_answer_whose_client_left_is_not_kept() -> None:
    """Even if it had said its finish: what came after it may be missing."""
    room = Room()
    call = a_call(clock=room.clock, principal=TEAM_A, stream=True)
    async with room.engine.open(call) as reply:
        async for chunk in chunks_of(reply):
            if chunk.finish_reason:
                break
    await room.engine.settle()
    assert (call.receipt.outcome, len(room.answers)) == ("abandoned", 0)


async def test_a_failure_is_not_kept() -> None:
    async def fail(call: Call) -> Reply:
        raise Busy("no")

    answers = MemoryAnswers(1_000_000, FakeClock())
    engine = Engine({"chat": chain([Cache(CacheOptions(), answers)], fail)})
    call = a_call()
    with pytest.raises(Busy):
        async with engine.open(call):
            pass
    assert (call.receipt.cache, len(answers), call.endings) == ("miss", 0, [])


@pytest.mark.parametrize("answer", [a_stream(), a_whole()])
@pytest.mark.parametrize(("left_out", "kept"), [(0, 1), (1, 0), (10**9, 0)])
async def test_an_answer_that_is_too_large_passes_and_is_not_kept(
    answer: list[Chunk], left_out: int, kept: int
) -> None:
    """Nor is it gathered to its end: its chunks are let go as soon as they are too many."""
    room = Room(max_answer=Size(max(1, sum(len(chunk.data) for chunk in answer) - left_out)))
    chunks, _ = await room.ask(stream=len(answer) > 1)
    assert (chunks, len(room.answers)) == (answer, kept)


async def test_answers_are_forgotten_after_their_time() -> None:
    room = Room(ttl=Duration(60))
    await room.ask()
    room.clock.passed_s = 61
    _, receipt = await room.ask()
    assert (receipt.cache, room.asked) == ("miss", 2)


@pytest.mark.parametrize(
    "found",
    [
        b"",
        b"\xc1",
        b"not msgpack",
        msgspec.msgpack.encode([True, [], None, "stop"]),
        msgspec.msgpack.encode([True, [[b"data: {}\n\n", "", None, "", False, False]], None, "stop"]),
        msgspec.msgpack.encode([True, [[b'data: {"choices":[{}]}\n\n', "", None, "", False, False]], None, "stop"]),
    ],
)
async def test_an_entry_that_cannot_be_read_is_a_miss(found: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is in the store: an upstream is asked, and its answer replaces it."""
    room = Room()

    class Corrupt:
        async def get(self, key: str, *, waited_s: float) -> bytes:
            return found

        async def put(self, key: str, answer: bytes, ttl_s: float) -> None:
            self.kept = answer

    corrupt = Corrupt()
    room = Room(corrupt)
    (chunk,), receipt = await room.ask()
    assert (chunk.text, receipt.cache, room.asked) == ("four", "miss", 1)
    assert corrupt.kept
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_a_long_body_is_told_apart_too() -> None:
    """It is hashed in a thread, and all of it."""
    room, long = Room(), "x" * 1_200_000
    for content in (long, long, long[:-1] + "y"):
        await room.ask(body=a_body(messages=[{"role": "user", "content": content}]))
    assert room.asked == 2


async def test_an_answer_kept_by_one_worker_is_found_by_another(valkey_url: str) -> None:
    """In Redis, under the same key and in a form that all can read."""
    stores = [RedisStore(valkey_url, SystemClock(), budget_s=2.0) for _ in range(2)]
    await asyncio.gather(*(store.start() for store in stores))
    rooms = [Room(store, ttl=Duration(5)) for store in stores]
    body = a_body(seed=id(rooms))
    try:
        first, _ = await rooms[0].ask(stream=True, body=body)
        second, receipt = await rooms[1].ask(stream=True, body=body)
    finally:
        await asyncio.gather(*(store.close() for store in stores))
    assert (second, receipt.cache, rooms[1].asked) == (first, "hit", 0)


@pytest.mark.parametrize("options", [{"ttl": Duration(0)}, {"max_answer": Size(2), "max_bytes": Size(1)}])
def test_options_under_which_nothing_is_kept_are_refused(options: dict[str, Any]) -> None:
    borrowed: Any = dict.fromkeys(Resources.__struct_fields__)
    with pytest.raises(ValueError, match="expected a `ttl` above zero"):
        CacheOptions(**options).build(Resources(**borrowed))
