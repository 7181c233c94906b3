"""What passes by is seen by whoever asked, in order, and by nobody once it is left."""

from collections.abc import AsyncGenerator

import pytest

from gateway.core.reply import Chunk, Chunks, Passing, Reply
from tests.calls import chunks_of

CHUNKS = (Chunk(b"a"), Chunk(b"b"), Chunk(b"c"))


def marks(mark: bytes):
    """Return what adds a mark to each chunk."""

    def add(chunk: Chunk) -> Chunk:
        return Chunk(chunk.data + mark)

    return add


async def test_who_asked_first_sees_a_chunk_first_and_the_others_what_is_left_of_it():
    """Rooms further in ask first: each sees the answer as the rooms within it give it."""
    reply = Reply.of(*CHUNKS)
    reply.map(marks(b"1"))
    reply.map(marks(b"2"))
    assert [chunk.data async for chunk in chunks_of(reply)] == [b"a12", b"b12", b"c12"]


async def test_who_wraps_a_stream_sees_what_was_made_of_it_and_is_seen_by_those_who_ask_later():
    """A generator of one's own around `rest` stands where it was put."""

    async def doubled(rest: Chunks) -> AsyncGenerator[Chunk, None]:
        async for chunk in rest:
            yield Chunk(chunk.data * 2)

    reply = Reply.of(*CHUNKS)
    reply.map(marks(b"1"))
    assert reply.rest is not None
    reply.rest = doubled(reply.rest)
    reply.map(marks(b"2"))
    assert [chunk.data async for chunk in chunks_of(reply)] == [b"a12", b"b1b12", b"c1c12"]


async def test_who_has_to_wait_for_a_chunk_holds_it_up_for_the_others():
    """What a stream costs may have to be asked for before its last chunk goes out."""
    seen = list[bytes]()

    async def late(chunk: Chunk) -> Chunk:
        seen.append(chunk.data)
        return Chunk(chunk.data + b"!")

    reply = Reply.of(*CHUNKS)
    reply.see_rest(lambda chunk: late(chunk) if chunk.data == b"b" else chunk)
    reply.map(marks(b"."))
    assert [chunk.data async for chunk in chunks_of(reply)] == [b"a.", b"b!.", b"c."]
    assert seen == [b"b"]


async def test_a_stream_has_ended_when_its_end_was_seen_and_not_before():
    """Its last chunk may not be the last thing that it has to say."""
    rest = Reply.of(*CHUNKS).rest
    assert rest is not None
    chunks = Passing(rest)
    assert [(await anext(chunks)).data for _ in range(2)] == [b"b", b"c"]
    assert not chunks.ended
    with pytest.raises(StopAsyncIteration):
        await anext(chunks)
    assert chunks.ended


async def test_who_leaves_a_stream_closes_what_it_comes_from():
    """An upstream goes on, and charges, until somebody tells it to stop."""
    closed = list[str]()

    async def source() -> AsyncGenerator[Chunk, None]:
        try:
            for chunk in CHUNKS:
                yield chunk
        finally:
            closed.append("source")

    reply = Reply(Chunk(b""), source())
    kept = reply.keep()
    assert reply.rest is not None
    await anext(reply.rest)
    await reply.rest.aclose()
    assert closed == ["source"]
    assert [chunk.data for chunk in kept] == [b"", b"a"]
