"""How new connections find an upstream: its name resolved anew, every address tried, IPv6 like IPv4."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from gateway.core.errors import TimedOut, Unreachable
from gateway.engine import dialing, http1, httpx_transport
from gateway.engine.dialing import MOST_ADDRESSES, connected
from gateway.engine.failures import no_connection
from gateway.engine.http1 import NativeTransport
from gateway.engine.httpx_transport import HttpxTransport
from gateway.engine.transport import Transport
from gateway.providers.base import Request
from tests.engine.test_transport_contract import ask, within
from tests.script import ScriptedUpstream

NOBODY = "::1"
"""Nobody listens there at an upstream's port, whether this machine has IPv6 or not."""


class Names:
    """A resolver that a test can change."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: list[tuple[str, int]] = []
        """What every name stands for, and at which port; 0: at the one that is asked for."""
        self.asked: list[Any] = []
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self._resolve)

    async def _resolve(self, host: Any, port: Any, **_: Any) -> list[Any]:
        host = host.decode() if isinstance(host, bytes) else host
        if host in (address for address, _ in self.addresses):  # uvloop asks again for what it was answered
            return [self._found(host, port)]
        self.asked.append(host)
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [self._found(address, to or port) for address, to in self.addresses]

    def _found(self, address: str, port: int) -> Any:
        where = (address, port, 0, 0) if ":" in address else (address, port)
        return (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", where)


@pytest.fixture
async def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


def at(port: int, host: str = "moving.example") -> Request:
    return Request(f"http://{host}:{port}/v1/chat/completions", b'{"model": "m"}', {})


async def test_an_upstream_that_moves_is_followed(upstream: ScriptedUpstream, names: Names):
    """Connections that calls keep busy would go to the old address for ever: they are given up when they are old."""
    transport = NativeTransport()
    async with ScriptedUpstream() as moved:
        names.addresses = [("127.0.0.1", upstream.port)]
        for _ in range(3):
            await ask(transport, at(80))
        names.addresses = [("127.0.0.1", moved.port)]
        await ask(transport, at(80))
        assert (upstream.asked, upstream.accepted, moved.asked) == (4, 1, 0)
        _make_old(transport)
        await ask(transport, at(80))  # the last on the old connection
        await ask(transport, at(80))
        assert (upstream.asked, moved.asked) == (5, 1)
        await upstream.until(lambda: not upstream.connections)
        await transport.close()


async def test_what_replaces_an_old_connection_asks_for_the_name_again(
    transport: Transport, upstream: ScriptedUpstream, names: Names
):
    """Nobody remembers addresses but the resolver, who knows how long they are good for."""
    names.addresses = [("127.0.0.1", 0)]
    for _ in range(3):
        await ask(transport, at(upstream.port))
    assert (upstream.accepted, len(names.asked)) == (1, 1)
    _make_old(transport)
    await ask(transport, at(upstream.port))
    await ask(transport, at(upstream.port))
    assert (upstream.accepted, len(names.asked)) == (2, 2)


def _make_old(transport: Transport) -> None:
    if isinstance(transport, NativeTransport):
        for origin in transport._origins.values():
            for connection in origin.connections:
                connection.old_at_s = 0.0
    elif isinstance(transport, HttpxTransport):
        for lanes in transport._idle.values():
            for lane in lanes:
                lane.old_at_s = 0.0


def test_five_minutes_are_old():
    """Long against a handshake, short against an outage."""
    assert http1.LIVES_S == httpx_transport.LIVES_S == 300


async def test_an_old_connection_is_not_handed_to_the_next_in_line(upstream: ScriptedUpstream, names: Names):
    """Under load there is always a next one, and it would never be given up."""
    transport = NativeTransport(most_connections=1)
    names.addresses = [("127.0.0.1", upstream.port)]
    await ask(transport, at(80))
    _make_old(transport)
    await asyncio.gather(*(ask(transport, at(80)) for _ in range(3)))
    assert (upstream.asked, upstream.accepted) == (4, 2)
    await transport.close()


async def test_a_dead_address_leaves_the_others(transport: Transport, upstream: ScriptedUpstream, names: Names):
    """Whichever comes first."""
    names.addresses = [(NOBODY, 0), ("127.0.0.1", 0)]
    assert b"Hello" in await ask(transport, at(upstream.port))
    names.addresses.reverse()
    assert b"Hello" in await ask(transport, at(upstream.port, "other.example"))


@pytest.mark.parametrize("first", ["::1", "127.0.0.1"])
async def test_an_address_that_does_not_answer_is_not_waited_out(
    upstream: ScriptedUpstream, names: Names, monkeypatch: pytest.MonkeyPatch, first: str
):
    """The next is tried beside it; `timeouts.connect` is for the one that answers."""
    dead = _hanging(monkeypatch, first)
    names.addresses = [(first, 1), ("127.0.0.1", upstream.port)]
    transport = NativeTransport()
    answer = await transport.send(at(80), connect_s=30.0, deadline=within(30.0))
    assert answer.status == 200
    assert dead == ["tried", "left"]
    await transport.close()


def _hanging(monkeypatch: pytest.MonkeyPatch, host: str) -> list[str]:
    """Have connections to port 1 of `host` hang, as they do where a firewall drops packets; return what befell them."""
    befell: list[str] = []
    connect: Callable[..., Any] = dialing._socket

    async def hang(address: Any) -> socket.socket:
        if address[1][:2] != (host, 1):
            return await connect(address)
        befell.append("tried")
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            befell.append("left")
        raise AssertionError("it hangs")

    monkeypatch.setattr(dialing, "_socket", hang)
    return befell


async def test_where_no_address_answers_the_clock_ends_it(names: Names, monkeypatch: pytest.MonkeyPatch):
    """And nothing is left behind."""
    dead = _hanging(monkeypatch, "127.0.0.1")
    names.addresses = [("127.0.0.1", 1), ("::1", 1)]
    monkeypatch.setattr(dialing, "STAGGER_S", 10.0)
    transport = NativeTransport()
    with pytest.raises(TimedOut, match=r"timeouts\.connect "):
        await transport.send(at(80), connect_s=0.1, deadline=within(30.0))
    await transport.close()
    async with asyncio.timeout(30):
        while dead != ["tried", "left"]:
            await asyncio.sleep(0)


async def test_where_every_address_refuses_the_reason_is_told(transport: Transport, names: Names):
    """All were asked."""
    async with ScriptedUpstream() as upstream:
        port = upstream.port
    names.addresses = [(NOBODY, 0), ("127.0.0.1", 0)]
    with pytest.raises(Unreachable, match="connection"):
        await ask(transport, at(port))
    with pytest.raises(ConnectionRefusedError):
        await connected("moving.example", port)


async def test_a_name_that_is_lost_for_a_while_is_found_again(
    transport: Transport, upstream: ScriptedUpstream, names: Names
):
    """A resolver's failure is one call's, and nobody remembers it."""
    with pytest.raises(Unreachable, match="cannot be resolved"):
        await ask(transport, at(upstream.port))
    names.addresses = [("127.0.0.1", 0)]
    assert b"Hello" in await ask(transport, at(upstream.port))


async def test_of_two_that_answer_at_once_one_is_closed(
    upstream: ScriptedUpstream, names: Names, monkeypatch: pytest.MonkeyPatch
):
    """At once, and not when the garbage is collected."""
    monkeypatch.setattr(dialing, "STAGGER_S", 0.0)
    made: list[socket.socket] = []
    both = asyncio.Event()
    connect: Callable[..., Any] = dialing._socket

    async def wait_for_both(address: Any) -> socket.socket:
        sock = await connect(address)
        made.append(sock)
        if len(made) == 2:
            both.set()
        await both.wait()
        return sock

    async with ScriptedUpstream() as other:
        names.addresses = [("127.0.0.1", upstream.port), ("127.0.0.1", other.port)]
        monkeypatch.setattr(dialing, "_socket", wait_for_both)
        sock = await connected("moving.example", 80)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert sock.fileno() != -1
        assert sorted(each.fileno() == -1 for each in made) == [False, True]
        sock.close()


def test_families_take_turns():
    """So that one dead family costs one wait, however many addresses it has; and names with hundreds end."""
    v6 = [(socket.AF_INET6, 1, 6, "", (f"fd00::{n}", 80, 0, 0)) for n in range(2)]
    v4 = [(socket.AF_INET, 1, 6, "", (f"10.0.0.{n}", 80)) for n in range(20)]
    turns = dialing._in_turn([*v6, *v4])
    assert [where[0] for _, where in turns[:5]] == ["fd00::0", "10.0.0.0", "fd00::1", "10.0.0.1", "10.0.0.2"]
    assert len(turns) == MOST_ADDRESSES


# ── IPv6 ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_ipv6_address_is_asked_for_without_its_brackets(upstream: ScriptedUpstream, names: Names):
    """And named with them. The resolver stands in for a machine's IPv6, which not every machine has."""
    transport = NativeTransport()
    names.addresses = [("127.0.0.1", upstream.port)]
    assert b"Hello" in await ask(transport, at(8080, "[fd00::7]"))
    assert (upstream.requests[0].headers["host"], names.asked) == ("[fd00::7]:8080", ["fd00::7"])
    await transport.close()


async def test_an_upstream_on_ipv6_is_spoken_to(transport: Transport):
    """On IPv6's own loopback; a machine without one says that it cannot be reached, at once and in words."""
    async with ScriptedUpstream() as upstream:
        try:
            server = await asyncio.get_running_loop().create_server(upstream.connection, "::1", 0)
        except OSError:
            with pytest.raises(Unreachable, match="connection"):
                await ask(transport, at(9, "[::1]"))
            return
        port = server.sockets[0].getsockname()[1]
        assert b"Hello" in await ask(transport, at(port, "[::1]"))
        assert upstream.requests[0].headers["host"] == f"[::1]:{port}"
        server.close()


@pytest.mark.parametrize("reason", [errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL])
def test_what_this_machine_lacks_is_no_fault_of_an_upstream(reason: int):
    """A thousand streams more than there are files would otherwise lay every healthy upstream to rest."""
    failure = no_connection(OSError(reason, os.strerror(reason)))
    assert not failure.unhealthy and "this machine" in failure.message
    assert no_connection(ConnectionRefusedError(errno.ECONNREFUSED, "refused")).unhealthy
