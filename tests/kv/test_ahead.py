"""One round trip a call: what is kept is looked up while limits are held, and what a call leaves behind waits for
company. Nothing is lost by that, nothing comes out of order, and nothing large is in anybody's way."""

import asyncio
import signal
import uuid

import pytest

from gateway.core.call import Body, Call
from gateway.core.middleware import Handler, Middleware
from gateway.core.reply import Reply
from gateway.core.resources import Denied, Held, Resources
from gateway.engine.clock import SystemClock
from gateway.kv import line as lines
from gateway.kv.line import Line
from gateway.kv.redis import SMALL_BYTES, RedisStore
from gateway.middleware.base import Options
from gateway.middleware.limits import Limits
from tests.kv.test_redis import a_meter, cut_off, eventually, leave_while_asked, store_of, until_back
from tests.proxy import Proxy
from tests.script import ScriptedUpstream
from tests.serving import Serving, mock_config, serving
from tests.valkey import Valkey

KEY, FREE = "test-key-0123456789abcdef", "free-key-0123456789abcdef"
LIMITS = "requests_per_minute: 1000, tokens_per_minute: 1000000, concurrent: 1"
SMALL, LARGE = b"s" * SMALL_BYTES, b"l" * (SMALL_BYTES + 1)
HOLD, SETTLE, SET, GET = b"\r\nhold\r\n", b"\r\nsettle\r\n", b"\r\nSET\r\n", b"\r\nGET\r\n"


class ChangesOptions(Options, frozen=True, kw_only=True):
    """Asks for something else than its client, as a guard that masks names does."""

    def build(self, resources: Resources) -> Middleware:
        return _change


async def _change(call: Call, next: Handler) -> Reply:
    raw = call.body.raw.replace(b"Ann", b"X")
    messages = type(call.body.fields["messages"])(bytes(call.body.fields["messages"]).replace(b"Ann", b"X"))
    return await next(call.but(body=Body(raw, {**call.body.fields, "messages": messages})))


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, Redis is not gone."""
    monkeypatch.setitem(RedisStore.__init__.__kwdefaults__, "budget_s", 20.0)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody waits for leaves in company only."""
    monkeypatch.setattr(lines, "SOON_S", 3600.0)


def config_of(upstream: ScriptedUpstream, redis: str, between: str = "") -> str:
    """A key with limits and one without; what one of them was answered, the other is not given."""
    chain = f"chain: [{{use: auth}}, {{use: limits}}, {between}{{use: cache}}, {{use: cost}}, {{use: retry}}]"
    keys = f"keys: [{{name: a, key: {KEY}, limits: {{{LIMITS}}}}}, {{name: free, key: {FREE}}}]\nredis: {redis}\n"
    return mock_config(upstream.url, chain, keys)


async def met(gateway: Serving, text: str, key: str = KEY, **headers: str) -> str:
    """Ask, and return what the cache said."""
    body = {"model": "mock", "messages": [{"role": "user", "content": text}]}
    answer = await gateway.post("/v1/chat/completions", body, {"authorization": f"Bearer {key}", **headers})
    assert answer.status_code == 200, answer.text
    return answer.headers["x-gateway-cache"]


def words(piece: bytes) -> list[bytes]:
    """Return what one write to Redis asked for, in its order."""
    found = [(piece.find(word), word) for word in (HOLD, SETTLE, SET, GET) if word in piece]
    return [word for _, word in sorted(found)]


async def quiet(gateway: Serving) -> None:
    """Wait until every call is over, and nothing is left to be said to Redis."""
    engine, store = gateway.live.gateway.engine, gateway.live.gateway.store
    while engine.busy or any(each._waiting or each._batch for each in store._lines):
        await asyncio.sleep(0.005)


def unheard() -> str:
    """What nobody has said before."""
    return f"{uuid.uuid4()}"


# ── what a call waits for


async def test_a_hold_tells_what_is_kept(valkey_url: str) -> None:
    """All of it, and that nothing is; what is large it leaves to who does not mind to wait for it."""
    async with store_of(valkey_url, budget_s=2.0) as store:
        small, large, meter = unheard(), unheard(), a_meter("requests", 10)
        await store.put(small, SMALL, 60)
        await store.put(large, LARGE, 60)
        found = [await store.hold(unheard(), [(meter, 1)], key) for key in (small, unheard(), large, "")]
        assert all(isinstance(held, Held) for held in found)
        assert [(held.looked_up, held.answer) for held in found] == [
            (True, SMALL),
            (True, None),
            (False, None),
            (False, None),
        ]
        assert [held.standings[0].remaining for held in found] == [9, 8, 7, 6]


