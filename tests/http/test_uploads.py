"""Files pass by: as they come, no faster than they are taken, never held, and with nobody else's model in them."""

import asyncio
import contextlib
import json

import httpx
import openai
import pytest

from gateway.http.uploads import KEPT_BYTES
from tests.lean import Lean
from tests.script import MOST_S, Busy, Events, Fails, ScriptedUpstream
from tests.serving import mock_config, serving

KEY = "test-key-0123456789abcdef"
TEXT = {"text": "Hello"}
FORM = "multipart/form-data; boundary=b0undary"
FORWARD = "forward: {files: mock}\n"


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as upstream:
        yield upstream


def form(*fields, boundary="b0undary"):
    """A form of these (name, value) fields; a value that is bytes is a file."""
    parts = [f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"' for name, _ in fields]
    kinds = ['; filename="a.wav"\r\ncontent-type: audio/wav' if isinstance(v, bytes) else "" for _, v in fields]
    values = [value if isinstance(value, bytes) else value.encode() for _, value in fields]
    body = b"".join(
        (part + kind).encode() + b"\r\n\r\n" + value + b"\r\n"
        for part, kind, value in zip(parts, kinds, values, strict=True)
    )
    return body + f"--{boundary}--\r\n".encode()


async def send(gateway, body, path="/v1/audio/transcriptions", **headers):
    headers = {"content-type": FORM, **headers}
    return await gateway.http.post(path, content=body, headers=headers)


class Taker:
    """An upstream that tells how much of a request has arrived, takes only what it is let, and answers when told."""

    def __init__(self):
        self.arrived = 0
        self.head = b""
        self.most = 2**40
        self.lost = asyncio.Event()
        self._more = asyncio.Event()
        self._changed = asyncio.Event()
        self._writer = None

    async def until(self, predicate, within_s=MOST_S):
        async with asyncio.timeout(within_s):
            while not predicate():
                self._changed.clear()
                await self._changed.wait()

    def take(self, most):
        self.most = most
        self._more.set()

    def answer(self, status=200, body=b'{"text":"Hello"}'):
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)

    async def __call__(self, reader, writer):
        self._writer = writer
        self.head = await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                while self.arrived >= self.most:
                    self._more.clear()
                    await self._more.wait()
                data = await reader.read(65536)
                self.arrived += len(data)
                self._changed.set()
                if not data:
                    break
        self.lost.set()
        writer.close()


@contextlib.asynccontextmanager
async def taking(more=""):
    """A gateway before a `Taker`."""
    taker = Taker()
    server = await asyncio.start_server(taker, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with serving(mock_config(url, more=FORWARD + more)) as gateway:
        yield gateway, taker
    server.close()


async def begin(gateway, path, length, kind="application/octet-stream"):
    """Begin a request whose body is still to be sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    head = f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
    writer.write(head.encode())
    return reader, writer


async def test_the_sdk_has_a_sound_transcribed(upstream):
    """The form goes on with the model's own name; everything else in it as it came."""
    async with serving(mock_config(upstream.url)) as gateway:
        upstream.will(Fails(200, TEXT))
        sound = bytes(range(256)) * 40
        answer = await gateway.openai().audio.transcriptions.create(
            model="mock", file=("a b.wav", sound), language="en", timestamp_granularities=["word", "segment"]
        )
        assert answer.text == "Hello"
        asked = upstream.requests[0]
        assert asked.path == "/v1/audio/transcriptions"
        assert b'name="model"\r\n\r\nmock-1\r\n' in asked.body and b"\r\n\r\nmock\r\n" not in asked.body
        assert b'filename="a b.wav"' in asked.body and sound in asked.body
        assert asked.body.count(b'name="timestamp_granularities[]"') == 2
        assert b'name="language"\r\n\r\nen\r\n' in asked.body


async def test_images_are_edited(upstream):
    """With several files in one form."""
    async with serving(mock_config(upstream.url)) as gateway:
        upstream.will(Fails(200, {"created": 1, "data": [{"b64_json": "aGk="}]}))
        images = [("a.png", b"one"), ("b.png", b"two")]
        answer = await gateway.openai().images.edit(model="mock", image=images, prompt="a hat")
        assert answer.data[0].b64_json == "aGk="
        assert upstream.requests[0].body.count(b'name="image[]"') == 2


async def test_a_small_form_is_sent_again(upstream):
    """As long as all of it is at hand."""
    async with serving(mock_config(upstream.url)) as gateway:
        upstream.will(Busy(), Fails(200, TEXT))
        answer = await send(gateway, form(("model", "mock"), ("file", b"sound" * 100)))
        assert (answer.status_code, upstream.asked) == (200, 2)
        assert upstream.requests[0].body == upstream.requests[1].body


async def test_a_large_form_is_sent_once(upstream):
    """What has gone cannot be sent again: the client is told what the upstream said."""
    async with serving(mock_config(upstream.url)) as gateway:
        upstream.will(Busy(), Fails(200, TEXT))
        answer = await send(gateway, form(("model", "mock"), ("file", b"x" * 3 * KEPT_BYTES)))
        assert (answer.status_code, upstream.asked) == (429, 1)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (form(("file", b"x")), "say which `model`"),
        (form(("file", b"x" * 2 * KEPT_BYTES), ("model", "mock")), "before the file"),
        (form(("model", "mock"), ("model", "mock")), "twice"),
        (form(("model", "mock"), ("Model", "other")), 'did you mean "model"'),
        (form(("model", "m" * 2000)), "too long"),
        (form(("model", "mock"))[:-10], "cannot be read"),
        (b"what is this", "cannot be read"),
        (b"", "cannot be read"),
    ],
)
async def test_a_form_that_cannot_be_believed_is_refused(upstream, body, said):
    """Before anybody is asked, with what is wrong."""
    async with serving(mock_config(upstream.url)) as gateway:
        answer = await send(gateway, body)
        assert answer.status_code == 400 and said in answer.json()["error"]["message"]
        assert not upstream.asked


