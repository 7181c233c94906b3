"""One stream that goes on with the chunks of another: for a reader it stays one answer.

Official clients join what is said twice (a role becomes "assistantassistant"), and take an answer's id from anywhere;
so the second stream's chunks get the first one's head, and lose their role. Thoughts are joined too, and a signature
fits only those it was made for: an answer that has begun to think keeps its own, and gets no others.
"""

from typing import Any

import msgspec
from msgspec.structs import replace

from gateway.core.reply import Chunk
from gateway.core.usage import Usage
from gateway.wire import sse
from gateway.wire.openai import encode, usage_object

SHORTEST_ECHO = 16
"""Characters: a shorter text may come twice by chance, and be meant."""

_HEAD = ("id", "created", "model")
_BOUND = ("tool_calls", "function_call", "refusal", "audio", "images", "annotations")
"""Fields of a delta that begin something which only whoever began it can end, or whose entries are numbered."""
_BOUND_KEYS = [f'"{name}"'.encode() for name in _BOUND]
_THOUGHTS = ("reasoning_content", "thinking_blocks", "reasoning_details")


def head_of(chunk: Chunk) -> dict[str, Any]:
    """Return the id, time and model that a stream's first chunk says."""
    return {name: value for said in _objects(chunk.data)[:1] for name, value in said.items() if name in _HEAD}


def is_bound(chunk: Chunk) -> bool:
    """Tell whether nobody else can go on behind a chunk: it ends the answer, or says more than text and thoughts."""
    if chunk.finish_reason:
        return True
    if not any(key in chunk.data for key in _BOUND_KEYS):
        return False
    deltas = [_delta(choice) for said in _objects(chunk.data) for choice in said.get("choices") or ()]
    return any(delta.get(name) for delta in deltas for name in _BOUND)


class Splice:
    """Rewrites the chunks of the second stream.

    Args:
        head: of the first.
        shown: the text of the first.
        echoes: the second begins with all that was shown, however short that is; Mistral does by design. Others may.
        thoughtful: the first has shown thoughts.
        before: what the first used, to be told with what the second does; `None`: it is not part of the answer.
    """

    def __init__(
        self,
        head: dict[str, Any],
        *,
        shown: str = "",
        echoes: bool = False,
        thoughtful: bool = False,
        before: Usage | None = None,
    ) -> None:
        self._head = head
        self._before = before
        self._thoughtful = thoughtful
        self._trims = shown[-1:].isspace()
        """What was shown ended in white space, so what follows does not begin with it."""
        text = shown.strip()
        self._echo = text if echoes or len(text) >= SHORTEST_ECHO else ""
        self._held = ""
        """What may be the beginning of an echo."""

    def __call__(self, chunk: Chunk) -> Chunk:
        """Return the chunk as a part of the first stream."""
        usage = chunk.usage
        if usage is not None and self._before is not None:
            usage = self._before + usage
        data, text = [line + b"\n\n" for line in chunk.data.split(b"\n") if line.startswith(b":")], ""
        for said in _objects(chunk.data):
            said |= self._head
            if said.get("usage") and usage is not None:
                said["usage"] = usage_object(usage)
            for choice in said.get("choices") or ():
                text += self._choice(choice)
            data.append(b"data: " + encode(said) + b"\n\n")
        lost_all = bool(chunk.text) and not (text or chunk.unseen or chunk.finish_reason)
        return replace(chunk, data=b"".join(data), usage=usage, text=text, silent=chunk.silent or lost_all)

    def _choice(self, choice: dict[str, Any]) -> str:
        """Take out what was shown before; return the text that is left."""
        delta = _delta(choice)
        for name in ("role", *(_THOUGHTS if self._thoughtful else ())):
            delta.pop(name, None)
        content = delta.get("content") or ""
        fresh = self._fresh(content, ends=bool(choice.get("finish_reason")))
        if fresh or content:
            delta["content"] = fresh
            choice["delta"] = delta
        return fresh

    def _fresh(self, content: str, *, ends: bool) -> str:
        if self._echo:
            self._held += content
            said = self._held.lstrip()
            if not ends and len(said) < len(self._echo) and self._echo.startswith(said):
                return ""
            content = said.removeprefix(self._echo) if said.startswith(self._echo) else self._held
            self._echo = self._held = ""
        if self._trims and content:
            content = content.lstrip()
            self._trims = not content
        return content


def seam(said: str) -> Chunk:
    """Return a comment, which every client passes over, that tells where two streams were joined."""
    plain = "".join(c if c.isprintable() else "?" for c in said)
    return Chunk(f": x-gateway-seam: {plain}\n\n".encode(), silent=True)


def _objects(data: bytes) -> list[dict[str, Any]]:
    return [msgspec.json.decode(event.data, type=dict[str, Any]) for event in sse.Splitter().feed(data)]


def _delta(choice: dict[str, Any]) -> dict[str, Any]:
    return choice.get("delta") or {}
