"""Server-sent events, cut from bytes that come in pieces of any size."""

from msgspec import Struct

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""A longer event is no event: an upstream that never ends a line must not fill our memory."""


class Event(Struct, frozen=True):
    """One event. `name` is empty when the upstream gave none."""

    data: bytes
    name: bytes = b""


class EventTooLong(ValueError):
    """More bytes came without an event's end than an event may have."""


class Splitter:
    r"""Feed it bytes as they come; it returns whole events.

    Lines end in `\n`, `\r\n` or `\r`, also when a piece ends between the two; comments, `id` and `retry` are dropped;
    several `data` lines are joined; an event without data is none. Bytes stay bytes, so UTF-8 may be cut anywhere.
    """

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._name = b""
        self._data: list[bytes] = []
        self._after_cr = False
        self._size = 0

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that `data` completes.

        Raises:
            EventTooLong: see `MAX_EVENT_BYTES`.
        """
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if data.find(b"\r") >= 0:  # `in` raises and drops a TypeError first: four times as long
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self._size += len(data)
        if self._size > MAX_EVENT_BYTES:
            raise EventTooLong(f"an event of more than {MAX_EVENT_BYTES} bytes")
        if data.endswith(b"\n\n") and self.is_between():
            self._size = 0
            return self._whole(data)
        if data.find(b"\n") < 0:
            self._rest.append(data)
            return []
        *lines, rest = (b"".join(self._rest) + data).split(b"\n")
        self._rest = [rest] if rest else []
        return self._lines(lines)

    def is_between(self) -> bool:
        """Tell whether an event would begin with what comes next."""
        return not (self._rest or self._data or self._name or self._after_cr)

    def _whole(self, data: bytes) -> list[Event]:
        """Return the events of bytes that begin with one and end with one, as most pieces do."""
        events: list[Event] = []
        for said in data[:-2].split(b"\n\n"):
            if said.startswith(b"data: ") and said.find(b"\n") < 0:
                events.append(Event(said[6:]))
            else:
                events += self._lines([*said.split(b"\n"), b""])
        return events

    def _lines(self, lines: list[bytes]) -> list[Event]:
        events: list[Event] = []
        for line in lines:
            if line:
                self._line(line)
            elif (event := self._event()) is not None:
                events.append(event)
        return events

    def end(self) -> list[Event]:
        """Return what was left without its final blank line."""
        self._line(b"".join(self._rest))
        self._rest = []
        event = self._event()
        return [] if event is None else [event]

    def _line(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line.startswith(b"event:"):
            self._name = line[6:].strip()

    def _event(self) -> Event | None:
        data, name = self._data, self._name
        self._data, self._name, self._size = [], b"", sum(map(len, self._rest))
        return Event(data[0] if len(data) == 1 else b"\n".join(data), name) if data else None
