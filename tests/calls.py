"""Calls as rooms meet them, made without a server."""

from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import msgspec

from gateway.core.call import Body, Call, Headers
from gateway.core.principal import ANYONE, Principal
from gateway.core.receipt import Receipt
from gateway.core.reply import Chunk, Reply
from gateway.core.route import Deployment, Route
from tests.standins import StillClock as FakeClock

__all__ = ["FakeClock", "a_body", "a_call", "chunks_of"]

ROUTE = Route("fast", (Deployment("openai/gpt-4o-mini", "openai", "gpt-4o-mini"),))
QUESTION = {"model": "fast", "messages": [{"role": "user", "content": "2 + 2?"}]}

_ids = count(1)


async def chunks_of(reply: Reply) -> AsyncIterator[Chunk]:
    """Yield every chunk of an answer, the first included."""
    yield reply.first
    if reply.rest is not None:
        async for chunk in reply.rest:
            yield chunk


def a_body(**fields: Any) -> Body:
    """Return a chat request's body: a question, and `fields` on top of it (`None` takes one away)."""
    said = {name: value for name, value in {**QUESTION, **fields}.items() if value is not None}
    raw = msgspec.json.encode(said)
    return Body(raw, msgspec.json.decode(raw, type=dict[str, msgspec.Raw]))


def a_call(
    *,
    clock: FakeClock | None = None,
    body: Body | None = None,
    principal: Principal = ANYONE,
    headers: dict[str, str] | None = None,
    **changes: Any,
) -> Call:
    """Return a chat call for the route `fast`, with an id of its own; `changes` are fields of `Call`."""
    clock = clock or FakeClock()
    id = f"call-{next(_ids)}"
    call = Call(
        id=id,
        operation="chat",
        surface="chat",
        model="fast",
        stream=False,
        body=body or a_body(),
        headers=Headers({name.encode(): value.encode() for name, value in (headers or {}).items()}),
        receipt=Receipt(id, "fast", "fast", principal),
        deadline_s=clock.now() + 60,
        clock=clock,
        route=ROUTE,
        principal=principal,
    )
    return call.but(**changes)
