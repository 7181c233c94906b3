"""The edge: bytes become a Call here, and a Reply becomes bytes.

An ASGI app of its own, because the hot path is this file (a handler of Litestar's with a typed body would cost 100 µs).
The call runs in the request's own task, which is cancelled when the client leaves.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterable
from typing import Any

from litestar.types import Receive, Scope, Send

from gateway.core.call import Call, Headers
from gateway.core.errors import GatewayError, Overloaded, Stopped
from gateway.core.receipt import Receipt
from gateway.core.reply import Reply
from gateway.http.admission import Admission
from gateway.http.answers import CLOSE, JSON, STREAM, call_lines, cost_text, error_headers
from gateway.http.cycle import CLIENT, Cycle, line
from gateway.http.requests import CallReader, has_large_body
from gateway.http.uploads import Incoming
from gateway.settings.build import Gateway
from gateway.settings.live import Live
from gateway.wire.openai import error_body
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
    """One kind of call as an ASGI app, for requests that a `ClientProtocol` took in.

    Args:
        live: the configuration.
        reader: reads the calls.
        admission: lets them in; `None`: there is always room for them.
    """

    def __init__(self, live: Live, reader: CallReader, admission: Admission | None = None) -> None:
        self._live = live
        self._reader = reader
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, on the configuration that stands when it is let in."""
        request: Any = scope
        cycle: Cycle = request["extensions"][CLIENT]
        admission = self._admission
        if admission is not None and not admission.enter():
            heard = await self._let_in(admission, cycle, Headers(dict(request["headers"])), receive)
            if heard is None:
                return
            receive = heard
        gateway, answer = self._live.gateway, None
        try:
            if cycle.more_body:
                cycle.watch(BODY_S)
            call = await self._reader(gateway, request, receive, new_id())
            cycle.watch(call.deadline_s - call.receipt.began_s + GRACE_S)
            answer = Answer(self._live, gateway, call, cycle)
            await answer.give(receive)
        except asyncio.CancelledError:
            if not (cycle.is_late if answer is None else answer.is_unwanted()):
                raise  # otherwise there is nobody to answer: the connection is closed
        except Exception:
            if answer is not None:
                raise
            log.exception("a request could not be read by a bug of ours")
            await self._refuse(cycle, GatewayError("the gateway failed at this; its log knows why"))
        finally:
            if admission is not None:
                admission.leave()

    async def _let_in(self, admission: Admission, cycle: Cycle, headers: Headers, receive: Receive) -> Receive | None:
        """Wait until there is room; return how to read on. `None`: the client has left, or was refused."""
        try:
            return await admission.let_in(headers, receive)
        except Overloaded as error:
            if has_large_body(headers):
                cycle.keep_alive = False  # or what is left of it would still be taken in
            await self._refuse(cycle, error)
        return None

    async def _refuse(self, cycle: Cycle, error: GatewayError) -> None:
        """Answer a request that no call was made of."""
        now_s = self._live.clock.now()
        lines = call_lines(Receipt(new_id(), began_s=now_s), self._live.gateway.config_id, now_s)
        if self._live.draining:
            cycle.keep_alive = False
        await cycle.answer(error.status, [*_error_lines(cycle, error), *lines], error_body(error))


