"""One client's connection: uvicorn's protocol, with the parts replaced that cost most on each request.

With an app that does nothing, 26 µs of CPU for a request became 19 when they were first replaced: head and body
leave in one write, where uvicorn makes two; a head is looked through once, as a whole, for lines that were smuggled in,
where uvicorn asks two regular expressions of each header; a connection has one timer, which runs on and looks when its
time comes, where uvicorn sets one for each request. Parsing, flow control and the connection's place among the server's
are uvicorn's.
"""

import asyncio
import urllib.parse
from collections import deque
from math import inf
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, parse_url
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.http.cycle import CLIENT, Cycle, line

MOMENT_S = 0.01
"""Event loops round to a millisecond."""


class ClientProtocol(HttpToolsProtocol):
    """A connection, and the requests that come on it one after the other."""

    _asked: Cycle | None = None
    """The request that came last."""
    _answered: Cycle | None = None
    """The request that is answered, or was last."""
    _is_idle = False
    _due_s = inf
    """When the client is left: it has been idle for so long, or takes so long with its request or our answer."""
    _offering = b""
    """A head that offers to switch protocols, without the offer: it is to be read again."""
    _untaken = 0
    """Bytes of finished answers that the client had not taken when that was last looked at."""
    _timer: asyncio.TimerHandle | None = None
    _looks_s = inf
    """When the timer fires."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Begin."""
        super().connection_made(transport)
        self._asgi: Any = self.app  # pyright: ignore[reportUnknownMemberType]
        self._behind = deque[tuple[Cycle, dict[str, Any]]]()
        """Requests that came before the one before them was answered."""

    def data_received(self, data: bytes) -> None:
        """Take what the client says.

        No protocol is switched to another, whatever a client offers, as Java's does with each request. The parser takes
        all behind such a head for the other protocol's, so another one reads the head again, without the offer.
        """
        self._unset_keepalive_if_required()
        rest = data
        try:
            while True:
                parser: Any = self.parser
                try:
                    parser.feed_data(rest)
                    return
                except HttpParserUpgrade as offer:
                    rest = memoryview(rest)[offer.args[0] :]
                self.parser = parser = HttpRequestParser(self)
                parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
                head, self._offering = self._offering, b""
                parser.feed_data(head)
        except HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self.send_400_response("Invalid HTTP request received.")

    def on_message_begin(self) -> None:
        """Forget the request before."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        """Begin a request, whose body may still be on its way."""
        parser: Any = self.parser
        url = parse_url(self.url)
        path = url.path.decode("ascii")
        method = parser.get_method().decode("ascii")
        version = parser.get_http_version()
        if parser.should_upgrade() and method != "CONNECT":
            lines = [line(header) for header in self.headers if header[0] != b"upgrade"]
            first = f"{method} ".encode() + self.url + f" HTTP/{version}".encode()
            self._offering = b"\r\n".join([first, *lines, b"", b""])
            return
        keep_alive = version != "1.0" and parser.should_keep_alive()
        before = self._asked
        self._asked = cycle = Cycle(self, bodiless=method == "HEAD", chunks=version != "1.0", keep_alive=keep_alive)
        scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "method": method,
            "root_path": "",
            "path": urllib.parse.unquote(path) if "%" in path else path,
            "raw_path": url.path,
            "query_string": url.query or b"",
            "headers": self.headers,
            "state": self.app_state.copy(),
            "extensions": {CLIENT: cycle},
        }
        if before is None or before.response_complete:
            self._answer(cycle, scope)
        else:
            self.flow.pause_reading()
            self._behind.append((cycle, scope))

    def on_body(self, body: bytes) -> None:
        """Take a piece of a request's body; no more than a little before somebody reads it."""
        cycle = self._asked
        if cycle is not None and not cycle.response_complete:
            cycle.body = cycle.body + body if cycle.body else body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            if cycle.receiving is not None:
                cycle.receiving.set()

    def on_message_complete(self) -> None:
        """Note that a request is all here."""
        cycle = self._asked
        if cycle is not None and not (cycle.response_complete or self._offering):
            cycle.more_body, cycle.end_unsaid = False, True
            if cycle.receiving is not None:
                cycle.receiving.set()

    def _answer(self, cycle: Cycle, scope: dict[str, Any]) -> None:
        """Have a request answered. uvicorn asks the event loop to tell of the end, for one more turn of it."""
        self._answered, self._due_s = cycle, inf
        cycle.task = task = self.loop.create_task(cycle.run(self._asgi, scope))
        self.tasks.add(task)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who answers that nobody is there any more."""
        self.connections.discard(self)
        self.flow.resume_writing()
        self.transport.close()
        self.parser = None  # pyright: ignore[reportAttributeAccessIssue] it holds this connection
        if self._timer is not None:
            self._timer.cancel()
        concerned = {self._asked, self._answered}
        self._asked = self._answered = None  # a request that nobody answered would hold its connection
        self._behind.clear()
        for cycle in concerned:
            if cycle is not None:
                cycle.left()

    def shutdown(self) -> None:
        """Close the connection now if it is idle, else behind the answer to the request that came last."""
        if self._asked is None or self._asked.response_complete:
            self.transport.close()
        else:
            self._asked.keep_alive = False

    def on_response_complete(self) -> None:
        """Go on with the next request, or be idle until it comes."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self.watch(self.timeout_keep_alive)
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self._behind:
            self._answer(*self._behind.popleft())
            return
        self._is_idle = True
        self.watch(self.timeout_keep_alive)

    def _unset_keepalive_if_required(self) -> None:
        """Note that the client says something; the timer finds out when its time comes."""
        if self._is_idle:
            self._is_idle, self._due_s = False, inf

    def watch(self, in_s: float) -> None:
        """Leave the client so many seconds from now, unless something else is said until then."""
        self._due_s = due_s = self.loop.time() + in_s
        if due_s < self._looks_s:
            self._look_at(due_s)

    def _look_at(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._looks_s = self.loop.call_at(at_s, self._look), at_s

    def _look(self) -> None:
        """Leave the client if it is time to; otherwise look again when it will be."""
        self._timer, self._looks_s = None, inf
        if self.loop.time() < self._due_s - MOMENT_S:
            if self._due_s < inf:
                self._look_at(self._due_s)
        elif self._answered is not None and not self._answered.response_complete:
            self._answered.is_late = True
            self._answered.task.cancel()
        else:
            self._close()

    def _close(self) -> None:
        """Close the connection; a client that still takes some of its answer may have the rest."""
        before, self._untaken = self._untaken, self.transport.get_write_buffer_size()
        if self._untaken and self._untaken == before:
            self.transport.abort()
        else:
            self.transport.close()
            self.watch(self.timeout_keep_alive)
