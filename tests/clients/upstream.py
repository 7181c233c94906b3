"""What the upstream behind the gateway answers, whichever client asks: the model's name says it.

A model is `hello.openai-3`: the answer, and who asks. The client is in the name so that what one of them meets (a
deployment that rests, say) is not met by the others, and so that its requests can be found.
"""

import base64
import json
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from tests.clients.thinking import thinking_events, thinking_whole
from tests.dialects import Asked, Says
from tests.script import Busy, Cut, Events, Fails, ScriptedUpstream, Tool
from tests.steps import Said, Step

HELLO = "Hello there, my old friend."
COUNTED = {"prompt_tokens": 100, "completion_tokens": 20, "cached_tokens": 40}
THOUGHT = "Let me see."
RESULT = "rain, 4 degrees"
"""What the clients' tool says."""
PRINTS = "printf 'rain, %s degrees' 4"
CALLS: dict[str, dict[str, Any]] = {
    "weather": {"city": "Oslo"},
    "Bash": {"command": PRINTS, "description": "Look out of the window"},
    "exec_command": {"cmd": PRINTS},
}
"""Which tools are called, and how."""
RAINS = "It rains in Oslo."
WEATHER = {"city": "Oslo", "celsius": 4}
COLOUR = "violet"
ASKS = "Which colour"
"""The second question of a client that follows up its first."""
EMBEDDING = [0.5, -0.25]
"""Numbers that are the same in every format."""
FORM = "StructuredOutput"
"""The tool by which Claude Code takes an answer in a form."""
RED = "I see red."
RETRY_AFTER_S = 1


def _png() -> str:
    """Return a picture of one red pixel, as base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = zlib.compress(b"\0\xff\0\0")
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")
    return base64.b64encode(png).decode()


PNG = _png()


class Upstream(ScriptedUpstream):
    """A scripted upstream whose script is the name of the model."""

    def next_step(self, asked: Asked) -> Step:
        """Return how a request is to be answered."""
        named = (asked.json or {}).get("model") or unquote(asked.path)
        return next(step(asked) for name, step in STEPS.items() if re.search(rf"\b{name}\.", named))


def _hello(asked: Asked) -> Said:
    return Says(HELLO, **COUNTED)


def _tools(asked: Asked) -> Said:
    """Call the tool that the client offers, its shell if it is an agent; when it has told its result, say so."""
    if RESULT.encode() in asked.body:
        return Says(RAINS, **COUNTED)
    return next(Tool(name, CALLS[name]) for name in _tool_names(asked.json) if name in CALLS)


def _structured(asked: Asked) -> Said:
    """Answer in the form that was asked for: as a text, or by the tool that stands for it; then be done."""
    if b"celsius" not in asked.body:
        return "no schema came"
    if b"Oslo" in asked.body:
        return "Done."
    names = _tool_names(asked.json)
    tool = names[0] if len(names) == 1 else next((name for name in names if name == FORM), "")
    return Tool(tool, WEATHER) if tool else json.dumps(WEATHER)


def _tool_names(body: Any) -> list[str]:
    """Return the names of the tools that a request offers, in whichever dialect."""
    found: list[Any] = body.get("tools") or body.get("toolConfig", {}).get("tools") or []
    tools = [tool for one in found for tool in one.get("functionDeclarations", [one])]
    return [(tool.get("function") or tool.get("toolSpec") or tool).get("name", "") for tool in tools]


def _image(asked: Asked) -> Said:
    return RED if PNG.encode() in asked.body else "I see nothing."


def _thinking(asked: Asked) -> Said:
    says = Says(HELLO, **COUNTED)
    if asked.stream:
        return Events(*thinking_events(THOUGHT, says, asked), between_s=0.0)
    return Fails(200, thinking_whole(THOUGHT, says, asked))


def _embed(asked: Asked) -> Said:
    """Return numbers, also where base64 was asked for, as many servers do."""
    if asked.path.endswith(":batchEmbedContents"):
        return Fails(200, {"embeddings": [{"values": EMBEDDING}]})
    if asked.path.endswith("/invoke"):
        return Fails(200, {"embedding": EMBEDDING, "inputTextTokenCount": 1})
    embedded = {"object": "embedding", "index": 0, "embedding": EMBEDDING}
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return Fails(200, {"object": "list", "data": [embedded], "model": asked.model, "usage": usage})


def _follow(asked: Asked) -> Said:
    """Remember a colour that was told before, be it told again or known by the response before."""
    knows = COLOUR in asked.body.decode() or asked.json.get("previous_response_id")
    return (
        COLOUR
        if knows and ASKS in asked.body.decode()
        else "I have forgotten."
        if ASKS in asked.body.decode()
        else "Yes."
    )


STEPS: dict[str, Callable[[Asked], Said]] = {
    "hello": _hello,
    "tools": _tools,
    "structured": _structured,
    "image": _image,
    "embed": _embed,
    "follow": _follow,
    "thinking": _thinking,
    "busy": lambda asked: Busy(retry_after=RETRY_AFTER_S),
    "cut": lambda asked: Cut(HELLO, after_events=4),
}
