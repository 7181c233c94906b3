"""A streamed answer as a whole one, and a whole answer as a stream: what a cache needs to serve both from one.

Only for chat completions as we send them: one role, tool calls numbered without gaps, ids and names said once.
"""

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from gateway.core.reply import Chunk
from gateway.core.usage import Usage
from gateway.wire import sse
from gateway.wire.openai import encode, usage_object

_HEAD = ("id", "object", "created", "model", "choices", "usage")
_REPLACED = frozenset({"role", "type", "id", "index", "format", "channel"})
"""Text of a delta that is said again, not continued."""
_NUMBERED = ("tool_calls", "annotations", "thinking_blocks")
"""Lists whose entries have an `index` in a stream, and none in a whole answer."""
_PADDING = frozenset({"obfuscation", "p"})
"""Filler against those who measure the sizes of chunks (OpenAI, Mistral); it means nothing."""


def fold(chunks: Sequence[Chunk]) -> Chunk:
    """Return the whole answer that a stream's chunks tell; one that is whole already, as it is.

    Raises:
        ValueError: there are no chunks, or they are no chat completion.
    """
    if len(chunks) == 1 and chunks[0].data.startswith(b"{"):
        return chunks[0]
    whole: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for said in _events(chunks):
        for name, value in said.items():
            if name not in ("object", "choices", *_PADDING) and (value is not None or name not in whole):
                whole[name] = value
        for choice in cast("list[dict[str, Any]]", said.get("choices") or []):
            _add_choice(choices.setdefault(choice["index"], {"index": choice["index"]}), choice)
    if not choices:
        raise ValueError("a stream without choices is no chat completion")
    usage = next((chunk.usage for chunk in reversed(chunks) if chunk.usage is not None), None)
    used = whole.pop("usage", None) or (None if usage is None else usage_object(usage))
    completion: dict[str, Any] = {
        "id": whole.pop("id"),
        "object": "chat.completion",
        "created": whole.pop("created"),
        "model": whole.pop("model"),
        "choices": [_whole_choice(choices[index]) for index in sorted(choices)],
    }
    if used:
        completion["usage"] = used
    completion |= whole
    text = "".join(chunk.text for chunk in chunks)
    return Chunk(encode(completion), text, usage, next((c.finish_reason for c in chunks if c.finish_reason), ""))


