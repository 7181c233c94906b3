"""Around the whole app: what every answer carries, whoever gives it, and what Prometheus learns of HTTP.

Litestar's own middleware does not see 404 and 405; this wrapper does. Paths are labels by their template only, so that
what clients make up does not become a time series.
"""

import os
from collections.abc import Mapping
from functools import lru_cache
from operator import itemgetter
from typing import Any

from litestar.types import ASGIApp, Receive, Scope, Send
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import REGISTRY

from gateway.core.counting import hand_on
from gateway.core.receipt import Receipt
from gateway.http.answers import CLOSE, RawHeaders, call_headers, cost_header
from gateway.http.edge import new_id
from gateway.settings.live import Live

_ID = b"x-request-id"
_name = itemgetter(0)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

REQUESTS = Counter("http_requests", "HTTP requests.", ["method", "path", "status"])
SECONDS_TAKEN = Histogram(
    "http_request_duration_seconds", "Seconds to an answer's last byte.", ["method", "path"], buckets=SECONDS
)
disable_created_metrics()  # a line for each series that says since when: a tenth of the page, and nobody asks


class Observed:
    """The app, with an id, a configuration and a duration on each answer.

    Args:
        app: the app.
        calls: its routes that are calls to models, by their paths. A request for just such a path goes there without
            asking the app's router, which took 13 µs to say the same; how else such a path can be written is the
            router's matter.
        live: the configuration.
    """

    def __init__(self, app: ASGIApp, calls: Mapping[str, ASGIApp], live: Live) -> None:
        self._app = app
        self._calls = calls
        self._live = live
        self._now = live.clock.now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":  # the lifespan, which is no request
            await self._app(scope, receive, send)
            return
        request: Any = scope
        began_s = self._now()
        status = 500

        async def observed(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"]
                if _ID not in map(_name, headers):
                    headers = message["headers"] = [*headers, *self._headers(began_s)]
                # Before a stop every answer says so: a client that connects anew is led elsewhere.
                if self._live.draining and CLOSE not in headers:
                    message["headers"] = [*headers, CLOSE]
            await send(message)

        path = request["path"]
        call = self._calls.get(path)
        try:
            if call is None:
                await self._app(scope, receive, observed)
            else:
                request["path_template"] = path
                await call(scope, receive, observed)
        finally:
            counted = _counted(request["method"], request.get("path_template", "unmatched"), status)
            counted[0].inc()
            counted[1].observe(self._now() - began_s)

    def _headers(self, began_s: float) -> RawHeaders:
        """Return the head of an answer that no call stands behind: the same lines, of a receipt that stayed empty."""
        receipt = Receipt(new_id(), began_s=began_s)
        headers = call_headers(receipt, self._live.gateway.config_id, self._now())
        return [*headers, cost_header(receipt, later=False)]


@lru_cache(10_000)
def _counted(method: str, path: str, status: int) -> tuple[Counter, Histogram]:
    method = method if method in METHODS else "OTHER"
    return REQUESTS.labels(method, path, str(status)), SECONDS_TAKEN.labels(method, path)


def exposition() -> tuple[str, bytes]:
    """Return every metric, of all workers where there are several, as (content type, text)."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        hand_on()
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
    encoder, content_type = choose_encoder("")
    return content_type, encoder(registry)
