"""Carries a call through the chain and closes its receipt, once, however it ends.

Endings run in a task of their own only when one of them has to wait: creating a task costs as much as three rooms of
the chain, and most endings just write a number down. Once begun, they cannot be cancelled by a client that leaves.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType

from msgspec import Struct

from gateway.core.call import ASKING, Call, Operation
from gateway.core.errors import GatewayError, Refused, Stopped, UpstreamFailed
from gateway.core.middleware import Handler
from gateway.core.receipt import Outcome, Receipt
from gateway.core.reply import Chunk, Reply, Seen
from gateway.core.usage import Usage
from gateway.wire.estimate import request_tokens, text_tokens

CLIENT_LEFT = 499
"""nginx's word for a client that left before it was answered."""

IN_TOKENS: frozenset[Operation] = frozenset({"chat", "completions", "embeddings"})
"""Calls whose usage is estimated where their upstream does not say it."""
RECORDED: frozenset[Operation] = frozenset({*ASKING, "responses"})
"""Calls that may have used something."""

NO_REPLY = "a middleware of the chain returned {}, not a Reply; does it end with `return await next(call)`?"


class Engine:
    """The chain, one handler for each kind of call.

    Args:
        handlers: the chains.
        last_ending: runs when everybody else's endings have, for the calls that ask an upstream; it must not wait.
    """

    def __init__(
        self, handlers: Mapping[Operation, Handler], last_ending: Callable[[Call, Receipt], None] | None = None
    ) -> None:
        self._handlers = handlers
        self._last_ending = last_ending
        self._endings = set[asyncio.Task[None]]()
        self._open = 0

    def open(self, call: Call, *, is_left: Callable[[], bool] = lambda: True) -> "Exchange":
        """Lend the reply to `call` for the length of an `async with` block; the call ends with the block.

        Args:
            call: the call.
            is_left: tells, when the block is cancelled, whether it was because the client has left.

        Raises:
            GatewayError: no answer began (on entering), or it broke (while iterating).
        """
        return Exchange(self, call, self._handlers[call.operation], is_left)

    @property
    def busy(self) -> bool:
        """Whether a call is open, or endings still run."""
        return bool(self._open or self._endings)

    async def settle(self) -> None:
        """Wait until every ending so far has run."""
        while self._endings:
            await asyncio.gather(*self._endings, return_exceptions=True)

    def begin(self, call: Call) -> None:
        """Note that a call is open, and ask for the last ending: before all others, because endings run backwards."""
        self._open += 1
        if self._last_ending is not None and call.operation in RECORDED:
            call.at_end(partial(self._last_ending, call))

    def end(self, call: Call) -> None:
        """Note that a call is over, and run its endings."""
        self._open -= 1
        ending = call.end()
        if ending is not None:
            task = asyncio.ensure_future(ending)
            self._endings.add(task)
            task.add_done_callback(self._endings.discard)


class Exchange(Struct):
    """One call, from asking to its end."""

    engine: Engine
    call: Call
    handler: Handler
    is_left: Callable[[], bool]
    reply: Reply | None = None

    async def __aenter__(self) -> Reply:
        """Return the reply once its first chunk is here."""
        call, receipt = self.call, self.call.receipt
        receipt.began_s = receipt.began_s or call.clock.now()
        self.engine.begin(call)
        try:
            reply = await self.handler(call)
            if not isinstance(reply, Reply):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(NO_REPLY.format(type(reply).__name__))
        except BaseException as error:
            self._close(error)
            raise
        receipt.first_chunk_s = call.clock.now() - receipt.began_s
        self.reply = reply
        self._count(reply.first)
        if reply.rest is not None:
            reply.see_rest(self._count)
        return reply

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the call: finished if every chunk was taken, abandoned or broken if not."""
        reply = self.reply
        try:
            if reply is not None and reply.rest is not None:
                await reply.rest.aclose()
        finally:
            self._close(error)

    def _count(self, chunk: Chunk) -> Chunk:
        receipt = self.call.receipt
        receipt.chunks += 1
        receipt.completion_chars += len(chunk.text) + chunk.unseen
        if chunk.usage is not None:
            receipt.usage = chunk.usage
        if chunk.skipped:
            receipt.skipped += chunk.skipped
        if chunk.finish_reason:
            receipt.finish_reason = chunk.finish_reason
        return chunk

    def _close(self, error: BaseException | None) -> None:
        call, receipt, reply = self.call, self.call.receipt, self.reply
        receipt.total_s = call.clock.now() - receipt.began_s
        if isinstance(error, asyncio.CancelledError) and not self.is_left():
            error = Stopped()
        if receipt.outcome == "open":
            is_whole = error is None and reply is not None and reply.rest is None
            receipt.outcome = "finished" if is_whole or _is_over(reply) else _outcome(error, reply)
        if error is not None and not receipt.error:
            receipt.error = type(error).__name__
            receipt.code = (error.code or "") if isinstance(error, Refused) else ""
        if reply is None:
            receipt.status = _status(error)
        if call.operation in IN_TOKENS and (receipt.usage is None or receipt.outcome != "finished"):
            receipt.usage = _used(receipt) or receipt.usage  # what was said so far may be of one attempt among several
            if receipt.usage is None and reply is not None:
                receipt.usage = estimated_usage(call, receipt.completion_chars)
        self.engine.end(call)


def _is_over(reply: Reply | None) -> bool:
    """Tell whether every chunk of a stream was taken, whatever came after it."""
    return reply is not None and isinstance(reply.rest, Seen) and reply.rest.ended


def _outcome(error: BaseException | None, reply: Reply | None) -> Outcome:
    match error:
        case None:
            return "abandoned"
        case UpstreamFailed() | Stopped():
            return "failed" if reply is None else "broken"
        case Refused():
            return "refused"
        case GatewayError():
            return "failed"
        case asyncio.CancelledError():
            return "abandoned"
        case _:
            return "failed" if reply is None else "broken"


def _used(receipt: Receipt) -> Usage | None:
    """Return what the attempts used whose answers the client was given, or would have been had it not left."""
    used: Usage | None = None
    for tried in receipt.tried:
        if tried.usage is not None and not tried.wasted:
            used = tried.usage if used is None else used + tried.usage
    return used


def _status(error: BaseException | None) -> int:
    """Return what a client is told for whom no answer began."""
    if isinstance(error, GatewayError):
        return error.status
    return CLIENT_LEFT if isinstance(error, asyncio.CancelledError) else 500


def estimated_usage(call: Call, completion_chars: int) -> Usage:
    """Return what `call` used by rule of thumb, for answers whose upstream did not say, or had no time to."""
    return Usage(request_tokens(call.body.fields), text_tokens(completion_chars), estimated=True)
