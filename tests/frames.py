"""Messages of AWS's event stream, as Bedrock writes them, from lines that people can read.

A line is what a message is (`event`, `exception`, `error`), its name, and its payload:

    event messageStop {"stopReason": "end_turn"}
    exception throttlingException {"message": "slow down"}

Of an `error` the rest of the line is its message, for it has no payload.
"""

import struct
from zlib import crc32

JSON = {":content-type": "application/json"}


def message(kind: str, name: str, payload: bytes) -> bytes:
    """Return one message."""
    headers = {
        "event": {":event-type": name, **JSON},
        "exception": {":exception-type": name, **JSON},
        "error": {":error-code": name, ":error-message": payload.decode()},
    }
    return framed({**headers.get(kind, {}), ":message-type": kind}, b"" if kind == "error" else payload)


def framed(headers: dict[str, str], payload: bytes) -> bytes:
    """Return a message with these headers."""
    return framed_raw(
        b"".join(header(name, b"\x07" + sized(value.encode())) for name, value in headers.items()), payload
    )


def header(name: str, typed: bytes) -> bytes:
    """Return a header; `typed` is the type of its value and the value."""
    return bytes([len(name)]) + name.encode() + typed


def sized(value: bytes) -> bytes:
    """Return a value of variable length."""
    return struct.pack(">H", len(value)) + value


def framed_raw(headers: bytes, payload: bytes) -> bytes:
    """Return a message with these bytes as its headers."""
    prelude = struct.pack(">II", len(headers) + len(payload) + 16, len(headers))
    said = prelude + struct.pack(">I", crc32(prelude)) + headers + payload
    return said + struct.pack(">I", crc32(said))


def split_line(line: str) -> tuple[str, str, bytes]:
    """Return what a line says: kind, name, payload."""
    kind, name, payload = line.split(" ", 2)
    return kind, name, payload.encode()


def messages(text: str) -> list[bytes]:
    """Return the messages that the lines of `text` say."""
    return [message(*split_line(line)) for line in text.splitlines()]
