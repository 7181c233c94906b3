"""What strangers, slow readers and odd bytes may not do to the gateway."""

import asyncio
import json

import pytest

from tests.script import MOST_S, Raw, Says, ScriptedUpstream
from tests.serving import CHAIN, mock_config, serving

USER = "user-key-0123456789abcdef"
KEYS = f"keys: [{{name: team-a, key: {USER}}}]\n"
AUTH = CHAIN.replace("{use: metrics}", "{use: auth}")


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as upstream:
        yield upstream


def event(content, finish):
    """One chunk of a stream, as bytes."""
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    said = {"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(said).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"model": "\xff", "messages": [{}]}', "invalid_json"),
        (b'{"model": "echo", "messages": [{"role": "user", "content": "\xff"}]}', "invalid_json"),
        (json.dumps({"model": "m" * 300, "messages": [{}]}).encode(), "string_above_max_length"),
        ('{"model": "mock", "me\u017f\u017fages": [{}], "messages": [{}]}'.encode(), "unknown_parameter"),
    ],
)
async def test_odd_requests_are_400s(upstream, body, code):
    """Bytes that are no text, names without end, letters that another parser folds."""
    async with serving(mock_config(upstream.url)) as gateway:
        answer = await gateway.http.post("/v1/chat/completions", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert upstream.asked == 0


async def test_a_page_of_another_site_cannot_spend_our_keys(upstream):
    """A browser sends it without asking; where keys are asked for, it has none."""
    async with serving(mock_config(upstream.url)) as gateway:
        body = {"model": "mock", "messages": [{"role": "user", "content": "Hi"}]}
        for origin, status in (("https://evil.example", 403), (gateway.url, 200)):
            answer = await gateway.http.post("/v1/chat/completions", json=body, headers={"origin": origin})
            assert answer.status_code == status


async def test_strangers_learn_nothing_of_the_inside(upstream):
    """Where keys are asked for: no models, no providers, no file names."""
    async with serving(mock_config(upstream.url, AUTH, KEYS)) as gateway:
        said = "".join([(await gateway.http.get(path)).text for path in ("/", "/health", "/info", "/ready", "/live")])
        assert "mock" not in said and "gateway.yaml" not in said
        near = await gateway.http.get("/v1/models/mok", headers={"authorization": f"Bearer {USER}"})
        assert near.status_code == 404 and "mock" in near.text


async def test_a_strangers_large_body_is_not_read(upstream):
    """Thirty-two megabytes for each connection, and no key: it is turned away by its head."""
    async with serving(mock_config(upstream.url, AUTH, KEYS)) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 30000000\r\n\r\n{")
        answer = await asyncio.wait_for(reader.read(), MOST_S)
        writer.close()
        assert b"401 Unauthorized" in answer and b"no API key" in answer
        known = await gateway.ask("x" * 100_000, key=USER)
    assert known.status_code == 200


async def test_a_proxy_in_front_does_not_make_strangers_local(upstream):
    """Without keys, reloading is for this machine; what a proxy passes on is not."""
    async with serving(mock_config(upstream.url)) as gateway:
        for header in ("forwarded", "via", "x-real-ip", "x-forwarded-for"):
            assert (await gateway.http.post("/admin/reload", headers={header: "1.2.3.4"})).status_code == 403


async def test_a_client_that_does_not_read_is_left_in_the_end(upstream, monkeypatch):
    """`total` bounds the whole call, its reader included; or one client could hold an upstream for ever."""
    monkeypatch.setattr("gateway.http.edge.GRACE_S", 0.2)
    route = "{deployments: [{target: mock/mock-1, price: {prompt: 1, completion: 2}}]}"
    config = mock_config(upstream.url).replace(route, "{deployments: [mock/mock-1], timeouts: {total: 1s}}")
    chunk = event("x" * 60_000, None)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    upstream.will(Raw(head + chunk * 400))
    async with serving(config) as gateway:
        _, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]), limit=1024)
        body = b'{"model": "mock", "stream": true, "messages": [{"role": "user", "content": "Hi"}]}'
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        await upstream.until(lambda: upstream.asked)
        await upstream.until(lambda: not upstream.connections)
        writer.close()


CALLED = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '"' + "x" * 4000 + '"'}}


@pytest.mark.parametrize(
    "message",
    [{"content": "word " * 800}, {"content": None, "tool_calls": [CALLED]}, {"reasoning_content": "x" * 4000}],
)
async def test_usage_that_nobody_said_is_estimated_before_the_head_leaves(upstream, message):
    """A paid answer is never `x-gateway-cost: 0`, whether it says text, calls a tool or thinks."""
    body = {"id": "a", "object": "chat.completion", "created": 1, "model": "m"}
    body["choices"] = [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}]
    data = json.dumps(body).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(data)
    upstream.will(Raw(head + data))
    async with serving(mock_config(upstream.url)) as gateway:
        cost = float((await gateway.ask()).headers["x-gateway-cost"])
    assert 1000 * 2e-6 * 0.8 < cost < 1000 * 2e-6 * 1.5


async def test_a_stream_gives_its_connection_back_when_its_last_bytes_come_late(upstream):
    """`[DONE]` is not the end of the body: who hangs up there pays a new handshake for each call."""
    chunk = event("x", "stop") + b"data: [DONE]\n\n"
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    connections = 0

    async def late(reader, writer):
        nonlocal connections
        connections += 1
        while await reader.readuntil(b"\r\n\r\n"):
            await reader.readuntil(b"}]")
            await reader.readuntil(b"}")
            writer.write(head + b"%x\r\n" % len(chunk) + chunk + b"\r\n")
            await asyncio.sleep(0.03)
            writer.write(b"0\r\n\r\n")

    server = await asyncio.start_server(late, "127.0.0.1", 0)
    async with server, serving(mock_config(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")) as gateway:
        for _ in range(4):
            assert "[DONE]" in (await gateway.ask(stream=True)).text
            await asyncio.sleep(0.1)
        assert connections == 1


async def test_a_long_echo_does_not_hold_up_the_others(upstream):
    """A megabyte is said in few chunks."""
    async with serving(mock_config(upstream.url)) as gateway:
        text = (await gateway.ask("word " * 100_000, model="echo", stream=True)).text
    assert text.count("data: ") < 1000


async def test_a_late_price_loses_no_usage(upstream, monkeypatch):
    """The client leaves while the price is looked up: what the upstream said it used is kept."""
    async with serving(mock_config(upstream.url)) as gateway:
        kept = []

        def unknown(place):
            raise LookupError

        async def slow(place):
            await asyncio.sleep(30)

        monkeypatch.setattr(gateway.live.gateway.prices, "at_hand", unknown)
        monkeypatch.setattr(gateway.live.gateway.prices, "of", slow)
        monkeypatch.setattr("gateway.middleware.metrics._count", lambda _, receipt: kept.append(receipt))
        upstream.will(Says("Hi", prompt_tokens=1000, completion_tokens=500))
        asking = asyncio.ensure_future(gateway.ask())
        await upstream.until(lambda: upstream.asked)
        await asyncio.sleep(0.2)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        for _ in range(100):
            if kept:
                break
            await asyncio.sleep(0.02)
        assert kept[0].outcome == "abandoned" and kept[0].usage.prompt_tokens == 1000
