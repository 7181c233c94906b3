"""What an error in OpenAI's dialect means, in all the shapes that servers give it: as an answer, or within a stream."""

import re
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from gateway.core.errors import UpstreamFailed
from gateway.providers.failures import SPENT, brief, error_object, failure

_STATUS = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "too_many_requests": 429,
    "slow_down": 503,
    "server_is_overloaded": 503,
    "service_unavailable_error": 503,
    "service_unavailable": 503,
    "overloaded_error": 503,
    "timeout": 408,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "permission_error": 403,
    "permission_denied": 403,
    "model_not_found": 404,
    "not_found_error": 404,
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "content_filter": 400,
    "tool_use_failed": 400,
}
"""What an error without a status would have been as one, by its code or type."""


def failure_of(body: bytes, status: int = 0, headers: Mapping[str, str] | None = None) -> UpstreamFailed:
    """Return what an error means.

    Args:
        body: the answer, or the data of an event: OpenAI's error object, an `error` that is plain text, FastAPI's
            `detail`, vLLM's and Mistral's `{"object": "error"}`, HTML, …
        status: of the HTTP answer; 0: it came with a 200 or within a stream, and must say for itself what it is.
        headers: of the HTTP answer, with lower-case names.
    """
    error = error_object(body)
    code, kind = _word(error.get("code")), _word(error.get("type"))
    status = status or _status(error, code, kind)
    if status == 403 and _is_flagged(error):
        status, code = 400, "content_filter"
    said = error.get("param")
    param = said if isinstance(said, str) else None
    failed = failure(status, headers or {}, _message(error), code=code, kind=kind, param=param)
    failed.param = param
    return failed


def is_error(said: Mapping[str, Any], event: bytes = b"") -> bool:
    """Tell whether an object is an error, whatever else it holds; `event` is the name of its event.

    A message without `choices` is no answer of this dialect: some servers write their errors without any frame.
    """
    if said.get("error") or event == b"error" or said.get("object") == "error" or said.get("type") == "error":
        return True
    return "choices" not in said and any(said.get(name) for name in ("message", "detail"))


def _status(error: dict[str, Any], code: str | None, kind: str | None) -> int:
    for name in ("status_code", "code", "status"):
        number = error.get(name)
        if isinstance(number, str) and number.isdecimal():
            number = int(number)
        if isinstance(number, int) and 400 <= number < 600:
            return number
    if code in SPENT or kind in SPENT:
        return 429
    return _STATUS.get(code or "") or _STATUS.get(kind or "") or 500


def _is_flagged(error: dict[str, Any]) -> bool:
    """Tell whether a moderation refused the prompt: OpenRouter says so by a 403, which elsewhere is about the key."""
    metadata = error.get("metadata")
    return isinstance(metadata, dict) and "flagged_input" in metadata


def _word(said: object) -> str | None:
    """Return a code or a type, if it is a word as OpenAI has them: not a number, not the name of a class."""
    return said if isinstance(said, str) and re.fullmatch(r"[a-z][a-z0-9_.-]*", said) else None


def _message(error: dict[str, Any]) -> str:
    """Return what went wrong, with the part of it that some vendors put elsewhere."""
    message: str = error["message"]
    for problems in (error.get("detail"), _nested(message)):
        if isinstance(problems, list):
            message = "; ".join(_problem(problem) for problem in cast("list[Any]", problems))
    metadata = error.get("metadata")
    if isinstance(metadata, dict):  # OpenRouter says "Provider returned error", and here which error that was
        raw = cast("dict[str, Any]", metadata).get("raw")
        if isinstance(raw, str) and raw:
            message = f"{message}: {brief(raw)}"
    return message


def _nested(message: str) -> object:
    """Return Mistral's list of problems: its `message` is an object with FastAPI's `detail`."""
    if not message.startswith('{"detail"'):
        return None
    try:
        return msgspec.json.decode(message, type=dict[str, Any])["detail"]
    except msgspec.DecodeError:
        return None  # it was cut because it was long


def _problem(problem: object) -> str:
    """Say one problem of FastAPI's: `body.temperature: Input should be a valid number`."""
    if not isinstance(problem, dict):
        return str(problem)
    said = cast("dict[str, Any]", problem)
    where = ".".join(str(step) for step in cast("list[object]", said.get("loc") or []))
    return f"{where}: {said.get('msg')}" if where else f"{said.get('msg')}"
