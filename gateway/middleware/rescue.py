"""What becomes of a stream that breaks when its client has begun to see it. A route's `midstream` decides.

`fail`: the client is told. `restart`: while nothing was shown, another attempt answers. `continue`: another goes on
from what was shown. `buffer`: nothing is shown before all of it is here. Whatever is joined is marked in a comment.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import msgspec
from msgspec import Raw

from gateway.core.call import Body, Call
from gateway.core.errors import Broke, GatewayError, Rejected, UpstreamFailed
from gateway.core.receipt import Why
from gateway.core.reply import Chunk, Reply
from gateway.core.route import Deployment, Prefill
from gateway.core.usage import Usage
from gateway.middleware.tries import Ask, Begun, Place, Tries
from gateway.wire.estimate import text_tokens
from gateway.wire.splice import Splice, calls_tools, head_of, seam

MOST_HELD_BYTES = 16 * 1024 * 1024
"""What a buffered answer may take of our memory; a longer one is shown as it comes from there on."""

GO_ON = (
    "Your answer above was cut off by a technical fault. Go on exactly where it stops: begin with the very next "
    "character, repeat nothing of it, and say nothing about the interruption."
)


async def hold(reply: Reply) -> Reply:
    """Return a stream when all of it is here.

    Raises:
        UpstreamFailed: it broke; nobody has seen anything of it.
    """
    rest = reply.rest
    assert rest is not None
    kept, size = [reply.first], len(reply.first.data)
    async for chunk in rest:
        kept.append(chunk)
        size += len(chunk.data)
        if size > MOST_HELD_BYTES:
            return Reply(kept[0], _going_on(kept[1:], rest))
    return Reply.of(*kept)


async def _going_on(kept: list[Chunk], rest: AsyncGenerator[Chunk, None]) -> AsyncGenerator[Chunk, None]:
    async with aclosing(rest):
        for chunk in kept:
            yield chunk
        async for chunk in rest:
            yield chunk


async def rescued(
    call: Call, begun: Begun, tries: Tries, *, ask: Ask, prefill: Callable[[Deployment], Prefill]
) -> AsyncGenerator[Chunk, None]:
    """Yield the chunks behind the first of `begun`, and when it breaks those of another attempt.

    Raises:
        Broke: nobody could go on, or nobody may.
    """
    rescue = Rescue(call, begun.reply.first, tries, ask, prefill)
    first = False
    while True:
        rest = begun.reply.rest
        try:
            if first:
                yield rescue.mark(begun)
                yield rescue.pass_on(begun.reply.first)
            if rest is not None:
                async with aclosing(rest):
                    async for chunk in rest:
                        yield rescue.pass_on(chunk)
            return
        except Broke as broke:
            begun, first = await rescue.again(begun, broke), True


class Rescue:
    """What was shown of one stream, and how to go on from there."""

    def __init__(
        self, call: Call, first: Chunk, tries: Tries, ask: Ask, prefill: Callable[[Deployment], Prefill]
    ) -> None:
        self._call = call
        self._tries = tries
        self._ask = ask
        self._prefill = prefill
        self._head = head_of(first)
        self._text = ""
        self._reasoned = False
        self._is_free_text = _is_free_text(call.body)
        self._used: Usage | None = None
        self._splice: Splice | None = None
        self._note(first)

    def pass_on(self, chunk: Chunk) -> Chunk:
        """Return a chunk as the client is to see it, and remember what it says."""
        if self._splice is not None:
            chunk = self._splice(chunk)
        self._note(chunk)
        return chunk

    def mark(self, begun: Begun) -> Chunk:
        """Return the comment that tells where the next attempt begins."""
        did = "continued" if begun.attempt.tried.why == "continue" else "restarted"
        return seam(f"{did} by {begun.place.deployment.name} after {len(self._text)} characters")

    async def again(self, begun: Begun, broke: Broke) -> Begun:
        """Return the attempt that goes on.

        Raises:
            Broke: `broke`, because there is none.
        """
        await begun.attempt.over(broke)
        why = self._way()
        if why is None:
            raise broke
        try:
            self._tries.failed(begun.place, broke)
            after = await self._after(broke, why)
        except GatewayError as error:
            raise broke from error
        begun.attempt.tried.wasted = why == "restart"
        if why == "continue" and begun.attempt.tried.usage is not None:
            used = begun.attempt.tried.usage
            self._used = used if self._used is None else self._used + used
        self._splice = Splice(self._head, shown=self._text, before=self._used)
        return after

    async def _after(self, failure: UpstreamFailed, why: Why) -> Begun:
        """Return the first attempt that begins to answer.

        Raises:
            UpstreamFailed: none does.
        """
        while True:
            place = await self._tries.next_place(failure)
            begun = await self._try(place, why)
            if isinstance(begun, Begun):
                return begun
            failure = begun

    async def _try(self, place: Place, why: Why) -> Begun | UpstreamFailed:
        """Ask a place to go on, by prefill where it is known to take one, and if it does not after all, in words."""
        if why == "restart":
            return await self._ask(self._call, place, why)
        prefill = "none" if place.refuses_prefill else self._prefill(place.deployment)
        try:
            return await self._ask(self._going_on(prefill), place, why)
        except Rejected:
            if prefill == "none" or not self._tries.once_more():
                raise
            place.refuses_prefill = True
            return await self._ask(self._going_on("none"), place, why)

    def _note(self, chunk: Chunk) -> None:
        self._text += chunk.text
        if chunk.silent:
            return
        if calls_tools(chunk) or not (chunk.text or chunk.unseen):
            self._is_free_text = False  # a refusal, a picture, a finish: nothing that one could go on from
        elif not chunk.text:
            self._reasoned = True

    def _way(self) -> Why | None:
        """Return how to go on; `None`: the client has seen what no other attempt can go on from."""
        if not self._is_free_text:
            return None
        continues = self._tries.route.midstream == "continue"
        if not self._text.strip() and (continues or not self._reasoned):
            return "restart"
        return "continue" if continues else None

    def _going_on(self, prefill: Prefill) -> Call:
        """Return the call whose answer goes on from what was shown."""
        said: dict[str, Any] = {"role": "assistant", "content": self._text}
        messages = [said]
        if prefill == "none":
            messages.append({"role": "user", "content": GO_ON})
        else:
            said["content"] = self._text.rstrip()  # Anthropic rejects white space at the end
            if prefill == "prefix":
                said["prefix"] = True
        fields = dict(self._call.body.fields)
        asked = bytes(fields["messages"]).rstrip().removesuffix(b"]")
        fields["messages"] = Raw(asked + b"," + msgspec.json.encode(messages)[1:])
        for name in ("max_tokens", "max_completion_tokens"):
            most = self._call.body.get(name, int | None)
            if most is not None:
                fields[name] = Raw(b"%d" % max(1, most - text_tokens(len(self._text))))
        return self._call.but(body=Body(msgspec.json.encode(fields), fields))


def _is_free_text(body: Body) -> bool:
    """Tell whether the answer is one text in no format but its own."""
    form = body.get("response_format")
    return form in (None, {"type": "text"}) and body.get("n") in (None, 1)