async def test_an_answer_is_none_of_the_meters(valkey_url: str) -> None:
    """However many there are."""
    async with store_of(valkey_url, budget_s=2.0) as store:
        key, meters = unheard(), [a_meter(kind, 5) for kind in ("requests", "tokens", "concurrent")]
        await store.put(key, b"four", 60)
        held = await store.hold(unheard(), [(meter, 2) for meter in meters[:2]] + [(meters[2], 1)], key)
        assert isinstance(held, Held) and held.answer == b"four"
        assert [standing.remaining for standing in held.standings] == [3, 3, 4]


async def test_a_denied_call_is_told_nothing(valkey_url: str) -> None:
    """Else whoever has no room would be answered all the same, or wait for what it cannot have."""
    async with store_of(valkey_url, budget_s=2.0) as store:
        key, meter = unheard(), a_meter("requests", 1)
        await store.put(key, b"four", 60)
        told: list[object] = []
        asking, run = [(meter, 1)], store._script.run

        async def noted(*asked: object, **more: object) -> list[object]:
            said = await run(*asked, **more)  # type: ignore[arg-type]
            told.append(said[-1])
            return said

        store._script.run = noted  # type: ignore[method-assign]
        assert isinstance(await store.hold(unheard(), asking, key), Held)
        assert isinstance(await store.hold(unheard(), asking, key), Denied)
        assert told == [b"four", None]


async def test_a_call_waits_for_one_round_trip(upstream: ScriptedUpstream, proxy: Proxy, patient: None) -> None:
    """And what it leaves behind goes with the next one's question: settling and answer, before what that one asks."""
    before_the_upstream: list[list[bytes]] = []

    def answer(_: object) -> str:
        before_the_upstream.append([word for piece in proxy.asked for word in words(piece)])
        return "Hello"

    async with serving(config_of(upstream, proxy.url)) as gateway:
        assert await met(gateway, "first") == "miss"  # Redis learns the script
        proxy.asked.clear()
        upstream.will(answer)
        assert await met(gateway, "second") == "miss"
        assert before_the_upstream == [[SET, SETTLE, HOLD]]
        assert await met(gateway, "second") == "hit"
        assert await met(gateway, "third") == "miss"
        assert [words(piece) for piece in proxy.asked] == [[SET, SETTLE, HOLD], [SET, SETTLE, HOLD], [SETTLE, HOLD]]


@pytest.mark.parametrize(
    ("text", "key", "trips"),
    [
        ("Hi", KEY, [HOLD]),
        ("Hi", FREE, [GET]),  # nothing is held, so nothing could be found by the way
        ("long " * 300_000, KEY, [HOLD, GET]),  # it takes a thread to tell what it is
    ],
    ids=["limited", "free", "long"],
)
async def test_a_repeated_call_is_answered_however_it_is_looked_up(
    text: str, key: str, trips: list[bytes], upstream: ScriptedUpstream, proxy: Proxy
) -> None:
    """In as many round trips as there must be."""
    async with serving(config_of(upstream, proxy.url)) as gateway:
        assert await met(gateway, text, key) == "miss"
        await quiet(gateway)
        proxy.asked.clear()
        assert await met(gateway, text, key) == "hit"
        asked = [word for piece in proxy.asked for word in words(piece) if word in (HOLD, GET)]
        assert (asked, upstream.asked) == (trips, 1)


async def test_a_large_answer_is_asked_for_where_no_hold_waits_behind_it(
    upstream: ScriptedUpstream, proxy: Proxy
) -> None:
    """While it is on its way, others pass."""
    async with serving(config_of(upstream, proxy.url)) as gateway:
        upstream.will("long " * SMALL_BYTES)
        assert await met(gateway, "tell me much") == "miss"
        await quiet(gateway)
        proxy.asked.clear()
        assert await met(gateway, "tell me much") == "hit"
        assert [words(piece) for piece in proxy.asked][:2] == [[HOLD], [GET]]
    async with store_of(proxy.url, budget_s=20.0) as store:
        key, meter = unheard(), a_meter("requests", 10)
        await store.put(key, LARGE, 60)
        proxy.withhold(GET)
        held = await store.hold(unheard(), [(meter, 1)], key)
        assert isinstance(held, Held) and not held.looked_up
        reading = asyncio.ensure_future(store.get(key))
        while not proxy.times_asked(GET):
            await asyncio.sleep(0.005)
        for _ in range(5):
            assert isinstance(await store.hold(unheard(), [(meter, 1)], key), Held)
        assert not reading.done()
        proxy.withhold(None)
        assert await reading == LARGE


