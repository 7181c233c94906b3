"""Reads a streamed answer of any dialect: splitter, decoder and writer, joined.

A decoder is pure, events in and neutral events out, so that every client surface can be written from it. What must
hold for all dialects is said here once: an answer is complete only when its dialect says so, whatever came before an
error is delivered before the error is raised, however the bytes were cut, and nothing is left out in silence.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

from gateway.core.errors import Broke, Unreachable, UpstreamFailed
from gateway.core.reply import Chunk
from gateway.core.usage import Usage
from gateway.providers.base import used_so_far
from gateway.providers.failures import UNREADABLE
from gateway.providers.skipping import MOST_SKIPPED, SKIPPED, lost
from gateway.wire import sse
from gateway.wire.events import Ended, Event, ToolArgued, ToolBegan

MAX_STRAY = 64 * 1024
"""Bytes behind the last event that are looked through for an error that no event carries."""


class Framed(Protocol):
    """An event, cut from the bytes around it."""

    @property
    def data(self) -> bytes:
        """What it says; empty: nothing."""
        ...


class Splitter(Protocol):
    """Cuts bytes into events, in whatever pieces they come: `sse.Splitter`, and others of its shape."""

    def feed(self, data: bytes) -> Sequence[Framed]:
        """Return the events that `data` completes.

        Raises:
            ValueError: there is no event in it, nor will there be; the message says what "the upstream sent".
        """
        ...

    def end(self) -> Sequence[Framed]:
        """Return what may be an event, though its end is missing.

        Raises:
            ValueError: as `feed`, which would have at its next call.
        """
        ...


class Decoder(Protocol):
    """Turns one upstream's events into neutral ones. `Began` comes first and once, `Ended` and `Counted` at the end."""

    def feed(self, data: bytes) -> list[Event]:
        """Return what the data of one event says; nothing for an event of an unknown type.

        Raises:
            UpstreamFailed: it is an error.
            msgspec.DecodeError: it is not what the dialect writes.
        """
        ...

    def end(self) -> list[Event]:
        """Return what the end of the stream completes: nothing while the answer lacks its end."""
        ...

    def lose(self) -> None:
        """Go on without an event that may have said anything: what now is missing must not be filled in."""
        ...

    @property
    def complete(self) -> bool:
        """Why the answer ends was seen."""
        ...

    @property
    def finished(self) -> bool:
        """The dialect's last event was seen."""
        ...


class Writer(Protocol):
    """Writes neutral events for a client surface."""

    def stream(self, events: list[Event]) -> list[Chunk]:
        """Return the chunks that say `events`."""
        ...


