"""The queue between calls and the database; the database itself is a stand-in that fails when a test says so."""

import asyncio

import pytest
from prometheus_client import REGISTRY

from gateway.core.receipt import Receipt, Tried
from gateway.core.usage import Usage
from gateway.engine.clock import SystemClock
from gateway.store import recorder as module
from gateway.store.recorder import Recorder, Unusable, record_of
from tests.standins import StillClock, call_of
from tests.store.rows import eventually


class FakeTable:
    """Keeps ids, in the order they came."""

    def __init__(self):
        self.broken = ""
        self.opened = 0
        self.ids = []
        self.batches = []
        self.closed = False

    async def open(self):
        self.opened += 1
        self._fail()

    def _fail(self):
        if self.broken:
            raise Unusable(self.broken)

    async def insert(self, records):
        if self.broken == "a bug":
            raise AttributeError("a bug")
        self._fail()
        self.batches.append(len(records))
        self.ids += [record.id for record in records]
        return 0

    async def close(self):
        self.closed = True


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Pauses that a test can wait for."""
    for name in ("EVERY_S", "LONGEST_PAUSE_S", "DRAIN_PAUSE_S"):
        monkeypatch.setattr(module, name, 0.02)
    monkeypatch.setattr(module, "DRAIN_S", 0.3)


@pytest.fixture
async def table():
    return FakeTable()


def take(recorder, *names):
    for name in names:
        recorder.take("c0ffee", call_of(StillClock()), Receipt(f"{name}", outcome="finished"))


def lost():
    return REGISTRY.get_sample_value("gateway_records_lost_total")


def said(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "gateway"]


async def test_a_full_queue_keeps_what_came_first(table, caplog):
    """One hole, from the moment it was full; counted, and told once each way, not once a call."""
    recorder, before = Recorder(table, SystemClock(), most_waiting=10), lost()
    table.broken = "no route to host"
    recorder.start()
    await eventually(lambda: recorder.state == "gone")
    take(recorder, *range(25))
    assert lost() - before == 15
    table.broken = ""
    await eventually(lambda: recorder.state == "ok")
    take(recorder, 25)
    await recorder.close()
    assert table.ids == [*map(str, range(10)), "25"]
    assert [message.partition(":")[0] for message in said(caplog)] == [
        "the database is gone",
        "calls are missing from the record",
        "the database is back",
        "calls are recorded again; 15 are missing",
    ]


async def test_many_rows_are_written_before_their_time_and_in_batches(table, monkeypatch):
    """A burst must not wait until the queue is full, nor become one enormous write."""
    monkeypatch.setattr(module, "EVERY_S", 60.0)
    recorder = Recorder(table, SystemClock())
    recorder.start()
    await asyncio.sleep(0.02)
    take(recorder, *range(1_200))
    await eventually(lambda: len(table.ids) == 1_200)
    assert table.batches == [500, 500, 200]
    await recorder.close()


async def test_what_waits_is_written_at_the_stop(table, monkeypatch):
    """A rolling update must not cost a half second of every worker."""
    monkeypatch.setattr(module, "EVERY_S", 60.0)
    recorder = Recorder(table, SystemClock())
    recorder.start()
    await asyncio.sleep(0.02)
    take(recorder, "last")
    await recorder.close()
    assert table.ids == ["last"] and table.closed


async def test_a_stop_waits_for_a_database_that_is_gone_but_not_for_ever(table, caplog):
    """And says how much is lost."""
    recorder, before = Recorder(table, SystemClock()), lost()
    table.broken = "no route to host"
    recorder.start()
    take(recorder, "a", "b")
    await asyncio.wait_for(recorder.close(), 20.0)
    assert table.ids == [] and lost() - before == 2
    assert said(caplog)[-1] == "at the stop, 2 calls could not be recorded any more"


async def test_a_database_that_comes_back_during_the_stop_gets_its_rows(table):
    """Its restart and ours are often one and the same deployment."""
    recorder = Recorder(table, SystemClock())
    table.broken = "no route to host"
    recorder.start()
    take(recorder, "a")
    closing = asyncio.ensure_future(recorder.close())
    await asyncio.sleep(0.1)
    table.broken = ""
    await closing
    assert table.ids == ["a"]


async def test_a_bug_of_ours_does_not_end_the_recording(table, caplog):
    """It is told with its traceback, once, and what waits is tried again."""
    recorder = Recorder(table, SystemClock())
    table.broken = "a bug"
    recorder.start()
    take(recorder, "a")
    table.broken = "a bug"
    recorder._opened = True
    await eventually(lambda: recorder.state == "gone")
    await asyncio.sleep(0.1)
    assert sum(record.exc_info is not None for record in caplog.records) == 1
    table.broken = ""
    await recorder.close()
    assert table.ids == ["a"]


async def test_a_check_leaves_nothing_open(table):
    """It is made in an event loop of its own, and a connection cannot move to another."""
    recorder = Recorder(table, SystemClock())
    await recorder.check()
    assert table.opened == 1 and table.closed


async def test_a_database_that_comes_back_is_looked_at_again(table):
    """It may have been restored, and its tables be gone, or of another version."""
    recorder = Recorder(table, SystemClock())
    recorder.start()
    await eventually(lambda: table.opened == 1)
    table.broken = "no route to host"
    take(recorder, "a")
    await eventually(lambda: table.opened > 1)
    table.broken = ""
    await recorder.close()
    assert table.ids == ["a"]


def row(receipt, **changes):
    return record_of("c0ffee", call_of(StillClock(), **changes), receipt, None)


def test_a_call_that_nobody_was_asked_for_costs_nothing():
    """It was refused before `cost` was reached, so the receipt does not know."""
    assert row(Receipt("a", outcome="refused")).cost_nusd == 0


def test_an_unknown_price_is_not_zero():
    """It would never be missed."""
    tried = Tried("acme/x", "acme", "x", 0.0)
    assert row(Receipt("a", outcome="finished", tried=[tried], usage=Usage(3, 4))).cost_nusd is None


def test_what_cannot_be_stored_is_made_to_fit():
    """A client may ask for any model, a token name any user, an upstream count anything."""
    made = row(Receipt("a", "x\0y\ud800" + "z" * 900, usage=Usage(10**30), cost_nusd=10**30))
    assert made.model.startswith("x?y?zz") and len(made.model) == 200
    assert made.prompt_tokens == made.cost_nusd == 2**63 - 1


async def test_a_row_says_when_its_call_began(table):
    """Not when it ended, which may be ten minutes later."""
    clock = StillClock()
    recorder = Recorder(table, clock)
    clock.passed_s = 100.0
    recorder.take("c0ffee", call_of(clock), Receipt("a", began_s=40.0))
    assert recorder._waiting[0].at.timestamp() == clock.wall() - 60.0
