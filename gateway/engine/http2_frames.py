"""What comes over an HTTP/2 connection, as h2's events, but for two things that h2 takes otherwise than we want.

With GOAWAY a connection is over for h2, though RFC 9113 §6.8 has the calls that the upstream has taken go on to their
end: it is read here, and h2 does not see it. And a frame that is too long is refused when its head is here, not when
the gateway's memory holds all of it.
"""

from collections.abc import Iterator

from h2 import events
from h2.connection import H2Connection
from h2.exceptions import FrameTooLargeError
from msgspec import Struct

HEAD_BYTES = 9
"""Of a frame: three for its length, its kind, its flags, and four for its stream. RFC 9113 §4.1."""
GOAWAY = 7
GOAWAY_BYTES = 8
"""At least: the last stream that was taken, and why."""


class GoneAway(Struct, frozen=True):
    """The upstream takes no more requests on this connection."""

    last: int
    """The last stream that it has taken, or may have."""


class Frames:
    """The frames of one connection."""

    def __init__(self, h2: H2Connection) -> None:
        self._h2 = h2
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[events.Event | GoneAway]:
        """Yield what `data` completes.

        Raises:
            ProtocolError: it is no HTTP/2, or none that is allowed here.
        """
        data = self._rest + data
        begin = at = 0
        while len(data) - at >= HEAD_BYTES:
            length = int.from_bytes(data[at : at + 3])
            if length > self._h2.max_inbound_frame_size:
                raise FrameTooLargeError(f"a frame of {length} bytes")
            end = at + HEAD_BYTES + length
            if end > len(data):
                break
            if data[at + 3] == GOAWAY and length >= GOAWAY_BYTES:
                yield from self._h2.receive_data(data[begin:at])
                yield GoneAway(int.from_bytes(data[at + 9 : at + 13]) & 0x7FFFFFFF)
                begin = end
            at = end
        self._rest = data[at:]
        yield from self._h2.receive_data(data[begin:at])