async def test_another_model_behind_the_file_reaches_nobody(upstream):
    """An upstream reads the last of two fields: the upload ends before it can."""
    async with serving(mock_config(upstream.url)) as gateway:
        fields = (("model", "mock"), ("file", b"x" * 2 * KEPT_BYTES), ("model", "expensive"))
        answer = await send(gateway, form(*fields))
        assert answer.status_code == 400 and "twice" in answer.json()["error"]["message"]
        assert not upstream.asked


async def test_a_boundary_is_needed(upstream):
    """Or a form is none."""
    async with serving(mock_config(upstream.url)) as gateway:
        answer = await send(gateway, b"", **{"content-type": "multipart/form-data"})
        assert answer.status_code == 400 and "boundary" in answer.json()["error"]["message"]


async def test_a_file_passes_byte_for_byte(upstream):
    """What names no model is not even read."""
    async with serving(mock_config(upstream.url, more=FORWARD)) as gateway:
        upstream.will(Fails(200, {"id": "file-1", "object": "file"}))
        content = bytes(range(256)) * 10_000
        file = await gateway.openai().files.create(file=("a.jsonl", content), purpose="batch")
        assert file.id == "file-1" and content in upstream.requests[0].body


async def test_the_beginning_arrives_while_the_rest_is_still_on_its_way():
    """It is passed on as it comes, not when it has come."""
    async with taking() as (gateway, taker):
        reader, writer = await begin(gateway, "/v1/files", 1_000_000)
        writer.write(b"x" * 400_000)
        await taker.until(lambda: taker.arrived >= 400_000)
        writer.write(b"x" * 600_000)
        await taker.until(lambda: taker.arrived >= 1_000_000)
        taker.answer()
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        writer.close()


async def test_a_slow_upstream_holds_the_client_back():
    """Of a long file no more is taken than a few buffers hold."""
    async with taking() as (gateway, taker):
        taker.take(100_000)
        _, writer = await begin(gateway, "/v1/files", 200_000_000)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 200_000_000:
                writer.write(b"x" * 1_000_000)
                sent += 1_000_000
                async with asyncio.timeout(0.5):
                    await writer.drain()
        assert sent < 60_000_000
        writer.transport.abort()
        taker.take(2**40)
        async with asyncio.timeout(MOST_S):
            await taker.lost.wait()


async def test_a_client_that_leaves_takes_the_upload_with_it():
    """The upstream's connection is closed, for what it has is not whole."""
    async with taking() as (gateway, taker):
        _, writer = await begin(gateway, "/v1/files", 1_000_000)
        writer.write(b"x" * 500_000)
        await taker.until(lambda: taker.arrived >= 400_000)
        writer.transport.abort()
        async with asyncio.timeout(MOST_S):
            await taker.lost.wait()
        assert taker.arrived < 1_000_000


