"""What callers may use, and what they are told about it."""

import asyncio
import re
from typing import Any, cast

import msgspec
import pytest

from gateway.core.call import Call
from gateway.core.errors import LimitReached
from gateway.core.principal import Limits as Allowed
from gateway.core.principal import Principal
from gateway.core.receipt import Outcome
from gateway.core.reply import Chunk, Reply
from gateway.core.resources import Held, Meter, Resources
from gateway.core.route import Route
from gateway.core.usage import Extras, Usage
from gateway.kv.memory import MemoryLimiter
from gateway.middleware.limits import Limits, LimitsOptions, Plan, go_duration
from gateway.wire.estimate import prompt_tokens
from tests.calls import ROUTE, FakeClock, a_body, a_call

TEAM_A = Principal("team-a", user="ann", team="blue", limits=Allowed(2, None, None))


class Room:
    """The room, a limiter in memory, and an answer behind it."""

    def __init__(self, **options: Any) -> None:
        self.clock = FakeClock()
        self.limiter = MemoryLimiter(self.clock)
        self.room = Limits(LimitsOptions(**options), self.limiter)

    async def ask(self, principal: Principal = TEAM_A, **changes: Any) -> Call:
        call = a_call(clock=self.clock, principal=principal, **changes)
        await self.room(call, _answer)
        return call

    async def end(self, call: Call, outcome: Outcome = "finished", usage: Usage | None = None) -> None:
        call.receipt.outcome, call.receipt.usage = outcome, usage
        if (rest := call.end()) is not None:
            await rest

    async def remaining(self, subject: str, kind: str, limit: int) -> int:
        return (await self.limiter.standings([Meter(subject, kind, limit)]))[0].remaining


async def _answer(call: Call) -> Reply:
    return Reply(Chunk(b"{}"))


async def test_a_denial_names_who_may_do_what_and_when() -> None:
    """The owner of the key can act on it without asking us."""
    room = Room()
    await room.ask()
    room.clock.passed_s = 57.8
    await room.ask()
    with pytest.raises(LimitReached) as caught:
        await room.ask()
    assert caught.value.message == "key team-a may make 2 requests a minute; try again in 3.2s"
    assert caught.value.retry_after_s == pytest.approx(3.2)
    assert caught.value.code == "rate_limit_exceeded"


async def test_after_the_time_told_the_call_passes() -> None:
    room = Room()
    for _ in range(2):
        await room.ask()
    with pytest.raises(LimitReached) as caught:
        await room.ask()
    assert caught.value.retry_after_s is not None
    room.clock.passed_s += caught.value.retry_after_s
    await room.ask()


@pytest.mark.parametrize(
    ("options", "subject"),
    [
        ({"each_key": Allowed(1)}, "key team-b"),
        ({"each_user": Allowed(1)}, "user bob"),
        ({"each_team": Allowed(1)}, "team green"),
        ({"each_model": Allowed(1)}, "model fast"),
        ({"users": {"bob": Allowed(1)}}, "user bob"),
        ({"teams": {"green": Allowed(1)}}, "team green"),
        ({"models": {"fast": Allowed(1)}}, "model fast"),
        ({"each_user": Allowed(9), "users": {"bob": Allowed(1)}}, "user bob"),
    ],
)
async def test_every_scope_counts(options: dict[str, Any], subject: str) -> None:
    room, bob = Room(**options), Principal("team-b", user="bob", team="green")
    await room.ask(bob)
    with pytest.raises(LimitReached, match=f"{subject} may make 1 requests"):
        await room.ask(bob)
    await room.ask(Principal("team-c", user="eve", team="red"), route=Route("slow", ROUTE.deployments))


async def test_a_keys_own_limit_stands_above_the_one_for_every_key() -> None:
    """And what it does not say is taken from there."""
    room = Room(each_key=Allowed(1, 1_000, None))
    call = await room.ask()
    assert call.receipt.headers["x-ratelimit-limit-requests"] == "2"
    assert call.receipt.headers["x-ratelimit-limit-tokens"] == "1000"


async def test_tokens_that_name_the_same_subject_count_for_the_teams_they_name() -> None:
    """Whoever changes teams gets a new token: what the one before used is not the new team's, nor the other way."""
    room = Room(each_team=Allowed(10))
    blue, green = Principal("ann", team="blue"), Principal("ann", team="green")
    for principal in (blue, green, blue):
        await room.ask(principal)
    assert await room.remaining("team:blue", "requests", 10) == 8
    assert await room.remaining("team:green", "requests", 10) == 9


async def test_the_end_of_a_call_that_is_counted_here_waits_for_nothing() -> None:
    """A task for each call's end would cost as much as three rooms of the chain."""
    room = Room(each_key=Allowed(10, 1_000, 5))
    call = await room.ask()
    assert call.end() is None
    assert await room.remaining("key:team-a", "concurrent", 5) == 5


