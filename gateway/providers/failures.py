"""What an upstream's error means for us: which failure it is, what to tell the client, when to ask again.

One table for all dialects. A dialect finds the message, the code and the type in its own body and calls `failure`.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any, cast

import msgspec

from gateway.core.errors import Busy, Rejected, TimedOut, Unreachable, UpstreamFailed
from gateway.providers import context_length
from gateway.providers.masking import masked
from gateway.providers.unsupported import unsupported

MAX_MESSAGE = 1000
"""Characters of an upstream's message that are passed on."""

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are no JSON, no UTF-8, of other types, or nested a thousand deep."""

SPENT = frozenset(
    {
        "insufficient_quota",  # OpenAI's type; its codes follow
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "enforced_spend_limit_reached",  # Anthropic's error.details.error_code
        "contract_spend_limit_reached",
    }
)
"""Codes and types of a 429 that no waiting mends: the money is spent."""


def failure(
    status: int,
    headers: Mapping[str, str],
    message: str,
    code: str | None = None,
    kind: str | None = None,
    param: str | None = None,
) -> UpstreamFailed:
    """Return what an upstream's error means.

    Args:
        status: of the HTTP answer, or the status that an error within a stream stands for.
        headers: with lower-case names; may say when to ask again.
        message: the upstream's own; cut to `MAX_MESSAGE`.
        code: the upstream's stable word for it.
        kind: the upstream's type, where it is one of OpenAI's; otherwise it follows from the status.
        param: what it is about, where the upstream says.
    """
    reason = brief(message)
    if status in (401, 403):
        return credential_refused(status, reason if status == 403 else "", code or kind or "")
    message = reason or f"the upstream answered {status} and did not say why"
    if context_length.is_too_long(status, message, code, kind):
        return Rejected(message, status=400, code=context_length.CODE)
    if status == 402 or (status == 429 and (code in SPENT or kind in SPENT)):
        # As OpenAI says it: a 402 of the upstream is about our account there, not about the client's.
        return Rejected(message, status=429, kind="insufficient_quota", code=code or kind).lasting()
    if status in (429, 503, 529):
        busy = Busy(message, code=code, retry_after_s=retry_after(headers))
        if status != 429:
            busy.status, busy.kind = 503, "server_error"
        return busy
    if status == 408:
        return TimedOut(message, code=code)
    if 400 <= status < 500:
        usual = "not_found_error" if status == 404 else "invalid_request_error"
        rejected = Rejected(message, status=status, kind=kind or usual, code=code, param=param)
        rejected.unsupported, rejected.instead = unsupported(status, message, code, param)
        return rejected
    return Unreachable(message, code=code)


def credential_refused(status: int, reason: str = "", word: str = "") -> UpstreamFailed:
    """Say that our own key was refused: as a 502, for a 401 would tell the client that its key is bad.

    Args:
        status: of the HTTP answer.
        reason: why it may not do this, where it is known (a region, a project, a model); keys are masked. Of a key
            that is not known it is left out, for it is about nothing but the key.
        word: the upstream's code or type.
    """
    said = f"{status} {word}" if re.fullmatch(r"[A-Za-z_]{1,50}", word) and masked(word) == word else f"{status}"
    cure = "check the api_key of this provider"
    if reason:
        said, cure = f"{said}: {masked(reason).rstrip('.')}", "check what the api_key of this provider may do"
    message = f"the upstream refused the gateway's own credential ({said}); {cure}"
    return UpstreamFailed(message, code="upstream_auth_failed").lasting()


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `retry-after-ms` or `retry-after` asks for; `None`: neither says."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        said = headers.get(name, "").strip()
        try:
            seconds = float(said) * unit_s
        except ValueError:
            continue
        if isfinite(seconds) and seconds >= 0:
            return seconds
    return _until(headers.get("retry-after", ""), headers.get("date", ""))


def error_object(body: bytes) -> dict[str, Any]:
    """Return the error that `body` tells, its `message` always there and short; the other keys as they came.

    Knows `{"error": {…}}`, `{"error": "…"}`, these in a list (Gemini), a bare object with `message` or FastAPI's
    `detail`, HTML and plain text.
    """
    try:
        said: Any = msgspec.json.decode(body)
    except UNREADABLE:
        return {"message": brief(body[:100_000].decode("utf-8", "replace"))}
    if isinstance(said, list) and said:
        said = cast("list[Any]", said)[0]
    if isinstance(said, dict) and "error" in said:
        said = cast("dict[str, Any]", said)["error"]
    if not isinstance(said, dict):
        return {"message": brief(said if isinstance(said, str) else "")}
    error = cast("dict[str, Any]", said)
    message = error.get("message") or error.get("detail") or ""
    text = message if isinstance(message, str) else msgspec.json.encode(message).decode()
    return {**error, "message": brief(text)}


def brief(text: str) -> str:
    """Return `text` as one short line; of an HTML page, its title."""
    if re.match(r"\s*<(!doctype|html|head|body|\?xml)", text, re.IGNORECASE):
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        text = f"an HTML page: {title[1]}" if title else "an HTML page"
    text = " ".join(text.split())
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


def _until(moment: str, now: str) -> float | None:
    """Seconds from the answer's own `date` to an HTTP date: both are the upstream's clock."""
    later, sooner = _date(moment), _date(now)
    if later is None or sooner is None:
        return None
    return max(0.0, (later - sooner).total_seconds())


def _date(said: str) -> datetime | None:
    try:
        return parsedate_to_datetime(said)
    except ValueError:
        return None
