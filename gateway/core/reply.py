"""A reply: an answer on its way out.

The first chunk is the commitment: a Reply cannot be made without one. Until it exists a middleware may still retry,
fall back or refuse with a proper status; from then on we are bound to what was begun.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Protocol, Self

from msgspec import Struct

from gateway.core.usage import Usage


class Chunk(Struct, frozen=True):
    """A piece of the answer, ready to be sent: framing included, one or several events, or the whole body."""

    data: bytes
    text: str = ""
    """What a reader would see of it."""
    usage: Usage | None = None
    """`None`: not said. Zeros: said to be zero."""
    finish_reason: str = ""
    silent: bool = False
    """Commits us to nothing yet: a role without content. The next piece is waited for before the client is answered."""
    usage_only: bool = False
    """Says nothing but `usage`; sent only to clients that asked for it."""
    unseen: int = 0
    """Characters that were generated beside `text`: reasoning, arguments of tools, other choices. For estimates."""
    skipped: int = 0
    """Events of the upstream that could not be read and are missing here; a comment in `data` says so."""
    answer: bytes = b""
    """With the end of an answer that was written here and is to be kept: all of it, also what only its upstream
    understands and its client did not ask for."""


class Chunks(Protocol):
    """Chunks as they come. An async generator of them is one."""

    def __aiter__(self) -> AsyncIterator[Chunk]:
        """Return them, to be iterated over once."""
        ...

    def __anext__(self) -> Awaitable[Chunk]:
        """Wait for the next."""
        ...

    def aclose(self) -> Awaitable[object]:
        """Take no more of them."""
        ...


Sight = Callable[[Chunk], Chunk | Awaitable[Chunk]]
"""Sees a chunk as it passes, and returns it, or what is to pass in its place; to be waited for only where it must."""


class Seen(Chunks):
    """Chunks on their way out that let others see them as they pass: first whoever asked first.

    One step of the event loop's for all who look on: a generator for each, within one another, cost 3 µs a chunk more.
    """

    def __init__(self) -> None:
        self._seen_by: list[Sight] = []
        self.ended = False
        """The last one has passed."""

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    def seen_by(self, sees: Sight) -> Self:
        """Have `sees` see what passes from now on, behind those who do already."""
        self._seen_by.append(sees)
        return self


class Passing(Seen):
    """Chunks of whatever kind, and who sees them."""

    def __init__(self, chunks: Chunks) -> None:
        super().__init__()
        self._chunks = chunks

    async def __anext__(self) -> Chunk:
        """Return the next, when everybody has seen it."""
        try:
            chunk = await self._chunks.__anext__()
        except StopAsyncIteration:
            self.ended = True
            raise
        for sees in self._seen_by:
            seen = sees(chunk)
            chunk = seen if isinstance(seen, Chunk) else await seen
        return chunk

    async def aclose(self) -> None:
        """Take no more of them, and let go of those who looked on: some of them hold the reply."""
        self._seen_by.clear()
        await self._chunks.aclose()


class Reply(Struct):
    """A head and a first chunk, known now, and the rest as it comes. A whole answer has no rest."""

    first: Chunk
    rest: Chunks | None = None
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] | None = None
    """The head that an answer brings along which goes on as it came. `None`: it is JSON, or a stream of events."""

    @classmethod
    def of(cls, first: Chunk, *others: Chunk) -> Self:
        """Make a reply of chunks that are all here already."""
        return cls(first, _each(others) if others else None)

    def keep(self) -> list[Chunk]:
        """Return a list that fills with the chunks as they pass."""
        kept: list[Chunk] = []

        def keep(chunk: Chunk) -> Chunk:
            kept.append(chunk)
            return chunk

        self.map(keep)
        return kept

    def map(self, fn: Callable[[Chunk], Chunk]) -> None:
        """Have `fn` see, and perhaps change, every chunk as it passes."""
        self.first = fn(self.first)
        if self.rest is not None:
            self.see_rest(fn)

    def see_rest(self, sees: Sight) -> None:
        """Have `sees` see every chunk behind the first as it passes."""
        rest = self.rest
        if rest is not None:
            self.rest = (rest if isinstance(rest, Seen) else Passing(rest)).seen_by(sees)


async def _each(chunks: tuple[Chunk, ...]) -> AsyncGenerator[Chunk, None]:
    for chunk in chunks:
        yield chunk
