"""A stream of another surface, asked for and joined as a chat completion, and written for its client at the end.

Only chunks of chat completions can be joined. So where a route joins what breaks (`midstream`), its streams are chat
completions all the way, also to an upstream that speaks the client's surface itself.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from gateway.core.call import Call
from gateway.core.errors import BadRequest
from gateway.core.middleware import Handler
from gateway.core.reply import Chunk, Reply
from gateway.wire.chat_events import ChatDecoder
from gateway.wire.surface import ClientSurface, Writer
from gateway.wire.surfaces import SURFACES


def as_chat(call: Call) -> Call | None:
    """Return a call as one for a chat completion; `None`: it says what no chat completion can, or is one already."""
    if call.surface == "chat":
        return None
    try:
        body = SURFACES[call.surface].chat_body(call.body)
    except BadRequest:
        return None
    return call.but(surface="chat", body=body, wants_usage=True, translated=True)


async def through_chat(call: Call, chat: Call, next: Handler) -> Reply:
    """Return the reply to `chat`, written for the client of `call`."""
    surface: ClientSurface = SURFACES[call.surface]
    written = _written(await next(chat), surface.writer(call))
    return Reply(await anext(written), written)


async def _written(reply: Reply, writer: Writer) -> AsyncGenerator[Chunk, None]:
    """Yield what a stream says, in the client's surface; comments, such as a joint's, as they are."""
    decoder = ChatDecoder()
    async with aclosing(_each(reply)) as chunks:
        async for chunk in chunks:
            if chunk.data.startswith(b":"):
                yield chunk
                continue
            for piece in writer.stream(decoder.feed(chunk)):
                yield piece
    for piece in writer.end():
        yield piece


async def _each(reply: Reply) -> AsyncGenerator[Chunk, None]:
    yield reply.first
    if reply.rest is not None:
        async with aclosing(reply.rest) as rest:
            async for chunk in rest:
                yield chunk
