"""The heads of our answers, as lines without their ends, and errors as a client's SDK expects them."""

import math
from functools import lru_cache

from gateway.core.errors import GatewayError, TooLarge, Unauthorized, WrongMethod
from gateway.core.price import dollars
from gateway.core.receipt import Receipt

RawHeaders = list[tuple[bytes, bytes]]

JSON = b"content-type: application/json"
STREAM = (b"content-type: text/event-stream; charset=utf-8", b"cache-control: no-cache", b"x-accel-buffering: no")
CLOSE = (b"connection", b"close")


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


def call_lines(receipt: Receipt, config: str, now_s: float, *, cost_later: bool = False) -> list[bytes]:
    """Return what every answer to a call says of it: who answered, at which cost, by which configuration.

    A stream's cost is only known at its end: a comment says it there.
    """
    tried = receipt.answered_by
    upstream_s = 0.0 if tried is None else tried.first_chunk_s or tried.total_s
    gateway_s = max(0.0, now_s - receipt.began_s - upstream_s)
    lines = [
        b"x-request-id: " + receipt.call_id.encode(),
        b"x-gateway-provider: " + (_printable(tried.provider) if tried else b"none"),
        b"x-gateway-deployment: " + (_printable(tried.deployment) if tried else b"none"),
        b"x-gateway-attempts: %d" % len(receipt.tried),
        b"x-gateway-cache: " + (receipt.cache or "none").encode(),
        b"x-gateway-config: " + config.encode(),
        b"x-gateway-cost: " + (b"at-end" if cost_later else cost_text(receipt)),
        b"server-timing: gateway;dur=%.1f, upstream;dur=%.1f" % (gateway_s * 1000, upstream_s * 1000),
    ]
    for name, value in receipt.headers.items():
        lines.append(f"{name}: {value}".encode("latin-1", "replace"))
    return lines


def cost_text(receipt: Receipt) -> bytes:
    """Return a call's cost in dollars: exact, or `unknown`."""
    if receipt.cost_nusd is None and not receipt.tried:
        return b"0"
    return b"unknown" if receipt.cost_nusd is None else dollars(receipt.cost_nusd).encode()


@lru_cache(10_000)
def _printable(name: str) -> bytes:
    """Return a name that a client may have chosen (by a pattern) as a header's value: visible ASCII only."""
    return "".join(c if "!" <= c <= "~" else "?" for c in name[:200]).encode()
