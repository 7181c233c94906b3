"""When an answer is kept, as seen from inside: between whom, and before what."""

import json

import msgspec
import pytest

from gateway.core.call import Body
from gateway.core.errors import Broke, Unavailable
from gateway.core.principal import Principal
from gateway.core.reply import Chunk, Reply
from gateway.middleware.turns import Turns
from gateway.store.memory import MemoryObjects
from gateway.wire.openai import encode
from gateway.wire.responses_kept import read_record
from tests.calls import chunks_of
from tests.standins import StillClock, call_of

RESPONSE = {"id": "resp_1", "object": "response", "status": "completed", "output": []}
DELTA = Chunk(b"event: response.output_text.delta\ndata: {}\n\n", "Hello")
END = Chunk(
    b'event: response.completed\ndata: {"type":"response.completed","response":%s}\n\n' % json.dumps(RESPONSE).encode(),
    finish_reason="stop",
)
WHOLE = Chunk(json.dumps(RESPONSE).encode(), "Hello", finish_reason="stop")


class Watched(MemoryObjects):
    """Keeps in memory, and writes down when."""

    def __init__(self, seen, failure=None):
        super().__init__(StillClock())
        self._seen = seen
        self._failure = failure

    async def put(self, *stored):
        if self._failure:
            raise self._failure
        self._seen.append("kept")
        await super().put(*stored)


def a_call(stream, **fields):
    said = {"model": "fast", "input": "Hi", "stream": stream, **fields}
    raw = json.dumps(said).encode()
    body = Body(raw, msgspec.json.decode(raw, type=dict[str, msgspec.Raw]))
    return call_of(StillClock(), surface="responses", stream=stream, body=body, principal=Principal("ann"))


async def told(objects, seen, *chunks, failure=None, **fields):
    """Ask once, and write down what the client is told, and when."""

    async def rest():
        for chunk in chunks[1:]:
            yield chunk
        if failure:
            raise failure

    async def answer(call):
        return Reply(chunks[0], rest()) if call.stream else Reply(chunks[0])

    call = a_call(len(chunks) > 1 or bool(failure), **fields)
    reply = await Turns(objects, 60.0, set())(call, answer)
    async for chunk in chunks_of(reply):
        seen.append(chunk.data)
    return call


async def test_a_stream_is_kept_before_its_last_event_is_told():
    """Its reader may follow it up in the same moment."""
    seen = []
    await told(Watched(seen), seen, DELTA, DELTA, END)
    assert seen == [DELTA.data, DELTA.data, "kept", END.data]


async def test_a_whole_answer_is_kept_before_its_head_is_told():
    """The same."""
    seen = []
    await told(Watched(seen), seen, WHOLE)
    assert seen == ["kept", WHOLE.data]


async def test_an_answer_in_one_piece_is_kept_too():
    """Short streams may arrive at once."""
    seen = []
    both = Chunk(DELTA.data + END.data, "Hello", finish_reason="stop")
    await told(Watched(seen), seen, both, Chunk(b": the end\n\n"))
    assert seen == ["kept", both.data, b": the end\n\n"]


async def test_what_breaks_off_is_not_kept():
    """Whatever was said of it."""
    seen = []
    with pytest.raises(Broke):
        await told(Watched(seen), seen, DELTA, DELTA, failure=Broke("cut"))
    assert seen == [DELTA.data, DELTA.data]


async def test_who_asks_for_a_background_response_meanwhile_does_not_keep_its_end_from_being_written():
    """Or it would be charged for again, by whoever asks next. What was deleted meanwhile stays so."""
    created = {"type": "response.created", "response": {**RESPONSE, "status": "in_progress", "background": True}}
    first = Chunk(b"event: response.created\ndata: %s\n\n" % json.dumps(created).encode(), "Hello")
    for deletes in (False, True):
        objects = Watched([])

        async def answer(call, objects=objects, deletes=deletes):
            async def rest():
                (kept,) = (await objects.get("response", "ann", ["resp_1"])).values()
                record = read_record(kept.data)
                assert record.unbilled
                later = msgspec.structs.replace(record, response=msgspec.Raw(b'{"id": "resp_1", "status": "queued"}'))
                assert await objects.update(kept, encode(later))
                if deletes:
                    await objects.delete("response", "ann", "resp_1")
                yield END

            return Reply(first, rest())

        async for _ in chunks_of(await Turns(objects, 60.0, set())(a_call(True, background=True), answer)):
            pass
        found = [read_record(kept.data) for kept in (await objects.get("response", "ann", ["resp_1"])).values()]
        assert [(one.head.status, one.unbilled) for one in found] == ([] if deletes else [("completed", False)])


@pytest.mark.parametrize(
    "end",
    [
        Chunk(b"event: response.completed\ndata: {broken\n\n", finish_reason="stop"),
        Chunk(b"event: response.completed\ndata: " + b"[" * 100_000 + b"\n\n", finish_reason="stop"),
        Chunk(b'data: {"type":"response.completed","response":{"id":7}}\n\n', finish_reason="stop"),
    ],
)
async def test_what_cannot_be_read_is_given_all_the_same(end):
    """To keep it is our trouble, not the client's."""
    seen = []
    await told(Watched(seen), seen, DELTA, end)
    assert seen == [DELTA.data, b": x-gateway-kept: no\n\n", end.data]


async def test_what_cannot_be_written_is_given_all_the_same():
    """And says so: in a comment before the last event, or in the head."""
    seen = []
    await told(Watched(seen, Unavailable("gone")), seen, DELTA, END)
    assert seen == [DELTA.data, b": x-gateway-kept: no\n\n", END.data]
    call = await told(Watched([], Unavailable("gone")), [], WHOLE)
    assert call.receipt.headers["x-gateway-kept"] == "no"


async def test_other_surfaces_are_none_of_its_business():
    """A chat completion has a `store` too, which is its upstream's."""
    seen = []

    async def answer(call):
        seen.append(call)
        return Reply(WHOLE)

    call = call_of(StillClock(), surface="chat")
    await Turns(Watched(seen), 60.0, set())(call, answer)
    assert seen == [call]
