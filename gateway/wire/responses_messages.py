"""The items of a Responses conversation as the messages of a chat completion request."""

from typing import Literal, NoReturn

from msgspec import Struct

from gateway.wire.openai import encode
from gateway.wire.responses_carrier import Carrier, unseal
from gateway.wire.responses_tools import Json, converted, function_name, refuse

LEFT_OUT = {
    "web_search_call": "what was found is in the message behind it",
}
"""Items that need no translation, by type, and why."""

REFUSED = {
    "additional_tools": "name the tools in `tools`",
    "compaction": "only OpenAI can read it; send the items that it stands for",
    "item_reference": "send the item itself",
}
"""What to do instead of sending an item of this type. All others that are not translated are of tools OpenAI runs."""


class _Part(Struct):
    type: str
    text: str = ""
    refusal: str = ""
    image_url: str | None = None
    detail: str | None = None
    file_data: str | None = None
    filename: str | None = None
    cache_control: Json | None = None


class _Message(Struct):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[_Part]


class _Reasoning(Struct):
    summary: list[_Part] = []
    content: list[_Part] | None = None
    encrypted_content: str | None = None


class _Call(Struct):
    call_id: str
    name: str
    arguments: str = ""
    input: str = ""
    namespace: str | None = None


class _Output(Struct):
    call_id: str
    output: str | list[_Part]


class _Turn(Struct):
    """What the assistant said, thought and called before anyone else spoke."""

    text: str | None = None
    refusal: str = ""
    reasoning: str = ""
    blocks: list[Json] = []
    calls: list[Json] = []
    signatures: dict[str, str] = {}
    just_spoke: bool = False
    """The last item was a message."""

    def message(self) -> Json | None:
        """Return the turn as one message; `None`: nothing came of what was thought."""
        if self.text is None and not self.refusal and not self.calls:
            return None
        content = self.text or (None if self.calls or self.refusal else "")
        for call in self.calls:
            if signature := self.signatures.get(call["id"]):
                call["extra_content"] = {"google": {"thought_signature": signature}}
        extras: Json = {
            "refusal": self.refusal,
            "reasoning_content": self.reasoning,
            "thinking_blocks": self.blocks,
            "tool_calls": self.calls,
        }
        return {"role": "assistant", "content": content, **{name: value for name, value in extras.items() if value}}


