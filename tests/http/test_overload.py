"""What clients see when there are more calls than the gateway takes at a time."""

import asyncio
import json
import statistics
from collections import Counter

import httpx
import pytest
from prometheus_client.registry import REGISTRY

from gateway.http import admission
from tests.script import MOST_S, ScriptedUpstream, Silent, Slow, Stalls
from tests.serving import mock_config, serving, started


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as upstream:
        yield upstream


def limited(upstream, **limits):
    """A configuration with one model and these limits of the server."""
    said = ", ".join(f"{name}: {value}" for name, value in limits.items())
    return mock_config(upstream.url, more=f"server: {{{said}}}\n")


async def until_calls(gateway, **expected):
    """Wait until `/health` says so: `under_way=1, waiting=0`."""
    async with asyncio.timeout(MOST_S):
        while (await gateway.http.get("/health")).json()["calls"] != expected:
            await asyncio.sleep(0.01)


async def wait_in_line(gateway, upstream, *keys):
    """Ask with each key, one after the other, while a first call is under way; return all, the first one first."""
    calls = [asyncio.ensure_future(gateway.ask(key="first"))]
    await upstream.until(lambda: upstream.asked)
    for i, key in enumerate(keys):
        calls.append(asyncio.ensure_future(gateway.ask(key=key)))
        await until_calls(gateway, under_way=1, waiting=i + 1)
    return calls


def sample(name, **labels):
    """What a metric of this process says now."""
    return REGISTRY.get_sample_value(name, labels)


def request(body=b'{"model": "mock", "messages": [{"role": "user", "content": "Hi"}]}', length=None):
    """A call as bytes; `length` is what it says of its body."""
    said = b"content-length: %d\r\n\r\n" % (len(body) if length is None else length)
    return b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n" + said + body


def now_s():
    """The time by the clock that every wait in these tests goes by."""
    return asyncio.get_running_loop().time()


def port_of(url):
    return int(url.rpartition(":")[2])


async def test_a_refusal_says_when_to_come_back(upstream):
    """OpenAI's error object, the head of every answer, and an SDK that goes by it asks again."""
    async with serving(limited(upstream, max_calls=1, queue=0)) as gateway:
        upstream.will(Silent())
        (first,) = await wait_in_line(gateway, upstream)
        answer = await gateway.ask()
        assert answer.status_code == 503
        assert (answer.json()["error"]["code"], answer.json()["error"]["type"]) == ("overloaded", "server_error")
        assert 1 <= int(answer.headers["retry-after"]) <= 3
        assert 1000 <= int(answer.headers["retry-after-ms"]) <= 3000
        assert "x-should-retry" not in answer.headers and "connection" not in answer.headers
        assert answer.headers["x-request-id"].startswith("req_") and answer.headers["x-gateway-cost"] == "0"
        times = {(await gateway.ask()).headers["retry-after-ms"] for _ in range(5)}
        assert len(times) > 1, "they would all come back at once"
        first.cancel()
    assert upstream.asked == 1


async def test_a_refused_call_is_not_even_read(upstream):
    """Nothing of it is parsed, and of a large body nothing more is taken in."""
    async with serving(limited(upstream, max_calls=1, queue=0)) as gateway:
        upstream.will(Silent())
        (first,) = await wait_in_line(gateway, upstream)
        assert (await gateway.http.post("/v1/chat/completions", content=b"{no json")).status_code == 503
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(gateway.url))
        writer.write(request(b"{", length=30_000_000))
        answer = await asyncio.wait_for(reader.read(), MOST_S)
        writer.close()
        assert b" 503 " in answer and b"connection: close" in answer
        first.cancel()


async def test_what_asks_no_upstream_is_never_held_up(upstream):
    """Probes, scrapers, operators and those who look for a model, while not one more call is taken."""
    async with serving(limited(upstream, max_calls=1, queue=1)) as gateway:
        upstream.will(Silent())
        calls = await wait_in_line(gateway, upstream, "second")
        for path in ("/health", "/ready", "/live", "/metrics", "/v1/models", "/v1/models/mock", "/"):
            assert (await gateway.http.get(path)).status_code == 200, path
        assert (await gateway.http.post("/admin/reload")).status_code == 200
        for call in calls:
            call.cancel()


