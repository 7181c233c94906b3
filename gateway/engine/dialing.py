"""New connections: names resolved anew each time, every address tried, through a proxy where there is one.

An address that does not answer costs `STAGGER_S` and not the whole of `timeouts.connect`: the next one is tried
beside it, and who answers first is taken (RFC 8305, "Happy Eyeballs"). asyncio can do this, uvloop cannot.
"""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import cast

from gateway.core.errors import Unreachable
from gateway.engine.failures import no_connection
from gateway.engine.outgoing import Target
from gateway.engine.proxies import Proxy

STAGGER_S = 0.25
"""How long an address is waited for alone. RFC 8305, §8."""
MOST_ADDRESSES = 8
"""Of one name; more are not tried."""
MOST_HEAD_BYTES = 16 * 1024
"""A longer answer of a proxy is none."""

Address = tuple[int, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]
"""A family, and what `connect` takes there."""


async def dial(
    protocol: asyncio.Protocol, target: Target, tls: ssl.SSLContext | None, proxy: Proxy | None, *, forwards: bool
) -> None:
    """Connect `protocol` to `target`. The caller bounds the time.

    Args:
        protocol: is told of its transport when TLS stands too.
        target: where to.
        tls: what its certificate is checked against; `None`: it is spoken to in the clear.
        proxy: what stands in between.
        forwards: the proxy takes the requests themselves, instead of leading to the target.

    Raises:
        OSError: nobody is there, or nobody that we can trust.
        Unreachable: it is the proxy's doing.
    """
    loop = asyncio.get_running_loop()
    if proxy is None:
        await _connect(protocol, target.host, target.port, tls)
        return
    tunnel = _Tunnel(loop)
    try:
        await _connect(protocol if forwards else tunnel, proxy.host, proxy.port, proxy.tls)
    except OSError as error:
        raise no_connection(error, "the proxy", "HTTPS_PROXY, HTTP_PROXY or `proxy`") from error
    if forwards:
        return
    try:
        transport, rest = await tunnel.lead(proxy.connect(target))
        if tls is not None:
            if rest:
                raise Unreachable("the proxy said something before the upstream was asked")
            secured = await loop.start_tls(transport, protocol, tls, server_hostname=target.host)
            assert secured is not None, "it is, or an error was raised"
            protocol.connection_made(secured)
        else:
            transport.set_protocol(protocol)
            protocol.connection_made(transport)
            if rest:  # HTTP/2 servers speak first
                protocol.data_received(rest)
    except BaseException:
        tunnel.abort()
        raise


async def connected(host: str, port: int) -> socket.socket:
    """Return a socket that is connected to one of the addresses that `host` has now.

    Raises:
        OSError: it has none, or none takes the connection; the last one's reason.
    """
    loop = asyncio.get_running_loop()
    waiting = deque(_in_turn(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
    if len(waiting) == 1:
        return await _socket(waiting.popleft())
    trying = set[asyncio.Task[socket.socket]]()
    failure = OSError("no address")
    try:
        while waiting or trying:
            if waiting:
                trying.add(loop.create_task(_socket(waiting.popleft())))
            wait_s = STAGGER_S if waiting else None
            done, _ = await asyncio.wait(trying, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                trying.discard(task)
                try:
                    return task.result()
                except OSError as error:
                    failure = error
        raise failure
    finally:
        for task in trying:
            task.add_done_callback(_let_go)
            task.cancel()


async def _connect(protocol: asyncio.Protocol, host: str, port: int, tls: ssl.SSLContext | None) -> None:
    sock = await connected(host, port)
    name = host if tls is not None else None
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: protocol, sock=sock, ssl=tls, server_hostname=name)


async def _socket(address: Address) -> socket.socket:
    family, where = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock


def _in_turn(found: Sequence[tuple[int, int, int, str, object]]) -> list[Address]:
    """Return the addresses in the resolver's order, but one family after the other."""
    families: dict[int, dict[object, None]] = {}
    for family, _, _, _, where in found:
        families.setdefault(family, {})[where] = None
    columns = [[(family, where) for where in all] for family, all in families.items()]
    rows = chain.from_iterable(zip_longest(*columns))
    return cast(list[Address], [address for address in rows if address is not None][:MOST_ADDRESSES])


def _let_go(task: asyncio.Task[socket.socket]) -> None:
    """Close what came too late."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()


class _Tunnel(asyncio.Protocol):
    """Asks a proxy to lead on, and hears what it says to that."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._said = b""
        self._heard: asyncio.Future[None] = loop.create_future()
        self._transport: asyncio.Transport | None = None

    async def lead(self, connect: bytes) -> tuple[asyncio.Transport, bytes]:
        """Return what leads to the target, and what came through it already.

        Raises:
            Unreachable: the proxy does not let us through.
        """
        assert self._transport is not None
        self._transport.write(connect)
        await self._heard
        head, end, rest = self._said.partition(b"\r\n\r\n")
        version, _, status = head[:12].partition(b" ")
        if not end or not version.startswith(b"HTTP/1.") or not status.isdigit():
            raise Unreachable("the proxy closed the connection, or its answer is no HTTP/1.1")
        if status[:1] != b"2":
            raise refused(int(status))
        return self._transport, rest

    def abort(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Gather the proxy's answer."""
        self._said += data
        if b"\r\n\r\n" in self._said or len(self._said) > MOST_HEAD_BYTES:
            self._hear()

    def eof_received(self) -> None:
        """Nothing more will come."""
        self._hear()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more can come."""
        self._hear()

    def _hear(self) -> None:
        if not self._heard.done():
            self._heard.set_result(None)


def refused(status: int) -> Unreachable:
    """Return what a proxy's refusal means. 403 is a rule of its own: asked again, it says the same."""
    if status == 407:
        words = "the proxy does not take our credentials; are they in its URL, http://user:password@host?"
        return Unreachable(words).lasting()
    failure = Unreachable(f"the proxy does not let us through to the upstream (status {status})")
    return failure.lasting() if status == 403 else failure
