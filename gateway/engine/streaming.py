"""A streamed answer: what its upstream sends, read as it comes, and what its clocks make of it.

The first chunk is the first that says something; see `upstream`. One iterator does all of it, in place of generators
within one another, because what wakes it goes through each of them: at one event a read that took 8 µs an event.
"""

from collections import deque

from msgspec.structs import replace

from gateway.core.call import Attempt
from gateway.core.errors import Broke, Unreachable, UpstreamFailed
from gateway.core.reply import Chunk, Reply, Seen
from gateway.core.usage import Usage
from gateway.engine.engine import IN_TOKENS, estimated_usage
from gateway.engine.passing import Lent
from gateway.engine.patience import Patience
from gateway.providers.base import Reader, used_so_far
from gateway.wire.openai import usage_event


async def streamed(attempt: Attempt, reader: Reader, lent: Lent, patience: Patience) -> Reply:
    """Return the reply once it has said something.

    Raises:
        UpstreamFailed: it failed before.
    """
    if "html" in lent.response.headers.get("content-type", ""):
        raise Unreachable(f"{attempt.deployment.provider} answered with a web page instead of a stream")
    chunks = Streamed(attempt, reader, lent, patience)
    return Reply(await chunks.first(), chunks)


class Streamed(Seen):
    """The chunks as they come, and the usage by estimate if the upstream never says it."""

    def __init__(self, attempt: Attempt, reader: Reader, lent: Lent, patience: Patience) -> None:
        super().__init__()
        self._attempt = attempt
        self._tried = attempt.tried
        self._reader = reader
        self._lent = lent
        self._response = lent.response
        self._patience = patience
        self._ready: deque[Chunk] = deque()
        self._given: Chunk | None = None
        """What its reader has taken; known to be so when it comes for the next."""
        self._spoke = True
        """Content came with what was read last."""
        self._begun = False
        """Something was said, so whatever fails from now on breaks an answer that had begun."""
        self._ended = False

    async def first(self) -> Chunk:
        """Return the first chunk with content, with the silent ones before it joined on."""
        silent: list[Chunk] = []
        async for chunk in self:
            if not chunk.silent:
                self._begun = True
                if not silent:
                    return chunk
                all = [*silent, chunk]
                skipped = sum(piece.skipped for piece in all)
                return replace(chunk, data=b"".join(piece.data for piece in all), skipped=skipped)
            if not chunk.usage_only:
                silent.append(chunk)
        raise Broke("the upstream's stream ended before it said anything")

    async def __anext__(self) -> Chunk:
        """Return the next chunk, when everybody has seen it.

        Raises:
            Broke: there should be one, and something was said before.
            UpstreamFailed: the same, where nothing was.
        """
        given, patience, reader = self._given, self._patience, self._reader
        if given is not None:
            if given.silent:
                patience.resume()
            else:
                self._spoke = True
                patience.heard(len(given.text) + given.unseen)
        try:
            while not self._ready:
                if self._ended:
                    self.ended = True
                    raise StopAsyncIteration
                try:
                    if not reader.finished:
                        if reader.complete:
                            patience.for_last_words()
                        if not self._spoke:
                            patience.check()
                        if data := await self._response.more():
                            patience.pause()
                            self._spoke = False
                            self._ready.extend(reader.feed(data))
                            continue
                except UpstreamFailed:
                    if not reader.complete:
                        raise
                self._ready.extend(self._end())
        except UpstreamFailed as error:
            self._close()
            if not self._begun:
                raise
            broke = self._broken(error)
            raise broke from (None if broke is error else error)
        except BaseException:
            self._close()
            raise
        chunk = self._given = self._ready.popleft()
        tried = self._tried
        tried.chars += len(chunk.text) + chunk.unseen
        if chunk.usage is not None:
            tried.usage = chunk.usage
        for sees in self._seen_by:
            seen = sees(chunk)
            chunk = seen if isinstance(seen, Chunk) else await seen
        return chunk

    async def aclose(self) -> None:
        """Take no more of it, and let go of those who looked on: some of them hold the reply."""
        self._seen_by.clear()
        self._close()

    def _end(self) -> list[Chunk]:
        """Return what the end of the stream completes."""
        attempt, tried = self._attempt, self._tried
        chunks = self._reader.end()
        self._lent.finished = self._ended = True
        usage = next((chunk.usage for chunk in reversed(chunks) if chunk.usage is not None), tried.usage)
        if usage is None and attempt.surface == attempt.operation == "chat":
            chars = tried.chars + sum(len(chunk.text) + chunk.unseen for chunk in chunks)
            usage = estimated_usage(attempt, chars)
            data = usage_event(f"chatcmpl-{attempt.id}", int(attempt.clock.wall()), attempt.model, usage)
            chunks = [*chunks, Chunk(data, usage=usage, usage_only=True)]
        return chunks

    def _close(self) -> None:
        """Know what was used, though the upstream has not said it."""
        tried, attempt = self._tried, self._attempt
        self._ready.clear()
        self._ended = True
        if tried.usage is None and tried.chars and attempt.operation in IN_TOKENS:
            tried.usage = at_least(used_so_far(self._reader), estimated_usage(attempt, tried.chars))

    def _broken(self, error: UpstreamFailed) -> Broke:
        """Return what a failure means for an answer that had begun, and write it down."""
        broke = error
        if not isinstance(broke, Broke):
            broke = Broke(f"the answer broke off: {error.message}", code=error.code)
        broke.unhealthy = error.unhealthy
        self._attempt.failed(broke)
        return broke


def at_least(said: Usage | None, estimate: Usage) -> Usage:
    """Return what an answer used that was not told to its end: what was sent as said by then, the rest by estimate."""
    if said is None or not said.prompt_tokens:
        return estimate
    return replace(said, completion_tokens=max(said.completion_tokens, estimate.completion_tokens), estimated=True)
