"""Writes a chat completion's messages as those of Bedrock's Converse API."""

import re
from typing import Any

from gateway.core.errors import BadRequest
from gateway.providers import chat
from gateway.providers.bedrock_models import Family
from gateway.wire.chat_request import ChatRequest, Message, Part

Block = dict[str, Any]

IMAGES = ("gif", "jpeg", "png", "webp")
AUDIO = ("mp3", "wav")
DOCUMENTS = {
    "application/msword": "doc",
    "application/pdf": "pdf",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "text/csv": "csv",
    "text/html": "html",
    "text/markdown": "md",
    "text/plain": "txt",
}
LONGEST_NAME = 190
"""Characters of a document's name, which may have 200, a number behind it included."""


def turns_of(request: ChatRequest, family: Family) -> tuple[list[Block], list[Block]]:
    """Return the system blocks, and turns that alternate: neighbours of one role become one.

    Raises:
        BadRequest: Bedrock has no way to say this.
    """
    system: list[Block] = []
    turns: list[Block] = []
    for number, message in enumerate(request.messages):
        where = f"messages[{number}]"
        match message.role:
            case "system" | "developer":
                chat.text_of(message, where)  # refuses all but text
                said = _blocks(message, family, where)
                if turns:
                    _add(turns, "user", said)
                else:
                    system += said
            case "user":
                _add(turns, "user", _blocks(message, family, where))
            case "assistant":
                _add(turns, "assistant", _assistant(message, family, where))
            case "tool":
                _add(turns, "user", _result(message, family, where))
            case "function":
                chat.refuse('messages of the role "function" are not translated; use tools', f"{where}.role")
    if not turns:
        raise BadRequest("Bedrock needs a message with content", param="messages", code="invalid_value")
    _name_apart(turns)
    return system, turns


def _add(turns: list[Block], role: str, blocks: list[Block]) -> None:
    """Append `blocks`; tool results stand before all else in their turn, or the API refuses it."""
    if not blocks:
        return
    if not turns or turns[-1]["role"] != role:
        turns.append({"role": role, "content": blocks})
        return
    content = turns[-1]["content"]
    if "toolResult" in blocks[0]:
        others = (at for at, block in enumerate(content) if not block.keys() & {"toolResult", "cachePoint"})
        at = next(others, len(content))
        content[at:at] = blocks
    else:
        content += blocks


def _assistant(message: Message, family: Family, where: str) -> list[Block]:
    blocks = _thoughts(message) + _blocks(message, family, where)
    if message.refusal:
        blocks.append({"text": message.refusal})
    for number, call in enumerate(message.tool_calls or []):
        at = f"{where}.tool_calls[{number}]"
        given = chat.arguments(call, at)
        assert call.function is not None
        id = chat.call_id(call.id, f"{at}.id")
        blocks.append({"toolUse": {"toolUseId": id, "name": call.function.name, "input": given}})
    return blocks


def _thoughts(message: Message) -> list[Block]:
    return [
        {
            "reasoningContent": {"redactedContent": thought.redacted}
            if thought.redacted
            else {"reasoningText": {"text": thought.text, "signature": thought.signature}}
        }
        for thought in chat.thoughts(message)
    ]


def _result(message: Message, family: Family, where: str) -> list[Block]:
    """Return a tool's result; a cache point stands behind it, for in it there is none."""
    id = chat.call_id(message.tool_call_id or "", f"{where}.tool_call_id")
    blocks = _blocks(message, family, where)
    content = [block for block in blocks if "cachePoint" not in block]
    points = [block for block in blocks if "cachePoint" in block]
    return [{"toolResult": {"toolUseId": id, "content": content}}, *points[:1]]


def _blocks(message: Message, family: Family, where: str) -> list[Block]:
    """Return the content as blocks, with cache points behind those that ask for one."""
    blocks: list[Block] = []
    for number, part in enumerate(chat.parts(message)):
        block = _block(part, f"{where}.content[{number}]")
        if block is None:
            continue
        blocks.append(block)
        blocks += cache_point(part.cache_control, family)
    return blocks


def cache_point(asked: dict[str, Any] | None, family: Family) -> list[Block]:
    """Return what says that all before it is to be cached; nothing, if that was not asked or the family does not."""
    if asked is None or not family.caches:
        return []
    point = {"type": "default"}
    if asked.get("ttl") == "1h":  # five minutes are usual, and all that some models know
        point["ttl"] = "1h"
    return [{"cachePoint": point}]


def _block(part: Part, where: str) -> Block | None:
    if part.type in ("text", "refusal"):
        text = part.text or part.refusal or ""
        return {"text": text} if text.strip() else None
    if part.type == "image_url" and part.image_url is not None:
        return {"image": _image(part.image_url.url, f"{where}.image_url.url")}
    if part.type == "input_audio" and part.input_audio is not None:
        if part.input_audio.format not in AUDIO:
            chat.refuse(f'audio is mp3 or wav, got "{part.input_audio.format}"', f"{where}.input_audio.format")
        return {"audio": {"format": part.input_audio.format, "source": {"bytes": part.input_audio.data}}}
    if part.type == "file" and part.file is not None:
        if not part.file.file_data:
            chat.refuse("files are not known by id here; send them as file_data", f"{where}.file")
        return {"document": _document(part.file.file_data, part.file.filename or "", f"{where}.file.file_data")}
    return chat.refuse(f'a part of type "{part.type}" cannot be sent to Bedrock', where)


def _image(url: str, where: str) -> Block:
    if url.startswith("s3://"):
        ending = url.rpartition(".")[2].lower().replace("jpg", "jpeg")
        if ending not in IMAGES:
            chat.refuse(f"the name of a picture ends in one of {', '.join(IMAGES)}", where)
        return {"format": ending, "source": {"s3Location": {"uri": url}}}
    if url.startswith(("https://", "http://")):
        chat.refuse("Bedrock does not fetch pictures from the web; send a data: URL, or s3://…", where)
    data = chat.data_url(url, where)
    kind, _, format = data.media_type.partition("/")
    if kind != "image" or format not in IMAGES:
        chat.refuse(f"Bedrock takes jpeg, png, gif and webp images, got {data.media_type}", where)
    return {"format": format, "source": {"bytes": data.base64}}


def _document(url: str, filename: str, where: str) -> Block:
    data = chat.data_url(url, where)
    if data.media_type not in DOCUMENTS:
        known = ", ".join(sorted(DOCUMENTS.values()))
        chat.refuse(f"Bedrock takes files of the kinds {known}; got {data.media_type}", where)
    stem = filename.rpartition(".")[0] or filename
    name = " ".join(re.sub(r"[^a-zA-Z0-9()\[\]-]", " ", stem).split())[:LONGEST_NAME].strip()
    return {"format": DOCUMENTS[data.media_type], "name": name or "document", "source": {"bytes": data.base64}}


def _name_apart(turns: list[Block]) -> None:
    """Number documents of one name: the API refuses a call in which two are called the same."""
    names: set[str] = set()
    for turn in turns:
        for block in turn["content"]:
            for inner in (block, *block.get("toolResult", {}).get("content", ())):
                if (document := inner.get("document")) is not None:
                    name, number = document["name"], 1
                    while document["name"] in names:
                        number += 1
                        document["name"] = f"{name} {number}"
                    names.add(document["name"])
