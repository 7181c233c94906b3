"""What a call through the whole chain takes: counted, so that a test finds what makes it slower, and not a bench."""

import asyncio
import gc
import re
import sqlite3
import sys
from contextlib import closing
from functools import partial

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from gateway.engine import health
from gateway.store import recorder
from tests.counts.rig import KEY, rig
from tests.counts.table import accepted, beyond, config, measured
from tests.script import ScriptedUpstream
from tests.serving import serving
from tests.store.rows import eventually

HOW = (
    "\n\nTake it out again; or, if it is worth it, accept it: `python -m tests.counts --write`, and say why it grew.\n"
)


def said(lines: list[str]) -> str:
    """What a failure tells."""
    return "\n".join(["One call now takes more than tests/counts/table.toml allows.", *lines]) + HOW


def test_a_call_takes_no_more_than_it_did():
    """Functions entered, callbacks, tasks and writes: of a whole answer, a kept one, a stream, each chunk of it."""
    more = beyond(measured(), accepted())
    assert not more, said(more)


def test_a_call_asks_redis_no_more_often_than_it_did(valkey_url):
    """Each time is a round trip, which costs as much as a third of all else."""
    more = beyond(measured(valkey_url), accepted())
    assert not more, said(more)


@pytest.mark.parametrize("kind", ["whole", "streamed"])
def test_nothing_of_a_call_stays(kind, monkeypatch):
    """There comes a time when hundreds of calls leave nothing: what eats the memory in a week is one block a call.

    At first, what is kept up to a bound fills up: what a deployment did of late, texts that are said again.
    """
    monkeypatch.setattr(health, "MOST_OUTCOMES", 100)
    calls, headers, grown = 600, "cache-control: no-store\r\n", list[int]()
    with rig(config) as gateway:
        ask = gateway.neighbours
        one = {"whole": partial(ask.whole, headers=headers), "streamed": partial(ask.streamed, 1, headers=headers)}
        before = _blocks(gateway, one[kind], calls)
        while len(grown) < 12 and (not grown or grown[-1] >= calls / 2):
            after = _blocks(gateway, one[kind], calls)
            grown.append(after - before)
            before = after
    assert grown[-1] < calls / 2, f"blocks that each {calls} calls left: {grown}"


@pytest.mark.parametrize("kind", ["whole", "streamed"])
def test_nothing_of_a_call_waits_for_the_garbage_collector(kind):
    """What refers to itself in a circle stays until all is looked through, at the cost of every other call."""
    with rig(config) as gateway:
        ask = gateway.neighbours
        work = {"whole": ask.whole, "streamed": partial(ask.streamed, 3)}[kind]
        _blocks(gateway, work, 20)
        gc.disable()
        try:
            for _ in range(50):
                work()
            gateway.done()
            found = gc.collect()
        finally:
            gc.enable()
    assert found < 50, f"in 50 calls, {found} objects"


def _blocks(gateway, work, calls):
    """Make calls, and return how many blocks of memory are in use when all is quiet."""
    for _ in range(calls):
        work()
    gateway.done()
    gc.collect()
    return sys.getallocatedblocks()


async def test_a_hundred_calls_are_one_statement(tmp_path, monkeypatch):
    """While calls are answered the database hears nothing of them; then of all at once."""
    monkeypatch.setattr(recorder, "EVERY_S", 3600.0)
    rows: list[int] = []

    def seen(connection, cursor, statement, parameters, context, executemany):
        if re.match(r"(INSERT|SELECT|UPDATE|DELETE)\b.* calls\b", statement, re.DOTALL):
            rows.append(len(parameters) if executemany else 1)

    async with ScriptedUpstream() as upstream:
        event.listen(Engine, "before_cursor_execute", seen)
        try:
            async with serving(config(upstream.url, f"database: sqlite:///{tmp_path}/calls.db\n")) as gateway:
                await eventually(lambda: _opened(tmp_path / "calls.db"))
                rows.clear()
                for i in range(10):
                    await asyncio.gather(*(gateway.ask(f"{i} {j}", key=KEY) for j in range(10)))
                await gateway.settle()
                assert rows == []
        finally:
            event.remove(Engine, "before_cursor_execute", seen)
    assert rows == [100]


async def _opened(file):
    """Whether the table is there."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'calls'").fetchall()
