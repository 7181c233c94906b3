"""A provider that does not speak its client's surface: it is spoken to in chat completions, and what it answers is
written anew. So each provider translates from one surface, each surface to and from one form, and none knows another.
"""

from collections.abc import Callable

from gateway.core.call import Attempt, Body
from gateway.core.errors import UpstreamFailed
from gateway.core.reply import Chunk
from gateway.core.usage import Usage
from gateway.providers.base import Provider, Reader, Request, used_so_far
from gateway.providers.skipping import SKIPPED
from gateway.wire.chat_events import ChatDecoder
from gateway.wire.events import Counted, Event
from gateway.wire.plain_chat import plain_chat
from gateway.wire.surface import ClientSurface, Writer

Estimate = Callable[[int], Usage]
"""What an answer of so many characters used, where its upstream does not say."""


class Bridge:
    """Satisfies `Provider`, for one attempt.

    Args:
        provider: who answers.
        surface: what the client speaks.
        attempt: what it asks.
        estimate: for an answer whose upstream does not say what it used; every surface but chat has to be told.

    Raises:
        BadRequest: chat completions have no way to say this.
    """

    def __init__(self, provider: Provider, surface: ClientSurface, attempt: Attempt, estimate: Estimate) -> None:
        self._provider = provider
        self._surface = surface
        self._estimate = estimate
        chat = as_chat(attempt, surface)
        self._chat = chat.but(body=plain_for(provider, chat.body))

    def request(self, attempt: Attempt) -> Request:
        """Return what to send.

        Raises:
            BadRequest: the upstream's dialect has no way to say this.
        """
        return self._provider.request(self._chat)

    def reader(self, attempt: Attempt) -> "BridgeReader":
        """Return a reader for a streamed answer."""
        return BridgeReader(self._provider.reader(self._chat), self._surface.writer(attempt), self._estimate)

    def whole(self, attempt: Attempt, body: bytes) -> Chunk:
        """Return a whole answer.

        Raises:
            UpstreamFailed: it is none, whatever its status said.
        """
        return written(self._provider.whole(self._chat, body), self._surface.writer(attempt), self._estimate)

    def told(self, attempt: Attempt, body: bytes) -> list[Chunk]:
        """Return a whole answer as a stream: some upstreams do not stream though they were asked to.

        Raises:
            UpstreamFailed: it is none, whatever its status said.
        """
        writer = self._surface.writer(attempt)
        return writer.stream(events_of(self._provider.whole(self._chat, body), self._estimate)) + writer.end()

    def error(self, status: int, headers: dict[str, str], body: bytes) -> UpstreamFailed:
        """Return what an error means."""
        return self._provider.error(status, headers, body)


class BridgeReader:
    """Satisfies `Reader`: the chunks of a chat completion, written for another surface."""

    def __init__(self, reader: Reader, writer: Writer, estimate: Estimate) -> None:
        self._reader = reader
        self._writer = writer
        self._estimate = estimate
        self._decoder = ChatDecoder()
        self._chars = 0
        self._counted = False

    @property
    def so_far(self) -> Usage | None:
        """What was used by now, where the upstream says it early."""
        return used_so_far(self._reader)

    @property
    def complete(self) -> bool:
        """Why the answer ends was seen."""
        return self._reader.complete

    @property
    def finished(self) -> bool:
        """Nothing more is to be waited for."""
        return self._reader.finished

    def feed(self, data: bytes) -> list[Chunk]:
        """Return the chunks that `data` completes.

        Raises:
            UpstreamFailed: the upstream says so.
        """
        return self._written(self._reader.feed(data))

    def end(self) -> list[Chunk]:
        """Return what the end of the stream completes, the surface's own last words included.

        Raises:
            Broke: the stream ended before the answer did.
        """
        chunks = self._written(self._reader.end())
        if not self._counted:
            chunks += self._writer.stream([Counted(self._estimate(self._chars))])
        return chunks + self._writer.end()

    def _written(self, chunks: list[Chunk]) -> list[Chunk]:
        written: list[Chunk] = []
        for chunk in chunks:
            self._chars += len(chunk.text) + chunk.unseen
            self._counted = self._counted or chunk.usage is not None
            written += self._writer.stream(self._decoder.feed(chunk))
            written += [SKIPPED] * chunk.skipped
        return written


def as_chat(attempt: Attempt, surface: ClientSurface) -> Attempt:
    """Return an attempt as one at a chat completion.

    Raises:
        BadRequest: there is no way to say it.
    """
    return attempt.but(surface="chat", body=surface.chat_body(attempt.body))


def plain_for(provider: Provider, body: Body) -> Body:
    """Return a translated request as `provider` takes it: one that speaks OpenAI's dialect refuses what it lacks."""
    keeps: tuple[str, ...] | None = getattr(provider, "keeps", None)
    return body if keeps is None else plain_chat(body, keeps)


def written(chunk: Chunk, writer: Writer, estimate: Estimate) -> Chunk:
    """Return a whole chat completion as the surface writes it."""
    return writer.whole(events_of(chunk, estimate))


def events_of(chunk: Chunk, estimate: Estimate) -> list[Event]:
    """Return what a whole chat completion says, and what it used."""
    events = ChatDecoder().feed(chunk)
    return events if chunk.usage is not None else [*events, Counted(estimate(len(chunk.text) + chunk.unseen))]