async def test_what_limits_have_waited_the_cache_does_not_wait_again() -> None:
    """The call carries it inward."""
    room = Room()
    met: list[Call] = []

    class Slow:
        async def hold(self, id: str, asks: Any) -> Held:
            return Held(id, asks, 0, (), waited_s=0.03)

    async def note(call: Call) -> Reply:
        met.append(call)
        return await _answer(call)

    await Limits(LimitsOptions(), cast(Any, Slow()))(a_call(principal=TEAM_A, waited_s=0.01), note)
    await room.room(a_call(principal=TEAM_A), note)
    assert [call.waited_s for call in met] == [pytest.approx(0.04), 0.0]


async def test_calls_without_a_limit_pass_without_being_counted() -> None:
    room = Room(users={"someone": Allowed(1)})
    call = await room.ask(Principal("team-b"))
    assert (call.receipt.headers, call.endings, len(room.limiter)) == ({}, [], 0)


async def test_headers_tell_the_tightest_limit_of_each_kind() -> None:
    """A client that paces itself by them is never denied."""
    room = Room(each_team=Allowed(50, 5_000), each_model=Allowed(100, 800))
    call = await room.ask(body=a_body(max_tokens=100))
    held = prompt_tokens(bytes(call.body.fields["messages"])) + 100
    assert call.receipt.headers == {
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "1m1s",
        "x-ratelimit-limit-tokens": "800",
        "x-ratelimit-remaining-tokens": str(800 - held),
        "x-ratelimit-reset-tokens": "1m1s",
    }


async def test_a_denied_call_is_told_how_it_stands_too() -> None:
    room = Room()
    await room.ask()
    room.clock.passed_s = 20.0
    await room.ask()
    denied = a_call(clock=room.clock, principal=TEAM_A)
    with pytest.raises(LimitReached):
        await room.room(denied, _answer)
    assert denied.receipt.headers["x-ratelimit-remaining-requests"] == "0"
    assert denied.receipt.headers["x-ratelimit-reset-requests"] == "1m1s"
    assert denied.endings == []


async def test_requests_and_tokens_are_whole_again_each_at_its_time() -> None:
    """Tokens that were given back are not waited for."""
    room = Room(each_key=Allowed(None, 10_000, None))
    await room.ask()
    room.clock.passed_s = 20.0
    await room.end(await room.ask(), "failed")
    denied = a_call(clock=room.clock, principal=TEAM_A)
    with pytest.raises(LimitReached):
        await room.room(denied, _answer)
    assert denied.receipt.headers["x-ratelimit-reset-requests"] == "1m1s"
    assert denied.receipt.headers["x-ratelimit-reset-tokens"] == "41s"


@pytest.mark.parametrize("outcome", ["finished", "abandoned", "broken", "failed", "refused"])
async def test_places_come_back_however_a_call_ends(outcome: Outcome) -> None:
    """A leaked place is a key that is dead until somebody restarts us."""
    room = Room(each_key=Allowed(concurrent=1))
    caller = Principal("team-b")
    for _ in range(3):
        call = await room.ask(caller)
        with pytest.raises(LimitReached, match="key team-b may have 1 calls at once; try again in 1s"):
            await room.ask(caller)
        await room.end(call, outcome)


async def test_a_place_comes_back_when_the_answer_fails_to_begin() -> None:
    """Whoever stands further in raises; the ending is asked for before that."""
    room = Room(each_key=Allowed(concurrent=1))

    async def leave(call: Call) -> Reply:
        raise asyncio.CancelledError

    call = a_call(clock=room.clock, principal=Principal("team-b"))
    with pytest.raises(asyncio.CancelledError):
        await room.room(call, leave)
    await room.end(call, "abandoned")
    await room.ask(Principal("team-b"))


@pytest.mark.parametrize(
    ("outcome", "usage", "cache", "used"),
    [
        ("finished", Usage(30, 12), "", 42),
        ("abandoned", Usage(30, 5), "", 35),
        ("finished", Usage(30, 12), "hit", 0),
        ("failed", None, "", 0),
        ("refused", None, "", 0),
        ("abandoned", None, "", None),
        ("broken", Usage(30, 900), "", 930),
        ("finished", Usage(), "", 0),
        ("finished", Usage(extras=Extras(audio_seconds=3)), "", None),
    ],
)
async def test_tokens_are_settled_by_what_became_of_the_call(
    outcome: Outcome, usage: Usage | None, cache: Any, used: int | None
) -> None:
    """What an upstream counted, nothing where nobody answered, and the estimate where nobody knows."""
    room = Room(each_key=Allowed(tokens_per_minute=1_000))
    call = await room.ask(Principal("team-b"), body=a_body(max_completion_tokens=50))
    held = 1_000 - await room.remaining("key:team-b", "tokens", 1_000)
    assert held > 50
    call.receipt.cache = cache
    await room.end(call, outcome, usage)
    assert await room.remaining("key:team-b", "tokens", 1_000) == 1_000 - (held if used is None else used)


