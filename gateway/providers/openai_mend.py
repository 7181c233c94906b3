"""Mends what servers that speak OpenAI's dialect write otherwise, where official clients would crash or misread it.

What a client's own helper makes of each fault was tried with the official SDKs: a repeated id or name is joined to
itself, a tool call without its index is a TypeError, one with a gap before it an IndexError, `choices: null` a
TypeError. Everything here works on decoded objects, in place, and tells whether it changed anything: what is right
already goes on as the bytes that came.
"""

from typing import Any, cast

import msgspec

from gateway.core.call import Attempt
from gateway.core.errors import Unreachable

_any = msgspec.json.Decoder().decode


def unseen_chars(message: dict[str, Any]) -> int:
    """Return how many characters of a message, or a delta, are reasoning or arguments of tools."""
    reasoning = message.get("reasoning_content")
    functions = [call["function"] for call in objects(message.get("tool_calls")) if call.get("function")]
    said = [function.get("arguments") for function in objects(functions)]
    return sum(len(text) for text in (reasoning, *said) if isinstance(text, str))


HEAD = ("id", "object", "created", "model")
FINISHES = {
    "eos": "stop",  # Together
    "end_turn": "stop",
    "stop_sequence": "stop",
    "model_length": "length",  # Mistral
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "safety": "content_filter",
}
"""Other words for a finish reason, in lower case. Gemini's compatible endpoint once shouted them."""
FAILED = frozenset({"error", "abort", "insufficient_system_resource"})
"""Finish reasons that say that the answer is none (Mistral, vLLM, DeepSeek)."""
SPEECH = (
    "content",
    "reasoning_content",
    "tool_calls",
    "refusal",
    "function_call",
    "audio",
    "images",
    "annotations",
    "reasoning_details",
)
"""Fields of a message by which something is said."""


class Head:
    """The id, model and time of one answer: the upstream's, or made up where it says none, and the same throughout."""

    def __init__(self, attempt: Attempt, object: str) -> None:
        self._attempt = attempt
        self._object = object
        self.created = 0
        self.model = ""
        self.id = ""

    def mend(self, said: dict[str, Any]) -> bool:
        """Fill in what is missing, and say again what was said first.

        Snowflake's every chunk has it all empty; Groq's and xAI's say each their own time.
        """
        attempt, id, model, created = self._attempt, said.get("id"), said.get("model"), said.get("created")
        self.id = self.id or (id if isinstance(id, str) else "") or f"chatcmpl-{attempt.id}"
        self.model = self.model or (model if isinstance(model, str) else "") or attempt.deployment.model
        self.created = self.created or (created if isinstance(created, int) else 0) or int(attempt.clock.wall())
        right: dict[str, Any] = {
            "id": self.id,
            "object": self._object,
            "created": self.created,
            "model": self.model,
        }
        if all(said.get(name) == value for name, value in right.items()):
            return False
        said.update(right)
        return True

    def bare(self) -> dict[str, Any]:
        """Return an object with nothing but a head and no choices."""
        said: dict[str, Any] = {"choices": []}
        self.mend(said)
        return {**{name: said[name] for name in HEAD}, "choices": []}


def mend_message(message: dict[str, Any]) -> bool:
    """Mend a message or a delta: one name for reasoning, and content that is text."""
    changed = False
    content = message.get("content")
    if isinstance(content, list):
        text, thought = _parted(cast("list[Any]", content))
        message["content"] = text
        if thought:
            message["reasoning_content"] = thought
        changed = True
    reasoning = message.get("reasoning")
    if isinstance(reasoning, str) and reasoning:
        del message["reasoning"]
        message["reasoning_content"] = message.get("reasoning_content") or reasoning
        changed = True
    return changed


def mend_finish(choice: dict[str, Any], *, called: bool, forced: bool) -> bool:
    """Mend a choice's finish reason.

    Args:
        choice: with or without a finish.
        called: tools were called.
        forced: by a function that the client named: OpenAI itself then says `stop`.

    Raises:
        Unreachable: it says that the answer failed.
    """
    reason = choice.get("finish_reason")
    if not isinstance(reason, str) or not reason:
        return False
    word = reason.lower()
    if word in FAILED:
        raise Unreachable(f'the upstream ended its answer with "{reason}"')
    word = FINISHES.get(word, word)
    if word == "stop" and called and not forced:
        word = "tool_calls"
    choice["finish_reason"] = word
    return word != reason


