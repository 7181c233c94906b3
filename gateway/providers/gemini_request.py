"""Writes a chat completion request as a request of Gemini's `generateContent`.

Translated: everything that the API can say. Left out, for they are wishes and not demands: `user`, `metadata`,
`service_tier`, `prediction`, `verbosity`, `store`, `detail` of images, the `name` of messages and files, `strict` of
tools, `parallel_tool_calls` (Gemini calls as many as it likes; LlamaIndex and the AI SDK say `false` with tools of
their own accord), and what was thought before: Gemini takes its signatures back, and no thoughts. Refused, naming the
field: `n` over 1, log probabilities, `logit_bias`, audio answers, web search, tools other than functions, files by id,
pictures at addresses that Google does not fetch.

A system message in mid-conversation becomes text of the user's turn where it stands. A `reasoning_effort` that a
model lacks becomes its nearest: the next higher one at the lower end, `high` at the upper.
"""

from typing import Any, Literal, cast
from urllib.parse import urlsplit

from msgspec import Struct

from gateway.core.call import Body
from gateway.core.errors import BadRequest
from gateway.providers import chat
from gateway.wire.chat_request import ChatRequest, Message, Part

Piece = dict[str, Any]

UNSIGNED = "skip_thought_signature_validator"
"""What Google says to send for a tool call whose thought signature was lost: Gemini 3 refuses one without."""

BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576, "max": 24576}
"""Thinking tokens for an effort, as Google's own OpenAI-compatible endpoint has them."""
LEVELS = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "HIGH", "max": "HIGH"}

MEDIA = {
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "pdf": "application/pdf",
    "png": "image/png",
    "webp": "image/webp",
}
"""By the ending of an address's path. Of another ending Google judges by itself."""


class Facts(Struct, frozen=True):
    """What one family of models takes."""

    thinking: Literal["none", "budget", "level"] = "level"
    """How it is told to think. `level` is Gemini 3 and later, which also wants thought signatures back."""
    must_think: bool = True
    """Thinking cannot be switched off."""
    minimal: bool = True
    """It knows the level `MINIMAL`."""
    fetches: bool = True
    """It fetches public and signed https addresses by itself."""


MODELS = {
    "": Facts(),
    "gemini-1": Facts("none", must_think=False, fetches=False),
    "gemini-2.0-": Facts("none", must_think=False, fetches=False),
    "gemini-2.5-flash": Facts("budget", must_think=False),
    "gemini-2.5-pro": Facts("budget"),
    "gemini-3-pro": Facts(minimal=False),
    "gemini-3.1-pro": Facts(minimal=False),
    "gemma-": Facts("none", must_think=False, fetches=False),
}
"""By the beginning of the name, the longest that fits.

Source: ai.google.dev/gemini-api/docs, "Thinking", "Thought signatures", "File input methods"; "OpenAI compatibility".
"""


def facts(model: str) -> Facts:
    """Return what `model` takes."""
    return MODELS[max((prefix for prefix in MODELS if model.startswith(prefix)), key=len)]


def content_request(request: ChatRequest, body: Body, model: str) -> dict[str, Any]:
    """Return the body of `generateContent` and `streamGenerateContent`.

    Raises:
        BadRequest: Gemini has no way to say this.
    """
    chat.refuse_unspeakable(request, body, "Gemini")
    known = facts(model)
    system, contents = _contents(request, known, model)
    said: dict[str, Any] = {"contents": contents}
    if system:
        said["systemInstruction"] = {"parts": system}
    said |= _tools(request)
    config = _sampling(request) | _form(request) | _thinking(request, known, model)
    if config:
        said["generationConfig"] = config
    return said


# ── Contents ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _contents(request: ChatRequest, known: Facts, model: str) -> tuple[list[Piece], list[Piece]]:
    """Return the system's parts, and turns that alternate: neighbours of one role become one."""
    system: list[Piece] = []
    turns: list[Piece] = []
    names: dict[str, str] = {}
    for number, message in enumerate(request.messages):
        where = f"messages[{number}]"
        match message.role:
            case "system" | "developer":
                text = _text(chat.text_of(message, where))
                if turns:
                    _add(turns, "user", text)
                else:
                    system += text
            case "user":
                _add(turns, "user", _pieces(message, known, model, where))
            case "assistant":
                _add(turns, "model", _assistant(message, names, known, where))
            case "tool":
                _add(turns, "user", [_result(message, names, where)])
            case "function":
                chat.refuse('messages of the role "function" are not translated; use tools', f"{where}.role")
    if not turns:
        raise BadRequest("Gemini needs a message with content", param="messages", code="invalid_value")
    return system, turns


def _add(turns: list[Piece], role: str, pieces: list[Piece]) -> None:
    """Append `pieces`; results stand before all else in their turn, directly behind the calls."""
    if not pieces:
        return
    if not turns or turns[-1]["role"] != role:
        turns.append({"role": role, "parts": pieces})
        return
    parts = turns[-1]["parts"]
    if "functionResponse" in pieces[0]:
        results = sum("functionResponse" in part for part in parts)
        parts[results:results] = pieces
    else:
        parts += pieces


def _text(text: str) -> list[Piece]:
    return [{"text": text}] if text else []