class Conversation:
    """Gathers items and returns messages."""

    def __init__(self) -> None:
        self._messages: list[Json] = []
        self._turn: _Turn | None = None
        self._shown: list[Json] = []
        """What tools have returned that is no text."""

    def messages(self) -> list[Json]:
        """Return all messages, when all items are there."""
        self._end_turn()
        self._show()
        return self._messages

    def add(self, item: Json, where: str) -> None:
        """Add an item.

        Raises:
            BadRequest: it is none, or it cannot be translated; `where` stands before the field that is wrong.
        """
        kind = str(item.get("type") or ("message" if "role" in item else "item_reference"))
        if not kind.endswith("_output"):
            self._show()
        match kind:
            case "message":
                self._message(converted(item, _Message, where), where)
            case "reasoning":
                self._think(converted(item, _Reasoning, where))
            case "function_call" | "custom_tool_call":
                self._call(converted(item, _Call, where), custom=kind == "custom_tool_call")
            case "function_call_output" | "custom_tool_call_output":
                self._output(converted(item, _Output, where), where)
            case _ if kind in LEFT_OUT:
                pass
            case _:
                cure = REFUSED.get(kind, "leave it out, or ask a model that OpenAI serves")
                refuse(f'an item of type "{kind}" cannot be translated; {cure}', where)

    def _message(self, message: _Message, where: str) -> None:
        if message.role == "assistant":
            self._say(message, where)
            return
        self._end_turn()
        if message.role == "user":
            self._messages.append({"role": "user", "content": _content(message.content, where)})
        else:
            self._instruct(_text(message.content, f"{where}.content"))

    def _instruct(self, text: str) -> None:
        """Add an instruction; some models take one system message and no more, so neighbours are joined."""
        if self._messages and self._messages[-1]["role"] == "system":
            self._messages[-1]["content"] += f"\n\n{text}"
        else:
            self._messages.append({"role": "system", "content": text})

    def _say(self, message: _Message, where: str) -> None:
        """Go on with the turn, or begin a new one: two messages in a row were two turns."""
        if self._turn is not None and self._turn.just_spoke:
            self._end_turn()
        turn = self._open()
        turn.just_spoke = True
        parts = [_Part("text", message.content)] if isinstance(message.content, str) else message.content
        turn.refusal += "".join(part.refusal for part in parts if part.type == "refusal")
        spoken = [part for part in parts if part.type != "refusal"]
        if spoken:
            turn.text = (turn.text or "") + _text(spoken, f"{where}.content")

    def _think(self, item: _Reasoning) -> None:
        turn = self._open()
        kept = (item.encrypted_content and unseal(item.encrypted_content)) or Carrier()
        turn.reasoning += "".join(part.text for part in [*item.summary, *(item.content or ())]) or kept.reasoning
        turn.blocks += kept.blocks
        turn.signatures |= kept.signatures

    def _call(self, call: _Call, *, custom: bool) -> None:
        arguments = encode({"input": call.input}).decode() if custom else call.arguments
        function = {"name": function_name(call.name, call.namespace), "arguments": arguments}
        self._open().calls.append({"id": call.call_id, "type": "function", "function": function})

    def _output(self, result: _Output, where: str) -> None:
        self._end_turn()
        text = result.output
        if not isinstance(text, str):
            parts = [_part(part, f"{where}.output[{number}]") for number, part in enumerate(text)]
            text = "\n".join(part["text"] for part in parts if part["type"] == "text")
            if others := [part for part in parts if part["type"] != "text"]:
                text = text or "See the user's next message."
                label = {"type": "text", "text": f"What the tool call {result.call_id} returned:"}
                self._shown += [label, *others]
        self._messages.append({"role": "tool", "tool_call_id": result.call_id, "content": text})

    def _open(self) -> _Turn:
        """Return the turn that goes on, in which nothing has been said since."""
        self._turn = self._turn or _Turn()
        self._turn.just_spoke = False
        return self._turn

    def _end_turn(self) -> None:
        if self._turn is not None and (message := self._turn.message()) is not None:
            self._messages.append(message)
        self._turn = None

    def _show(self) -> None:
        if self._shown:
            self._messages.append({"role": "user", "content": self._shown})
            self._shown = []


# ── Parts ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _content(content: str | list[_Part], where: str) -> str | list[Json]:
    if isinstance(content, str):
        return content
    parts = [_part(part, f"{where}.content[{number}]") for number, part in enumerate(content)]
    alone = parts[0] if len(parts) == 1 else {}
    return alone["text"] if alone.keys() == {"type", "text"} else parts


def _text(content: str | list[_Part], where: str) -> str:
    """Return the text of a message that may hold nothing else."""
    if isinstance(content, str):
        return content
    for number, part in enumerate(content):
        if not _is_text(part):
            refuse(f'only a user\'s message may hold a part of type "{part.type}"', f"{where}[{number}]")
    return "".join(part.text for part in content)


def _is_text(part: _Part) -> bool:
    return part.type in ("input_text", "output_text", "text")


def _part(part: _Part, where: str) -> Json:
    if _is_text(part):
        said: Json = {"type": "text", "text": part.text}
    elif part.type == "input_image":
        if not part.image_url:
            _no_files(where)
        detail = {"detail": part.detail} if part.detail else {}
        said = {"type": "image_url", "image_url": {"url": part.image_url, **detail}}
    elif part.type == "input_file":
        if not part.file_data:
            _no_files(where)
        name = {"filename": part.filename} if part.filename else {}
        said = {"type": "file", "file": {"file_data": part.file_data, **name}}
    else:
        refuse(f'a part of type "{part.type}" cannot be translated', where)
    return said if part.cache_control is None else {**said, "cache_control": part.cache_control}


def _no_files(where: str) -> NoReturn:
    refuse("files are not known by id or address here; send image_url or file_data", where)
