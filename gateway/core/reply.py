"""A reply: an answer on its way out.

The first chunk is the commitment: a Reply cannot be made without one. Until it exists a middleware may still retry,
fall back or refuse with a proper status; from then on we are bound to what was begun.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Self

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


class Reply(Struct):
    """A head and a first chunk, known now, and the rest as it comes. A whole answer has no rest."""

    first: Chunk
    rest: AsyncGenerator[Chunk, None] | None = None
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] | None = None
    """The head that an answer brings along which goes on as it came. `None`: it is JSON, or a stream of events."""

    @classmethod
    def of(cls, first: Chunk, *others: Chunk) -> Self:
        """Make a reply of chunks that are all here already."""
        return cls(first, _each(others) if others else None)

    def keep(self) -> list[Chunk]:
        """Return a list that fills with the chunks as they pass."""
        kept = [self.first]
        if self.rest is not None:
            self.rest = _keeping(self.rest, kept)
        return kept

    def map(self, fn: Callable[[Chunk], Chunk]) -> None:
        """Have `fn` see, and perhaps change, every chunk as it passes."""
        self.first = fn(self.first)
        if self.rest is not None:
            self.rest = _mapping(self.rest, fn)

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        """Every chunk, the first included."""
        yield self.first
        if self.rest is not None:
            async for chunk in self.rest:
                yield chunk


async def _each(chunks: tuple[Chunk, ...]) -> AsyncGenerator[Chunk, None]:
    for chunk in chunks:
        yield chunk


async def _keeping(chunks: AsyncGenerator[Chunk, None], kept: list[Chunk]) -> AsyncGenerator[Chunk, None]:
    async with aclosing(chunks):
        async for chunk in chunks:
            kept.append(chunk)
            yield chunk


async def _mapping(chunks: AsyncGenerator[Chunk, None], fn: Callable[[Chunk], Chunk]) -> AsyncGenerator[Chunk, None]:
    async with aclosing(chunks):
        async for chunk in chunks:
            yield fn(chunk)
