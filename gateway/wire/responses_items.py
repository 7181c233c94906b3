"""The output of a response: items that grow as an answer is told, and the events that say so.

An item is done before the next one begins, as OpenAI has it. The one exception are calls whose upstream tells their
arguments by turns: those stay open side by side until their arguments are whole.
"""

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import msgspec
from msgspec import Struct

from gateway.wire.events import Cited, Event, Refused, Said, Thought, ToolArgued, ToolBegan
from gateway.wire.responses_carrier import Carrier, seal
from gateway.wire.responses_tools import Origin

Json = dict[str, Any]
Emit = Callable[..., None]
"""Sends an event of a type, with the fields that are given by name."""

M = TypeVar("M", "Message", "Reasoning")


class Output:
    """The items of one answer.

    Args:
        id: of the response, from which those of its items are made.
        origins: the tools that the upstream's functions stand for, by function.
        sealed: the client wants what has to come back with the next turn, as `encrypted_content`.
        emit: takes the events.
    """

    def __init__(self, id: str, origins: dict[str, Origin], *, sealed: bool, emit: Emit) -> None:
        self._id = id
        self._origins = origins
        self._sealed = sealed
        self._emit = emit
        self._items: list[Item] = []
        self._calls: dict[int, Call] = {}

    def add(self, event: Event) -> None:
        """Say one event of the answer; an empty piece says nothing."""
        match event:
            case Said() if event.text:
                self._current(Message).say("output_text", event.text)
            case Refused() if event.text:
                self._current(Message).say("refusal", event.text)
            case Cited():
                self._current(Message).cite(event)
            case Thought() if event.text or event.signature or event.redacted:
                self._current(Reasoning).think(event)
            case ToolBegan():
                self._call(event)
            case ToolArgued() if event.index in self._calls:
                self._calls[event.index].argue(event.fragment)
            case _:
                pass

    def close(self, *, cut: bool) -> None:
        """End what is open; `cut`: the answer ends before it is complete."""
        for item in self._items:
            if not item.status:
                self._end(item, "incomplete" if cut and not _is_whole_call(item) else "completed")

    def shown(self, *, sealed: bool | None = None) -> list[Json]:
        """Return the items as they are now; `sealed`: with what has to come back, if not as the client wants it."""
        return [item.shown(sealed=self._sealed if sealed is None else sealed) for item in self._items]

    def _current(self, kind: type[M]) -> M:
        """Return the item that goes on, if it is of this kind, or a new one."""
        last = self._items[-1] if self._items else None
        if isinstance(last, kind) and not last.status:
            return last
        item = kind(self._id, self._next(), self._emit)
        self._add(item)
        return item

    def _call(self, event: ToolBegan) -> None:
        call_id = event.id or f"call_{self._id}_{event.index}"
        if event.signature:
            self._current(Reasoning).sign(call_id, event.signature)
        origin = self._origins.get(event.name, Origin(event.name))
        kind = CustomCall if origin.custom else Call
        call = self._calls[event.index] = kind(self._id, self._next(), self._emit, call_id, origin)
        self._add(call)

    def _next(self) -> int:
        """Return the index of an item that now begins: what has nothing more to say is done."""
        for item in self._items:
            if not item.status and (not isinstance(item, Call) or item.whole()):
                self._end(item, "completed")
        return len(self._items)

    def _add(self, item: "Item") -> None:
        self._items.append(item)
        self._emit("response.output_item.added", output_index=item.index, item=item.shown(sealed=self._sealed))

    def _end(self, item: "Item", status: str) -> None:
        item.finish()
        item.status = status
        self._emit("response.output_item.done", output_index=item.index, item=item.shown(sealed=self._sealed))


def _is_whole_call(item: "Item") -> bool:
    return isinstance(item, Call) and item.whole()


# ── Items ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Item:
    """One item; `status` is empty while it is open."""

    prefix: ClassVar[str]

    def __init__(self, response_id: str, index: int, emit: Emit) -> None:
        self.id = f"{self.prefix}_{response_id}_{index}"
        self.index = index
        self.status = ""
        self._emit = emit

    def finish(self) -> None:
        """Send the events that come before the one that says that the item is done."""

    def shown(self, *, sealed: bool) -> Json:
        """Return the item as it is now."""
        raise NotImplementedError

    def _tell(self, type: str, **fields: object) -> None:
        self._emit(type, item_id=self.id, output_index=self.index, **fields)


class _Part(Struct):
    """A part of a message: `output_text` or `refusal`."""

    type: str
    pieces: list[str] = []
    chars: int = 0
    annotations: list[Json] = []

    def fields(self) -> Json:
        """Return what was said, under the name that its type has for it."""
        text = "".join(self.pieces)
        return {"refusal": text} if self.type == "refusal" else {"text": text, "logprobs": []}

    def shown(self) -> Json:
        more = {} if self.type == "refusal" else {"annotations": self.annotations}
        return {"type": self.type, **more, **self.fields()}


