"""ConverseStream's messages as events that say by themselves what they are."""

import msgspec
from msgspec import Struct

from gateway.providers.failures import error_object
from gateway.wire import eventstream


class Framed(Struct, frozen=True):
    """One event; `data` is JSON."""

    data: bytes


class Frames:
    """Cuts bytes into events, as AWS's own SDKs show them: `{"messageStop": {…}}`.

    AWS's two kinds of error both become `{"exception": name, "said": {…}}`.
    """

    def __init__(self) -> None:
        self._splitter = eventstream.Splitter()

    def feed(self, data: bytes) -> list[Framed]:
        """Return the events that `data` completes.

        Raises:
            Damaged: see `eventstream.Splitter`.
        """
        return [Framed(_telling(message)) for message in self._splitter.feed(data)]

    def end(self) -> list[Framed]:
        """Return what is left: nothing.

        Raises:
            Damaged: see `eventstream.Splitter`.
        """
        return [Framed(_telling(message)) for message in self._splitter.end()]


def _telling(message: eventstream.Message) -> bytes:
    """Return a message as JSON: of an event, its payload as it came; empty: it is of a kind yet unknown."""
    headers = message.headers
    match headers.get(":message-type"):
        case "event":
            return b"{%b:%b}" % (msgspec.json.encode(headers.get(":event-type", "")), message.payload)
        case "exception":
            said = {"exception": headers.get(":exception-type", ""), "said": error_object(message.payload)}
            return msgspec.json.encode(said)
        case "error":
            error = {"message": headers.get(":error-message", "")}
            return msgspec.json.encode({"exception": headers.get(":error-code", ""), "said": error})
        case _:
            return b""
