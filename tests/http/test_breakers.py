"""Deployments that fail rest, are tried by one call at a time, and return: seen from their own sockets."""

import asyncio
import itertools
from collections import Counter
from contextlib import asynccontextmanager

import pytest

from tests.lean import Lean
from tests.script import MOST_S, Busy, Cut, Events, Fails, ScriptedUpstream, Silent, Slow, Stalls
from tests.serving import CHAIN, serving

HEALTH = "{failures: 3, rest: 400ms, longest_rest: 10s}"
ONE_TRY = "chain: [{use: metrics}, {use: retry, attempts: 1}]"


class Noted(list):
    """What arrived, and when."""

    def __init__(self):
        super().__init__()
        self.at_s = []

    def append(self, asked):
        self.at_s.append(asyncio.get_running_loop().time())
        super().append(asked)


@pytest.fixture
async def primary():
    async with ScriptedUpstream() as upstream:
        upstream.requests = Noted()
        yield upstream


@pytest.fixture
async def spare():
    async with ScriptedUpstream() as upstream:
        yield upstream


@asynccontextmanager
async def gateway_of(*upstreams, order="as_written", health=HEALTH, chain=CHAIN, more=""):
    """A gateway whose `mock` has one deployment at each upstream: `a/m`, `b/m`."""
    names = "ab"[: len(upstreams)]
    providers = ", ".join(
        f"{name}: {{kind: openai, base_url: {it.url}, api_key: k}}" for name, it in zip(names, upstreams, strict=True)
    )
    targets = ", ".join(f"{name}/m" for name in names)
    config = (
        f"providers: {{{providers}}}\nmodels: {{mock: {{deployments: [{targets}], order: {order}}}}}\n"
        f"health: {health}\n{chain}\n{more}"
    )
    async with serving(config) as gateway:
        yield gateway


def by(answer):
    """Return who answered."""
    assert answer.status_code == 200, answer.text
    return answer.headers["x-gateway-deployment"]


async def until(holds, within_s=MOST_S):
    async with asyncio.timeout(within_s):
        while not await holds():
            await asyncio.sleep(0.02)


async def test_a_primary_that_fails_is_asked_a_handful_of_times_and_then_it_is_primary_again(primary, spare):
    """Meanwhile its fallback answers, and no call fails. The times it is asked are further and further apart."""
    primary.will(*[Fails(500)] * 10_000)
    loop, answered = asyncio.get_running_loop(), Counter()
    async with gateway_of(primary, spare) as gateway:
        began_s = loop.time()
        while loop.time() < began_s + 3:
            answered[by(await gateway.ask(stream=answered.total() % 2 == 0))] += 1
            await asyncio.sleep(0.005)
        ill_s = primary.requests.at_s[:]
        primary.script.clear()

        async def is_back():
            return by(await gateway.ask()) == "a/m"

        await until(is_back)
        assert {by(await gateway.ask()) for _ in range(10)} == {"a/m"}
    assert set(answered) == {"b/m"} and answered.total() > 20
    assert 4 <= len(ill_s) <= 3 + 3  # three until it rests, then when 0.4, 0.8 and 1.6 s are over
    gaps_s = [later - sooner for sooner, later in itertools.pairwise(ill_s[2:])]
    for gap_s, rest_s in zip(gaps_s, (0.4, 0.8, 1.6), strict=False):
        assert gap_s >= rest_s - 0.01


async def test_a_single_deployment_that_rests_is_told_early_and_the_sdk_comes_back_for_it(primary):
    """The client need not know: its SDK waits as long as it is told, and then is answered."""
    primary.will(*[Fails(500)] * 3)
    async with gateway_of(primary, chain=ONE_TRY, health="{failures: 3, rest: 2s}") as gateway:
        assert [(await gateway.ask()).status_code for _ in range(3)] == [502] * 3
        refused = await gateway.ask()
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "upstream_resting")
        assert 0 < int(refused.headers["retry-after-ms"]) <= 2400 and refused.headers["retry-after"] in "123"
        assert "x-should-retry" not in refused.headers and refused.headers["x-gateway-attempts"] == "0"
        assert primary.asked == 3
        answer = await gateway.openai(max_retries=2).chat.completions.create(
            model="mock", messages=[{"role": "user", "content": "Hi"}]
        )
    assert answer.choices[0].message.content == "Hello" and primary.asked == 4


async def ill(gateway, primary, times=3):
    """Have the primary fail until it rests, and its rest pass."""
    primary.will(*[Fails(500)] * times)
    for _ in range(times):
        await gateway.ask()
    assert not gateway.live.fleet.is_well("a/m")

    async def is_over():
        return gateway.live.fleet.rest("a/m") is None

    await until(is_over)


