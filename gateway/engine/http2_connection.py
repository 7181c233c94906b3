"""One HTTP/2 connection and the calls that share it. The protocol is h2's; what is ours is who waits for what.

A call that is let go of resets its stream and nothing else. A reader that is slow holds up its own stream alone: what
it has not taken is not acknowledged, and the window of the whole connection is wide enough for all streams' windows.
"""

import asyncio
from contextlib import aclosing
from typing import Protocol, cast

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError, StreamClosedError
from h2.settings import SettingCodes, Settings

from gateway.core.call import Upload
from gateway.core.errors import Unreachable
from gateway.engine.failures import broke_off
from gateway.engine.http1_connection import IDLE_S, MOST_HEAD_BYTES, STALE_WITHIN_S
from gateway.engine.http1_exchange import MOST_UNREAD_BYTES, Exchange
from gateway.engine.http2_frames import Frames, GoneAway
from gateway.engine.outgoing import Fields

STREAM_WINDOW_BYTES = 2 * MOST_UNREAD_BYTES
"""What an upstream may send of one answer that nobody has taken yet."""
WINDOW_BYTES = 2**31 - 1
"""Of the connection: the most there can be, so that it never holds up a stream for another's sake."""
MOST_UNSENT_BYTES = 4 * 1024 * 1024
"""Whoever has us answer so much (pings, settings) and does not read it is hung up on."""
MOST_STREAMS = 2**30
"""Then the numbers of streams come to their end, and another connection is due."""
NO_HTTP2 = "the upstream speaks no HTTP/2; `http: native` speaks HTTP/1.1"


class Home(Protocol):
    """The pool, as its connections see it."""

    def roomy(self, calls: int = 1) -> None:
        """Know that there is room for so many more calls."""
        ...

    def forget(self, connection: "Connection") -> None:
        """Know that a connection is closed."""
        ...


class Stream:
    """One call on a connection. Satisfies `Line`."""

    __slots__ = ("asked_s", "connection", "exchange", "heard", "id", "is_sending", "unacknowledged", "was_alone")

    def __init__(self, connection: "Connection", id: int, exchange: Exchange) -> None:
        self.connection = connection
        self.id = id
        self.exchange = exchange
        self.asked_s = 0.0
        self.heard = 0
        """How often the connection had been heard of when this was asked."""
        self.was_alone = False
        """No other call was on the connection when this was asked."""
        self.is_sending = True
        self.unacknowledged = 0
        """Bytes that came, and that the upstream was not told to be taken."""

    def drop(self) -> None:
        """Reset it, and leave the others alone."""
        self.connection.cancel(self)

    def listen(self) -> None:
        """Let the upstream go on."""
        self.connection.acknowledge(self)


