"""One stream that goes on with the chunks of another: for a reader it stays one answer.

Official clients join what is said twice (a role becomes "assistantassistant"), and take an answer's id from anywhere;
so the second stream's chunks get the first one's head, and lose their role.
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


def head_of(chunk: Chunk) -> dict[str, Any]:
    """Return the id, time and model that a stream's first chunk says."""
    said = _objects(chunk.data)
    return {name: said[0][name] for name in _HEAD} if said else {}


def calls_tools(chunk: Chunk) -> bool:
    """Tell whether a chunk has a piece of a tool call."""
    if b'"tool_calls"' not in chunk.data and b'"function_call"' not in chunk.data:
        return False
    deltas = [_delta(choice) for said in _objects(chunk.data) for choice in said.get("choices") or ()]
    return any(delta.get("tool_calls") or delta.get("function_call") for delta in deltas)


class Splice:
    """Rewrites the chunks of the second stream.

    Args:
        head: of the first.
        shown: the text of the first, if the second goes on from it.
        before: what the first used, to be told with what the second does; `None`: it is not part of the answer.
    """

    def __init__(self, head: dict[str, Any], *, shown: str = "", before: Usage | None = None) -> None:
        self._head = head
        self._before = before
        self._trims = shown[-1:].isspace()
        """What was shown ended in white space, so what follows does not begin with it."""
        self._echo = shown if len(shown) >= SHORTEST_ECHO else ""
        """Some models, and Mistral by design, begin with all that they were given to go on from."""
        self._held = ""

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
        return replace(chunk, data=b"".join(data), usage=usage, text=text)

    def _choice(self, choice: dict[str, Any]) -> str:
        """Take out what was shown before; return the text that is left."""
        delta = _delta(choice)
        delta.pop("role", None)
        content = delta.get("content") or ""
        fresh = self._fresh(content, ends=bool(choice.get("finish_reason")))
        if fresh or content:
            delta["content"] = fresh
            choice["delta"] = delta
        return fresh

    def _fresh(self, content: str, *, ends: bool) -> str:
        if self._echo:
            self._held += content
            if not ends and len(self._held) < len(self._echo) and self._echo.startswith(self._held):
                return ""
            content, self._held = self._held.removeprefix(self._echo), ""
            self._echo = ""
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