def unfold(whole: Chunk) -> list[Chunk]:
    """Return a stream that tells a whole answer: one chunk with every event of its choices, and one with its usage.

    Raises:
        ValueError: it is no chat completion.
    """
    said: dict[str, Any] = msgspec.json.decode(whole.data)
    if not isinstance(said.get("choices"), list):
        raise ValueError("an answer without choices is no chat completion")
    head = {name: said.get(name) for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    extras = {name: value for name, value in said.items() if name not in _HEAD}
    events: list[bytes] = []
    for choice in cast("list[dict[str, Any]]", said["choices"]):
        for part in _parts(choice):
            events.append(_framed({**head, "choices": [part], **extras}))
            # What is long is said once; what OpenAI says on every chunk is short.
            extras = {name: value for name, value in extras.items() if not isinstance(value, list | dict)}
    chunks = [Chunk(b"".join(events), whole.text, finish_reason=whole.finish_reason)]
    usage, used = whole.usage, said.get("usage")
    if usage is not None or used:
        used = used or usage_object(cast("Usage", usage))
        data = _framed({**head, "choices": [], **extras, "usage": used})
        chunks.append(Chunk(data, usage=usage, silent=True, usage_only=True))
    return chunks


def _events(chunks: Sequence[Chunk]) -> list[dict[str, Any]]:
    splitter = sse.Splitter()
    events = [event for chunk in chunks for event in splitter.feed(chunk.data)] + splitter.end()
    return [msgspec.json.decode(event.data, type=dict[str, Any]) for event in events if event.data != b"[DONE]"]


def _framed(said: dict[str, Any]) -> bytes:
    return b"data: " + encode(said) + b"\n\n"


# ── From a stream ────────────────────────────────────────────────────────────────────────────────────────────────


def _add_choice(whole: dict[str, Any], choice: dict[str, Any]) -> None:
    """Add what one event says of a choice; `logprobs` are lists that grow."""
    for name, value in choice.items():
        if name == "delta":
            _merge(whole.setdefault("message", {}), value)
        elif name == "logprobs" and isinstance(value, dict) and isinstance(whole.get(name), dict):
            _merge(whole[name], cast("dict[str, Any]", value))
        elif value is not None or name not in whole:
            whole[name] = value


def _merge(whole: dict[str, Any], delta: dict[str, Any]) -> None:
    """Add a delta: texts are continued, lists grow, entries with an `index` are merged; of all else the last counts."""
    for name, value in delta.items():
        had = whole.get(name)
        if value is None:
            whole.setdefault(name, None)
        elif isinstance(value, list):
            whole[name] = _grown(cast("list[Any]", had) if isinstance(had, list) else [], cast("list[Any]", value))
        elif isinstance(value, dict):
            into: dict[str, Any] = cast("dict[str, Any]", had) if isinstance(had, dict) else {}
            _merge(into, cast("dict[str, Any]", value))
            whole[name] = into
        elif isinstance(value, str) and isinstance(had, str) and name not in _REPLACED:
            whole[name] = had + value
        else:
            whole[name] = value


def _grown(had: list[Any], more: list[Any]) -> list[Any]:
    for entry in more:
        if not isinstance(entry, dict):
            had.append(entry)
            continue
        said = cast("dict[str, Any]", entry)
        known = _at(had, said["index"]) if isinstance(said.get("index"), int) else None
        if known is None:
            had.append(known := dict[str, Any]())
        _merge(known, said)
    return had


def _at(entries: list[Any], index: int) -> dict[str, Any] | None:
    """Return the entry that has this `index`."""
    for entry in cast("list[dict[str, Any]]", entries):
        if isinstance(entry, dict) and entry.get("index") == index:  # pyright: ignore[reportUnnecessaryIsInstance]
            return entry
    return None


def _whole_choice(choice: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = choice.pop("message", {})
    for name in _NUMBERED:
        for entry in message.get(name) or ():
            entry.pop("index", None)
    spoken = any(message.get(name) for name in ("tool_calls", "refusal", "audio", "function_call"))
    content = message.pop("content", None) or (None if spoken else "")
    refusal = message.pop("refusal", None) or None
    role = message.pop("role", "assistant")
    finish = choice.pop("finish_reason", None)
    return {
        "index": choice.pop("index"),
        "message": {"role": role, "content": content, "refusal": refusal, **message},
        "logprobs": choice.pop("logprobs", None),
        "finish_reason": finish,
        **choice,
    }


# ── To a stream ──────────────────────────────────────────────────────────────────────────────────────────────────


def _parts(choice: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the choices of the events that tell one whole choice: its role, what it says, and its end."""
    message: dict[str, Any] = dict(choice["message"])
    content: str | None = message.pop("content", None)
    opening = {"role": message.pop("role", "assistant"), "content": None if content is None else ""}
    for name in _NUMBERED:
        entries: list[dict[str, Any]] = message.get(name) or []
        if entries:
            message[name] = [{"index": number, **entry} for number, entry in enumerate(entries)]
    calls: list[dict[str, Any]] = message.pop("tool_calls", None) or []
    deltas: list[dict[str, Any]] = [opening]
    deltas += [{name: value} for name, value in message.items() if value is not None]
    deltas += [{"content": content}] if content else []
    deltas += [{"tool_calls": [call]} for call in calls]
    parts: list[dict[str, Any]] = [
        {"index": choice["index"], "delta": delta, "logprobs": None, "finish_reason": None} for delta in deltas
    ]
    parts[-1]["logprobs"] = choice.get("logprobs")
    more = {name: value for name, value in choice.items() if name not in ("message", "logprobs")}
    return [*parts, {"delta": {}, "logprobs": None, **more}]