class Answer:
    """The answer to one call, on its way to a client that may leave."""

    __slots__ = ("_call", "_cycle", "_gateway", "_incoming", "_left", "_live", "_over", "_surface")

    def __init__(self, live: Live, gateway: Gateway, call: Call, cycle: Cycle) -> None:
        self._live = live
        self._gateway = gateway
        self._call = call
        self._cycle = cycle
        self._surface = SURFACES[call.surface]
        if self._surface.id_header:
            call.receipt.headers[self._surface.id_header] = call.id
        upload = call.passage.upload if call.passage is not None else None
        self._incoming = upload if isinstance(upload, Incoming) else None
        self._over = False
        self._left = False

    def is_unwanted(self) -> bool:
        """The client has gone, or does not read what it is sent."""
        return self._left or self._cycle.is_late

    def _departed(self) -> None:
        """Stop, because the client has left, unless the call's route wants the answer read to its end."""
        if not self._over:
            self._left = True
            route = self._call.route
            if route is None or route.client_leaves != "finish":
                self._cycle.task.cancel()

    async def give(self, receive: Receive) -> None:
        """Open the call and send what comes of it, as long as the client is there."""
        call, listening = self._call, None
        if self._incoming is None:
            self._cycle.on_departure(self._departed)
        else:
            listening = asyncio.ensure_future(self._listen(self._incoming, receive))
        try:
            async with self._gateway.engine.open(call, is_left=self.is_unwanted) as reply:
                if reply.headers is not None:
                    await self._passed_on(reply, reply.headers)
                elif call.stream:
                    await self._stream(reply)
                else:
                    await self._whole(200, (JSON,), reply.first.data)
                if self._left:
                    call.receipt.outcome = "abandoned"
        except GatewayError as error:
            await self._error(error)
        except asyncio.CancelledError:
            if self.is_unwanted():
                raise
            await self._error(Stopped())
        except Exception:
            log.exception("call %s failed by a bug, of ours or of a middleware", call.id)
            await self._error(GatewayError(f"the gateway failed at this; its log knows why, under {call.id}"))
        finally:
            if listening is not None:
                listening.cancel()

    async def _listen(self, incoming: Incoming, receive: Receive) -> None:
        await incoming.ended.wait()  # until then, who passes it on hears of it
        while (await receive())["type"] != "http.disconnect":
            pass
        self._departed()

    async def _whole(self, status: int, lines: Iterable[bytes], data: bytes) -> None:
        self._over = True
        if self._incoming is None:
            await self._cycle.answer(status, self._head(status, lines), data)
        else:
            await self._cycle.begin(status, self._head(status, lines), len(data))
            await self._end(data)

    async def _passed_on(self, reply: Reply, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Send an answer as it comes, whatever it is."""
        lines = [line(header) for header in headers if header[0] != b"content-length"]
        length = next((int(value) for name, value in headers if name == b"content-length"), None)
        later = reply.rest is not None
        await self._cycle.begin(reply.status, self._head(reply.status, lines, cost_later=later), length)
        if reply.rest is not None:
            await self._cycle.write(reply.first.data)
            async for chunk in reply.rest:
                await self._cycle.write(chunk.data)
        self._over = True
        await self._end(b"" if reply.rest is not None else reply.first.data)

    async def _stream(self, reply: Reply) -> None:
        receipt, write, wants_usage = self._call.receipt, self._cycle.write, self._call.wants_usage
        await self._cycle.begin(200, self._head(200, STREAM, cost_later=receipt.cache != "hit"))
        if wants_usage or not reply.first.usage_only:
            await write(reply.first.data)
        if reply.rest is not None:
            async for chunk in reply.rest:
                if wants_usage or not chunk.usage_only:
                    await write(chunk.data)
        self._over = True
        done = self._surface.done if self._call.operation in ("chat", "completions") else b""
        await write(b": x-gateway-cost: " + cost_text(receipt) + b"\n\n" + done, more=False)

    async def _error(self, error: GatewayError) -> None:
        """Say what went wrong: as the answer, or, if one has begun, within it.

        Then the body is not ended: the connection is closed in the middle of it, so that not even a client that knows
        nothing of errors in a stream takes it for complete. A moment later, for some (Node's `fetch`) forget what they
        have not read yet when a connection breaks.
        """
        self._over = True
        if not self._cycle.status:
            data = self._surface.error_body(error, self._call.id)
            await self._whole(error.status, _error_lines(self._cycle, error), data)
        elif self._call.stream:
            await self._cycle.write(self._surface.error_event(error, self._call.id))
            await asyncio.sleep(UNTIL_READ_S)

    async def _end(self, data: bytes) -> None:
        """Send the last of a body.

        Where the client is still sending its own, that is read for a moment before the connection is closed: what comes
        to a closed one is answered by a reset, at which many clients forget the answer that they have not read yet.
        """
        if self._incoming is not None and not self._incoming.ended.is_set():
            await self._cycle.write(data)
            with contextlib.suppress(TimeoutError, GatewayError):
                async with asyncio.timeout(LINGER_S):
                    while await self._incoming.more() is not None:
                        pass
            data = b""
        await self._cycle.write(data, more=False)

    def _head(self, status: int, lines: Iterable[bytes], *, cost_later: bool = False) -> list[bytes]:
        """Return the head of an answer of this status.

        Before a stop every answer ends its connection: a client that connects anew is led elsewhere. So does an answer
        to who is still sending, or what is left of the request's body would still be taken in.
        """
        receipt = self._call.receipt
        receipt.status = status
        if self._live.draining or (self._incoming is not None and not self._incoming.ended.is_set()):
            self._cycle.keep_alive = False
        said = call_lines(receipt, self._gateway.config_id, self._call.clock.now(), cost_later=cost_later)
        return [*lines, *said]


def _error_lines(cycle: Cycle, error: GatewayError) -> list[bytes]:
    """Return an error's headers; whether its connection goes on says the cycle."""
    headers = error_headers(error)
    if CLOSE in headers:
        cycle.keep_alive = False
    return [JSON, *[line(header) for header in headers if header != CLOSE]]


def new_id() -> str:
    """Return a call's id: 96 random bits. The system is asked for those of a hundred calls at a time (2 µs less)."""
    if not _ids:
        random = os.urandom(12 * 100).hex()
        _ids.extend([f"req_{random[at : at + 24]}" for at in range(0, len(random), 24)])
    return _ids.pop()


_ids: list[str] = []
os.register_at_fork(after_in_child=_ids.clear)
