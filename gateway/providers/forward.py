"""Reads a streamed answer whose client speaks the upstream's own dialect: its events go on as they came.

They are decoded all the same: to know what was used, whether the answer is complete, and whether it is one.
"""

from collections.abc import Sequence

from gateway.core.errors import UpstreamFailed
from gateway.core.reply import Chunk
from gateway.providers.failures import UNREADABLE
from gateway.providers.reader import Decoder, EventReader, Framed
from gateway.wire import sse
from gateway.wire.events import Counted, Ended, Event, Refused, Said, Thought, ToolArgued, ToolBegan


class ForwardReader(EventReader):
    """An `EventReader` that writes what it read.

    Args:
        decoder: of the dialect.
        exact: no event may be skipped.
        last: the dialect's last event, for an upstream that completes its answer and then does not say it.
    """

    def __init__(self, decoder: Decoder, *, exact: bool = False, last: bytes = b"") -> None:
        super().__init__(decoder, _Unsaid(last), exact=exact)

    def _chunks(self, events: Sequence[Framed]) -> list[Chunk]:
        chunks: list[Chunk] = []
        for event in events:
            if self.finished:
                break
            try:
                said = self._believed(self._decoder.feed(event.data) if event.data else [])
            except UpstreamFailed as error:
                self._failure = error
            except UNREADABLE:
                chunks += self._skip()
            else:
                chunks.append(forwarded(event, said))
                self._ended = self._ended or any(isinstance(one, Ended) for one in said)
                self._spoke = self._spoke or not chunks[-1].silent
        if self._failure is not None and not chunks:
            raise self._failure
        return [joined(chunks)] if chunks else []


class _Unsaid:
    """Writes what an upstream left unsaid at the end of its stream."""

    def __init__(self, last: bytes) -> None:
        self._last = last

    def stream(self, events: list[Event]) -> list[Chunk]:
        return [heard(self._last, events)]


def forwarded(event: Framed, said: list[Event]) -> Chunk:
    """Return an event as it came, with what it says."""
    name = b"event: " + event.name + b"\n" if isinstance(event, sse.Event) and event.name else b""
    data = event.data.replace(b"\n", b"\ndata: ")
    return heard(name + b"data: " + data + b"\n\n", said)


def heard(data: bytes, said: list[Event]) -> Chunk:
    """Return a chunk of these bytes, which say these events."""
    text, usage, finish, unseen, silent = "", None, "", 0, True
    for event in said:
        match event:
            case Said():
                text, silent = text + event.text, False
            case Counted():
                usage = event.usage
            case Ended():
                finish, silent = event.reason, False
            case Thought():
                unseen, silent = unseen + len(event.text), False
            case ToolBegan():
                unseen, silent = unseen + len(event.name), False
            case ToolArgued():
                unseen, silent = unseen + len(event.fragment), False
            case Refused():
                silent = False
            case _:
                pass  # a beginning, or a source: neither says anything by itself
    return Chunk(data, text, usage, finish, silent, unseen=unseen)


def joined(chunks: list[Chunk]) -> Chunk:
    """Return chunks that came together as one."""
    if len(chunks) == 1:
        return chunks[0]
    return Chunk(
        b"".join(chunk.data for chunk in chunks),
        "".join(chunk.text for chunk in chunks),
        next((chunk.usage for chunk in reversed(chunks) if chunk.usage is not None), None),
        next((chunk.finish_reason for chunk in chunks if chunk.finish_reason), ""),
        all(chunk.silent for chunk in chunks),
        unseen=sum(chunk.unseen for chunk in chunks),
        skipped=sum(chunk.skipped for chunk in chunks),
    )