async def test_the_official_sdk_comes_back_and_is_served(upstream, monkeypatch):
    """With its own patience and as it comes."""
    monkeypatch.setattr(admission, "RETRY_AFTER_S", (0.3, 0.4))
    refused = sample("gateway_calls_refused_total", reason="full")
    async with serving(limited(upstream, max_calls=1, queue=0)) as gateway:
        upstream.will(Silent(), "second")
        (first,) = await wait_in_line(gateway, upstream)
        asking = gateway.openai(max_retries=5).chat.completions.create(
            model="mock", messages=[{"role": "user", "content": "Hi"}]
        )
        answer = asyncio.ensure_future(asking)
        while sample("gateway_calls_refused_total", reason="full") == refused:
            await asyncio.sleep(0.01)
        first.cancel()
        assert (await answer).choices[0].message.content == "second"


async def test_who_comes_later_waits_and_is_served(upstream):
    """As long as the queue has room; a stream is under way until its end."""
    names = ("gateway_calls_under_way", "gateway_calls_waiting")
    before = [sample(name) for name in names]
    async with serving(limited(upstream, max_calls=1, queue=2, queue_wait="30s")) as gateway:
        upstream.will(Stalls("one two three", after_events=3), "second", "third")
        streaming = asyncio.ensure_future(gateway.ask(stream=True))
        await upstream.until(lambda: upstream.asked)
        waiting = [asyncio.ensure_future(gateway.ask()) for _ in range(2)]
        await until_calls(gateway, under_way=1, waiting=2)
        assert [sample(name) - was for name, was in zip(names, before, strict=True)] == [1, 2]
        assert (await gateway.ask()).status_code == 503
        streaming.cancel()
        assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200, 200]
        await until_calls(gateway, under_way=0, waiting=0)
        assert [sample(name) for name in names] == before


async def test_who_waited_long_enough_is_told(upstream):
    """Better an answer that can be acted upon than none."""
    async with serving(limited(upstream, max_calls=1, queue_wait="50ms")) as gateway:
        upstream.will(Silent())
        (first,) = await wait_in_line(gateway, upstream)
        answer = await gateway.ask()
        assert answer.status_code == 503 and "none ended in time" in answer.json()["error"]["message"]
        first.cancel()


async def test_a_flood_of_one_key_does_not_starve_another(upstream):
    """Twenty calls wait when another caller's comes: it is the next but one, not the twenty-first."""
    async with serving(limited(upstream, max_calls=1, queue_wait="30s")) as gateway:
        upstream.will(Silent())
        (first,) = await wait_in_line(gateway, upstream)
        flood = [asyncio.ensure_future(gateway.ask("flood", key="flood")) for _ in range(20)]
        await until_calls(gateway, under_way=1, waiting=20)
        other = asyncio.ensure_future(gateway.ask("other", key="other"))
        await until_calls(gateway, under_way=1, waiting=21)
        first.cancel()
        assert {answer.status_code for answer in await asyncio.gather(other, *flood)} == {200}
    order = [json.loads(asked.body)["messages"][0]["content"] for asked in upstream.requests]
    assert order.index("other") == 2 and order.count("flood") == 20


async def test_in_a_full_queue_a_flood_makes_room(upstream):
    """The newest call of the caller with the most is refused for another's first, and told why."""
    async with serving(limited(upstream, max_calls=1, queue=2, queue_wait="30s")) as gateway:
        upstream.will(Silent())
        first, early, newest = await wait_in_line(gateway, upstream, "flood", "flood")
        other = asyncio.ensure_future(gateway.ask(key="other"))
        refused = await newest
        assert refused.status_code == 503 and "are yours" in refused.json()["error"]["message"]
        first.cancel()
        assert [answer.status_code for answer in await asyncio.gather(early, other)] == [200, 200]


async def test_who_leaves_while_it_waits_frees_its_place(upstream):
    """At once, and no upstream is ever asked for it."""
    async with serving(limited(upstream, max_calls=1, queue=1, queue_wait="30s")) as gateway:
        upstream.will(Silent())
        (first,) = await wait_in_line(gateway, upstream)
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(gateway.url))
        writer.write(request())
        await until_calls(gateway, under_way=1, waiting=1)
        writer.close()
        await until_calls(gateway, under_way=1, waiting=0)
        last = asyncio.ensure_future(gateway.ask())
        await until_calls(gateway, under_way=1, waiting=1)
        first.cancel()
        assert (await last).status_code == 200
    assert upstream.asked == 2


async def test_who_leaves_while_it_is_answered_makes_room_for_the_next(upstream):
    """Its call is over, and so is its share."""
    async with serving(limited(upstream, max_calls=1, queue_wait="30s")) as gateway:
        upstream.will(Silent(), "second")
        first, second = await wait_in_line(gateway, upstream, "second")
        first.cancel()
        assert (await second).status_code == 200
        await until_calls(gateway, under_way=0, waiting=0)