class Connection(asyncio.Protocol):
    """A connection to an upstream."""

    def __init__(self, home: Home, loop: asyncio.AbstractEventLoop) -> None:
        self.ready = asyncio.Event()
        """The upstream has said its settings, or there is a `problem`."""
        self.problem: Unreachable | None = None
        self.old_at_s = float("inf")
        self._home = home
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, Stream] = {}
        self.retired = False
        """It takes no more calls."""
        self._lost = False
        self._paused = False
        self._used = False
        self._heard = 0
        """How often something came. (Not when: uvloop's clock stands still between two rounds of the loop.)"""
        self._idle: asyncio.TimerHandle | None = None
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._h2.local_settings = Settings(
            client=True,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
                SettingCodes.MAX_HEADER_LIST_SIZE: MOST_HEAD_BYTES,
            },
        )
        self._frames = Frames(self._h2)

    @property
    def room(self) -> int:
        """How many more calls the upstream lets it carry."""
        if self.retired or self._lost:
            return 0
        return self._h2.remote_settings.max_concurrent_streams - len(self._streams)

    # ── Asking ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def ask(self, exchange: Exchange, fields: Fields, body: bytes | Upload) -> bool:
        """Send a request and wait for the head of its answer. The caller has seen that there is room.

        Returns:
            False when the upstream did not look at it: it said so (`REFUSED_STREAM`, `GOAWAY`), or hung up on a
            connection that carried nothing else just when it was asked. The caller may ask elsewhere.

        Raises:
            Unreachable: it broke before the head came.
            TimedOut: the exchange's deadline passed.
        """
        stream = self._begin(exchange, fields, ends=not body)
        if isinstance(body, bytes):
            await self._write(stream, body)
        else:
            await self._pass_on(stream, body)
        while not exchange.begun:
            if exchange.failure is not None:
                raise exchange.failure
            if exchange.stale:
                return False
            await exchange.wait()
        return True

    def _begin(self, exchange: Exchange, fields: Fields, *, ends: bool) -> Stream:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        id = self._h2.get_next_available_stream_id()
        stream = Stream(self, id, exchange)
        stream.asked_s, stream.heard, stream.was_alone = self._loop.time(), self._heard, not self._streams
        self._streams[id] = stream
        exchange.connection = stream
        self._h2.send_headers(id, fields, end_stream=ends)
        stream.is_sending = not ends
        if id >= MOST_STREAMS:
            self.retired = True
        self._flush()
        return stream

    async def _pass_on(self, stream: Stream, upload: Upload) -> None:
        """Send a body as it comes; an answer of refusal that comes early ends it."""
        exchange = stream.exchange
        async with aclosing(upload.pieces()) as pieces:
            while (piece := await exchange.next_of(pieces)) is not None:
                await self._write(stream, piece, ends=False)
        if not exchange.settled and stream.id in self._streams:
            stream.is_sending = False
            self._h2.end_stream(stream.id)
            self._flush()

    async def _write(self, stream: Stream, body: bytes, *, ends: bool = True) -> None:
        """Send so much of a body, as fast as it is taken; an answer of refusal that comes early ends it."""
        exchange, sent = stream.exchange, 0
        while sent < len(body) and not exchange.settled and stream.id in self._streams:
            size = min(self._h2.local_flow_control_window(stream.id), self._h2.max_outbound_frame_size)
            if size <= 0 or self._paused:
                await exchange.wait()
                continue
            piece = body[sent : sent + size]
            sent += len(piece)
            is_last = ends and sent == len(body)
            stream.is_sending = not is_last
            self._h2.send_data(stream.id, piece, end_stream=is_last)
            self._flush()

    # ── The streams' side ────────────────────────────────────────────────────────────────────────────────────────

    def cancel(self, stream: Stream) -> None:
        """Reset a stream. If nothing at all was heard since it was asked, the connection may be dead: no more calls."""
        if self._streams.pop(stream.id, None) is None:
            return
        self._reset(stream)
        if self._heard == stream.heard:
            self.retired = True
        self._one_less()

    def acknowledge(self, stream: Stream) -> None:
        """Tell the upstream that what came was taken."""
        size, stream.unacknowledged = stream.unacknowledged, 0
        if size and not self._lost and stream.id in self._streams:
            self._h2.acknowledge_received_data(size, stream.id)
            self._flush()

    def retire(self) -> None:
        """Carry what there is to its end, and nothing new."""
        self.retired = True
        if not self._streams:
            self._leave()
        self._home.roomy()

    def fail_all(self, message: str) -> None:
        """Fail every exchange."""
        streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            stream.exchange.connection = None
            stream.exchange.fail(Unreachable(message))

    def abort(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()

    # ── asyncio's side ───────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say the preface, if the upstream speaks HTTP/2 at all."""
        self._transport = cast(asyncio.Transport, transport)
        agreed = transport.get_extra_info("ssl_object")
        if agreed is not None and agreed.selected_alpn_protocol() != "h2":
            self._lose(NO_HTTP2, lasting=True)
            self.abort()
            return
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(WINDOW_BYTES - self._h2.inbound_flow_control_window)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Take what came apart, and hand it on."""
        if self._lost:
            return
        self._heard += 1
        try:
            for event in self._frames.feed(data):
                self._take(event)
        except ProtocolError as error:
            self._flush()  # why, for the upstream
            is_other = not self.ready.is_set()
            self._lose(NO_HTTP2 if is_other else "the upstream's answer is no HTTP/2", error, lasting=is_other)
            self.abort()
        else:
            self._flush()

    def eof_received(self) -> None:
        """The upstream has nothing more to say."""
        self._lose("the upstream closed the connection before it answered")
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by whomever."""
        self._lose("the upstream closed the connection before it answered", exc)
        self._home.forget(self)

    def pause_writing(self) -> None:
        """The upstream takes our requests slowly."""
        self._paused = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._paused = False
        self._wake_senders()

    # ── h2's side ────────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self, event: events.Event | GoneAway) -> None:
        match event:
            case GoneAway():
                self._go_away(event.last)
            case events.DataReceived():
                self._data(event)
            case events.ResponseReceived():
                self._head(event)
            case events.StreamEnded():
                self._end(event.stream_id)
            case events.StreamReset():
                self._was_reset(event)
            case events.WindowUpdated():
                self._wake_senders()
            case events.RemoteSettingsChanged():
                self.ready.set()
                self._wake_senders()
                self._home.roomy(max(0, self.room))
            case _:
                pass  # 1xx, trailers, pings, acknowledgements

    def _head(self, event: events.ResponseReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        headers = {bytes(name).decode("latin-1"): bytes(value).decode("latin-1") for name, value in event.headers}
        try:
            stream.exchange.begin(int(headers.pop(":status")), headers)
        except Unreachable as error:
            stream.exchange.fail(error)
        stream.exchange.wake()

    def _data(self, event: events.DataReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        stream.unacknowledged += event.flow_controlled_length
        if event.data:
            stream.exchange.take([event.data])
            stream.exchange.wake()
        if stream.exchange.unread <= MOST_UNREAD_BYTES:
            self.acknowledge(stream)

    def _end(self, id: int) -> None:
        stream = self._streams.get(id)
        if stream is None:
            return
        self.acknowledge(stream)  # or the connection's window would shrink by what was not taken yet
        del self._streams[id]
        if stream.is_sending:
            self._reset(stream)
        self._used = True
        stream.exchange.end()
        stream.exchange.wake()
        self._one_less()

    def _was_reset(self, event: events.StreamReset) -> None:
        stream = self._streams.pop(event.stream_id, None)
        if stream is None:
            return
        exchange = stream.exchange
        exchange.connection = None
        if event.error_code == ErrorCodes.REFUSED_STREAM and not exchange.begun:
            exchange.stale = True
            exchange.wake()
        elif event.error_code == ErrorCodes.NO_ERROR and exchange.ended:
            exchange.wake()
        else:
            exchange.fail(_broken(exchange, "the upstream reset the request before it answered"))
        self._one_less()

    def _go_away(self, last: int) -> None:
        """Carry on what the upstream has taken; the rest may be asked elsewhere, for it was not looked at."""
        for id in [id for id in self._streams if id > last]:
            exchange = self._streams.pop(id).exchange
            exchange.connection = None
            exchange.stale = True
            exchange.wake()
        self.retire()

    # ── Inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _reset(self, stream: Stream) -> None:
        if not self._lost:
            self._h2.acknowledge_received_data(stream.unacknowledged, stream.id)
            try:
                self._h2.reset_stream(stream.id, ErrorCodes.CANCEL)
            except StreamClosedError:
                pass  # its end came together with what we reset it for
            self._flush()

    def _one_less(self) -> None:
        """Know that one call less is carried."""
        if not self._streams and not self._lost:
            if self.retired:
                self._leave()
            elif self._idle is None:
                self._idle = self._loop.call_later(IDLE_S, self.retire)
        self._home.roomy()

    def _leave(self) -> None:
        """Part as one does."""
        if not self._lost and self._transport is not None:
            self._h2.close_connection()
            self._flush()
            self._transport.close()

    def _flush(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        data = self._h2.data_to_send()
        if data:
            transport.write(data)
            if transport.get_write_buffer_size() > MOST_UNSENT_BYTES:
                transport.abort()

    def _wake_senders(self) -> None:
        for stream in self._streams.values():
            if stream.is_sending:
                stream.exchange.wake()

    def _lose(self, message: str, cause: Exception | None = None, *, lasting: bool = False) -> None:
        """Part from everybody: the connection has ended."""
        if self._lost:
            return
        self._lost = True
        if self._idle is not None:
            self._idle.cancel()
        if not self.ready.is_set():
            problem = Unreachable(NO_HTTP2 if cause is None else message)
            self.problem = problem.lasting() if lasting else problem
            self.problem.__cause__ = cause
            self.ready.set()
        streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            exchange = stream.exchange
            exchange.connection = None
            if self._used and stream.was_alone and self._heard == stream.heard and self._died_at_once(stream):
                exchange.stale = True
                exchange.wake()
            else:
                failure = _broken(exchange, message)
                failure.__cause__ = cause
                exchange.fail(failure)

    def _died_at_once(self, stream: Stream) -> bool:
        return self._loop.time() - stream.asked_s <= STALE_WITHIN_S


def _broken(exchange: Exchange, message: str) -> Unreachable:
    return broke_off(exchange.received) if exchange.begun else Unreachable(message)