@pytest.mark.parametrize("stream", [True, False])
async def test_while_one_call_tries_it_no_other_does(primary, spare, stream):
    """Until it has begun to answer; from then on all may."""
    async with gateway_of(primary, spare) as gateway:
        await ill(gateway, primary)
        asked = primary.asked
        primary.will(Slow("well again", first_s=2.0))
        trial = asyncio.ensure_future(gateway.ask(stream=stream))
        await primary.until(lambda: primary.asked == asked + 1)
        others = await asyncio.gather(*(gateway.ask(stream=i % 2 == 0) for i in range(10)))
        assert not trial.done(), "the others took longer than the trial"
        assert {by(answer) for answer in others} == {"b/m"} and primary.asked == asked + 1
        assert by(await trial) == "a/m"
        assert {by(await gateway.ask()) for _ in range(3)} == {"a/m"}


async def test_a_client_that_leaves_its_trial_leaves_it_to_the_next(primary, spare):
    """Or nobody would ever find out that it is well again."""
    async with gateway_of(primary, spare) as gateway:
        await ill(gateway, primary)
        asked = primary.asked
        primary.will(Silent())
        client = await Lean.open(gateway.url)
        client.send(stream=True)
        await primary.until(lambda: primary.asked == asked + 1)
        client.close()
        await primary.until(lambda: primary.gone)

        async def is_back():
            return by(await gateway.ask()) == "a/m"

        await until(is_back)
    assert primary.asked == asked + 2


@pytest.mark.parametrize("step", [Silent(), Stalls("one two three", 2)])
async def test_a_client_that_leaves_does_not_count(primary, step):
    """It is the client's doing, however far the answer had come."""
    async with gateway_of(primary, health="{failures: 1, rest: 60s}") as gateway:
        for number in range(1, 4):
            primary.will(step)
            client = await Lean.open(gateway.url)
            client.send(stream=True)
            await primary.until(lambda number=number: primary.asked == number)
            if isinstance(step, Stalls):
                await client.read(200)
            client.close()
            await primary.until(lambda number=number: len(primary.gone) == number)
        assert by(await gateway.ask()) == "a/m"


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_what_a_client_did_wrong_does_not_count(primary, status):
    """Or one client's mistake would take the model from all."""
    async with gateway_of(primary, health="{failures: 1, rest: 60s}") as gateway:
        primary.will(*[Fails(status)] * 5)
        assert [(await gateway.ask()).status_code for _ in range(5)] == [status] * 5
        assert by(await gateway.ask()) == "a/m"


async def test_a_poisonous_request_counts_once_however_often_it_is_tried(primary):
    """The upstream fails at this one request only; everybody else goes on being served."""
    async with gateway_of(primary, health="{failures: 2, rest: 60s}") as gateway:
        primary.will(*[Fails(500)] * 3)
        assert (await gateway.ask("poison")).status_code == 502
        assert primary.asked == 3
        assert by(await gateway.ask()) == "a/m"


async def test_streams_that_break_count(primary, spare):
    """Also when each has begun."""
    primary.will(*[Cut("one two three", 3)] * 3)
    async with gateway_of(primary, spare, health="{failures: 3, rest: 60s}") as gateway:
        for _ in range(3):
            assert "[DONE]" not in await gateway.stream()
        assert by(await gateway.ask()) == "b/m"


async def test_retry_after_is_heeded_by_all_calls(primary, spare):
    """Not only by the one that was told."""
    primary.will(Busy(retry_after=60))
    async with gateway_of(primary, spare) as gateway:
        assert {by(await gateway.ask()) for _ in range(5)} == {"b/m"}
    assert primary.asked == 1


async def test_fastest_goes_by_what_it_measures(primary, spare):
    """Each is asked once to find out."""
    primary.will(*[Slow(first_s=0.3)] * 100)
    async with gateway_of(primary, spare, order="fastest") as gateway:
        answered = [by(await gateway.ask(stream=True)) for _ in range(8)]
    assert answered == ["a/m", *["b/m"] * 7]


async def test_least_busy_goes_by_the_calls_in_flight(primary, spare):
    """Of which none is forgotten when it ends."""
    async with gateway_of(primary, spare, order="least_busy") as gateway:
        primary.will(Stalls("one two", 2))
        client = await Lean.open(gateway.url)
        client.send(stream=True)
        await primary.until(lambda: primary.asked == 1)
        assert {by(await gateway.ask()) for _ in range(4)} == {"b/m"}
        client.close()

        async def is_free():
            return by(await gateway.ask()) == "a/m"

        await until(is_free)


