"""What becomes of a stream that breaks when its client has begun to see it. A route's `midstream` decides.

`fail`: the client is told. `restart`: while nothing was shown, another attempt answers. `continue`: another goes on
from what was shown; from thoughts alone nobody can, so it answers anew. `buffer`: nothing is shown before all of it is
here. Whatever is joined is marked in a comment.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import msgspec
from msgspec import Raw

from gateway.core.call import Body, Call
from gateway.core.errors import TOO_LONG, BadRequest, Broke, GatewayError, Rejected, UpstreamFailed
from gateway.core.receipt import Why
from gateway.core.reply import Chunk, Chunks, Reply
from gateway.core.route import Deployment, Prefill
from gateway.core.usage import Usage
from gateway.middleware.tries import Ask, Begun, Place, Tries
from gateway.wire.estimate import text_tokens
from gateway.wire.splice import Splice, head_of, is_bound, seam

MOST_HELD_BYTES = 16 * 1024 * 1024
"""What a buffered answer may take of our memory; a longer one is shown as it comes from there on."""
MOST_CONTINUED_CHARS = 1_000_000
"""A longer answer is not gone on from: it would have to be kept here, and sent along with the question."""

GO_ON = (
    "Your answer above was cut off by a technical fault. Go on exactly where it stops: begin with the very next "
    "character, repeat nothing of it, and say nothing about the interruption."
)


async def hold(begun: Begun, tries: Tries) -> Begun | UpstreamFailed:
    """Return the answer when all of it is here, or why it never was.

    Raises:
        UpstreamFailed: no other attempt can help.
    """
    try:
        begun.reply = await _all_of(begun.reply)
    except Broke as broke:
        # Nobody has seen anything of it: it did not break, it failed, by whatever broke it.
        failure = broke.__cause__ if isinstance(broke.__cause__, UpstreamFailed) else broke
        await begun.attempt.over(failure)
        begun.attempt.tried.wasted = True
        tries.failed(begun.place, failure)
        return failure
    return begun


async def _all_of(reply: Reply) -> Reply:
    if reply.rest is None:
        return reply
    kept, size = [reply.first], len(reply.first.data)
    async for chunk in reply.rest:
        kept.append(chunk)
        size += len(chunk.data)
        if size > MOST_HELD_BYTES:
            return Reply(kept[0], _going_on(kept[1:], reply.rest))
    return Reply.of(*kept)


async def _going_on(kept: list[Chunk], rest: Chunks) -> AsyncGenerator[Chunk, None]:
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
    before: list[Chunk] = []
    while True:
        rest = begun.reply.rest
        try:
            async with aclosing(rest or _nothing()) as chunks:
                for chunk in before:
                    yield chunk
                async for chunk in chunks:
                    yield rescue.pass_on(chunk)
            return
        except Broke as broke:
            begun = await rescue.again(begun, broke)
            before = [rescue.mark(begun), rescue.pass_on(begun.reply.first)]


async def _nothing() -> AsyncGenerator[Chunk, None]:
    for chunk in ():
        yield chunk


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
        self._shown: list[str] = []
        self._chars = 0
        self._thoughtful = False
        self._is_open = _is_free_text(call.body)
        """What was shown leaves it to others how to go on."""
        self._used: Usage | None = None
        self._echoes = False
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
        return seam(f"{did} by {begun.place.deployment.name} after {self._chars} characters")

    async def again(self, begun: Begun, broke: Broke) -> Begun:
        """Return the attempt that goes on.

        Raises:
            Broke: `broke`, because there is none.
        """
        await begun.attempt.over(broke)
        if not self._is_open:
            raise broke
        text, tried = "".join(self._shown), begun.attempt.tried
        why: Why = "continue" if text.strip() else "restart"
        try:
            self._tries.failed(begun.place, broke)
            after = await self._after(broke, why, text)
        except GatewayError as error:
            if error is broke:
                raise
            raise broke from error
        tried.wasted = why == "restart"
        if why == "continue" and tried.usage is not None:
            self._used = tried.usage if self._used is None else self._used + tried.usage
        self._splice = Splice(
            self._head, shown=text, echoes=self._echoes, thoughtful=self._thoughtful, before=self._used
        )
        return after

    async def _after(self, failure: UpstreamFailed, why: Why, text: str) -> Begun:
        """Return the first attempt that begins to answer.

        Raises:
            GatewayError: none does.
        """
        while True:
            place = await self._tries.next_place(failure)
            begun = await (self._ask(self._call, place, why) if why == "restart" else self._continued(place, text))
            if isinstance(begun, Begun):
                return begun
            failure = begun

    async def _continued(self, place: Place, text: str) -> Begun | UpstreamFailed:
        """Ask a place to go on, by prefill where it is known to take one, and if it does not after all, in words."""
        prefill = "none" if place.refuses_prefill else self._prefill(place.deployment)
        self._echoes = prefill == "prefix"
        try:
            return await self._ask(_going_on_from(self._call, text, prefill), place, "continue")
        except (Rejected, BadRequest) as refusal:
            if prefill == "none" or refusal.code == TOO_LONG or not self._tries.once_more():
                raise
        place.refuses_prefill, self._echoes = True, False
        return await self._ask(_going_on_from(self._call, text, "none"), place, "continue")

    def _note(self, chunk: Chunk) -> None:
        """Remember what a chunk shows, for as long as somebody may have to go on from it."""
        if chunk.silent or not self._is_open:
            return
        self._shown.append(chunk.text)
        self._chars += len(chunk.text)
        thinks = bool(chunk.unseen) or not chunk.text
        self._thoughtful = self._thoughtful or thinks
        too_late = self._tries.route.midstream == "restart" and (thinks or not chunk.text.isspace())
        if too_late or self._chars > MOST_CONTINUED_CHARS or is_bound(chunk):
            self._is_open = False
            self._shown.clear()


def _going_on_from(call: Call, text: str, prefill: Prefill) -> Call:
    """Return the call whose answer goes on from `text`."""
    said: dict[str, Any] = {"role": "assistant", "content": text}
    messages = [said]
    if prefill == "none":
        messages.append({"role": "user", "content": GO_ON})
    else:
        said["content"] = text.rstrip()  # Anthropic rejects white space at the end
        if prefill == "prefix":
            said["prefix"] = True
    fields = dict(call.body.fields)
    asked = bytes(fields["messages"]).rstrip().removesuffix(b"]")
    fields["messages"] = Raw(asked + b"," + msgspec.json.encode(messages)[1:])
    for name in ("max_tokens", "max_completion_tokens"):
        most = call.body.get(name, int | None)
        if most is not None:
            fields[name] = Raw(b"%d" % max(1, most - text_tokens(len(text))))
    return call.but(body=Body(msgspec.json.encode(fields), fields))


def _is_free_text(body: Body) -> bool:
    """Tell whether the answer is one text in no format but its own."""
    form = body.get("response_format")
    return form in (None, {"type": "text"}) and body.get("n") in (None, 1)
