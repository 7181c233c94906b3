"""The content blocks of a message, made of neutral events.

Blocks stand one behind the other, while an answer may go on with a tool call, or with its text, after another has
begun. So each event finds its block, and a block that something else follows is written when it is whole: a text at
once, a tool call when its input is. Until then what follows waits.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.core.errors import Unreachable
from gateway.wire.events import Cited, Said, Thought, ToolArgued, ToolBegan
from gateway.wire.messages_types import GOOGLE, UNSIGNED

Delta = dict[str, Any]
Content = Said | Thought | ToolBegan | ToolArgued | Cited

NO_OBJECT = (msgspec.DecodeError, RecursionError)
"""What decoding raises for a tool's input that is no object, or none yet."""
PIECES = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}
"""Where in its block a delta's text belongs."""


class Block:
    """One block as it grows.

    Args:
        start: how it begins, with all that grows empty.
    """

    def __init__(self, start: dict[str, Any]) -> None:
        self.start = start
        self.type: str = start["type"]
        self.deltas: list[Delta] = []
        """What is to be written of it."""
        self.is_begun = False
        """Its beginning is written."""
        self.is_signed = self.type != "thinking"
        """A thinking block needs no signature any more."""
        self._input: list[str] = []

    def say(self, type: str, **said: Any) -> None:
        """Add a piece."""
        self.deltas.append({"type": type, **said})

    def argue(self, fragment: str) -> None:
        """Add a piece of a tool's input."""
        self.say("input_json_delta", partial_json=fragment)
        self._input.append(fragment)

    def sign(self, signature: str) -> None:
        """Add the signature of its reasoning; nothing comes behind it."""
        self.say("signature_delta", signature=signature)
        self.is_signed = True

    def is_whole(self) -> bool:
        """Tell whether nothing more is to be expected, once another block has begun."""
        if self.type != "tool_use":
            return True
        if not self._input or not self._input[-1].rstrip().endswith("}"):
            return False  # no object ends here; to look at all of it at every piece would take the square of its time
        try:
            self.input()
        except NO_OBJECT:
            return False
        return True

    def input(self) -> dict[str, Any]:
        """Return a tool's input; none said is an empty one.

        Raises:
            msgspec.DecodeError: it is no object, or none yet.
        """
        text = "".join(self._input)
        return msgspec.json.decode(text, type=dict[str, Any] | None) or {} if text.strip() else {}

    def object(self) -> dict[str, Any]:
        """Return it as a whole message has it, if none of it was written.

        Raises:
            msgspec.DecodeError: it is a tool call, and its input is no object.
        """
        if self.type == "tool_use":
            return {**self.start, "input": self.input()}
        said = dict(self.start)
        for type, name in PIECES.items():
            if pieces := [delta[name] for delta in self.deltas if delta["type"] == type]:
                said[name] = "".join(pieces)
        if cited := [delta["citation"] for delta in self.deltas if delta["type"] == "citations_delta"]:
            said["citations"] = cited
        return said


class Blocks:
    """The blocks of one answer."""

    def __init__(self, message_id: str) -> None:
        self.called = False
        """A tool is called."""
        self._message_id = message_id
        self._open: list[Block] = []
        """What is not written to its end, in order."""
        self._tools: dict[int, Block] = {}
        self._index = 0
        """How many blocks are written to their end."""

    def add(self, event: Content) -> None:
        """Take what an event says.

        A citation behind a tool call is left out: no text is open at which it could stand.

        Raises:
            Unreachable: the input of a tool call goes on behind its end.
        """
        match event:
            case Said():
                self._last("text", text="").say("text_delta", text=event.text)
            case Thought(redacted=data) if data:
                self._begin(Block({"type": "redacted_thinking", "data": data}))
            case Thought():
                self._think(event)
            case ToolBegan():
                self._call(event)
            case ToolArgued():
                self._argue(event)
            case Cited() if not self._open or self._open[-1].type != "tool_use":
                self._last("text", text="").say("citations_delta", citation=_citation(event))
            case Cited():
                pass

    def whole(self, *, is_cut: bool) -> list[dict[str, Any]]:
        """Return all blocks as objects; of a cut answer without the call in the midst of which it was cut.

        Raises:
            Unreachable: the input of a tool call is no object.
        """
        objects: list[dict[str, Any]] = []
        for block in self._open:
            _signed(block)
            try:
                objects.append(block.object())
            except NO_OBJECT:
                if not is_cut:
                    raise Unreachable(f"the model called {block.start['name']} with what is no JSON object") from None
        return objects

    def written(self) -> Iterable[dict[str, Any]]:
        """Yield the events that can be written now."""
        while self._open:
            block = self._open[0]
            yield from self._grown(block)
            if len(self._open) == 1 or not block.is_whole():
                return
            yield from self._ended(block)

    def rest(self) -> Iterable[dict[str, Any]]:
        """Yield the events that are left at the end of the answer."""
        while self._open:
            yield from self._grown(self._open[0])
            yield from self._ended(self._open[0])

    def _grown(self, block: Block) -> Iterable[dict[str, Any]]:
        if not block.is_begun:
            block.is_begun = True
            yield {"type": "content_block_start", "index": self._index, "content_block": block.start}
        for delta in block.deltas:
            yield {"type": "content_block_delta", "index": self._index, "delta": delta}
        block.deltas.clear()

    def _ended(self, block: Block) -> Iterable[dict[str, Any]]:
        _signed(block)
        yield from self._grown(block)
        yield {"type": "content_block_stop", "index": self._index}
        self._open.pop(0)
        self._index += 1

    def _begin(self, block: Block) -> Block:
        self._open.append(block)
        return block

    def _last(self, type: str, **empty: str) -> Block:
        """Return the last block if it is of that type, else a new one."""
        if self._open and self._open[-1].type == type:
            return self._open[-1]
        return self._begin(Block({"type": type, **empty}))

    def _think(self, event: Thought) -> None:
        if not event.text and not event.signature:
            return
        block = self._open[-1] if self._open else None
        if block is None or block.is_signed:
            block = self._begin(Block({"type": "thinking", "thinking": "", "signature": ""}))
        if event.text:
            block.say("thinking_delta", thinking=event.text)
        if event.signature:
            block.sign(event.signature)

    def _call(self, event: ToolBegan) -> None:
        self.called = True
        if event.signature:
            self._begin(Block({"type": "redacted_thinking", "data": GOOGLE + event.signature}))
        id = event.id or f"toolu_{self._message_id}_{event.index}"
        start: dict[str, Any] = {"type": "tool_use", "id": id, "name": event.name, "input": {}}
        self._tools[event.index] = self._begin(Block(start))

    def _argue(self, event: ToolArgued) -> None:
        block = self._tools[event.index]
        if block in self._open:
            block.argue(event.fragment)
        elif event.fragment.strip():
            raise Unreachable(f"the model goes on with its call of {block.start['name']} behind the end of its input")


def _signed(block: Block) -> None:
    """Sign reasoning that its upstream did not: clients expect a signature."""
    if not block.is_signed:
        block.sign(UNSIGNED)


def _citation(event: Cited) -> dict[str, Any]:
    """Return a source as web search cites it: the one kind of citation that is an address."""
    said = {"url": event.url, "title": event.title, "cited_text": "", "encrypted_index": ""}
    return {"type": "web_search_result_location", **said}
