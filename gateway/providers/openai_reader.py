"""Reads a streamed answer in OpenAI's dialect and forwards it.

Most events are right as they come, and go on so (`openai_clean`); all others are decoded to the last field, mended and
written anew.

**When is an answer complete?** When the upstream said `[DONE]`, or when every choice that was asked for has its finish
reason, however the stream ends then. Some servers leave out the one, some the other. A stream that ends with neither
broke off, unless its last word was what all of it used, as Snowflake's is; one that says `[DONE]` but never said
anything at all is no answer. Where only the finish reason is missing, it is filled in, for clients wait for it; but not
where it may have been in an event that could not be read.
"""

import msgspec

from gateway.core.call import Attempt
from gateway.core.errors import Broke, Unreachable, UpstreamFailed
from gateway.core.reply import Chunk
from gateway.core.usage import Usage
from gateway.providers.failures import UNREADABLE, brief
from gateway.providers.openai_clean import Alike, clean, spoken_in, turn_in
from gateway.providers.openai_errors import failure_of, is_error
from gateway.providers.openai_mend import json_object
from gateway.providers.openai_stream import StreamMender
from gateway.providers.skipping import MOST_SKIPPED, NOTE, lost, must_be_exact
from gateway.providers.vendors import Vendor
from gateway.wire import sse

MOST_HEAD_BYTES = 64 * 1024
"""Bytes that are kept of a stream which has no events, to say what it is instead."""


class ChatReader:
    """A `Reader` of chat completion chunks."""

    def __init__(self, attempt: Attempt, vendor: Vendor) -> None:
        self._splitter = sse.Splitter()
        self._between = True
        """An event would begin with what comes next."""
        self._alike = Alike()
        self._mender = StreamMender(attempt, vendor)
        self._top = b""
        self._begun = False
        self._spoke = False
        self._done = False
        self._failure: UpstreamFailed | None = None
        self.complete = False
        """`[DONE]` was seen, or the finish reason of every choice."""
        self.finished = False
        """`[DONE]` was seen, or what a complete answer used, or a failure."""
        self._exact = must_be_exact(attempt, calls_come_whole=vendor.tool_calls == "whole")
        self._skipped = 0
        self._lost = False
        """What was skipped may have been a part of the answer."""

    def feed(self, data: bytes) -> list[Chunk]:
        """Return the chunks that `data` completes: events that came together are one chunk, but for the usage.

        Raises:
            UpstreamFailed: the upstream says so, or sent what cannot be read where none may be missing. What came
                before it is delivered first.
        """
        if self._failure is not None:
            raise self._failure
        if self._between and data.startswith(b"data: ") and data.endswith(b"\n\n"):
            text = self._alike.text_in(data[6:-2])
            if text:
                return [Chunk(data, text)]
        try:
            events = self._splitter.feed(data)
        except sse.EventTooLong as error:
            raise Unreachable(f"the upstream sent {error}") from None
        self._between = self._splitter.is_between()
        if not self._begun:
            self._begun = bool(events)
            self._top = (self._top + data)[:MOST_HEAD_BYTES]
        return self._chunks(events) if events else []

    def end(self) -> list[Chunk]:
        """Return what the end of the stream completes.

        Raises:
            Broke: the stream ended before the answer did.
            UpstreamFailed: it ended before it said anything, or says why it ended.
        """
        if self._failure is not None:
            raise self._failure
        chunks: list[Chunk] = []
        left = self._splitter.end()
        if left and not self._done and (left[0].data.startswith(b"[DONE]") or _is_json(left[0].data)):
            self._begun = True
            chunks = self._chunks(left)
            if self._failure is not None:
                raise self._failure
        if not self.complete and self._mender.counted and not self._lost:
            chunks += self._mender.close()
            self.complete = self._mender.complete
        if not self.complete:
            raise self._cut_off()
        return chunks

    def _chunks(self, events: list[sse.Event]) -> list[Chunk]:
        """Read `events`; an error behind something that was said waits for the next call."""
        run, alike = _Run(), self._alike
        for event in events:
            if not event.name and (text := alike.text_in(event.data)):
                run.data += (b"data: ", event.data, b"\n\n")
                run.texts.append(text)
                run.silent = False
                continue
            try:
                self._read(event, run)
            except UpstreamFailed as error:
                self._failure = error
            except UNREADABLE:
                self._skip(run)
            if self._failure is not None:
                run.take(self._mender.left())
                self.complete = False
            self.finished = self._done or self._failure is not None
            if self.finished:
                break
        chunks = run.chunks()
        self._spoke = self._spoke or run.spoke
        if self._failure is not None and not chunks:
            raise self._failure
        return chunks

    def _read(self, event: sse.Event, run: "_Run") -> None:
        mender, data = self._mender, event.data
        if data.startswith(b"[DONE]"):
            if self._lost and not mender.complete:
                raise lost()  # the finish reason, perhaps
            run.take(mender.close())
            self._done = self.complete = True
            return
        said = None if event.name else clean(data)
        if said is not None and (spoken := spoken_in(said, mender)) is not None:
            run.add(data, *spoken)
            if spoken[0] and not spoken[1]:
                self._alike.learn(data, spoken[0])
        elif data:
            self._alike.forget()
            turn = None if said is None else turn_in(said, data, mender)
            chunks = mender.event(data, event.name) if turn is None else [turn]
            if self._lost and mender.called:
                raise lost()  # another call, or the beginning of this one
            run.take(chunks)
            self._done = mender.settled
            self.complete = self._done or mender.complete

    def _skip(self, run: "_Run") -> None:
        """Go on without an event that cannot be read, or fail if the answer may need it."""
        self._skipped += 1
        needed = not self._mender.complete
        if self._skipped > MOST_SKIPPED or (needed and (self._exact or self._mender.called)):
            self._failure = lost()
            return
        self._lost = self._lost or needed
        run.skip()

    def _cut_off(self) -> UpstreamFailed:
        """Return why there is no more."""
        if self._spoke:
            return Broke("the upstream's answer broke off before it was complete")
        if self._skipped:
            return Unreachable("the upstream sent nothing that can be read")
        top = self._top.strip()
        if self._begun or not top or top.startswith((b"data:", b"event:", b":")):
            return Unreachable("the upstream ended its stream before it said anything")
        if top.startswith(b"{") and _is_error(top):
            return failure_of(top)
        return Unreachable(f"the upstream sent no stream: {brief(top.decode('utf-8', 'replace'))[:200]}")


