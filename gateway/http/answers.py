"""The heads of our answers, and errors as a client of OpenAI expects them."""

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from gateway.core.errors import GatewayError, TooLarge, Unauthorized, WrongMethod
from gateway.core.price import dollars
from gateway.core.receipt import Receipt
from gateway.wire.openai import error_body

RawHeaders = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
CLOSE = (b"connection", b"close")
STREAM: RawHeaders = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


def head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> Any:
    """Return ASGI's message that begins an answer."""
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(data: bytes, *, more: bool = False) -> Any:
    """Return ASGI's message that carries a piece of an answer."""
    return {"type": "http.response.body", "body": data, "more_body": more}


def error_headers(error: GatewayError) -> RawHeaders:
    """Return what tells the client's SDK whether, and when, to ask again.

    SDKs go by status alone: they would retry a 429 for a request that can never fit, and each 5xx on top of the
    attempts that were made here, unless `x-should-retry` says no.
    """
    headers: RawHeaders = []
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s))))
        headers.append((b"retry-after-ms", b"%d" % max(1, math.ceil(error.retry_after_s * 1000))))
    if not error.retry_helps or error.retry_after_s is None:
        headers.append((b"x-should-retry", b"false"))
    if isinstance(error, TooLarge | Unauthorized):
        headers.append(CLOSE)  # or what is left of the body would still be taken in
    if isinstance(error, WrongMethod):
        headers.append((b"allow", error.allowed.encode()))
    return headers


def call_headers(receipt: Receipt, config: str, now_s: float) -> RawHeaders:
    """Return what every answer to a call says of it: who answered, at which cost, by which configuration."""
    tried = receipt.answered_by
    upstream_s = 0.0 if tried is None else tried.first_chunk_s or tried.total_s
    total_s = now_s - receipt.began_s
    return [
        (b"x-request-id", receipt.call_id.encode()),
        (b"x-gateway-provider", _printable(tried.provider) if tried else b"none"),
        (b"x-gateway-deployment", _printable(tried.deployment) if tried else b"none"),
        (b"x-gateway-attempts", b"%d" % len(receipt.tried)),
        (b"x-gateway-cache", (receipt.cache or "none").encode()),
        (b"x-gateway-config", config.encode()),
        (
            b"server-timing",
            b"gateway;dur=%.1f, upstream;dur=%.1f" % (max(0.0, total_s - upstream_s) * 1000, upstream_s * 1000),
        ),
        *[(name.encode(), value.encode("latin-1", "replace")) for name, value in receipt.headers.items()],
    ]


def cost_header(receipt: Receipt, *, later: bool) -> tuple[bytes, bytes]:
    """Return `x-gateway-cost` in dollars. A stream's is only known at its end: a comment says it there."""
    return (b"x-gateway-cost", b"at-end" if later else cost_text(receipt))


def cost_text(receipt: Receipt) -> bytes:
    """Return a call's cost in dollars: exact, or `unknown`."""
    if receipt.cost_nusd is None and not receipt.tried:
        return b"0"
    return b"unknown" if receipt.cost_nusd is None else dollars(receipt.cost_nusd).encode()


def error_answer(error: GatewayError, data: bytes = b"") -> tuple[RawHeaders, bytes]:
    """Return an error's own headers and body: `data`, or OpenAI's error object."""
    data = data or error_body(error)
    return [JSON, (b"content-length", b"%d" % len(data)), *error_headers(error)], data


@lru_cache(10_000)
def _printable(name: str) -> bytes:
    """Return a name that a client may have chosen (by a pattern) as a header's value: visible ASCII only."""
    return "".join(c if "!" <= c <= "~" else "?" for c in name[:200]).encode()
