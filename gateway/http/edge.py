"""The edge: bytes become a Call here, and a Reply becomes bytes.

An ASGI app of its own, because the hot path is this file: Litestar routes to it (25 µs) and does no more (a handler
with a typed body would cost 100). The call runs in the request's own task; one more task waits for the client to
leave, and cancels it.
"""

import asyncio
import logging
import os
from typing import Any, cast

from litestar.types import HTTPScope, Receive, Scope, Send

from gateway.core.call import Call
from gateway.core.errors import GatewayError
from gateway.core.reply import Chunk
from gateway.http.answers import (
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
from gateway.http.requests import CallReader
from gateway.settings.build import Gateway
from gateway.settings.live import Live
from gateway.wire.openai import DONE, error_event

log = logging.getLogger("gateway")

BODY_S = 60.0
"""How long a client may take to send its request."""
GRACE_S = 5.0
"""How long after a call's `total` its client may still be reading; then it is left, as if it had gone."""


class Edge:
    """One kind of call as an ASGI app."""

    def __init__(self, live: Live, reader: CallReader) -> None:
        self._live = live
        self._reader = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, on the configuration that stands when it comes."""
        gateway, loop, task = self._live.gateway, asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        alarm = Alarm(task, loop.time() + BODY_S)
        try:
            call = await self._reader(gateway, cast("HTTPScope", scope), receive, new_id())
        except asyncio.CancelledError:
            if alarm.rang:
                return  # without an answer the server closes the connection
            raise
        finally:
            alarm.stop()
        answer = Answer(gateway, call, send)
        watch = asyncio.ensure_future(answer.watch(receive, task))
        alarm = Alarm(task, loop.time() + call.deadline_s - call.clock.now() + GRACE_S)
        try:
            await answer.give()
        except asyncio.CancelledError:
            if not answer.left and not alarm.rang:
                raise
        finally:
            watch.cancel()
            alarm.stop()


class Alarm:
    """Cancels a task at a time: for waits that depend on nobody but the client."""

    __slots__ = ("_task", "_timer", "rang")

    def __init__(self, task: "asyncio.Task[Any]", at_s: float) -> None:
        self.rang = False
        self._task = task
        self._timer = asyncio.get_running_loop().call_at(at_s, self._ring)

    def stop(self) -> None:
        """Do not ring any more."""
        self._timer.cancel()

    def _ring(self) -> None:
        self.rang = True
        self._task.cancel()


class Answer:
    """The answer to one call, on its way to a client that may leave."""

    def __init__(self, gateway: Gateway, call: Call, send: Send) -> None:
        self._gateway = gateway
        self._call = call
        self._send = send
        self._begun = False
        self._over = False
        self.left = False
        """The client has gone."""

    async def watch(self, receive: Receive, answering: "asyncio.Task[Any] | None") -> None:
        """Cancel `answering` when the client leaves."""
        while (await receive())["type"] != "http.disconnect":
            pass
        if not self._over and answering is not None:
            self.left = True
            answering.cancel()

    async def give(self) -> None:
        """Open the call and send what comes of it."""
        try:
            await self._reply()
        except GatewayError as error:
            await self._error(error)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("call %s failed by a bug, of ours or of a middleware", self._call.id)
            await self._error(GatewayError(f"the gateway failed at this; its log knows why, under {self._call.id}"))

    async def _reply(self) -> None:
        call, receipt = self._call, self._call.receipt
        async with self._gateway.engine.open(call) as reply:
            if not call.stream:
                data = reply.first.data
                self._over = True
                await self._head(200, [JSON, (b"content-length", b"%d" % len(data)), cost_header(receipt, later=False)])
                await self._send(body(data))
                return
            await self._head(200, [*STREAM, cost_header(receipt, later=receipt.cache != "hit")])
            await self._chunk(reply.first)
            if reply.rest is not None:
                async for chunk in reply.rest:
                    await self._chunk(chunk)
            self._over = True
            await self._send(body(b": x-gateway-cost: " + cost_text(receipt) + b"\n\n" + DONE))

    async def _chunk(self, chunk: Chunk) -> None:
        if not chunk.usage_only or self._call.wants_usage:
            await self._send(body(chunk.data, more=True))

    async def _error(self, error: GatewayError) -> None:
        """Say what went wrong: as the answer, or, if one has begun, within it and without a finish."""
        self._over = True
        if self._begun:
            await self._send(body(error_event(error)))
            return
        headers, data = error_answer(error)
        await self._head(error.status, [*headers, cost_header(self._call.receipt, later=False)])
        await self._send(body(data))

    async def _head(self, status: int, headers: RawHeaders) -> None:
        self._begun = True
        receipt = self._call.receipt
        receipt.status = status
        now_s = self._call.clock.now()
        await self._send(head(status, [*headers, *call_headers(receipt, self._gateway.config_id, now_s)]))


def new_id() -> str:
    """Return a call's id: 96 random bits, half a microsecond (uuid4 takes six times that)."""
    return f"req_{os.urandom(12).hex()}"