async def test_nothing_is_ever_sent_by_itself(primary, spare):
    """An idle gateway costs nothing, whoever is ill: health is learnt from calls alone."""
    async with gateway_of(primary, spare) as gateway:
        await gateway.http.get("/health")
        await ill(gateway, primary)
        await gateway.http.get("/health")
        before = [(it.asked, it.accepted) for it in (primary, spare)]
        await asyncio.sleep(2.5)
        await gateway.http.get("/health")
        assert [(it.asked, it.accepted) for it in (primary, spare)] == before


async def test_health_tells_who_rests_and_is_not_degraded_by_it(primary, spare):
    """Taking this gateway out of service because its upstream is ill would help nobody."""
    async with gateway_of(primary, spare, health="{failures: 2, rest: 30s}") as gateway:
        assert (await gateway.http.get("/health")).json()["deployments"] == []
        primary.will(*[Fails(500)] * 2)
        spare.will(*[Slow(first_s=0.05)] * 2)
        for _ in range(2):
            await gateway.ask()
        said = (await gateway.http.get("/health")).json()
        assert said["status"] == "ok"
        first, second = said["deployments"]
        assert (first["name"], first["state"], first["failures"], first["error_rate"]) == ("a/m", "resting", 2, 1.0)
        assert 20 < first["rests_for_s"] <= 36
        assert (second["name"], second["state"], second["in_flight"]) == ("b/m", "well", 0)
        assert 0.04 < second["first_chunk_s"] < 5
        metrics = (await gateway.http.get("/metrics")).text
        assert 'gateway_resting{deployment="a/m"} 1.0' in metrics
        assert 'gateway_attempts_total{error="Unreachable",provider="a"}' in metrics


async def test_metrics_tell_who_rests_because_its_upstream_asked_for_it(primary, spare):
    """As `/health` does: a `Retry-After` is heeded by every call."""
    async with gateway_of(primary, spare) as gateway:
        before = counted((await gateway.http.get("/metrics")).text, 'gateway_rests_total{deployment="a/m"}')
        primary.will(Busy(retry_after=60))
        await gateway.ask()
        assert (await gateway.http.get("/health")).json()["deployments"][0]["state"] == "resting"

        async def is_shown():
            return counted((await gateway.http.get("/metrics")).text, 'gateway_resting{deployment="a/m"}') == 1

        await until(is_shown)
        metrics = (await gateway.http.get("/metrics")).text
        assert counted(metrics, 'gateway_rests_total{deployment="a/m"}') == before + 1


async def test_strangers_are_not_told_how_deployments_are(primary):
    """Where keys are asked for, names of deployments are for those inside."""
    chain = "chain: [{use: auth}, {use: retry}]"
    keys = "keys: [{name: team-a, key: test-key-0123456789abcdef}]"
    async with gateway_of(primary, chain=chain, more=keys) as gateway:
        await gateway.ask(key="test-key-0123456789abcdef")
        assert "a/m" not in (await gateway.http.get("/health")).text


def counted(metrics, name):
    """Return the sum of a counter's series."""
    lines = [line for line in metrics.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def test_refusals_skipped_events_and_rescues_are_counted_and_logged(primary, spare, capfdbinary):
    """What does not show in an answer's status shows in /metrics and in the call's line."""
    chain = "chain: [{use: log, format: json}, {use: metrics}, {use: retry, attempts: 2}]"
    names = ("gateway_skipped_events_total", 'gateway_rescues_total{how="restart"}', 'errors_total{type="Resting"}')
    async with gateway_of(primary, spare, chain=chain, health="{failures: 1, rest: 60s}") as gateway:
        gateway.config.text = gateway.config.text.replace("order:", "midstream: restart, order:")
        await gateway.live.reload()

        async def counts():
            metrics = (await gateway.http.get("/metrics")).text
            return [counted(metrics, name) for name in names]

        before = await counts()
        primary.will(Events(b'data: {"half\n\n', *hello(), b"data: [DONE]\n\n"))
        assert "x-gateway-skipped" in await gateway.stream()
        primary.will(Events(*hello(" "), between_s=0.05))
        assert "[DONE]" in await gateway.stream()
        spare.will(Fails(500))
        await gateway.ask()
        assert (await gateway.ask()).status_code == 503
        await gateway.settle()
        assert [after - sooner for after, sooner in zip(await counts(), before, strict=True)] == [1, 1, 1]
    lines = capfdbinary.readouterr().out.decode()
    assert lines.count('"skipped":1') == 1 and lines.count('"joined":["restart ') == 1
    assert lines.count('"skipped"') == lines.count('"joined"') == 1


def hello(text="Hello"):
    """Return a stream's events, but for its end; of more than white space, with its finish."""
    head = b'data: {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [{"index": 0, '
    yield head + b'"delta": {"role": "assistant", "content": "%b"}, "finish_reason": null}]}\n\n' % text.encode()
    if text.strip():
        yield head + b'"delta": {}, "finish_reason": "stop"}]}\n\n'
