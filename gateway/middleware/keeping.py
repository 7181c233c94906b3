"""Keeps the answer to one call of the Responses surface, before its end is given; see `turns`.

A background response that is streamed is kept from its first event on, as one that nobody was billed for: who leaves
the stream may come back for all of it. The write at the stream's own end says that it is billed. Where that is never
written, what it used in all is charged to the call that finds out, and what was charged for the broken stream is not
taken off: only that call's own receipt knew it.
"""

from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing

import msgspec
from msgspec import Raw
from prometheus_client import Counter

from gateway.core.call import Call
from gateway.core.errors import Unavailable
from gateway.core.reply import Chunk, Chunks, Reply
from gateway.core.resources import Objects, Stored
from gateway.middleware.history import RESPONSE, items_of
from gateway.wire.openai import encode
from gateway.wire.responses_kept import (
    RUNNING,
    SEALED,
    Asked,
    Head,
    Record,
    answer_in,
    head_of,
    input_items,
)
from gateway.wire.sse import EventTooLong

MOST_KEPT_BYTES = 32 * 1024 * 1024
"""A response that is larger, with its own input, is not kept."""
UNKEPT_HEADER = "x-gateway-kept"
UNKEPT_NOTE = b": x-gateway-kept: no\n\n"

UNKEPT = Counter("gateway_responses_unkept", "Responses that were to be kept and were not, by why.", ["why"])


class Keeping:
    """Keeps the answer to one call."""

    def __init__(self, call: Call, asked: Asked, objects: Objects, *, keep_s: float, keepers: Collection[str]) -> None:
        self._call = call
        self._asked = asked
        self._objects = objects
        self._keep_s = keep_s
        self._keepers = keepers
        self._kept: Stored | None = None

    async def of(self, reply: Reply) -> Reply:
        """Return the reply, to be kept before its last chunk is given."""
        if not self._call.stream:
            if not await self._keep(reply.first):
                self._call.receipt.headers[UNKEPT_HEADER] = "no"
            return reply
        first = [chunk async for chunk in self._passed(reply.first)]
        if self._asked.background and self._kept is None:
            await self._keep(reply.first, ended=False)  # whoever leaves it can come back for it
        rest = reply.rest
        if rest is None:
            return Reply.of(*first)
        return Reply(first[0], self._all_passed(first[1:], rest))

    async def _all_passed(self, first: list[Chunk], rest: Chunks) -> AsyncGenerator[Chunk, None]:
        async with aclosing(rest):
            for chunk in first:
                yield chunk
            async for chunk in rest:
                async for passed in self._passed(chunk):
                    yield passed

    async def _passed(self, chunk: Chunk) -> AsyncGenerator[Chunk, None]:
        """Yield a chunk, when the answer is kept if it ends it; and before it, if it is not, a comment that says so."""
        if chunk.finish_reason and not await self._keep(chunk):
            yield Chunk(UNKEPT_NOTE, silent=True)
        yield chunk

    async def _keep(self, chunk: Chunk, *, ended: bool = True) -> bool:
        """Keep the response that a chunk brings; return whether it is kept, as far as there is one."""
        try:
            answer = chunk.answer or answer_in(chunk.data, stream=self._call.stream, ended=ended)
            if answer is None:
                return True
            kept = self._stored(chunk, answer, head_of(answer))
        except (msgspec.DecodeError, RecursionError, EventTooLong):
            return _unkept("unreadable")
        if len(kept[0].data) > MOST_KEPT_BYTES:
            return _unkept("too_large")
        try:
            await self._write(*kept)
        except Unavailable:
            return _unkept("unavailable")
        return True

    def _stored(self, chunk: Chunk, answer: bytes, head: Head) -> list[Stored]:
        """Return what is to be kept: the response, and the items of its output.

        Raises:
            msgspec.DecodeError: it cannot be read.
        """
        call, turn, tried, now_s = self._call, self._call.turn, self._call.receipt.answered_by, self._call.clock.wall()
        assert turn is not None
        record = Record(
            turn.chain,
            input_items(self._asked, head.id),
            Raw(answer),
            model=call.model,
            size=turn.size,
            native=not chunk.answer and tried is not None and tried.provider in self._keepers,
            sealed=not chunk.answer or SEALED in (self._asked.include or ()),
            unbilled=head.status in RUNNING,
        )
        stored = Stored(
            head.id,
            kind=RESPONSE,
            owner=call.principal.id,
            data=encode(record),
            at_s=now_s,
            expires_s=now_s + self._keep_s,
            provider=tried.provider if tried else "",
            deployment=tried.deployment if tried else "",
        )
        return [stored, *items_of(stored, record)]

    async def _write(self, response: Stored, *items: Stored) -> None:
        """Write the response: anew, or over what was kept of it while it was not over, unless somebody deleted that.

        Raises:
            Unavailable: it cannot be written.
        """
        if self._kept is None:
            await self._objects.put(response, *items)
            self._kept = response
            return
        kept: Stored | None = self._kept
        while kept is not None:
            if await self._objects.update(kept, response.data):
                await self._objects.put(*items)
                return
            # Somebody came back for it meanwhile, and how far it was then was written.
            kept = (await self._objects.get(RESPONSE, kept.owner, [kept.id])).get(kept.id)


def _unkept(why: str) -> bool:
    UNKEPT.labels(why).inc()
    return False
