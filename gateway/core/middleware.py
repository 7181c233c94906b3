"""The one shape of a middleware, and how many become one handler."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

from gateway.core.call import Call
from gateway.core.reply import Reply

Handler = Callable[[Call], Awaitable[Reply]]


class Middleware(Protocol):
    """Sees the call go in and the reply come out. Streams and whole answers look the same here."""

    def __call__(self, call: Call, next: Handler) -> Awaitable[Reply]:
        """Return the reply of `next`, or one of its own: `async def`, unless nothing has to wait for the reply.

        Raises:
            GatewayError: no answer began.
        """
        ...


@runtime_checkable
class Explains(Protocol):
    """A middleware that can tell what it would do with a call, without doing it."""

    async def explain(self, call: Call) -> Mapping[str, object]:
        """Return it as plain values, ready to be printed."""
        ...


def chain(middlewares: Sequence[Middleware], last: Handler) -> Handler:
    """Wrap `last` in `middlewares`, the first outermost."""
    handler = last
    for middleware in reversed(middlewares):
        handler = partial(middleware, next=handler)
    return handler
