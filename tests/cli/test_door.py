"""Several workers at one door: evenly, whatever else they do, and nobody is left standing outside."""

import asyncio
import contextlib
import re
import resource
import socket
from collections import Counter
from pathlib import Path

import pytest

from gateway.cli.door import ABSENT, Door, Tally
from tests.lean import Lean
from tests.serving import started

ECHO = "providers: {echo: {}}\nmodels: {echo: echo/echo}\nchain: [{use: metrics}]\n"


class Inside(asyncio.Protocol):
    """A connection that was let in."""

    def __init__(self, others):
        self.others = others

    def connection_made(self, transport):
        self.transport = transport
        self.others.add(self)

    def connection_lost(self, exc):
        self.others.discard(self)


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        yield sock


@pytest.fixture
def tally(tmp_path):
    tally = Tally(tmp_path / "connections", new=True)
    yield tally
    tally.close()


@contextlib.asynccontextmanager
async def worker(listening, tally, place):
    """A worker at the door; yields who is inside."""
    inside = set()
    sock = listening.dup()
    door = Door(sock, tally, place)
    door.open(lambda: Inside(inside), lambda: len(inside))
    try:
        yield inside, door
    finally:
        await door.close()
        sock.close()
        for one in list(inside):
            one.transport.close()


@contextlib.asynccontextmanager
async def clients(listening, count):
    """So many connections, opened at once and kept."""
    port = listening.getsockname()[1]
    opened = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(count)))
    try:
        yield opened
    finally:
        for _, writer in opened:
            writer.close()


async def until(holds):
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.005)


async def test_connections_spread_evenly(listening, tally):
    """Of 64 at once, each of two workers has its half."""
    async with (
        worker(listening, tally, 0) as (some, _),
        worker(listening, tally, 1) as (others, _),
        clients(listening, 64),
    ):
        await until(lambda: len(some) + len(others) == 64)
        assert 29 <= len(some) <= 35


async def test_who_comes_new_catches_up(listening, tally):
    """A worker that was started again has none: the next are its own."""
    async with worker(listening, tally, 0) as (some, _), clients(listening, 20):
        await until(lambda: len(some) == 20)
        async with worker(listening, tally, 1) as (others, _), clients(listening, 20):
            await until(lambda: len(some) + len(others) == 40)
            assert 19 <= len(others) <= 20  # one in sixteen is no difference


async def test_nobody_waits_for_a_worker_that_does_not_come(listening, tally):
    """One that hangs has fewest, and lets nobody in."""
    tally[1] = 0
    async with worker(listening, tally, 0) as (some, _), clients(listening, 200):
        await until(lambda: len(some) == 200)


async def test_a_worker_that_leaves_lets_in_who_stood_in_line(listening, tally):
    """A refused connection can be tried elsewhere; one that was taken and dropped cannot. And it counts no more."""
    async with worker(listening, tally, 0) as (some, door):
        port = listening.getsockname()[1]
        waiting = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]  # this loop has not run meanwhile
        await door.close()
        assert len(some) == 5
        assert tally.fewest() == 0  # nobody is there
        for one in waiting:
            one.close()


async def test_who_left_makes_room(listening, tally):
    """What is counted is who is there now."""
    async with worker(listening, tally, 0) as (some, door):
        async with clients(listening, 10):
            await until(lambda: len(some) == 10)
            assert door.tell() == 10
        await until(lambda: not some)
        assert door.tell() == 0 and tally.fewest() == 0


def test_an_absent_worker_has_not_the_fewest(tally):
    """Or all others would wait for it."""
    tally[0], tally[1] = 3, ABSENT
    assert tally.fewest() == 3


async def test_two_workers_share_what_comes(tmp_path):
    """As users start them. One that is there later, or was kept from coming, has those that come next."""
    (tmp_path / "gateway.yaml").write_text(ECHO)
    opened = []
    with started(tmp_path, "--workers", "2") as gateway:
        await asyncio.to_thread(gateway.until_ready, 2)
        pids = [int(pid) for pid in re.findall(r"worker (\d+) starts", gateway.said)]
        async with asyncio.timeout(120):
            while not _is_even(_spread(gateway.url, pids)):
                opened += [await _asking(gateway.url) for _ in range(20)]
                if len(_spread(gateway.url, pids)) < 2:  # the other is not there yet
                    while opened:
                        opened.pop().close()
                    await asyncio.sleep(0.1)
        for client in opened:
            client.close()


async def _asking(url):
    """Return a connection that was let in."""
    client = await Lean.open(url)
    assert (await client.get("/live")).status == 200
    return client


def _is_even(spread):
    return len(spread) == 2 and max(spread.values()) - min(spread.values()) <= 1 + max(spread.values()) // 10


async def test_a_thousand_streams_need_no_ulimit(tmp_path):
    """Two files each; what a shell or a service manager gives at first is 1,024, and what they allow is more."""
    (tmp_path / "gateway.yaml").write_text(ECHO)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        with started(tmp_path) as gateway:
            await asyncio.to_thread(gateway.until_ready)
            limits = Path(f"/proc/{gateway.process.pid}/limits").read_text()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert re.search(rf"Max open files +{hard} +{hard} ", limits)


def _spread(url, pids):
    """Return how many connections each worker has."""
    port = int(url.rpartition(":")[2])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = {f"socket:[{row[9]}]" for row in rows if int(row[1].partition(":")[2], 16) == port and row[3] == "01"}
    found = Counter()
    for pid in pids:
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found[pid] += str(file.readlink()) in ours
    return +found