class EventReader:
    """A provider's `Reader`, made of a decoder for its upstream and a writer for its client.

    Args:
        decoder: of this stream alone.
        writer: of this stream alone.
        splitter: of this stream alone; server-sent events when left out.
        exact: no event may be skipped; see `must_be_exact`.
    """

    def __init__(
        self, decoder: Decoder, writer: Writer, *, splitter: Splitter | None = None, exact: bool = False
    ) -> None:
        self._decoder = decoder
        self._writer = writer
        self._exact = exact
        self._called = False
        self._skipped = 0
        self._lost = False
        """What was skipped may have been a part of the answer."""
        self._splitter: Splitter = splitter or sse.Splitter()
        self._tail = b""
        self._spoke = False
        self._ended = False
        self._failure: UpstreamFailed | None = None

    @property
    def so_far(self) -> Usage | None:
        """What was used by now, where the dialect says it early."""
        return used_so_far(self._decoder)

    @property
    def complete(self) -> bool:
        """Why the answer ends was seen."""
        return self._failure is None and self._decoder.complete

    @property
    def finished(self) -> bool:
        """The answer's last event was seen, or it has failed."""
        return self._decoder.finished or self._failure is not None

    def feed(self, data: bytes) -> list[Chunk]:
        """Return the chunks that `data` completes.

        Raises:
            UpstreamFailed: the upstream says so, or sent what cannot be read where none may be missing.
        """
        if self._failure is not None:
            raise self._failure
        try:
            events = self._splitter.feed(data)
        except ValueError as damage:
            self._give_up(damage)
            return []
        self._tail = data if events else (self._tail + data)[-MAX_STRAY:]
        return self._chunks(events)

    def end(self) -> list[Chunk]:
        """Return what the end of the stream completes.

        Raises:
            Broke: the stream ended before the answer did.
            UpstreamFailed: it says why, or it ended before it said anything.
        """
        if self._failure is not None:
            raise self._failure
        chunks: list[Chunk] = []
        left: Sequence[Framed] = ()
        try:
            left = self._splitter.end()
        except ValueError as damage:
            self._give_up(damage)
        if not self._decoder.finished and left and _is_json(left[0].data):
            chunks = self._chunks(left)
            if self._failure is not None:
                raise self._failure
        chunks += self._written(self._believed(self._decoder.end()))
        if not self._ended:
            self._failure = self._cut_off()
            raise self._failure
        return chunks

    def _chunks(self, events: Sequence[Framed]) -> list[Chunk]:
        """Decode and write `events`; an error behind something that was said waits for the next call."""
        chunks: list[Chunk] = []
        said: list[Event] = []
        for event in events:
            if self.finished:
                break
            try:
                said += self._believed(self._decoder.feed(event.data) if event.data else [])
            except UpstreamFailed as error:
                self._failure = error
            except UNREADABLE:
                chunks += [*self._written(said), *self._skip()]
                said = []
        chunks += self._written(said)
        if self._failure is not None and not chunks:
            raise self._failure
        return chunks

    def _give_up(self, damage: ValueError) -> None:
        """Fail, for no event can be told from the next any more; unless the answer was complete before."""
        if not self._decoder.complete:
            self._failure = Unreachable(f"the upstream sent {damage}")
            raise self._failure from None

    def _skip(self) -> list[Chunk]:
        """Go on without an event that cannot be read, or fail if the answer may need it."""
        self._skipped += 1
        needed = not self._decoder.complete
        if self._skipped > MOST_SKIPPED or (needed and (self._exact or self._called)):
            self._failure = lost()
            return []
        if needed:
            self._lost = True
            self._decoder.lose()
        return [SKIPPED]

    def _believed(self, events: list[Event]) -> list[Event]:
        """Return `events`, unless they call a tool and a call, or the beginning of this one, may have been lost.

        Raises:
            Unreachable: they do.
        """
        if any(_calls(event) for event in events):
            self._called = True
            if self._lost:
                raise lost()
        return events

    def _written(self, events: list[Event]) -> list[Chunk]:
        self._ended = self._ended or any(isinstance(event, Ended) for event in events)
        chunks = self._writer.stream(events) if events else []
        self._spoke = self._spoke or any(not chunk.silent for chunk in chunks)
        return chunks

    def _cut_off(self) -> UpstreamFailed:
        """Return why there is no more: the error behind the last event, if there is one."""
        for stray in _strays(self._tail):
            try:
                self._decoder.feed(stray)
            except UpstreamFailed as error:
                return error
            except UNREADABLE:
                continue  # it is no whole JSON; that the stream broke off is true all the same
        if self._spoke:
            return Broke("the upstream's answer broke off before it was complete")
        if self._skipped:
            return Unreachable("the upstream sent nothing that can be read")
        return Unreachable("the upstream ended its stream before it said anything")


def _calls(event: Event) -> bool:
    return isinstance(event, ToolBegan | ToolArgued) or (isinstance(event, Ended) and event.reason == "tool_calls")


def _is_json(data: bytes) -> bool:
    """Whether an event that lacks its blank line is whole: a cut one is not JSON yet."""
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except UNREADABLE:
        return False
    return True


def _strays(tail: bytes) -> Iterator[bytes]:
    """Yield what follows from each line that begins a JSON value outside of all fields.

    Google writes an error in mid-stream as bare JSON (its own SDK counts braces for it).
    """
    lines = tail.replace(b"\r", b"\n").split(b"\n")
    for number, line in enumerate(lines):
        if line.lstrip().startswith((b"{", b"[")):
            yield b"\n".join(lines[number:])
