"""Newline-delimited JSON, cut from bytes that come in pieces of any size: each line that is not blank is an event."""

from gateway.wire import sse


class Splitter:
    r"""Feed it bytes as they come; it returns whole lines, without their `\n` or `\r\n`.

    Of the same shape as `sse.Splitter`, with the same limit. Bytes stay bytes, so UTF-8 may be cut anywhere.
    """

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[sse.Event]:
        """Return the lines that `data` completes.

        Raises:
            sse.EventTooLong: see `sse.MAX_EVENT_BYTES`.
        """
        self._size += len(data)
        if self._size > sse.MAX_EVENT_BYTES:
            raise sse.EventTooLong(f"a line of more than {sse.MAX_EVENT_BYTES} bytes")
        if b"\n" not in data:
            self._rest.append(data)
            return []
        *lines, rest = (b"".join(self._rest) + data).split(b"\n")
        self._rest, self._size = [rest], len(rest)
        return [sse.Event(stripped) for line in lines if (stripped := line.strip())]

    def end(self) -> list[sse.Event]:
        """Return what was left without its newline."""
        left = b"".join(self._rest).strip()
        self._rest, self._size = [], 0
        return [sse.Event(left)] if left else []
