"""The edge: bytes become a Call here, and a Reply becomes bytes.

An ASGI app of its own, because the hot path is this file (a handler of Litestar's with a typed body would cost 100 µs).
The call runs in the request's own task, which is cancelled when the client leaves.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from litestar.types import Receive, Scope, Send

from gateway.core.call import Call
from gateway.core.errors import GatewayError, Stopped
from gateway.core.reply import Reply
from gateway.http.answers import (
    CLOSE,
    JSON,
    STREAM,
    RawHeaders,
    body,
    call_headers,
    cost_header,
    cost_text,
    error_answer,
    head,
)
from gateway.http.protocol import CLIENT, MOMENT_S, ClientProtocol
from gateway.http.requests import CallReader
from gateway.http.uploads import Incoming
from gateway.settings.build import Gateway
from gateway.settings.live import Live
from gateway.wire.surfaces import SURFACES

log = logging.getLogger("gateway")

BODY_S = 60.0
"""How long a client may take to send its request."""
UNTIL_READ_S = 0.1
"""How long an error within a stream is left to be read before the connection is closed."""
LINGER_S = 2.0
"""How long a client that is still sending is listened to when it has been answered."""
GRACE_S = 5.0
"""How long after a call's `total` its client may still be reading; then it is left, as if it had gone."""