def mend_call(call: dict[str, Any], *, begins: bool, whole: bool) -> bool:
    """Mend a tool call, or a piece of one: its type, and arguments that are text. Custom tools are left alone.

    Args:
        call: in a message or a delta.
        begins: it is not the continuation of one.
        whole: nothing of it is still to come, so that arguments left out are none.
    """
    if "custom" in call:
        return False
    changed = False
    if begins and not call.get("type"):
        call["type"], changed = "function", True
    function = call.get("function")
    if not isinstance(function, dict):
        function, changed = {}, True
        call["function"] = function
    said = cast("dict[str, Any]", function)
    arguments, empty = said.get("arguments"), "{}" if whole else ""
    if not isinstance(arguments, str):  # Ollama has sent objects, and Gemini leaves out what is empty
        said["arguments"] = empty if arguments is None else msgspec.json.encode(arguments).decode()
        changed = True
    return changed


def mend_whole(said: dict[str, Any], attempt: Attempt) -> bool:
    """Mend a whole answer, but for its usage.

    Raises:
        Unreachable: it has no choices, or says that it failed.
        msgspec.DecodeError: it is nothing of this dialect.
    """
    choices = objects(said.get("choices"))
    if not choices:
        raise Unreachable("the upstream answered 200, but without choices")
    changed = Head(attempt, "chat.completion").mend(said)
    for number, choice in enumerate(choices):
        changed |= _mend_choice(choice, number, attempt)
    return changed


def made_id(attempt: Attempt, choice: int, call: int) -> str:
    """Return an id for a tool call that came without: unique, and the same however often the answer is read."""
    return f"call_{attempt.id}_{call}" if not choice else f"call_{attempt.id}_{choice}_{call}"


def is_forced(attempt: Attempt) -> bool:
    """Tell whether the client named the function to be called."""
    choice = attempt.body.get("tool_choice")
    return isinstance(choice, dict) and "function" in choice


def json_object(data: bytes) -> dict[str, Any]:
    """Decode a JSON object to the last field.

    Raises:
        msgspec.DecodeError: it is none.
    """
    said = _any(data)
    if not isinstance(said, dict):
        raise msgspec.ValidationError("no object")
    return cast("dict[str, Any]", said)


def objects(said: object) -> list[dict[str, Any]]:
    """Return a list of objects as what it is; `None` is an empty one.

    Raises:
        msgspec.DecodeError: it is none.
    """
    if said is None:
        return []
    if not isinstance(said, list) or not all(isinstance(one, dict) for one in cast("list[object]", said)):
        raise msgspec.ValidationError("no list of objects")
    return cast("list[dict[str, Any]]", said)


def _mend_choice(choice: dict[str, Any], number: int, attempt: Attempt) -> bool:
    changed = False
    if not isinstance(choice.get("index"), int):
        choice["index"], changed = number, True
    message = choice.get("message")
    if not isinstance(message, dict):
        raise Unreachable("the upstream answered 200, but without a message")
    said = cast("dict[str, Any]", message)
    changed |= mend_message(said)
    calls = objects(said.get("tool_calls"))
    for position, call in enumerate(calls):
        changed |= mend_call(call, begins=True, whole=True)
        if not call.get("id"):
            call["id"], changed = made_id(attempt, choice["index"], position), True
    if not choice.get("finish_reason"):
        choice["finish_reason"], changed = "stop", True
    changed |= mend_finish(choice, called=bool(calls), forced=is_forced(attempt))
    return changed


def _parted(content: list[Any]) -> tuple[str, str]:
    """Return the text and the thoughts of a content that is a list, as Mistral's thinking models write it."""
    text, thought = "", ""
    for part in content:
        if isinstance(part, str):
            text += part
        elif isinstance(part, dict):
            said = cast("dict[str, Any]", part)
            text += _text(said.get("text"))
            thought += _text(said.get("thinking"))
    return text, thought


def _text(said: object) -> str:
    if isinstance(said, str):
        return said
    return _parted(cast("list[Any]", said))[0] if isinstance(said, list) else ""