async def test_a_large_body_that_waited_arrives_whole(upstream):
    """Some of it was taken in while its client was listened to, some was not."""
    async with serving(limited(upstream, max_calls=1, queue_wait="30s")) as gateway:
        upstream.will(Silent())
        (first,) = await wait_in_line(gateway, upstream)
        text = "".join(f"{i:07}" for i in range(300_000))
        answer = asyncio.ensure_future(gateway.ask(text))
        await until_calls(gateway, under_way=1, waiting=1)
        first.cancel()
        assert (await answer).status_code == 200
    assert json.loads(upstream.requests[1].body)["messages"][0]["content"] == text


async def test_a_reload_changes_the_limits_of_those_that_run(upstream):
    """More room, and who waits is let in; less, and nobody is turned out."""
    config = limited(upstream, max_calls=1, queue_wait="30s")
    async with serving(config) as gateway:
        upstream.will(Silent(), Silent())
        calls = await wait_in_line(gateway, upstream, "second")
        gateway.config.text = config.replace("max_calls: 1", "max_calls: 2")
        assert (await gateway.http.post("/admin/reload")).status_code == 200
        await until_calls(gateway, under_way=2, waiting=0)
        gateway.config.text = config.replace("max_calls: 1", "max_calls: 1, queue: 0")
        assert (await gateway.http.post("/admin/reload")).status_code == 200
        assert (await gateway.ask()).status_code == 503
        assert (await gateway.http.get("/health")).json()["calls"] == {"under_way": 2, "waiting": 0}
        for call in calls:
            call.cancel()
        await until_calls(gateway, under_way=0, waiting=0)
        assert (await gateway.ask()).status_code == 200


class Load:
    """Calls at a steady rate, whatever becomes of those before: the load that overload is made of."""

    def __init__(self, port):
        self._port = port
        self._idle = []

    async def run(self, rate, seconds):
        """Return each call's status and how long it took; of goodput, those count that were answered meanwhile."""
        began_s = now_s()
        calls = []
        for i in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began_s + i / rate - now_s()))
            calls.append(asyncio.ensure_future(self._call()))
        answers = await asyncio.gather(*calls)
        good = sum(status == 200 and ended_s < began_s + seconds for status, _, ended_s in answers)
        return good / seconds, [(status, took_s) for status, took_s, _ in answers]

    async def _call(self):
        came_s = now_s()
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(request())
        async with asyncio.timeout(MOST_S):  # or it hangs
            answer = await reader.readuntil(b"\r\n\r\n")
            length = answer.partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length))
        self._idle.append((reader, writer))
        return int(answer[9:12]), now_s() - came_s, now_s()

    def close(self):
        for _, writer in self._idle:
            writer.close()


async def test_at_three_times_the_capacity_goodput_holds(upstream, tmp_path):
    """Two calls at a time of 100 ms each: about as many are answered when three times as many come, none hangs."""
    upstream.will(*[Slow("Hello", first_s=0.1)] * 4000)
    (tmp_path / "gateway.yaml").write_text(limited(upstream, max_calls=2, queue=4, queue_wait="1s"))
    with started(tmp_path) as gateway:
        await asyncio.to_thread(gateway.until_ready)
        load = Load(port_of(gateway.url))
        await load.run(rate=10, seconds=1)
        peak, over, answers, began_s = 0.0, 0.0, [], now_s()
        for _ in range(2):
            peak += (await load.run(rate=20, seconds=2))[0]
            goodput, more = await load.run(rate=60, seconds=2)
            over += goodput
            answers += more
        load.close()
        lines, took_s = gateway.said.count("overload: "), now_s() - began_s
    statuses = Counter(status for status, _ in answers)
    assert over >= 0.5 * peak, (over, peak, statuses)
    assert set(statuses) == {200, 503} and statuses.total() == 240
    refused, served = (statistics.median(s for status, s in answers if status == one) for one in (503, 200))
    assert refused < served, "a refusal is early, or it is worth nothing"
    assert 0 < lines <= took_s + 1


def test_refusals_are_shown_before_there_is_one(tmp_path):
    """An alert goes by how much a series rose: the first rise of one that was not there is seen by nobody."""
    (tmp_path / "gateway.yaml").write_text("providers: {echo: {}}\nmodels: {echo: echo/echo}\n")
    with started(tmp_path) as gateway:
        gateway.until_ready()
        page = httpx.get(f"{gateway.url}/metrics", trust_env=False, timeout=60).text
    for reason in admission.REASONS:
        assert f'gateway_calls_refused_total{{reason="{reason}"}} 0.0\n' in page
