"""What is kept of a response, and what is made of it again: the history of a follow-up, the pages of its input, itself.

Kept is what the client sent and what it was answered, in OpenAI's own words, so that every upstream's answer goes on at
any other. Each response holds its own part only, and the names of those before it: what was deleted is nowhere else.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from gateway.core.call import Body
from gateway.core.errors import BadRequest
from gateway.wire.chat_request import decoded
from gateway.wire.openai import encode
from gateway.wire.sse import Splitter

SEALED = "reasoning.encrypted_content"
"""The value of `include` that asks for what has to come back with the next turn."""

ENDS = ("response.completed", "response.incomplete")
"""The last event of a stream that ended well."""

RUNNING = ("queued", "in_progress")
"""The states of a response that is not over."""

PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
}
"""How ids of items begin, by type."""

Fields = dict[str, Raw]
"""An object's fields, values untouched."""

_object = msgspec.json.Decoder(Fields)


class Asked(Struct):
    """What a request says of what came before it, and of what is to be kept."""

    input: str | list[Fields] = ""
    previous_response_id: str | None = None
    conversation: Any = None
    store: bool | None = None
    background: bool | None = None
    include: list[str] | None = None


class Head(Struct):
    """What there is to know of a response without reading its output."""

    id: str = ""
    object: str = ""
    status: str = "completed"
    background: bool | None = None


class Record(Struct):
    """A response as it is kept."""

    chain: tuple[str, ...]
    """The ids of those that it builds on, oldest first."""
    input: list[Raw]
    """Its own items, each with an id."""
    response: Raw
    """The answer, with all that has to come back to the upstream."""
    model: str = ""
    """As the client asked for it."""
    size: int = 0
    """Bytes that those take which it builds on."""
    native: bool = False
    """The upstream speaks Responses, and has it under the same id."""
    sealed: bool = False
    """The client saw `encrypted_content`, where there was some."""
    unbilled: bool = False
    """It was kept before it was over: what it comes to is known then, and not yet charged."""

    @property
    def head(self) -> Head:
        """What there is to know at once."""
        return head_of(bytes(self.response))


class _Output(Struct):
    output: list[Fields] = []


class _Event(Struct):
    type: str = ""
    response: Raw = Raw()


class Page(Struct, frozen=True):
    """Which part of a list is asked for."""

    limit: int = 20
    order: Literal["asc", "desc"] = "desc"
    after: str = ""


_asked = msgspec.json.Decoder(Asked)
_head = msgspec.json.Decoder(Head)
_output = msgspec.json.Decoder(_Output)
_event = msgspec.json.Decoder(_Event)
_record = msgspec.json.Decoder(Record)


def read_asked(body: Body) -> Asked:
    """Read what a request says of before and after.

    Raises:
        BadRequest: a field is of the wrong type; `param` names it.
    """
    return decoded(_asked, body.raw)


def read_record(data: bytes) -> Record:
    """Return a response from what was kept of it.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _record.decode(data)


def head_of(response: bytes) -> Head:
    """Return what there is to know of a response.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _head.decode(response)


def answer_in(data: bytes, *, stream: bool, ended: bool = True) -> bytes | None:
    """Return the response in what a client is sent: the one that ends a stream, or (`ended` is false) the first.

    Raises:
        msgspec.DecodeError, EventTooLong: it cannot be read.
    """
    if not stream:
        return data
    for event in Splitter().feed(data):
        said = _event.decode(event.data)
        if bytes(said.response) and (not ended or said.type in ENDS):
            return bytes(said.response)
    return None


# ── Items ────────────────────────────────────────────────────────────────────────────────────────────────────────


def input_items(asked: Asked, response_id: str) -> list[Raw]:
    """Return the items that a request adds, as the API lists them: each with an id, a type and its content as parts."""
    items = [{"role": _raw("user"), "content": _raw(asked.input)}] if isinstance(asked.input, str) else asked.input
    stem = response_id.removeprefix("resp_")
    return [_listed(item, f"{stem}_in{number}") for number, item in enumerate(items)]