async def test_a_refusal_that_comes_early_is_told_early():
    """Without waiting for a client that still sends; and its connection ends, or the rest would be taken in."""
    async with taking() as (gateway, taker):
        reader, writer = await begin(gateway, "/v1/files", 50_000_000)
        writer.write(b"x" * 300_000)
        await taker.until(lambda: taker.arrived >= 100_000)
        taker.answer(401, b'{"error":{"message":"no such key"}}')
        for _ in range(20):
            writer.write(b"x" * 100_000)
            await asyncio.sleep(0.01)
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), MOST_S)).lower()
        assert b" 401 " in head and b"connection: close" in head
        writer.transport.abort()


async def test_whoever_has_no_key_is_told_before_sending(upstream):
    """Nothing of the file is read."""
    chain = "chain: [{use: auth}, {use: retry}]"
    keys = f"keys: [{{name: a, key: {KEY}}}]\n"
    async with serving(mock_config(upstream.url, chain, FORWARD + keys)) as gateway:
        for path in ("/v1/files", "/v1/audio/transcriptions"):
            kind = "multipart/form-data; boundary=b"
            reader, writer = await begin(gateway, path, 50_000_000, kind)
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), MOST_S)).lower()
            assert b" 401 " in head and b"connection: close" in head
            writer.close()
        assert not upstream.asked


async def test_a_file_that_says_it_is_too_large_is_refused_unseen(upstream):
    """Nothing of it is waited for."""
    async with serving(mock_config(upstream.url, more=FORWARD + "server: {max_upload: 1MB}\n")) as gateway:
        for path, kind in (("/v1/files", "a/b"), ("/v1/audio/transcriptions", FORM)):
            reader, writer = await begin(gateway, path, 2_000_000, kind)
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), MOST_S)).lower()
            assert b" 413 " in head and b"connection: close" in head
            writer.close()
        assert not upstream.asked


async def test_a_file_that_turns_out_too_large_is_refused(upstream):
    """As soon as it is, and the upstream has no whole request of it."""
    async with serving(mock_config(upstream.url, more=FORWARD + "server: {max_upload: 1MB}\n")) as gateway:

        async def pieces():
            for _ in range(40):
                yield b"x" * 50_000

        with contextlib.suppress(httpx.WriteError, httpx.ReadError):
            answer = await gateway.http.post("/v1/files", content=pieces())
            assert answer.status_code == 413 and "server.max_upload" in answer.json()["error"]["message"]
        assert not upstream.asked


async def test_a_client_that_leaves_is_no_failure_of_the_upstream(upstream):
    """It rests for none of that."""
    async with taking() as (gateway, taker):
        for _ in range(6):
            _, writer = await begin(
                gateway, "/v1/audio/transcriptions", 900_000, "multipart/form-data; boundary=b0undary"
            )
            writer.write(form(("model", "mock"), ("file", b"x" * 600_000))[:500_000])
            arrived = taker.arrived
            await taker.until(lambda before=arrived: taker.arrived > before)
            writer.transport.abort()
            async with asyncio.timeout(MOST_S):
                await taker.lost.wait()
            taker.lost.clear()
        health = (await gateway.http.get("/health")).json()
        assert "resting" not in json.dumps(health)


async def test_the_next_call_on_the_connection_is_a_call(upstream):
    """Behind an upload that was read to its end."""
    async with serving(mock_config(upstream.url)) as gateway:
        upstream.will(Fails(200, TEXT), "Hello")
        client = await Lean.open(gateway.url)
        body = form(("model", "mock"), ("file", b"sound"))
        client.write(
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: a\r\n"
            b"content-type: multipart/form-data; boundary=b0undary\r\n"
            b"content-length: %d\r\n\r\n" % len(body) + body
        )
        assert json.loads((await client.answer()).body) == TEXT
        assert (await client.ask()).done
        client.close()


async def test_a_slow_client_is_not_the_upstreams_silence():
    """The clock of the head runs from the end of the request; an upstream that is silent then meets it."""
    async with serving_slowly() as (gateway, taker):
        reader, writer = await begin(gateway, "/proxy/own/x", 300_000)
        for _ in range(3):
            writer.write(b"x" * 100_000)
            await asyncio.sleep(0.3)
        await taker.until(lambda: taker.arrived >= 300_000)
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), MOST_S)).lower()
        assert b" 504 " in head and taker.arrived == 300_000
        writer.close()


