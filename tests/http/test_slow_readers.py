"""Clients that read a kilobyte a second: they are waited for, at a bounded price, and the others do not notice."""

import asyncio
import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.lean import Lean
from tests.script import Floods, ScriptedUpstream
from tests.serving import mock_config, started

READERS = 20
MEGABYTES = 50
BYTES_A_SECOND = 1000
SECONDS = 2
"""For so long they go on when the upstreams have stopped."""
MB = 2**20
TAKEN_BYTES = MEGABYTES * MB // 2
"""Most of what a stream's upstream gets rid of lies in the kernel's buffers, three of some megabytes."""
KEPT_BYTES = 4 * MB
"""What the gateway itself may keep of one stream."""


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as upstream:
        yield upstream


async def test_slow_readers_cost_little_and_slow_nobody(upstream, tmp_path):
    """Not what is said is kept for them, but what they read is asked for."""
    (tmp_path / "gateway.yaml").write_text(mock_config(upstream.url))
    with started(tmp_path) as gateway:
        await asyncio.to_thread(gateway.until_ready)
        alone_s = await quickest_s(gateway.url)
        before = resident_bytes(gateway.process.pid)
        upstream.will(*[Floods(MEGABYTES)] * READERS)
        enough = asyncio.Event()
        readers = [asyncio.ensure_future(read_slowly(gateway.url, enough)) for _ in range(READERS)]
        await upstream.until(lambda: sum(connection.sent > MB for connection in upstream.connections) == READERS)
        beside_s = await quickest_s(gateway.url)
        await asyncio.sleep(SECONDS)
        enough.set()
        await asyncio.gather(*readers)
        await upstream.until(lambda: len(upstream.gone) == READERS)
        grown = resident_bytes(gateway.process.pid) - before
        taken = [gone.sent for gone in upstream.gone]
    assert max(taken) < TAKEN_BYTES
    assert grown < READERS * KEPT_BYTES
    assert beside_s < 3 * alone_s + 0.05


async def read_slowly(url, enough):
    """Read a stream until it is enough, and leave."""
    client = await Lean.open(url, kept_bytes=4096)
    client.send(stream=True)
    while not enough.is_set():
        await client.read(BYTES_A_SECOND // 10)
        await asyncio.sleep(0.1)
    client.close()


async def quickest_s(url):
    """Return how long a call takes that nothing but the gateway holds up."""
    client, took_s = await Lean.open(url), []
    for _ in range(50):
        began_s = time.monotonic()
        assert (await client.ask("one two three", model="echo", stream=True)).done
        took_s.append(time.monotonic() - began_s)
    client.close()
    return min(took_s)


def resident_bytes(pid):
    """Return the memory that a process takes."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        return int(re.search(r"VmRSS:\s+(\d+) kB", status.read_text())[1]) * 1024
    said = subprocess.run(["ps", "-o", "rss=", "-p", f"{pid}"], capture_output=True, text=True, check=True)
    return int(said.stdout) * 1024