def _listed(item: Fields, name: str) -> Raw:
    kind = _text(item, "type") or ("message" if "role" in item else "item_reference")
    said: dict[str, object] = {"id": f"{PREFIXES.get(kind, 'item')}_{name}", "type": kind, **item}
    if kind == "message":
        said = {"status": "completed", **said}
        content = msgspec.json.decode(item.get("content", Raw(b"null")))
        if isinstance(content, str):
            part: dict[str, object] = {"type": "input_text", "text": content}
            if _text(item, "role") == "assistant":
                part = {"type": "output_text", "text": content, "annotations": []}
            said["content"] = [part]
    return _raw(said)


def references(asked: Asked) -> dict[int, str]:
    """Return the ids of the items that a request only names, by their places in its `input`."""
    items = [] if isinstance(asked.input, str) else asked.input
    kinds = {number: _text(item, "type") for number, item in enumerate(items) if "role" not in item}
    return {n: _text(items[n], "id") for n, kind in kinds.items() if kind in ("", "item_reference")}


def output_items(record: Record) -> dict[str, Fields]:
    """Return the items of an answer by their ids."""
    return {_text(item, "id"): item for item in _output.decode(record.response).output}


def history(records: Iterable[Record]) -> list[Raw]:
    """Return all items of responses that follow one another: what each was asked, and what it answered."""
    items: list[Raw] = []
    for record in records:
        items += record.input
        items += [_raw(item) for item in _output.decode(record.response).output]
    return items


def follow_up(body: Body, asked: Asked, earlier: Sequence[Raw]) -> Body:
    """Return a request as one that needs nothing kept anywhere: with all that was said before in its `input`."""
    said = asked.input
    own: Sequence[object] = [{"role": "user", "content": said}] if isinstance(said, str) else said
    raw = body.but(input=[*earlier, *own], previous_response_id=None)
    return Body(raw, _object.decode(raw))


def portable(body: Body) -> Body:
    """Return a follow-up for an upstream that speaks Responses, but has not answered what came before.

    It knows none of the ids, and cannot read another's reasoning, nor ours.
    """
    items = msgspec.json.decode(body.fields["input"], type=list[Fields])
    kept = [
        {name: value for name, value in item.items() if name not in ("id", "status")}
        for item in items
        if _text(item, "type") != "reasoning"
    ]
    raw = body.but(input=kept)
    return Body(raw, _object.decode(raw))


# ── What is shown ────────────────────────────────────────────────────────────────────────────────────────────────


def shown(record: Record, *, sealed: bool) -> bytes:
    """Return a response as its client sees it; `sealed`: with `encrypted_content`, also if it did not ask before."""
    if sealed or record.sealed:
        return bytes(record.response)
    fields = _object.decode(record.response)
    fields["output"] = _raw([_unsealed(item) for item in _output.decode(record.response).output])
    return encode(fields)


def page_of(items: Sequence[Raw], page: Page, *, sealed: bool) -> bytes:
    """Return a page of a response's input, as OpenAI lists it.

    Raises:
        BadRequest: there is no item called `page.after`.
    """
    listed = [_object.decode(item) for item in items]
    if page.order == "desc":
        listed.reverse()
    begin = 0
    if page.after:
        names = [_text(item, "id") for item in listed]
        if page.after not in names:
            raise BadRequest(f'after: there is no item "{page.after}" in this input', param="after")
        begin = names.index(page.after) + 1
    data = listed[begin : begin + page.limit]
    return encode(
        {
            "object": "list",
            "data": data if sealed else [_unsealed(item) for item in data],
            "first_id": _text(data[0], "id") if data else None,
            "last_id": _text(data[-1], "id") if data else None,
            "has_more": len(listed) > begin + page.limit,
        }
    )


def deleted(id: str) -> bytes:
    """Return what says that a response is deleted."""
    return encode({"id": id, "object": "response", "deleted": True})


def _unsealed(item: Fields) -> Fields:
    return {name: value for name, value in item.items() if name != "encrypted_content"}


def _text(item: Fields, name: str) -> str:
    """Return a field that is a text; empty: there is none."""
    raw = item.get(name)
    said = None if raw is None else msgspec.json.decode(raw)
    return said if isinstance(said, str) else ""


def _raw(value: object) -> Raw:
    return Raw(encode(value))