@contextlib.asynccontextmanager
async def serving_slowly():
    """A service whose head is waited for less long than its request takes."""
    taker = Taker()
    server = await asyncio.start_server(taker, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    more = f"proxy: {{own: {{base_url: '{url}', timeouts: {{headers: 400ms}}}}}}\n"
    async with serving(mock_config("http://127.0.0.1:9/v1", more=more)) as gateway:
        yield gateway, taker
    server.close()


async def test_who_is_refused_hears_why(upstream):
    """Who still sends is listened to for a moment: at a reset, many clients forget the answer."""
    keys = f"keys: [{{name: a, key: {KEY}}}]\n"
    chain = "chain: [{use: auth}, {use: retry}]"
    more = FORWARD + keys + "server: {max_upload: 2MB}\n"
    async with serving(mock_config(upstream.url, chain, more)) as gateway:
        body = form(("model", "mock"), ("file", b"x" * 3_000_000))
        for key, path, status in (
            ("wrong-key-0123456789", "/v1/audio/transcriptions", 401),
            ("wrong-key-0123456789", "/v1/files", 401),
            (KEY, "/v1/audio/transcriptions", 413),
            (KEY, "/v1/nothing", 404),
        ):
            answer = await send(gateway, body, path, authorization=f"Bearer {key}")
            assert answer.status_code == status and answer.headers["connection"] == "close"
        assert not upstream.asked


async def test_a_form_reaches_one_upstream_at_a_time():
    """Of two that read from one body, neither would have all of it: a late stream of a form is not hedged."""
    async with ScriptedUpstream() as first, ScriptedUpstream() as second:
        config = mock_config(first.url).replace(
            "{deployments: [{target: mock/mock-1, price: {prompt: 1, completion: 2}}]}",
            "{deployments: [mock/mock-1, other/mock-2], hedge: {percentile: 50, share: 1}}",
        )
        other = f"  other: {{kind: openai, base_url: {second.url}, api_key: s}}\n  echo: {{}}\n"
        async with serving(config.replace("  echo: {}\n", other)) as gateway:
            done = {"type": "transcript.text.done", "text": "Hello"}
            told = Events(f"data: {json.dumps(done)}\n\n".encode())
            first.will(*[told] * 40)
            body = form(("model", "mock"), ("stream", "true"), ("file", b"x" * 100_000))
            for _ in range(25):
                assert (await send(gateway, form(("model", "mock"), ("stream", "true")))).status_code == 200
            reader, writer = await begin(gateway, "/v1/audio/transcriptions", len(body), FORM)
            for at in range(0, len(body), 20_000):
                writer.write(body[at : at + 20_000])
                await asyncio.sleep(0.1)
            assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), MOST_S)
            writer.close()
            assert second.asked == 0 and len(first.requests[-1].body) > 100_000


async def test_a_form_whose_model_comes_late_is_sent_once(upstream):
    """`curl -F file=@… -F model=…` writes it behind the file; up to 256 KB that is looked for."""
    async with serving(mock_config(upstream.url)) as gateway:
        for size in range(KEPT_BYTES - 90_000, KEPT_BYTES + 60_000, 30_000):
            upstream.will(Fails(200, TEXT))
            answer = await send(gateway, form(("file", b"x" * size), ("model", "mock")))
            assert answer.status_code in (200, 400), answer.text
            if answer.status_code == 400:
                upstream.script.clear()
                assert "before the file" in answer.json()["error"]["message"]
        assert (await gateway.ask()).status_code == 200


async def test_a_slow_client_makes_no_upstream_ill():
    """One that hangs up on it is well, and everybody else's calls go on reaching it."""

    async def impatient(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.05)
        writer.close()

    server = await asyncio.start_server(impatient, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with serving(mock_config(url)) as gateway:
        body = form(("model", "mock"), ("file", b"x" * 600_000))
        for _ in range(8):
            reader, writer = await begin(gateway, "/v1/audio/transcriptions", len(body), FORM)
            writer.write(body[:300_000])
            await asyncio.sleep(0.2)
            with contextlib.suppress(ConnectionError):
                writer.write(body[300_000:])
                await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), MOST_S)
            writer.transport.abort()
        assert "resting" not in (await gateway.http.get("/health")).text
    server.close()


async def test_errors_of_uploads_are_the_sdks_own(upstream):
    """Whatever went wrong, as for every other call."""
    async with serving(mock_config(upstream.url)) as gateway:
        with pytest.raises(openai.NotFoundError):
            await gateway.openai().audio.transcriptions.create(model="mok", file=("a.wav", b"x"))
        upstream.will(Fails(400, {"error": {"message": "unsupported file"}}))
        with pytest.raises(openai.BadRequestError, match="unsupported file"):
            await gateway.openai().audio.transcriptions.create(model="mock", file=("a.wav", b"x"))
