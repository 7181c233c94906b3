"""Around the whole app: what every answer carries, whoever gives it, and what Prometheus learns of HTTP.

Litestar's own middleware does not see 404 and 405; this wrapper does. Paths are labels by their template only, so that
what clients make up does not become a time series.
"""

import os
from collections.abc import Awaitable, Mapping
from functools import lru_cache, partial
from typing import Any

from litestar.types import ASGIApp, Receive, Scope, Send
from prometheus_client import CollectorRegistry, Counter, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import REGISTRY

from gateway.core.counting import Count, Counts, Histogram, Spread, Spreads, hand_on
from gateway.core.receipt import Receipt
from gateway.http.answers import call_lines
from gateway.http.cycle import CLIENT, Cycle
from gateway.http.edge import new_id
from gateway.settings.live import Live

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

REQUESTS = Counts(Counter("http_requests", "HTTP requests.", ["method", "path", "status"]))
SECONDS_TAKEN = Spreads(
    Histogram("http_request_duration_seconds", "Seconds to an answer's last byte.", ["method", "path"], buckets=SECONDS)
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

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass one request on.

        Returns what is to be awaited, and waits for nothing itself: whoever waits in between is resumed with each event
        of a stream.
        """
        if scope["type"] != "http":  # the lifespan, which is no request
            return self._app(scope, receive, send)
        request: Any = scope
        cycle: Cycle = request["extensions"][CLIENT]
        began_s = self._now()
        cycle.ended = partial(self._count, request, cycle, began_s)
        path = request["path"]
        call = self._calls.get(path)
        if call is None:
            return self._app(scope, receive, partial(self._send, cycle, began_s))
        request["path_template"] = path
        return call(scope, receive, send)

    def _count(self, request: Any, cycle: Cycle, began_s: float) -> None:
        path = request.get("path_template", "unmatched")
        requests, taken = _counted(request["method"], path, cycle.status or 500)
        requests.n += 1
        taken.see(self._now() - began_s)

    async def _send(self, cycle: Cycle, began_s: float, message: Any) -> None:
        """Send a part of an answer that no call stands behind; its head says so, of a receipt that stayed empty."""
        if message["type"] == "http.response.start":
            receipt = Receipt(new_id(), began_s=began_s)
            lines = call_lines(receipt, self._live.gateway.config_id, self._now())
            message["headers"] = [*message["headers"], *[tuple(line.split(b": ", 1)) for line in lines]]
            cycle.keep_alive = cycle.keep_alive and not self._live.draining
        await cycle.send(message)


@lru_cache(10_000)
def _counted(method: str, path: str, status: int) -> tuple[Count, Spread]:
    method = method if method in METHODS else "OTHER"
    return REQUESTS[method, path, str(status)], SECONDS_TAKEN[method, path]


def exposition() -> tuple[str, bytes]:
    """Return every metric, of all workers where there are several, as (content type, text)."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        hand_on()
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
    encoder, content_type = choose_encoder("")
    return content_type, encoder(registry)
