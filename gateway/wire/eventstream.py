"""AWS's event stream (`application/vnd.amazon.eventstream`), cut from bytes that come in pieces of any size.

A message is its length and that of its headers (four bytes each, big-endian), the CRC-32 of these eight bytes, the
headers, the payload, and the CRC-32 of all before it. Source: smithy.io, "Amazon Event Stream Specification".
"""

import struct
from zlib import crc32

from msgspec import Struct

MAX_MESSAGE_BYTES = 24 * 1024 * 1024
"""AWS sends no longer ones; a length beyond it must not make us wait, and fill our memory."""
PRELUDE_BYTES = 12
CRC_BYTES = 4

STRING = 7
"""The type of a header's value; as in `BYTES`, its length (two bytes) stands before it."""
BYTES = 6
SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Of the other types: true, false, integers of four sizes, timestamp, UUID."""


class Message(Struct, frozen=True):
    """One message. Of its headers, those whose value is text: AWS names the message in them and says its type."""

    headers: dict[str, str]
    payload: bytes


class Damaged(ValueError):
    """The bytes are no event stream, or were changed on their way: where the next message begins is not known."""


class Splitter:
    """Feed it bytes as they come; it returns whole messages, each checked."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._damage: Damaged | None = None

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that `data` completes.

        Raises:
            Damaged: at once when no message stands before the damage, else at the next call, and ever after.
        """
        if self._damage is not None:
            raise self._damage
        self._rest += data
        messages: list[Message] = []
        begin = 0
        try:
            while end := self._end(begin):
                messages.append(_message(bytes(self._rest[begin:end])))
                begin = end
        except Damaged as damage:
            self._damage = damage
            self._rest.clear()
            if not messages:
                raise
            return messages
        del self._rest[:begin]
        return messages

    def end(self) -> list[Message]:
        """Return nothing, for half a message is none.

        Raises:
            Damaged: as `feed`.
        """
        if self._damage is not None:
            raise self._damage
        return []

    def _end(self, begin: int) -> int:
        """Return where the message that begins at `begin` ends; 0: it is not whole yet."""
        if len(self._rest) - begin < PRELUDE_BYTES:
            return 0
        length, headers_length, crc = struct.unpack_from(">III", self._rest, begin)
        if crc32(self._rest[begin : begin + 8]) != crc:
            raise Damaged("bytes that are no event stream, or a damaged one (CRC of a prelude)")
        if length > MAX_MESSAGE_BYTES:
            raise Damaged(f"a message of more than {MAX_MESSAGE_BYTES} bytes")
        if length < PRELUDE_BYTES + headers_length + CRC_BYTES:
            raise Damaged("a message that is shorter than its headers")
        end = begin + length
        return end if len(self._rest) >= end else 0


def _message(data: bytes) -> Message:
    payload = PRELUDE_BYTES + int.from_bytes(data[4:8])
    if crc32(data[:-CRC_BYTES]) != int.from_bytes(data[-CRC_BYTES:]):
        raise Damaged("a damaged message (CRC)")
    return Message(_headers(data[PRELUDE_BYTES:payload]), data[payload:-CRC_BYTES])


def _headers(data: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    at = 0
    try:
        while at < len(data):
            name_end = at + 1 + data[at]
            name, type_ = data[at + 1 : name_end].decode(), data[name_end]
            at = name_end + 1
            if type_ in (STRING, BYTES):
                begin = at + 2
                at = begin + int.from_bytes(data[at:begin])
                if type_ == STRING:
                    headers[name] = data[begin:at].decode()
            else:
                at += SIZES[type_]
    except (IndexError, KeyError, UnicodeDecodeError):
        raise Damaged("a message whose headers cannot be read") from None
    if at != len(data):
        raise Damaged("a message whose headers cannot be read")
    return headers
