"""A gateway in a thread of its own, and a client and an upstream outside of it that wait for each other.

What its thread does is counted: functions of ours that are entered, what is asked of its event loop, and what is sent
to each of its neighbours. One thread is client and upstream with plain blocking sockets, and sends a chunk
only when the last one has come out at the other end: no two are ever read at once, so the counts are the same each
time, however busy the machine is.
"""

import asyncio
import json
import re
import select
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from tests.counts.counting import name_of
from tests.serving import Serving, serving

WITHIN_S = 30.0
KEY = "counts-key-0123456789abcdef"
EVENT = (
    b'data: {"id":"chatcmpl-c","object":"chat.completion.chunk","created":1,"model":"gpt-4o-mini-2024-07-18",'
    b'"service_tier":"default","system_fingerprint":"fp_c","choices":%b,"usage":%b,"obfuscation":"x7"}\n\n'
)
"""As OpenAI writes it, with all that it says beside what is said."""
SPOKEN = b'[{"index":0,"delta":%b,"logprobs":null,"finish_reason":null}]'
FINISHED = b'[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]'


class Neighbours:
    """A client that asks, and the upstream that answers it."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(WITHIN_S)
        self.upstream_port: int = self._listening.getsockname()[1]
        self._client = socket.socket()
        self._upstream: socket.socket | None = None
        self._asked = 0
        self._heard = b""

    def connect(self, port: int) -> None:
        """Connect the client to the gateway."""
        self._client = socket.create_connection(("127.0.0.1", port), WITHIN_S)
        self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def client_port(self) -> int:
        """Whence the client asks."""
        return self._client.getsockname()[1]

    def whole(self, *, text: str = "", headers: str = "", model: str = "mock", key: str = KEY) -> None:
        """Make a call that is answered whole, with 1 KB. Without a text, it is another one each time."""
        self._asked += 1
        self._send(text or f"question {self._asked:09}", {}, headers, model, key)
        while self._asking() is not self._client:  # from the cache there is no more to do
            self._take()
            self._answer(_WHOLE)
        head = _read_whole(self._client)
        assert head.startswith(b"HTTP/1.1 200"), head

    def streamed(self, chunks: int, *, headers: str = "") -> None:
        """Make a call that is answered in so many chunks, each of which comes alone."""
        self._asked += 1
        more = {"stream": True, "stream_options": {"include_usage": True}}
        self._send(f"question {self._asked:09}", more, headers, "mock", KEY)
        self._take()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        role = _said(b'{"role":"assistant","content":"","refusal":null}')
        self._chunk(_said(b'{"content":"word-0-"}'), b"word-0-", before=head + _chunk(role))
        for i in range(1, chunks):
            self._chunk(_said(b'{"content":"word-%d-"}' % i), b"word-%d-" % i)
        self._chunk(EVENT % (FINISHED, b"null"), b'"stop"')
        self._chunk(EVENT % (b"[]", json.dumps(_USAGE, separators=(",", ":")).encode()), b"total_tokens")
        self._answer(_chunk(b"data: [DONE]\n\n") + _chunk(b""))
        self._hear(b"\r\n0\r\n\r\n")

    def _asking(self) -> socket.socket:
        """Return who has something to say: the client, or the upstream's connection, be it a new one."""
        while True:
            open_ = [sock for sock in (self._client, self._upstream, self._listening) if sock is not None]
            readable, _, _ = select.select(open_, [], [], WITHIN_S)
            assert readable, "nobody says anything"
            if readable[0] is self._listening:
                if self._upstream is not None:
                    self._upstream.close()
                self._upstream, _ = self._listening.accept()
                self._upstream.settimeout(WITHIN_S)
                self._upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            elif readable[0] is self._upstream and _is_closed(self._upstream):
                self._upstream.close()
                self._upstream = None
            else:
                return readable[0]

    def _take(self) -> None:
        """Take a call as the upstream."""
        asking = self._asking()
        assert asking is self._upstream, "the client is answered without the upstream"
        _read_whole(asking)

    def _send(self, text: str, more: dict[str, object], headers: str, model: str, key: str) -> None:
        said = {"model": model, "messages": [{"role": "user", "content": text}], **more}
        body = json.dumps(said).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n{headers}"
        self._client.sendall(
            f"{head}authorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
        )

    def _chunk(self, data: bytes, heard: bytes, *, before: bytes = b"") -> None:
        self._answer(before + _chunk(data))  # in one go, or it would be read in one or in two
        self._hear(heard)

    def _answer(self, data: bytes) -> None:
        assert self._upstream is not None
        self._upstream.sendall(data)

    def _hear(self, what: bytes) -> None:
        """Read until the client has heard `what`; what it heard beyond that is kept for the next time."""
        while what not in self._heard:
            more = self._client.recv(65536)
            assert more, f"closed, after {self._heard!r}"
            self._heard += more
        self._heard = self._heard.partition(what)[2]

    def close(self) -> None:
        """Leave."""
        for sock in (self._client, self._upstream, self._listening):
            if sock is not None:
                sock.close()


