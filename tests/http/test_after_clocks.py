"""What follows when a clock has fired: who is asked next, if anybody, and whose fault it was."""

import asyncio
import json
from dataclasses import dataclass

import pytest

from gateway.core.route import Timeouts
from tests import steady
from tests.lean import Answer, Lean
from tests.script import Busy, Dribbles, Mumbles, Pings, ScriptedUpstream, Silent, Slow, Stalls, taking_nobody
from tests.serving import mock_config, serving
from tests.steps import Step

LONG = "word " * 100
CLOCKS: dict[str, tuple[Step, bool, dict[str, object]]] = {
    "connect": (Silent(), False, {"connect": "300ms"}),
    "headers": (Silent(), False, {"headers": "300ms"}),
    "first_token": (Pings(), True, {"first_token": "300ms"}),
    "idle": (Stalls(LONG, 3), False, {"idle": "300ms"}),
    "throughput": (Dribbles(LONG, 0.05), False, {"idle": "300ms", "tokens_per_second": 1_000}),
}
"""How an upstream makes each fire, whether a stream is asked for, and what is written in the configuration."""

OTHERS: dict[str, Step | None] = {"alone": None, "beside a busy one": Busy(retry_after=1), "beside one": "Hello"}
ASKED = {
    "retry": ("AAA", "ABA", "AB"),
    "fall_over": ("AAA", "ABB", "AB"),
    "error": ("A", "A", "A"),
}
"""Who is asked in three attempts, by what the other deployment is like. A is silent, B the other."""
DEFAULTS = {clock: "retry" if clock == "connect" else "fall_over" for clock in CLOCKS}


@dataclass(frozen=True, eq=False)
class Cell:
    """A route whose first deployment lets a clock fire."""

    clock: str
    then: str
    """As it is configured; empty: not at all."""
    other: str

    @property
    def name(self) -> str:
        return "-".join([self.clock, self.then or "default", *self.other.split()])

    @property
    def expected(self) -> str:
        return ASKED[self.then or DEFAULTS[self.clock]][list(OTHERS).index(self.other)]

    @property
    def route(self) -> dict[str, object]:
        provider = "deaf" if self.clock == "connect" else "mock"
        then = {self.clock: self.then} if self.then else {}
        silent = {"target": f"{provider}/{self.name}:A", "timeouts": {**CLOCKS[self.clock][2], "then": then}}
        return {"deployments": [silent] if OTHERS[self.other] is None else [silent, f"mock/{self.name}:B"]}


CELLS = [Cell(clock, then, other) for clock in CLOCKS for then in ("", *ASKED) for other in OTHERS]
Outcome = tuple[Answer, str]
"""What a client got, and whom the upstreams saw asked."""


def config(models: dict[str, object], *, attempts: int = 3, failures: int = 1000, **upstreams: str) -> str:
    """Return a configuration with a provider for each upstream. JSON is YAML."""
    providers = {name: {"kind": "openai", "base_url": url, "api_key": "k"} for name, url in upstreams.items()}
    chain = [{"use": "retry", "attempts": attempts, "first_wait": "10ms", "share": 1}]
    health = {"failures": failures, "of_at_least": 1000}
    return json.dumps({"providers": providers, "models": models, "health": health, "chain": chain})


@pytest.fixture(scope="module")
def outcomes() -> dict[Cell, Outcome]:
    """What came of every cell."""
    return steady.run(all_outcomes())


async def all_outcomes() -> dict[Cell, Outcome]:
    with taking_nobody() as deaf:
        async with ScriptedUpstream() as upstream:
            models: dict[str, object] = {cell.name: cell.route for cell in CELLS}
            async with serving(config(models, mock=upstream.url, deaf=deaf)) as gateway:
                for cell in CELLS:
                    upstream.always(f"{cell.name}:A", CLOCKS[cell.clock][0])
                    upstream.always(f"{cell.name}:B", OTHERS[cell.other] or "Hello")
                answers = await asyncio.gather(*(ask(gateway.url, cell.name, CLOCKS[cell.clock][1]) for cell in CELLS))
            return {cell: (answer, seen(upstream, cell.name)) for cell, answer in zip(CELLS, answers, strict=True)}


async def ask(url: str, model: str = "mock", stream: bool = True, **headers: str) -> Answer:
    client = await Lean.open(url)
    answer = await client.ask(model=model, stream=stream, headers={n.replace("_", "-"): v for n, v in headers.items()})
    client.close()
    return answer


def seen(upstream: ScriptedUpstream, name: str) -> str:
    """Return who was asked for the model, in order."""
    return "".join(asked.model[-1] for asked in upstream.requests if asked.model[:-2] == name)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_what_is_configured_follows(outcomes: dict[Cell, Outcome], cell: Cell):
    """`retry`: others first, then the same again; `fall_over`: others only, where there are any; `error`: nobody."""
    answer, asked = outcomes[cell]
    assert answer.headers["x-gateway-attempts"] == f"{len(cell.expected)}"
    assert asked == (cell.expected.replace("A", "") if cell.clock == "connect" else cell.expected)
    status = {"AB": 200, "ABB": 429}.get(cell.expected, 504)
    assert answer.status == status
    assert status != 504 or f"timeouts.{cell.clock} ".encode() in answer.body


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as upstream:
        yield upstream


