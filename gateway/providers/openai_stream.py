"""The events of a stream in OpenAI's dialect that need a second look: beginnings, ends, usage, errors, quirks."""

from operator import attrgetter
from typing import Any, cast

import msgspec

from gateway.core.call import Attempt
from gateway.core.errors import Unreachable
from gateway.core.reply import Chunk
from gateway.core.usage import Usage
from gateway.providers.openai_errors import failure_of, is_error
from gateway.providers.openai_mend import (
    HEAD,
    SPEECH,
    Head,
    is_forced,
    json_object,
    made_id,
    mend_call,
    mend_finish,
    mend_message,
    objects,
    unseen_chars,
)
from gateway.providers.openai_usage import mend_usage, usage_of
from gateway.providers.vendors import Vendor

_encode = msgspec.json.Encoder().encode

_finish = attrgetter("finish")

CALLED = ("tool_calls", "function_call")
"""Finish reasons of answers that are calls."""


class StreamMender:
    """Mends the events of one stream, and knows how far its choices are."""

    def __init__(self, attempt: Attempt, vendor: Vendor) -> None:
        self._attempt = attempt
        self.vendor = vendor
        self.model = attempt.deployment.model
        """As the vendor calls it."""
        self._held: dict[str, Any] = {}
        self._left: list[Chunk] = []
        self._counted_usage: dict[str, Any] = {}
        fields = attempt.body.fields
        asked = attempt.body.get("n") if "n" in fields else None
        self._asked = asked if isinstance(asked, int) else 1
        self._unmoderated = "moderation" in fields and attempt.body.get("moderation") is not None
        """OpenAI's verdict on the answer was asked for, which comes last, and has not come."""
        self.head = Head(attempt, "chat.completion.chunk")
        self.choices: dict[int, _Choice] = {}
        self.counted = False
        """The last event told nothing but what was used, behind something that was said."""
        self.settled = False
        """What was used was told behind the last finish reason: nothing that matters follows."""

    @property
    def complete(self) -> bool:
        """Every choice that was asked for, and every one that began, has its finish reason."""
        choices = self.choices
        if not choices or len(choices) < self._asked or self._unmoderated:
            return False
        return all(map(_finish, choices.values()))

    @property
    def straight(self) -> bool:
        """Nothing that came is still to be told, and no verdict is waited for: an event is what it says and no more."""
        return not (self._held or self._counted_usage or self._unmoderated)

    def begin(self, index: int) -> "_Choice":
        """Know that a choice begins."""
        choice = self.choices[index] = _Choice()
        return choice

    def turned(self, *, counted: bool) -> None:
        """Know of an event that goes on as it came: a choice began or ended by it, or it `counted` what was used."""
        self.settled = counted and self.complete
        self.counted = counted and any(one.spoke for one in self.choices.values())

    @property
    def called(self) -> bool:
        """A tool was called, or the finish reason says so."""
        return any(choice.called or choice.finish in CALLED for choice in self.choices.values())

    def event(self, data: bytes, name: bytes = b"") -> list[Chunk]:
        """Return the chunks of one event; none for what is no part of the answer, such as a ping.

        Raises:
            UpstreamFailed: it is an error.
            msgspec.DecodeError: it is nothing of this dialect.
        """
        said = json_object(data)
        usage_object, changed = self._usage(said)
        usage = self._used(usage_object, said)
        if is_error(said, name):
            if usage is not None:
                self._left = [self._usage_chunk(usage_object, usage)]
            raise failure_of(data)
        self.settled = usage is not None and self.complete
        self._unmoderated = self._unmoderated and not said.get("moderation")
        choices = said.get("choices")
        if "choices" not in said and usage is None:
            return []
        changed |= choices is None
        choices = _checked(objects(choices))
        self.counted = usage is not None and not choices and any(one.spoke for one in self.choices.values())
        if not choices and usage is None and not (said.get("id") and said.get("model")):
            # Azure's first event has nothing but its verdict on the prompt, which the next one can carry.
            self._held.update({key: value for key, value in said.items() if key not in (*HEAD, "choices") and value})
            return []
        changed |= self._carry(said) | self.head.mend(said) | (b"\n" in data)
        told = _Told(changed)
        said["choices"] = [choice for number, choice in enumerate(choices) if self._choice(choice, number, told)]
        if choices and not said["choices"] and usage is None:
            return []
        if usage is not None and (not said["choices"] or told.finishes):
            return self._counted(said, usage_object, usage, told, data)
        return [self._chunk(said, told, data, usage)]

    def close(self) -> list[Chunk]:
        """Return the finish reasons that the upstream, which says that it is done, never said.

        Raises:
            Unreachable: it never said anything.
        """
        if not any(choice.spoke or choice.finish for choice in self.choices.values()):
            raise Unreachable("the upstream said that it is done before it said anything")
        chunks: list[Chunk] = []
        for index, choice in self.choices.items():
            if not choice.finish:
                choice.finish = "tool_calls" if choice.calls else "stop"
                ending: dict[str, Any] = {"index": index, "delta": {}, "logprobs": None, "finish_reason": choice.finish}
                finish = choice.finish if index == 0 else ""
                chunks.append(Chunk(_framed({**self.head.bare(), "choices": [ending]}), finish_reason=finish))
        return chunks

    def left(self) -> list[Chunk]:
        """Return what an error left to be told: the usage that stood beside it."""
        left, self._left = self._left, []
        return left

    def _usage(self, said: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """Return the usage object, wherever the event has it, and whether the event was changed for it."""
        used = said.get("usage")
        groq = said.get("x_groq")
        if not used and isinstance(groq, dict):
            used = cast("dict[str, Any]", groq).get("usage")
        if not isinstance(used, dict):
            return {}, False
        usage_object = cast("dict[str, Any]", used)
        changed = mend_usage(usage_object, self.vendor)
        if self._used(usage_object, said) is None:
            said["usage"] = None
            return {}, True
        return usage_object, changed

    def _used(self, usage_object: dict[str, Any], said: dict[str, Any]) -> Usage | None:
        return usage_of(usage_object, self.vendor, tier=said.get("service_tier"), model=self.model)

    def _carry(self, said: dict[str, Any]) -> bool:
        held, self._held = self._held, {}
        for key, value in held.items():
            said.setdefault(key, value)
        return bool(held)

    def _counted(
        self, said: dict[str, Any], usage_object: dict[str, Any], usage: Usage, told: "_Told", data: bytes
    ) -> list[Chunk]:
        """Return usage as an event of its own, as OpenAI does: only clients that asked for it are to see it."""
        if not said["choices"]:
            if self._counted_usage == usage_object:
                return []  # vLLM says it once more if every chunk is to say it
            if said.get("usage") is usage_object and not told.emptied:
                return [Chunk(_framed(said, told, data), usage=usage, usage_only=True, silent=True)]
            return [self._usage_chunk(usage_object, usage)]
        self._counted_usage = usage_object
        said.pop("usage", None)
        told.changed = True
        return [self._chunk(said, told, data, None), self._usage_chunk(usage_object, usage)]

    def _chunk(self, said: dict[str, Any], told: "_Told", data: bytes, usage: Usage | None) -> Chunk:
        return Chunk(_framed(said, told, data), told.text, usage, told.finish, not told.speaks, unseen=told.unseen)

    def _usage_chunk(self, usage_object: dict[str, Any], usage: Usage) -> Chunk:
        said = {**self.head.bare(), "usage": usage_object}
        return Chunk(_framed(said), usage=usage, usage_only=True, silent=True)

    def _choice(self, choice: dict[str, Any], number: int, told: "_Told") -> bool:
        """Mend one choice of an event; return whether it says anything at all."""
        index = choice.get("index")
        if not isinstance(index, int):
            index = choice["index"] = number
            told.changed = True
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            delta, told.changed = {}, True
        state = self.choices.get(index)
        began = state is None
        if state is None:
            state = self.begin(index)
        choice["delta"] = delta = self._role(cast("dict[str, Any]", delta), began, told)
        told.changed |= mend_message(delta)
        told.changed |= self._tool_calls(objects(delta.get("tool_calls")), state, index)
        state.called = state.called or bool(state.calls) or bool(delta.get("function_call"))
        speaks = any(delta.get(name) for name in SPEECH)
        state.spoke = state.spoke or speaks
        finishes = self._finish(choice, state, told)
        if not finishes and not speaks and (state.finish or not _has_more(choice)):
            told.changed = told.emptied = True
            return False
        told.finishes |= finishes
        told.speaks |= speaks or finishes
        content = delta.get("content")
        told.unseen += unseen_chars(delta)
        if index != 0:
            told.unseen += len(content) if isinstance(content, str) else 0
        else:
            told.text += content if isinstance(content, str) else ""
            told.finish = state.finish if finishes else told.finish
        return True

    def _role(self, delta: dict[str, Any], began: bool, told: "_Told") -> dict[str, Any]:
        """Return the delta with its role if it is a choice's first, and without if it is not."""
        if not began:
            told.changed |= delta.pop("role", None) is not None
            return delta
        if delta.get("role") == "assistant":
            return delta
        told.changed = True
        return {**delta, "role": "assistant"}

    def _finish(self, choice: dict[str, Any], state: "_Choice", told: "_Told") -> bool:
        """Mend a choice's finish reason; return whether this is where it finishes, which it does once."""
        forced = bool(state.calls) and is_forced(self._attempt)
        told.changed |= mend_finish(choice, called=bool(state.calls), forced=forced)
        reason = choice.get("finish_reason")
        if not isinstance(reason, str) or not reason or state.finish:
            if reason is not None or "finish_reason" not in choice:  # xAI leaves it out; OpenAI's schema requires it
                choice["finish_reason"], told.changed = None, True
            return False
        state.finish = reason
        return True

    def _tool_calls(self, calls: list[dict[str, Any]], state: "_Choice", index: int) -> bool:
        changed = False
        for call in calls:
            function = cast("dict[str, Any]", call.get("function") or call.get("custom") or {})
            ours = self._place(call, bool(function.get("name")), state)
            begins = ours == len(state.calls)
            if begins:
                made = call.get("id") or made_id(self._attempt, index, ours)
                state.calls.append(_Call(made, call.get("index"), bool(function.get("name"))))
                state.straight = state.straight and call.get("index") == ours and self.vendor.tool_calls == "pieces"
                if call.get("id") != made:
                    call["id"], changed = made, True
            else:
                changed |= _without_repeats(call, function, state.calls[ours])
            if call.get("index") != ours:
                call["index"], changed = ours, True
            changed |= mend_call(call, begins=begins, whole=begins and self.vendor.tool_calls == "whole")
        return changed

    def _place(self, call: dict[str, Any], named: bool, state: "_Choice") -> int:
        """Return which of our calls, counted from 0 without gaps, this is a piece of; one past the last: a new one."""
        new, theirs, id = len(state.calls), call.get("index"), call.get("id")
        if not new or (self.vendor.tool_calls == "whole" and named):
            return new
        if isinstance(theirs, int):
            known = [number for number, other in enumerate(state.calls) if other.theirs == theirs]
            if not known:
                return new
            # Some give every call the index 0: another id with a name is another call.
            return new if id and named and id != state.calls[known[-1]].id else known[-1]
        known = [number for number, other in enumerate(state.calls) if id and other.id == id]
        if known:
            return known[0]
        return new if id or named else new - 1


class _Call:
    """A tool call that has begun."""

    __slots__ = ("id", "named", "theirs")

    def __init__(self, id: str, theirs: object, named: bool) -> None:
        self.id = id
        self.theirs = theirs
        self.named = named


class _Choice:
    """What was seen of one choice."""

    __slots__ = ("called", "calls", "finish", "spoke", "straight")

    def __init__(self) -> None:
        self.called = False
        self.finish = ""
        self.spoke = False
        self.calls: list[_Call] = []
        self.straight = True
        """The upstream numbers its tool calls as we do."""


class _Told:
    """What the choices of one event tell together."""

    __slots__ = ("changed", "emptied", "finish", "finishes", "speaks", "text", "unseen")

    def __init__(self, changed: bool) -> None:
        self.changed = changed
        self.emptied = False
        """A choice was left out."""
        self.finishes = False
        self.speaks = False
        self.text = ""
        self.unseen = 0
        self.finish = ""


def _checked(choices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return `choices` if they are of a shape to be mended; found out first, for half an event is not to be believed.

    Raises:
        msgspec.DecodeError: they are nothing of this dialect.
    """
    for choice in choices:
        delta = choice.get("delta")
        for call in objects(cast("dict[str, Any]", delta).get("tool_calls")) if isinstance(delta, dict) else ():
            objects([said for name in ("function", "custom") if (said := call.get(name)) is not None])
    return choices


def _without_repeats(call: dict[str, Any], function: dict[str, Any], begun: _Call) -> bool:
    """Take out what was said when the call began: clients join it to itself."""
    repeats = call.pop("id", None) is not None
    if function.get("name"):
        if begun.named:
            del function["name"]
            repeats = True
        begun.named = True
    return repeats


def _has_more(choice: dict[str, Any]) -> bool:
    """Whether a choice that says nothing has something else that a client may want: a role, an empty text, logprobs."""
    if choice["delta"]:
        return True
    return any(value for name, value in choice.items() if name not in ("index", "delta", "finish_reason"))


def _framed(said: dict[str, Any], told: _Told | None = None, data: bytes = b"") -> bytes:
    return b"data: " + (_encode(said) if told is None or told.changed else data) + b"\n\n"