@pytest.mark.parametrize(
    ("fields", "completion"),
    [
        ({}, 500),
        ({"max_tokens": 20}, 20),
        ({"max_completion_tokens": 30, "max_tokens": 20}, 30),
        ({"max_tokens": 20, "n": 3}, 60),
    ],
)
async def test_the_longest_answer_is_held(fields: dict[str, int], completion: int) -> None:
    """Where the request does not say how long that is, the estimate is."""
    room = Room(each_key=Allowed(tokens_per_minute=10_000))
    call = await room.ask(Principal("team-b"), body=a_body(**fields))
    prompt = prompt_tokens(bytes(call.body.fields["messages"]))
    assert await room.remaining("key:team-b", "tokens", 10_000) == 10_000 - prompt - completion


async def test_a_long_answer_holds_no_more_than_there_is() -> None:
    """`max_tokens` is often far more than what comes: that alone must not shut a client out."""
    room = Room(each_key=Allowed(tokens_per_minute=1_000), each_team=Allowed(tokens_per_minute=5_000))
    await room.ask(Principal("team-b", team="green"), body=a_body(max_tokens=100_000))
    assert await room.remaining("key:team-b", "tokens", 1_000) == 0
    assert await room.remaining("team:green", "tokens", 5_000) == 0


async def test_a_prompt_that_can_never_fit_is_told_so() -> None:
    """No time to try again is named, so that no SDK tries; and nothing is charged."""
    room = Room(each_key=Allowed(10, 100))
    call = a_call(
        clock=room.clock,
        principal=Principal("team-b"),
        body=a_body(messages=[{"role": "user", "content": "word " * 1_000}]),
    )
    with pytest.raises(LimitReached, match="key team-b may use 100 tokens a minute, and the prompt") as caught:
        await room.room(call, _answer)
    assert (caught.value.code, caught.value.retry_after_s) == ("request_too_large_for_limit", None)
    assert call.receipt.headers["x-ratelimit-remaining-tokens"] == "100"
    assert await room.remaining("key:team-b", "requests", 10) == 10


async def test_tools_are_part_of_the_prompt() -> None:
    room = Room(each_key=Allowed(tokens_per_minute=10_000))
    tool = {"type": "function", "function": {"name": "f", "description": "x" * 4_000}}
    await room.ask(Principal("team-b"), body=a_body(tools=[tool], max_tokens=1))
    assert await room.remaining("key:team-b", "tokens", 10_000) < 9_000


async def test_callers_without_end_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their meters are worked out once each, and the oldest are let go."""
    monkeypatch.setattr("gateway.middleware.limits.MOST_PLANS", 10)
    room = Room(each_key=Allowed(5))
    for n in range(100):
        await room.ask(Principal(f"user:{n}"))
    assert len(room.room._plans) == 10
    assert all(isinstance(plan, Plan) for plan in room.room._plans.values())


class Table:
    """Two routes, and one that is off."""

    def find(self, model: str) -> Route | None:
        return Route("openai/*", ()) if model.startswith("openai/") else ROUTE if model == "fast" else None

    def near(self, model: str) -> str:
        return "it is off, because no key" if model == "off" else "did you mean fast?"


@pytest.mark.parametrize(
    ("model", "problem"),
    [("fst", "did you mean fast"), ("openai/gpt-5", 'counted with "openai/\\*"')],
)
def test_a_limit_that_could_never_count_is_refused(model: str, problem: str) -> None:
    """A limit with a spelling mistake is no limit, which nobody notices before the bill."""
    with pytest.raises(ValueError, match=problem):
        LimitsOptions(models={model: Allowed(1)}).build(_resources())


@pytest.mark.parametrize("model", ["fast", "openai/*", "off"])
def test_limits_for_what_is_there_are_accepted(model: str) -> None:
    """Also for a model that is off as long as a key is missing."""
    LimitsOptions(models={model: Allowed(1)}).build(_resources())


def _resources() -> Resources:
    borrowed: Any = dict.fromkeys(Resources.__struct_fields__)
    return Resources(**{**borrowed, "routes": Table(), "limiter": MemoryLimiter(FakeClock())})


@pytest.mark.parametrize("said", [{"requests_per_minutes": 1}, {"tokens_per_minute": 0}, {"concurrent": -1}])
def test_a_limit_that_is_none_is_refused(said: dict[str, int]) -> None:
    """Zero would be read as none at all by half of those who meet it."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"each_key": said}, LimitsOptions)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0s"),
        (0.012, "12ms"),
        (0.0001, "1ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (3.2, "3.2s"),
        (59.9991, "1m0s"),
        (61, "1m1s"),
        (360, "6m0s"),
        (3661.25, "1h1m1.25s"),
    ],
)
def test_durations_are_written_as_go_writes_them(seconds: float, said: str) -> None:
    """OpenAI's own headers are, and clients parse them so."""
    assert go_duration(seconds) == said
    assert re.fullmatch(r"(\d+h)?(\d+m)?\d+(\.\d+)?m?s", said)