async def test_a_fallback_is_another_deployment_too(upstream):
    """The silent one is not asked again while the model that it falls back to has one."""
    upstream.always("A", Silent())
    upstream.always("B", Busy(retry_after=1))
    first = {"deployments": ["mock/A"], "fallbacks": ["second"], "timeouts": {"headers": "300ms"}}
    async with serving(config({"first": first, "second": "mock/B"}, mock=upstream.url)) as gateway:
        assert (await ask(gateway.url, "first")).status == 429
    assert [asked.model for asked in upstream.requests] == ["A", "B", "B"]


async def test_a_deployments_own_clocks_beat_its_routes(upstream):
    """Shorter or longer, and so does what follows."""
    upstream.always("hasty", Silent())
    upstream.always("patient", Slow("Hello", first_s=0.6))
    own = {"first_token": "200ms", "then": {"first_token": "error"}}
    models: dict[str, object] = {
        name: {
            "deployments": [{"target": f"mock/{name}", "timeouts": timeouts}],
            "timeouts": {"first_token": "400ms", "then": {"first_token": "retry"}},
        }
        for name, timeouts in (("hasty", own), ("patient", {"first_token": "20s"}))
    }
    async with serving(config(models, mock=upstream.url)) as gateway:
        hasty, patient = await asyncio.gather(ask(gateway.url, "hasty"), ask(gateway.url, "patient"))
    assert (hasty.status, hasty.headers["x-gateway-attempts"]) == (504, "1")
    assert (patient.done, patient.headers["x-gateway-attempts"]) == (True, "1")
    assert hasty.heard_s < patient.heard_s


async def test_clocks_that_nobody_set(upstream):
    """Every wait has an end, and there is no pace."""
    async with serving(mock_config(upstream.url)) as gateway:
        route = gateway.live.gateway.routes.find("mock")
    usual = Timeouts(connect_s=5, headers_s=300, first_token_s=60, idle_s=60, total_s=600, tokens_per_s=0)
    assert route is not None and route.timeouts == route.deployments[0].timeouts == usual
    assert {clock: usual.then_after(clock) for clock in CLOCKS} == DEFAULTS


@pytest.mark.parametrize("step", [Silent(), Stalls(LONG, 3)], ids=["before it spoke", "while it spoke"])
@pytest.mark.parametrize(("seconds", "rests"), [("1", False), ("20", True)])
async def test_a_client_in_a_hurry_does_not_make_a_deployment_rest(upstream, step, seconds, rests):
    """The time that it gives us is its own; an upstream can be held to our clocks only."""
    upstream.will(step, step, "Hello")
    route = {"deployments": ["mock/mock-1"], "timeouts": {"first_token": "1200ms", "idle": "1200ms"}}
    async with serving(config({"mock": route}, attempts=1, failures=2, mock=upstream.url)) as gateway:
        calls = [ask(gateway.url, x_stainless_read_timeout=seconds) for _ in range(2)]
        for answer in await asyncio.gather(*calls):
            assert b"timeouts." in answer.body and (b"timeouts.total" in answer.body) == (not rests)
        await gateway.settle()
        assert (await ask(gateway.url)).status == (503 if rests else 200)


async def test_all_attempts_together_take_no_longer_than_total(upstream):
    """However many there are, and however long the waits between them."""
    upstream.always("A", Silent())
    route = {"deployments": ["mock/A"], "timeouts": {"first_token": "1s", "total": "4s"}}
    async with serving(config({"mock": route}, attempts=10, mock=upstream.url)) as gateway:
        began_s = asyncio.get_running_loop().time()
        answer = await ask(gateway.url)
    assert answer.status == 504
    assert 1 < upstream.asked < 5
    assert answer.heard_s - began_s == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("midstream", ["fail", "continue", "buffer"])
@pytest.mark.parametrize("step", [Silent(), Stalls(LONG, 3)], ids=["before it spoke", "while it spoke"])
async def test_nobody_is_asked_when_there_is_no_time_left(upstream, step, midstream):
    """Another attempt would cost money and say nothing."""
    upstream.always("A", step)
    route = {"deployments": ["mock/A", "mock/B"], "timeouts": {"total": "500ms"}, "midstream": midstream}
    async with serving(config({"mock": route, "warm": "mock/warm"}, mock=upstream.url)) as gateway:
        await asyncio.gather(*(ask(gateway.url, "warm") for _ in range(3)))  # so that connections stand
        answer = await ask(gateway.url)
    assert b"timeouts.total" in answer.body and not answer.done
    assert [asked.model for asked in upstream.requests if asked.model != "warm"] == ["A"]


async def test_the_reason_of_a_refusal_may_come_later_than_its_head(upstream):
    """`headers` is over when the head is here; the reason has a clock of its own."""
    reason = json.dumps({"error": {"message": "no such knob", "type": "invalid_request_error"}}).encode()
    head = f"HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\ncontent-length: {len(reason) + 2}\r\n\r\n".encode()
    upstream.will(Mumbles(head + reason, b"\n", every_s=0.6))
    route = {"deployments": ["mock/mock-1"], "timeouts": {"headers": "300ms"}}
    async with serving(config({"mock": route}, mock=upstream.url)) as gateway:
        answer = await ask(gateway.url)
    assert answer.status == 400 and b"no such knob" in answer.body