async def test_a_large_answer_is_written_where_no_hold_waits_behind_it(proxy: Proxy) -> None:
    """As it always was; a small one is no burden to anybody."""
    async with store_of(proxy.url, budget_s=20.0) as store:
        await store.hold(unheard(), [(a_meter("requests", 1), 1)])
        proxy.asked.clear()
        assert store.put_after_hold(unheard(), SMALL, 60) is None
        writing = store.put_after_hold(unheard(), LARGE, 60)
        assert writing is not None
        proxy.withhold(b"l" * 1000)
        waiting = asyncio.ensure_future(writing)
        while not proxy.times_asked(b"l" * 1000):
            await asyncio.sleep(0.005)
        assert isinstance(await store.hold(unheard(), [(a_meter("requests", 1), 1)]), Held)
        assert not waiting.done()
        proxy.withhold(None)
        await waiting


# ── whose answer it is


async def test_what_was_found_answers_the_question_it_was_found_for(
    upstream: ScriptedUpstream, valkey_url: str
) -> None:
    """A room between limits and cache may ask for something else: that is looked up anew, and kept as itself."""
    between = '{use: "tests.kv.test_ahead:ChangesOptions"}, '
    upstream.will("for Ann", "for X")
    async with serving(config_of(upstream, valkey_url)) as gateway:
        mark = unheard()
        assert await met(gateway, f"{mark} Ann") == "miss"
        assert await met(gateway, f"{mark} Ann") == "hit"
        gateway.config.text = config_of(upstream, valkey_url, between)
        await gateway.live.reload()
        assert await met(gateway, f"{mark} Ann") == "miss"
        await gateway.settle()
        assert await met(gateway, f"{mark} Ann") == "hit"
        answer = (await gateway.ask(f"{mark} Ann", KEY)).json()
        assert answer["choices"][0]["message"]["content"] == "for X"


async def test_who_asks_anew_is_answered_anew(upstream: ScriptedUpstream, valkey_url: str) -> None:
    """`no-cache`, though something was found on the way; and the next to ask is given the newer."""
    async with serving(config_of(upstream, valkey_url)) as gateway:
        mark = unheard()
        upstream.will("old", "new", "unkept")
        assert await met(gateway, mark) == "miss"
        assert await met(gateway, mark, **{"cache-control": "no-cache"}) == "bypass"
        answer = await gateway.ask(mark, KEY)
        assert answer.json()["choices"][0]["message"]["content"] == "new"
        assert await met(gateway, mark, **{"cache-control": "no-store"}) == "bypass"
        assert upstream.asked == 3


async def test_what_is_counted_here_is_not_looked_up_there(upstream: ScriptedUpstream, valkey_url: str) -> None:
    """Without a Redis there is nothing to save, and so nothing to do; nor is there without a cache."""
    cache = "{use: cache}, "
    for config, ahead in (
        (config_of(upstream, '""'), False),
        (config_of(upstream, valkey_url).replace(cache, ""), False),
        (config_of(upstream, valkey_url), True),
    ):
        async with serving(config) as gateway:
            limits = [room for _, _, room in gateway.live.gateway.rooms if isinstance(room, Limits)]
            assert [room.ahead is not None for room in limits] == [ahead]


# ── what a call leaves behind


async def test_what_nobody_waits_for_leaves_soon_and_in_one_piece(upstream: ScriptedUpstream, proxy: Proxy) -> None:
    """Where no call follows: other workers wait for the place, and for the answer."""
    async with serving(config_of(upstream, proxy.url)) as gateway:
        await met(gateway, "first")
        await quiet(gateway)
        proxy.asked.clear()
        await met(gateway, "second")
        await quiet(gateway)
        assert [words(piece) for piece in proxy.asked] == [[HOLD], [SET, SETTLE]]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_is_not_refused_for_a_call_of_its_own_that_is_over(
    stream: bool, upstream: ScriptedUpstream, valkey_url: str, patient: None
) -> None:
    """With one place, whoever asks again the moment it was answered finds it free."""
    async with serving(config_of(upstream, valkey_url)) as gateway:
        for _ in range(30):
            assert (await gateway.ask(unheard(), KEY, stream=stream)).status_code == 200


