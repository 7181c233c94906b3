"""One connection to Redis, and what may come on it."""

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError, NoScriptError, ResponseError

from gateway.core.resources import Held
from gateway.kv.link import Link, pack
from tests.engine.certs import server_context
from tests.kv.test_redis import a_meter, cut_off, store_of
from tests.valkey import Valkey


async def test_replies_come_in_the_order_of_the_commands(valkey_url: str) -> None:
    """However many are under way, and whatever has become of them: a refusal is a reply too."""
    link = await Link.open(Redis.from_url(valkey_url))
    first = link.send([pack(("ECHO", "one")), pack(("ECHO", "é")), pack(("NONSENSE",))])
    second = link.send([pack(("EVALSHA", "0" * 40, 0)), pack(("ECHO", b"\xff" * 100_000))])
    one, two, nonsense = await first
    unknown, long = await second
    assert (one, two, long) == (b"one", "é".encode(), b"\xff" * 100_000)
    assert isinstance(nonsense, ResponseError) and isinstance(unknown, NoScriptError)
    await link.close()


async def test_a_reply_that_nobody_waits_for_is_not_taken_for_anothers(valkey_url: str) -> None:
    """Whoever is told another call's standing may be let through by it."""
    link = await Link.open(Redis.from_url(valkey_url))
    link.send([pack(("ECHO", "left")), pack(("ECHO", "too"))]).cancel()
    assert await link.send([pack(("ECHO", "mine"))]) == [b"mine"]
    await link.close()


async def test_what_redis_says_of_its_own_accord_is_no_reply(valkey_url: str) -> None:
    """Managed Redis tells its clients of its maintenance, in between."""
    link = await Link.open(Redis.from_url(f"{valkey_url}?protocol=3"))
    key = "gateway:test:seen"
    asked = [("CLIENT", "TRACKING", "ON"), ("SET", key, "1"), ("GET", key), ("SET", key, "2"), ("GET", key)]
    assert await link.send([pack(command) for command in asked]) == [
        b"OK",
        b"OK",
        b"1",
        b"OK",
        b"2",
    ]  # and between two of them, that it changed
    await link.send([pack(("DEL", key))])
    await link.close()


async def test_a_connection_that_breaks_fails_whatever_is_under_way(own_valkey: Valkey) -> None:
    link = await Link.open(Redis.from_url(own_valkey.url))
    waiting = link.send([pack(("BLPOP", "nothing", "0"))])
    await asyncio.sleep(0.05)
    own_valkey.stop()
    with pytest.raises((ConnectionError, OSError)):
        await asyncio.wait_for(waiting, 5)
    assert not link.is_open
    await link.close()


@pytest.mark.parametrize("kind", ["tls", "unix"])
async def test_it_is_reached_in_every_way_that_its_url_can_name(kind: str, tmp_path: Path) -> None:
    """What opens the connection is redis-py, and what it is opened over makes no difference here."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while said := await reader.read(65_536):
            writer.write(b"+OK\r\n" * said.count(b"*"))
        writer.close()

    if kind == "tls":
        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server_context(tmp_path))
        port = server.sockets[0].getsockname()[1]
        url = f"rediss://127.0.0.1:{port}/0?protocol=2&ssl_ca_certs={tmp_path / 'ca.pem'}"
    else:
        server = await asyncio.start_unix_server(answer, tmp_path / "redis")
        url = f"unix://{tmp_path / 'redis'}?protocol=2"
    link = await Link.open(Redis.from_url(url))
    assert await link.send([pack(("SET", "a", "b")), pack(("PING",))]) == [b"OK", b"OK"]
    await link.close()
    server.close()


async def test_what_does_not_speak_its_protocol_is_left() -> None:
    """Something else may have come to listen on the port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while said := await reader.read(65_536):
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" if b"GET" in said else b"+OK\r\n" * said.count(b"*"))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    link = await Link.open(Redis.from_url(f"redis://127.0.0.1:{port}/0?protocol=2"))
    with pytest.raises(ConnectionError, match="not Redis's protocol"):
        await asyncio.wait_for(link.send([pack(("GET", "a"))]), 5)
    assert not link.is_open
    await link.close()
    server.close()


async def test_a_connection_that_was_closed_while_idle_is_opened_again(own_valkey: Valkey) -> None:
    """Redis, and whatever stands before it, may close what nobody uses: no call has to hear of that."""
    async with store_of(own_valkey.url, budget_s=2.0) as store:
        meter = a_meter("requests", 10)
        await store.hold("before", [(meter, 1)])
        link = store._limits._link
        assert link is not None
        await cut_off(link, own_valkey)
        held = await store.hold("after", [(meter, 1)])
        assert isinstance(held, Held) and held.standings[0].remaining == 8
        assert not store.degraded
