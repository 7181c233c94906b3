"""The conversation of a Messages request as the messages of a chat completion.

Results of tools come before all else in their turn, a message each; what is not text in them follows as the user's, for
a tool may answer in text only. A search result, a document of plain text, and one of blocks become text where they
stand. A system message in mid-conversation stays where it is: moved to the front, it would change what the upstream has
cached with every turn. What is left out is in `DROPPED` of `messages_request`.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.core.errors import BadRequest
from gateway.wire.messages_types import GOOGLE, OURS, Block, MessagesRequest, Source, Turn, refuse

Part = dict[str, Any]
Said = dict[str, Any]

ATTRIBUTION = "x-anthropic-billing-header:"
"""Begins a system block of Claude Code's that is for Anthropic's books; older versions change it with each request,
and with it the beginning of every prompt that an upstream may have cached."""
FAILED = "The call failed: "
"""Before the result of a tool that has failed: a chat completion has no flag for it."""
ATTACHED = "(What it returned besides text is in the next message.)"


def chat_messages(request: MessagesRequest) -> list[Said]:
    """Return the conversation, its system prompt first.

    Raises:
        BadRequest: a chat completion has no way to say it.
    """
    messages = list(_system(request.system or "", "system"))
    for number, turn in enumerate(request.messages):
        where = f"messages[{number}]"
        match turn.role:
            case "system":
                messages += _system(turn.content, f"{where}.content")
            case "user":
                messages += _user(turn, f"{where}.content")
            case "assistant":
                messages += _assistant(turn, f"{where}.content")
    return messages


def _each(blocks: list[Block], where: str) -> Iterator[tuple[Block, str]]:
    return ((block, f"{where}[{number}]") for number, block in enumerate(blocks))


def _message(role: str, parts: list[Part]) -> list[Said]:
    """Return a message of `parts`, one plain text as such; nothing for no parts."""
    if not parts:
        return []
    is_plain = len(parts) == 1 and parts[0].keys() == {"type", "text"}
    return [{"role": role, "content": parts[0]["text"] if is_plain else parts}]


def _text(text: str | None) -> list[Part]:
    """Return a text as a part; empty ones are left out, for upstreams refuse them."""
    return [{"type": "text", "text": text}] if text else []


def _marked(parts: list[Part], block: Block) -> list[Part]:
    """Put the cache breakpoint of `block` behind the last of its parts."""
    if parts and block.cache_control is not None:
        parts[-1] = {**parts[-1], "cache_control": block.cache_control}
    return parts


# ── System ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _system(content: str | list[Block], where: str) -> list[Said]:
    if isinstance(content, str):
        return _message("system", _text(content))
    parts: list[Part] = []
    for block, at in _each(content, where):
        if block.type != "text":
            refuse(f'a system prompt holds text only, got "{block.type}"', at)
        if not (block.text or "").startswith(ATTRIBUTION):
            parts += _marked(_text(block.text), block)
    return _message("system", parts)


# ── User ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _user(turn: Turn, where: str) -> list[Said]:
    if isinstance(turn.content, str):
        return _message("user", _text(turn.content))
    results: list[Said] = []
    messages: list[Said] = []
    parts: list[Part] = []
    for block, at in _each(turn.content, where):
        if block.type == "tool_result":
            result, attached = _result(block, at)
            results.append(result)
            parts += attached
        elif block.type == "mid_conv_system":
            messages += _message("user", parts) + _system(_blocks(block, at), f"{at}.content")
            parts = []
        else:
            parts += _parts(block, at)
    return results + messages + _message("user", parts)


def _result(block: Block, where: str) -> tuple[Said, list[Part]]:
    """Return what a tool answered: a message of text, and what a user's message has to say for it."""
    if not block.tool_use_id:
        raise BadRequest("say whose result this is", param=f"{where}.tool_use_id", code="missing_required_parameter")
    parts = _text(block.content) if isinstance(block.content, str) else []
    for inner, at in _each([] if isinstance(block.content, str) else _blocks(block, where), f"{where}.content"):
        parts += _parts(inner, at)
    said = [part for part in parts if part["type"] == "text"]
    attached = [part for part in parts if part["type"] != "text"]
    if attached:
        said += _text(ATTACHED)
    if block.is_error:
        said = [{**said[0], "text": FAILED + said[0]["text"]}, *said[1:]] if said else _text(FAILED.rstrip(": ") + ".")
    said = _marked(said, block)
    is_marked = any("cache_control" in part for part in said)
    content = said if is_marked else "\n".join(part["text"] for part in said)
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": content}, attached