async def test_what_was_said_first_is_done_first(valkey_url: str, patient: None) -> None:
    """A place that is freed after it was renewed stays free: nothing that is told overtakes what was asked before."""
    line = Line(valkey_url, SystemClock(), 20.0, use="test", lost="nothing works")
    await line.open()
    key = f"gateway:test:{unheard()}"
    asking = [asyncio.ensure_future(line.ask("SET", key, "asked", "EX", 60))]
    await asyncio.sleep(0)
    line.tell("APPEND", key, " told")
    asking.append(asyncio.ensure_future(line.ask("APPEND", key, " asked")))
    await asyncio.gather(*asking)
    line.tell("APPEND", key, " told")
    line.tell("APPEND", key, " twice")
    assert await line.ask("GET", key) == b"asked told asked told twice"
    await line.close()


async def test_what_was_told_is_written_before_the_stop(valkey_url: str, patient: None) -> None:
    """Whether it waits for company or is on its way: its place is not taken until its lease ends."""
    places, key = a_meter("concurrent", 2), unheard()
    store = RedisStore(valkey_url, SystemClock(), budget_s=20.0)
    await store.start()
    first, second = await store.hold(unheard(), [(places, 1)]), await store.hold(unheard(), [(places, 1)])
    assert isinstance(first, Held) and isinstance(second, Held)
    store.settle(first, None)
    store._limits._hurry()
    store.settle(second, None)
    store.put_after_hold(key, b"four", 60)
    await store.close()
    async with store_of(valkey_url, budget_s=20.0) as other:
        assert [standing.remaining for standing in await other.standings([places])] == [2]
        assert await other.get(key) == b"four"


async def test_a_call_is_settled_though_redis_forgot_the_script(valkey_url: str, patient: None) -> None:
    """And still before whatever is held next."""
    places = a_meter("concurrent", 1)
    async with store_of(valkey_url, budget_s=20.0) as store:
        for _ in range(3):
            held = await store.hold(unheard(), [(places, 1)])
            assert isinstance(held, Held)
            await store._limits.ask("SCRIPT", "FLUSH")
            store.settle(held, None)


async def test_a_connection_that_was_closed_in_between_loses_no_settling(own_valkey: Valkey, patient: None) -> None:
    places = a_meter("concurrent", 1)
    async with store_of(own_valkey.url, budget_s=20.0) as store:
        held = await store.hold(unheard(), [(places, 1)])
        assert isinstance(held, Held)
        store.settle(held, None)
        link = store._limits._link
        assert link is not None
        await cut_off(link, own_valkey)
        assert isinstance(await store.hold(unheard(), [(places, 1)]), Held)
        assert not store.degraded


async def test_a_settling_that_is_lost_leaves_a_place_taken_for_its_lease(own_valkey: Valkey) -> None:
    """Redis stood still when it was told: the call is not renewed, and nobody else waits for it."""
    places = a_meter("concurrent", 1)
    async with store_of(own_valkey.url, budget_s=0.1, lease_s=1.5) as store:
        held = await store.hold(unheard(), [(places, 1)])
        assert isinstance(held, Held)
        own_valkey.send_signal(signal.SIGSTOP)
        store.settle(held, None)
        assert isinstance(await store.hold(unheard(), [(places, 1)]), Held)  # counted here
        own_valkey.send_signal(signal.SIGCONT)
        await until_back(store)

        async def free() -> bool:
            return (await store.standings([places]))[0].remaining == 1

        await eventually(free)


async def test_a_kill_of_redis_loses_no_call(upstream: ScriptedUpstream, own_valkey: Valkey) -> None:
    """Whatever was said to it, and whatever was still to be said: calls go on, before, meanwhile and after."""
    async with serving(config_of(upstream, own_valkey.url)) as gateway:
        for stopped in (False, True, False, True):
            if stopped:
                own_valkey.stop()
            elif gateway.live.gateway.store.degraded:
                own_valkey.start()
                await until_back(gateway.live.gateway.store)
            for n in range(5):
                assert await met(gateway, f"call {n % 3}") in ("miss", "hit")


async def test_a_client_that_leaves_while_both_are_asked_holds_nothing(own_valkey: Valkey) -> None:
    """What was found for it is nobody's."""
    places = a_meter("concurrent", 1)
    async with store_of(own_valkey.url, budget_s=20.0) as store:
        key = unheard()
        await store.put(key, b"four", 60)
        await store.hold("before", [(a_meter("requests", 1), 1)])  # Redis knows the script now
        await leave_while_asked(store.hold("leaving", [(places, 1)], key), own_valkey)

        async def free() -> bool:
            return (await store.standings([places]))[0].remaining == 1

        await eventually(free)