class _Run:
    """Events that came together, on their way to be few chunks."""

    __slots__ = ("_done", "_finish", "_skipped", "_unseen", "_usage", "data", "silent", "spoke", "texts")

    def __init__(self) -> None:
        self.spoke = False
        """Some of the chunks say something; known when they were taken."""
        self._done: list[Chunk] = []
        self._reset()

    def add(self, data: bytes, text: str, unseen: int) -> None:
        """Take an event that says something as it came."""
        self.data += (b"data: ", data, b"\n\n")
        self.texts.append(text)
        self._unseen += unseen
        self.silent = False

    def skip(self) -> None:
        """Take note of an event that is missing here."""
        self.data.append(NOTE)
        self._skipped += 1

    def take(self, chunks: list[Chunk]) -> None:
        """Take chunks that are ready."""
        for chunk in chunks:
            if chunk.usage_only:
                self._close()
                self._done.append(chunk)
                continue
            self.data.append(chunk.data)
            self.texts.append(chunk.text)
            self._unseen += chunk.unseen
            self._finish = self._finish or chunk.finish_reason
            self._usage = chunk.usage or self._usage
            self.silent = self.silent and chunk.silent

    def chunks(self) -> list[Chunk]:
        """Return everything as few chunks."""
        self._close()
        return self._done

    def _close(self) -> None:
        if self.data:
            said = ("".join(self.texts), self._usage, self._finish, self.silent)
            self._done.append(Chunk(b"".join(self.data), *said, unseen=self._unseen, skipped=self._skipped))
            self.spoke = self.spoke or not self.silent
            self._reset()

    def _reset(self) -> None:
        self.data: list[bytes] = []
        self.texts: list[str] = []
        self._unseen = 0
        self._skipped = 0
        self._usage: Usage | None = None
        self._finish = ""
        self.silent = True
        """Nothing of what was taken since the last chunk says anything."""


def _is_json(data: bytes) -> bool:
    """Whether an event that lacks its blank line is whole: a cut one is not JSON yet."""
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except UNREADABLE:
        return False
    return True


def _is_error(data: bytes) -> bool:
    """Whether what came in place of a stream is an error in JSON."""
    try:
        return is_error(json_object(data))
    except UNREADABLE:
        return False