def _blocks(block: Block, where: str) -> list[Block]:
    if isinstance(block.content, dict | str):
        raise BadRequest("expected a list of blocks", param=f"{where}.content", code="invalid_type")
    return block.content or []


def _parts(block: Block, where: str) -> list[Part]:
    """Return a block of a user's, or of a tool's, as parts of a chat message."""
    source = block.source
    match block.type:
        case "text":
            parts = _text(block.text)
        case "image" if isinstance(source, Source):
            parts = [{"type": "image_url", "image_url": {"url": _image(source, f"{where}.source")}}]
        case "document" if isinstance(source, Source):
            parts = _text(block.context) + _document(block, source, f"{where}.source")
        case "search_result" if isinstance(source, str):
            found = "\n".join(inner.text or "" for inner in _blocks(block, where))
            parts = _text(f"{block.title or ''} ({source})\n{found}".lstrip())
        case "tool_reference":
            parts = _text(f"The tool {block.tool_name} can be called.")
        case _:
            refuse(f'a "{block.type}" block cannot be sent to an upstream other than Anthropic; leave it out', where)
    return _marked(parts, block)


def _image(source: Source, where: str) -> str:
    if source.type == "url" and source.url:
        return source.url
    if source.type == "base64" and source.media_type and source.data:
        return f"data:{source.media_type};base64,{source.data}"
    return refuse("an image is base64 with its media_type, or a url; Anthropic's files are not known here", where)


def _document(block: Block, source: Source, where: str) -> list[Part]:
    if source.type == "base64" and source.media_type and source.data:
        name, data = block.title or "document.pdf", f"data:{source.media_type};base64,{source.data}"
        return [{"type": "file", "file": {"filename": name, "file_data": data}}]
    title = f"{block.title}\n\n" if block.title else ""
    if source.type == "text" and source.data:
        return _text(title + source.data)
    if source.type != "content":
        refuse("a document is base64, text or content here; send one that is at an address as base64", where)
    if isinstance(source.content, str):
        return _text(title + source.content)
    parts = _text(block.title)
    for inner, at in _each(source.content or [], f"{where}.content"):
        parts += _parts(inner, at)
    return parts


# ── Assistant ────────────────────────────────────────────────────────────────────────────────────────────────────


def _assistant(turn: Turn, where: str) -> list[Said]:
    """Return one message: its texts are joined, for few upstreams take several, unless one is a cache breakpoint."""
    blocks = _text_block(turn.content) if isinstance(turn.content, str) else turn.content
    parts: list[Part] = []
    calls: list[Said] = []
    thoughts: list[Block] = []
    signature = ""
    for block, at in _each(blocks, where):
        match block.type:
            case "text":
                parts += _marked(_text(block.text), block)
            case "redacted_thinking" if (block.data or "").startswith(GOOGLE):
                signature = (block.data or "").removeprefix(GOOGLE)
            case "thinking" | "redacted_thinking":
                thoughts.append(block)
            case "tool_use":
                calls.append(_call(block, signature, at))
                signature = ""
            case _:
                refuse(f'a "{block.type}" block of an answer cannot be sent to an upstream other than Anthropic', at)
    if not (parts or calls or thoughts):
        return []
    is_marked = any("cache_control" in part for part in parts)
    text = "".join(part["text"] for part in parts)
    said: Said = {"role": "assistant", "content": parts if is_marked else text or (None if calls else "")}
    return [said | _thinking(thoughts) | ({"tool_calls": calls} if calls else {})]


def _text_block(text: str) -> list[Block]:
    return [Block("text", text=text)]


def _call(block: Block, signature: str, where: str) -> Said:
    if not block.id or not block.name:
        raise BadRequest("a tool_use has an id and a name", param=where, code="missing_required_parameter")
    if not bytes(block.input).startswith(b"{"):
        raise BadRequest("the input of a tool is an object", param=f"{where}.input", code="invalid_type")
    given = msgspec.json.format(block.input, indent=-1).decode()
    said: Said = {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": given}}
    return {**said, "extra_content": {"google": {"thought_signature": signature}}} if signature else said


def _thinking(thoughts: list[Block]) -> Said:
    """Return the reasoning, as text for those who want it back, and as the blocks that their upstream has signed."""
    said: Said = {}
    if text := "".join(block.thinking or "" for block in thoughts):
        said["reasoning_content"] = text
    signed: list[Said] = []
    for block in thoughts:
        if block.type == "redacted_thinking" and block.data:
            signed.append({"type": "redacted_thinking", "data": block.data})
        elif block.signature and not block.signature.startswith(OURS):
            signed.append({"type": "thinking", "thinking": block.thinking or "", "signature": block.signature})
    return said | ({"thinking_blocks": signed} if signed else {})