class Message(Item):
    """What was said, or refused, in one go."""

    prefix = "msg"

    def __init__(self, response_id: str, index: int, emit: Emit) -> None:
        super().__init__(response_id, index, emit)
        self._parts: list[_Part] = []

    def say(self, type: str, text: str) -> None:
        """Go on with the part of this type."""
        part = self._part(type)
        part.pieces.append(text)
        part.chars += len(text)
        more: Json = {} if type == "refusal" else {"logprobs": []}
        self._tell_part(f"response.{type}.delta", delta=text, **more)

    def cite(self, event: Cited) -> None:
        """Name a source. Of what, is not known: it stands behind what was said so far."""
        part = self._part("output_text")
        place = {"start_index": part.chars, "end_index": part.chars}
        annotation = {"type": "url_citation", "url": event.url, "title": event.title, **place}
        part.annotations.append(annotation)
        number = len(part.annotations) - 1
        self._tell_part("response.output_text.annotation.added", annotation_index=number, annotation=annotation)

    def finish(self) -> None:
        """End the part that is open."""
        if self._parts:
            part = self._parts[-1]
            self._tell_part(f"response.{part.type}.done", **part.fields())
            self._tell_part("response.content_part.done", part=part.shown())

    def shown(self, *, sealed: bool) -> Json:
        """Return the message."""
        return {
            "id": self.id,
            "type": "message",
            "status": self.status or "in_progress",
            "role": "assistant",
            "content": [part.shown() for part in self._parts],
        }

    def _part(self, type: str) -> _Part:
        if not self._parts or self._parts[-1].type != type:
            self.finish()
            self._parts.append(_Part(type))
            self._tell_part("response.content_part.added", part=self._parts[-1].shown())
        return self._parts[-1]

    def _tell_part(self, type: str, **fields: object) -> None:
        self._tell(type, content_index=len(self._parts) - 1, **fields)


class Reasoning(Item):
    """What was thought in one go: a part of the summary for each block, or for all that no block holds."""

    prefix = "rs"

    def __init__(self, response_id: str, index: int, emit: Emit) -> None:
        super().__init__(response_id, index, emit)
        self._parts: list[list[str]] = []
        self._part_open = False
        self._unsigned: list[str] = []
        """Text that no block holds yet."""
        self._blocks: list[Json] = []
        self._signatures: dict[str, str] = {}

    def think(self, event: Thought) -> None:
        """Go on thinking, or end a block."""
        if event.text:
            self._say(event.text)
        if event.signature or event.redacted:
            self._seal_block(event)

    def sign(self, call_id: str, signature: str) -> None:
        """Keep the thought signature of a call."""
        self._signatures[call_id] = signature

    def finish(self) -> None:
        """End the part that is open."""
        if self._part_open:
            self._part_open = False
            text = "".join(self._parts[-1])
            self._tell_part("response.reasoning_summary_text.done", text=text)
            self._tell_part("response.reasoning_summary_part.done", part=_summary(text))

    def shown(self, *, sealed: bool) -> Json:
        """Return the item. It says no status: OpenAI refuses one when the item comes back."""
        said: Json = {"id": self.id, "type": "reasoning", "summary": [_summary("".join(part)) for part in self._parts]}
        if sealed:
            carrier = Carrier("".join(self._unsigned), self._blocks, self._signatures)
            said["encrypted_content"] = seal(carrier) if self.status else None
        return said

    def _say(self, text: str) -> None:
        if not self._part_open:
            self._part_open = True
            self._parts.append([])
            self._tell_part("response.reasoning_summary_part.added", part=_summary(""))
        self._parts[-1].append(text)
        self._unsigned.append(text)
        self._tell_part("response.reasoning_summary_text.delta", delta=text)

    def _seal_block(self, event: Thought) -> None:
        self.finish()
        if event.redacted:
            self._blocks.append({"type": "redacted_thinking", "data": event.redacted})
            return
        thought = "".join(self._unsigned)
        self._blocks.append({"type": "thinking", "thinking": thought, "signature": event.signature})
        self._unsigned = []

    def _tell_part(self, type: str, **fields: object) -> None:
        self._tell(type, summary_index=len(self._parts) - 1, **fields)


def _summary(text: str) -> Json:
    return {"type": "summary_text", "text": text}


class Call(Item):
    """A function that is called."""

    prefix = "fc"
    type: ClassVar[str] = "function_call"
    given: ClassVar[str] = "arguments"
    """What the item, and its last event, call the arguments."""

    def __init__(self, response_id: str, index: int, emit: Emit, call_id: str, origin: Origin) -> None:
        super().__init__(response_id, index, emit)
        self._call_id = call_id
        self._origin = origin
        self._pieces: list[str] = []

    def argue(self, fragment: str) -> None:
        """Take a piece of the arguments; behind whole ones there is none."""
        if fragment and not self.status:
            self._pieces.append(fragment)
            self._say(fragment)

    def whole(self) -> bool:
        """Tell whether the arguments are whole."""
        return _object(self._arguments()) is not None

    def finish(self) -> None:
        """Say the arguments at once."""
        self._tell(f"response.{self.type}_{self.given}.done", **{self.given: self._value()})

    def shown(self, *, sealed: bool) -> Json:
        """Return the call."""
        said: Json = {
            "id": self.id,
            "type": self.type,
            "status": self.status or "in_progress",
            "call_id": self._call_id,
            "name": self._origin.name,
            self.given: self._value() if self.status else "",
        }
        return {**said, "namespace": self._origin.namespace} if self._origin.namespace else said

    def _arguments(self) -> str:
        return "".join(self._pieces)

    def _say(self, fragment: str) -> None:
        self._tell("response.function_call_arguments.delta", delta=fragment)

    def _value(self) -> str:
        return self._arguments()


class CustomCall(Call):
    """A custom tool that is called. Its input is known when the JSON around it is whole."""

    prefix = "ctc"
    type = "custom_tool_call"
    given = "input"

    def finish(self) -> None:
        """Say the input, in one piece."""
        self._tell("response.custom_tool_call_input.delta", delta=self._value())
        super().finish()

    def _say(self, fragment: str) -> None:
        """Say nothing yet."""

    def _value(self) -> str:
        """Return the input; the arguments themselves, if the model did not put it where it was told to."""
        given = (_object(self._arguments()) or {}).get("input")
        return given if isinstance(given, str) else self._arguments()


def _object(text: str) -> Json | None:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return None