def _assistant(message: Message, names: dict[str, str], known: Facts, where: str) -> list[Piece]:
    pieces = _text(chat.text_of(message, where) + (message.refusal or ""))
    if pieces and (signature := _signature(message.extra_content)):
        pieces[-1]["thoughtSignature"] = signature
    for number, call in enumerate(message.tool_calls or []):
        at = f"{where}.tool_calls[{number}]"
        given = chat.arguments(call, at)
        assert call.function is not None
        names[call.id] = call.function.name
        called: Piece = {"name": call.function.name, "args": given}
        piece: Piece = {"functionCall": {"id": call.id, **called} if call.id else called}
        signature = _signature(call.extra_content)
        if not signature and number == 0 and known.thinking == "level":
            signature = UNSIGNED  # of parallel calls only the first is signed
        pieces.append({**piece, "thoughtSignature": signature} if signature else piece)
    return pieces


def _signature(extra: dict[str, Any] | None) -> str:
    """Return the thought signature, from where Google's own compatible endpoint puts it."""
    google = (extra or {}).get("google")
    signature = cast("dict[str, Any]", google).get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) else ""


def _result(message: Message, names: dict[str, str], where: str) -> Piece:
    called = message.tool_call_id or ""
    name = names.get(called) or message.name
    if not name:
        raise BadRequest(
            f'no tool call with the id "{called}" stands before this result', param=f"{where}.tool_call_id"
        )
    response: Piece = {"name": name, "response": {"output": chat.text_of(message, where)}}
    return {"functionResponse": {"id": called, **response} if called else response}


def _pieces(message: Message, known: Facts, model: str, where: str) -> list[Piece]:
    pieces: list[Piece] = []
    for number, part in enumerate(chat.parts(message)):
        at = f"{where}.content[{number}]"
        if part.type == "text":
            pieces += _text(part.text or "")
        elif part.type == "image_url" and part.image_url is not None:
            pieces.append(_media(part.image_url.url, known, model, f"{at}.image_url.url"))
        else:
            pieces.append(_file(part, at))
    return pieces


def _media(url: str, known: Facts, model: str, where: str) -> Piece:
    if url.startswith("data:"):
        data = chat.data_url(url, where)
        return {"inlineData": {"mimeType": data.media_type, "data": data.base64}}
    if not url.startswith("gs://") and not (url.startswith("https://") and known.fetches):
        chat.refuse(f"{model} does not fetch this address; send the picture as a data: URL", where)
    ending = urlsplit(url).path.rpartition(".")[2].lower()
    said = {"fileUri": url}
    return {"fileData": {**said, "mimeType": MEDIA[ending]} if ending in MEDIA else said}


def _file(part: Part, where: str) -> Piece:
    if part.type == "input_audio" and part.input_audio is not None:
        return {"inlineData": {"mimeType": f"audio/{part.input_audio.format}", "data": part.input_audio.data}}
    if part.type != "file" or part.file is None:
        chat.refuse(f'a part of type "{part.type}" cannot be sent to Gemini', where)
    if not part.file.file_data:
        chat.refuse("files are not known by id here; send them as file_data", f"{where}.file")
    data = chat.data_url(part.file.file_data, f"{where}.file.file_data")
    return {"inlineData": {"mimeType": data.media_type, "data": data.base64}}


# ── Tools and generation ─────────────────────────────────────────────────────────────────────────────────────────


def _tools(request: ChatRequest) -> dict[str, Any]:
    declared: list[Piece] = []
    for number, tool in enumerate(request.tools or []):
        function = chat.function_of(tool, number)
        piece: Piece = {"name": function.name}
        if function.description:
            piece["description"] = function.description
        if function.parameters:
            piece["parametersJsonSchema"] = function.parameters
        declared.append(piece)
    kind, name = chat.chosen_tool(request)
    if not declared:
        return {}
    said: dict[str, Any] = {"tools": [{"functionDeclarations": declared}]}
    if kind:
        choice: Piece = {"mode": {"auto": "AUTO", "none": "NONE"}.get(kind, "ANY")}
        if kind == "named":
            choice["allowedFunctionNames"] = [name]
        said["toolConfig"] = {"functionCallingConfig": choice}
    return said


def _sampling(request: ChatRequest) -> dict[str, Any]:
    config: dict[str, Any] = {
        "maxOutputTokens": request.most_tokens,
        "temperature": request.temperature,
        "topP": request.top_p,
        "topK": request.top_k,
        "seed": request.seed,
        "stopSequences": request.stops or None,
        "frequencyPenalty": request.frequency_penalty or None,  # 0 is none, and some models refuse even that
        "presencePenalty": request.presence_penalty or None,
    }
    return {name: value for name, value in config.items() if value is not None}


def _form(request: ChatRequest) -> dict[str, Any]:
    form = request.response_format
    if form is None or form.type == "text":
        return {}
    if form.type == "json_object":
        return {"responseMimeType": "application/json"}
    if form.type != "json_schema" or form.json_schema is None or form.json_schema.schema is None:
        raise BadRequest("response_format is text, json_object, or json_schema with a schema", param="response_format")
    return {"responseMimeType": "application/json", "responseJsonSchema": form.json_schema.schema}


def _thinking(request: ChatRequest, known: Facts, model: str) -> dict[str, Any]:
    asked = chat.effort(request)
    if asked is None:
        return {}
    if asked == "none" and known.must_think:
        chat.refuse(f"{model} always thinks; the least reasoning_effort is minimal", "reasoning_effort")
    if known.thinking == "none":
        if asked == "none":
            return {}
        chat.refuse(f"{model} does not think; leave reasoning_effort out", "reasoning_effort")
    if known.thinking == "budget":
        config: dict[str, Any] = {"thinkingBudget": BUDGETS[asked]}
    else:
        config = {"thinkingLevel": "LOW" if asked == "minimal" and not known.minimal else LEVELS[asked]}
    if asked != "none":
        config["includeThoughts"] = True
    return {"thinkingConfig": config}