class Edge:
    """One kind of call as an ASGI app."""

    def __init__(self, live: Live, reader: CallReader) -> None:
        self._live = live
        self._reader = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, on the configuration that stands when it comes."""
        request: Any = scope
        gateway, client = self._live.gateway, request.get("extensions", {}).get(CLIENT)
        loop = asyncio.get_running_loop() if client is None else client.loop
        task = asyncio.current_task() if client is None else client.answering
        assert task is not None
        alarm, answer = Alarm(loop, task, BODY_S), None
        try:
            call = await self._reader(gateway, request, receive, new_id())
            alarm.put_off(call.deadline_s - call.clock.now() + GRACE_S)
            answer = Answer(gateway, call, send, alarm)
            answer.watch(client, receive, task)
            await answer.give()
        except asyncio.CancelledError:
            if not (alarm.rang if answer is None else answer.is_unwanted):
                raise  # otherwise there is nobody to answer: the server closes the connection
        except Exception:
            if answer is not None:
                raise
            log.exception("a request could not be read by a bug of ours")
            headers, data = error_answer(GatewayError("the gateway failed at this; its log knows why"))
            await send(head(500, headers))
            await send(body(data))
        finally:
            alarm.stop()
            if answer is not None:
                answer.watch_no_more()


class Alarm:
    """Cancels a task after a time: for waits that depend on nobody but the client.

    Put off, it finds out when its timer fires, which is left as it is: to cancel one and set another took 1.4 µs.
    """

    __slots__ = ("_at_s", "_loop", "_task", "_timer", "rang")

    def __init__(self, loop: asyncio.AbstractEventLoop, task: "asyncio.Task[Any]", in_s: float) -> None:
        self.rang = False
        self._loop = loop
        self._task = task
        self._at_s = loop.time() + in_s
        self._timer = loop.call_at(self._at_s, self._ring)

    def put_off(self, in_s: float) -> None:
        """Ring so many seconds from now instead."""
        before_s, self._at_s = self._at_s, self._loop.time() + in_s
        if self._at_s < before_s:
            self._timer.cancel()
            self._timer = self._loop.call_at(self._at_s, self._ring)

    def stop(self) -> None:
        """Do not ring any more."""
        self._timer.cancel()

    def _ring(self) -> None:
        if self._loop.time() < self._at_s - MOMENT_S:
            self._timer = self._loop.call_at(self._at_s, self._ring)
        else:
            self.rang = True
            self._task.cancel()


class Answer:
    """The answer to one call, on its way to a client that may leave."""

    def __init__(self, gateway: Gateway, call: Call, send: Send, alarm: Alarm) -> None:
        self._gateway = gateway
        self._call = call
        self._send = send
        self._surface = SURFACES[call.surface]
        if self._surface.id_header:
            call.receipt.headers[self._surface.id_header] = call.id
        self._alarm = alarm
        upload = call.passage.upload if call.passage is not None else None
        self._incoming = upload if isinstance(upload, Incoming) else None
        self._client: ClientProtocol | None = None
        self._listening: asyncio.Task[None] | None = None
        self._begun = False
        self._over = False
        self._left = False

    @property
    def is_unwanted(self) -> bool:
        """The client has gone, or does not read what it is sent."""
        return self._left or self._alarm.rang

    def watch(self, client: ClientProtocol | None, receive: Receive, answering: "asyncio.Task[Any]") -> None:
        """From now on cancel `answering` when the client leaves, unless its route wants the answer read to its end."""
        self._leaving = partial(self._departed, answering)
        if client is not None and self._incoming is None:
            self._client = client
            client.on_departure(self._leaving)
        else:
            self._listening = asyncio.ensure_future(self._listen(receive, self._leaving))

    def watch_no_more(self) -> None:
        """Let the client go where it likes."""
        if self._client is not None:
            self._client.forget(self._leaving)
        elif self._listening is not None:
            self._listening.cancel()
        del self._leaving  # it holds this answer, which no reference count would then find unused

    async def _listen(self, receive: Receive, departed: Callable[[], None]) -> None:
        if self._incoming is not None:
            await self._incoming.ended.wait()  # until then, who passes it on hears of it
        while (await receive())["type"] != "http.disconnect":
            pass
        departed()

    def _departed(self, answering: "asyncio.Task[Any]") -> None:
        if not self._over:
            self._left = True
            route = self._call.route
            if route is None or route.client_leaves != "finish":
                answering.cancel()

    async def give(self) -> None:
        """Open the call and send what comes of it."""
        try:
            await self._reply()
        except GatewayError as error:
            await self._error(error)
        except asyncio.CancelledError:
            if self.is_unwanted:
                raise
            await self._error(Stopped())
        except Exception:
            log.exception("call %s failed by a bug, of ours or of a middleware", self._call.id)
            await self._error(GatewayError(f"the gateway failed at this; its log knows why, under {self._call.id}"))

    async def _reply(self) -> None:
        call = self._call
        async with self._gateway.engine.open(call, is_left=lambda: self.is_unwanted) as reply:
            if reply.headers is not None:
                await self._passed_on(reply, reply.headers)
            else:
                await (self._stream(reply) if call.stream else self._whole(reply))
            if self._left:
                call.receipt.outcome = "abandoned"

    async def _whole(self, reply: Reply) -> None:
        data = reply.first.data
        self._over = True
        length = (b"content-length", b"%d" % len(data))
        await self._head(200, [JSON, length, cost_header(self._call.receipt, later=False)])
        await self._end(data)

    async def _passed_on(self, reply: Reply, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        """Send an answer as it comes, whatever it is."""
        await self._head(reply.status, [*headers, cost_header(self._call.receipt, later=reply.rest is not None)])
        if reply.rest is not None:
            await self._send(body(reply.first.data, more=True))
            async for chunk in reply.rest:
                await self._send(body(chunk.data, more=True))
        self._over = True
        await self._end(b"" if reply.rest is not None else reply.first.data)

    async def _stream(self, reply: Reply) -> None:
        receipt, send, wants_usage = self._call.receipt, self._send, self._call.wants_usage
        await self._head(200, [*STREAM, cost_header(receipt, later=receipt.cache != "hit")])
        if wants_usage or not reply.first.usage_only:
            await send(body(reply.first.data, more=True))
        if reply.rest is not None:
            async for chunk in reply.rest:
                if wants_usage or not chunk.usage_only:
                    await send({"type": "http.response.body", "body": chunk.data, "more_body": True})
        self._over = True
        done = self._surface.done if self._call.operation in ("chat", "completions") else b""
        await self._send(body(b": x-gateway-cost: " + cost_text(receipt) + b"\n\n" + done))

    async def _error(self, error: GatewayError) -> None:
        """Say what went wrong: as the answer, or, if one has begun, within it.

        Then the body is not ended: the server closes the connection in the middle of it, so that not even a client that
        knows nothing of errors in a stream takes it for complete. A moment later, for some (Node's `fetch`) forget what
        they have not read yet when a connection breaks.
        """
        self._over = True
        if self._begun:
            if self._call.stream:
                await self._send(body(self._surface.error_event(error, self._call.id), more=True))
                await asyncio.sleep(UNTIL_READ_S)
            return
        headers, data = error_answer(error, self._surface.error_body(error, self._call.id))
        await self._head(error.status, [*headers, cost_header(self._call.receipt, later=False)])
        await self._end(data)

    async def _end(self, data: bytes) -> None:
        """Send the last of a body.

        Where the client is still sending its own, that is read for a moment before the connection is closed: what comes
        to a closed one is answered by a reset, at which many clients forget the answer that they have not read yet.
        """
        if self._is_unread:
            assert self._incoming is not None
            await self._send(body(data, more=True))
            with contextlib.suppress(TimeoutError, GatewayError):
                async with asyncio.timeout(LINGER_S):
                    while await self._incoming.more() is not None:
                        pass
            data = b""
        await self._send(body(data))

    @property
    def _is_unread(self) -> bool:
        """The client is still sending its request."""
        return self._incoming is not None and not self._incoming.ended.is_set()

    async def _head(self, status: int, headers: RawHeaders) -> None:
        self._begun = True
        receipt = self._call.receipt
        receipt.status = status
        now_s = self._call.clock.now()
        said = [*headers, *call_headers(receipt, self._gateway.config_id, now_s)]
        if self._is_unread and CLOSE not in said:
            said.append(CLOSE)  # or what is left of the request's body would still be taken in
        await self._send(head(status, said))


def new_id() -> str:
    """Return a call's id: 96 random bits. The system is asked for those of a hundred calls at a time (2 µs less)."""
    if not _ids:
        random = os.urandom(12 * 100).hex()
        _ids.extend([f"req_{random[at : at + 24]}" for at in range(0, len(random), 24)])
    return _ids.pop()


_ids: list[str] = []
os.register_at_fork(after_in_child=_ids.clear)


def is_no_news(record: logging.LogRecord) -> bool:
    """Tell what of uvicorn's log is to be seen: not that an answer was not ended, which is meant where it happens."""
    return record.getMessage() != "ASGI callable returned without completing response."
