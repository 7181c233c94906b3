"""What a client surface is: how its requests are read, and how its answers and errors are written."""

from typing import Protocol

from gateway.core.call import Body, Call
from gateway.core.errors import GatewayError
from gateway.core.reply import Chunk
from gateway.wire.events import Event


class Writer(Protocol):
    """Writes neutral events for a client, as a stream or as a whole answer. Made anew for each answer."""

    def stream(self, events: list[Event]) -> list[Chunk]:
        """Return the chunks that say `events`."""
        ...

    def end(self) -> list[Chunk]:
        """Return the last words of a stream that ended well; asked once."""
        ...

    def whole(self, events: list[Event]) -> Chunk:
        """Return the whole answer that `events` tell."""
        ...


class ClientSurface(Protocol):
    """One dialect that clients speak."""

    def chat_body(self, body: Body) -> Body:
        """Return a request as one for a chat completion.

        Raises:
            BadRequest: it says what no chat completion can.
        """
        ...

    def writer(self, call: Call) -> Writer:
        """Return a writer for the answer to `call`."""
        ...

    def error_body(self, error: GatewayError, call_id: str) -> bytes:
        """Return an error as an answer."""
        ...

    def error_event(self, error: GatewayError, call_id: str) -> bytes:
        """Return an error within a stream: what is said instead of an end when it cannot go on."""
        ...

    @property
    def id_header(self) -> str:
        """The header in which clients look for a call's id, besides `x-request-id`; empty: no other."""
        ...

    @property
    def done(self) -> bytes:
        """What stands behind the last chunk of a stream that ended well."""
        ...