_USAGE = {
    "prompt_tokens": 20,
    "completion_tokens": 150,
    "total_tokens": 170,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 0,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}
_MESSAGE = {"role": "assistant", "content": "word " * 180, "refusal": None, "annotations": []}
_BODY = json.dumps(
    {
        "id": "chatcmpl-c",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "message": _MESSAGE, "logprobs": None, "finish_reason": "stop"}],
        "usage": _USAGE,
        "service_tier": "default",
        "system_fingerprint": "fp_c",
    },
    indent=2,
)
"""As OpenAI writes it."""
_WHOLE = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(_BODY)}\r\n\r\n{_BODY}".encode()


def _is_closed(sock: socket.socket) -> bool:
    try:
        return not sock.recv(1, socket.MSG_PEEK)
    except ConnectionResetError:
        return True


def _read_whole(sock: socket.socket) -> bytes:
    """Read a message of known length, and return its head."""
    head, end, body = b"", b"", b""
    while not end or len(body) < int(re.findall(rb"content-length: (\d+)", head.lower())[0]):
        more = sock.recv(65536)
        assert more, f"closed, after {head + end + body!r}"
        head, end, body = (head + end + body + more).partition(b"\r\n\r\n")
    return head


def _said(delta: bytes) -> bytes:
    return EVENT % (SPOKEN % delta, b"null")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class CountedLoop(asyncio.SelectorEventLoop):
    """asyncio's loop, which tells what it is asked to do."""

    counts: "Counter[str]"

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        self.counts["callbacks"] += 1
        return super().call_soon(callback, *args, context=context)

    def create_task(self, coro: Any, **more: Any) -> Any:
        self.counts["tasks"] += 1
        return super().create_task(coro, **more)


class Rig:
    """The gateway's thread, and what it does."""

    def __init__(self, gateway: Serving, loop: CountedLoop, neighbours: Neighbours, counts: "Counter[str]") -> None:
        self.gateway = gateway
        self.neighbours = neighbours
        self.counts = counts
        self._loop = loop

    def done(self) -> None:
        """Wait until the gateway has nothing to do any more."""
        engine, until_s, quiet = self.gateway.live.gateway.engine, time.monotonic() + WITHIN_S, 0
        before = self.counts.total()
        while quiet < 3:
            assert time.monotonic() < until_s, "it never rests"
            time.sleep(0.002)
            now = self.counts.total()
            quiet = 0 if engine.busy or now != before else quiet + 1
            before = now

    def least(self, work: Callable[[], None], *, rounds: int = 9) -> dict[str, int]:
        """Return what `work` has the gateway do: the least of several times, for now and then it looks after itself."""
        for _ in range(3):
            work()
        seen: list[Counter[str]] = []
        for _ in range(rounds):
            self.done()
            before = self.counts.copy()
            work()
            self.done()
            seen.append(self.counts - before)
        names = sorted({name for one in seen for name in one})
        return {name: value for name in names if (value := min(one[name] for one in seen))}


class _Thread(threading.Thread):
    """Serves until it is told to stop."""

    def __init__(self, config: str, neighbours: Neighbours) -> None:
        super().__init__(daemon=True)
        self.counts = Counter[str]()
        self.ready = threading.Event()
        self.gateway: Serving | None = None
        self.loop = CountedLoop()
        self.loop.counts = self.counts
        self._config = config
        self._neighbours = neighbours
        self._told = asyncio.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
                runner.run(self._serve())
        except BaseException as failure:
            self.failure = failure
            self.ready.set()
            raise

    async def _serve(self) -> None:
        async with serving(self._config) as self.gateway:
            self.ready.set()
            sys.setprofile(self._seen)
            try:
                await self._told.wait()
            finally:
                sys.setprofile(None)

    def stop(self) -> None:
        """Stop serving, and wait until it has."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._told.set)
        self.join(WITHIN_S)

    def _seen(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "call":
            if name_of(frame) is not None:
                self.counts["calls"] += 1
        elif event == "c_call" and arg.__name__ in ("send", "sendmsg"):
            sock = arg.__self__
            if isinstance(sock, socket.SocketType) and sock.family == socket.AF_INET:
                self._sent(sock)

    def _sent(self, sock: socket.SocketType) -> None:
        with suppress(OSError):
            port = sock.getpeername()[1]
            whom = {self._neighbours.client_port: "client", self._neighbours.upstream_port: "upstream"}
            self.counts[f"sent to {whom.get(port, 'redis')}"] += 1


@contextmanager
def rig(config: Callable[[str], str]) -> Generator[Rig, None, None]:
    """Serve what `config` makes of the upstream's URL until the block ends."""
    neighbours = Neighbours()
    thread = _Thread(config(f"http://127.0.0.1:{neighbours.upstream_port}"), neighbours)
    thread.start()
    try:
        assert thread.ready.wait(WITHIN_S) and thread.gateway is not None, thread.failure
        neighbours.connect(int(thread.gateway.url.rpartition(":")[2]))
        yield Rig(thread.gateway, thread.loop, neighbours, thread.counts)
    finally:
        neighbours.close()
        thread.stop()
