"""What is counted in plain numbers is what Prometheus reads: all of it, and once."""

import asyncio
import threading

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge

from gateway.core import counting
from gateway.core.counting import Count, Counts, Histogram, Spread, hand_on
from gateway.settings.process import Process
from tests.steady import LoopClock

BOUNDS = (1, 4, 16)


@pytest.fixture
def registry():
    """A registry that is told only what is handed on: reading the process's own one hands on."""
    return CollectorRegistry()


def test_what_was_handed_on_is_not_handed_on_again(registry):
    """Each scrape adds what came since the last one; a gauge goes down as well."""
    count = Count(Counter("calls", "Calls.", registry=registry))
    live = Count(Gauge("live", "Live ones.", registry=registry))
    said = []
    for _ in range(3):
        count.n += 2
        live.n += 1 if not said else -1
        hand_on()
        said.append((registry.get_sample_value("calls_total"), registry.get_sample_value("live")))
    assert said == [(2, 1), (4, 0), (6, -1)]


def test_whoever_reads_the_registry_reads_what_was_counted_so_far():
    """A plugin's own exporter knows nothing of us."""
    counts = Counts(Counter("test_counting_read", "Calls.", ["model", "outcome"]))
    counts["a", "finished"].n += 1
    counts["a", "finished"].n += 1
    who = {"model": "a", "outcome": "finished"}
    assert prometheus_client.REGISTRY.get_sample_value("test_counting_read_total", who) == 2


def test_parts_are_counted_whole_and_told_in_what_they_make(registry):
    """A sum of nano-dollars is exact, one of dollars is not."""
    cost = Count(Gauge("usd", "Dollars.", registry=registry), per=10**9)
    for _ in range(10):
        cost.n += 100_000_000
    hand_on()
    assert registry.get_sample_value("usd") == 1.0


def test_a_spread_is_what_observing_each_value_makes(registry):
    """The bounds belong to their buckets, and what is above the last one has a bucket too."""
    theirs = prometheus_client.Histogram("theirs", "One by one.", buckets=BOUNDS, registry=registry)
    ours = Spread(Histogram("ours", "Together.", buckets=BOUNDS, registry=registry))
    for value in (0, 0.5, 1, 1.5, 4, 4, 15, 16, 17, 1000):
        theirs.observe(value)
        ours.see(value)
        hand_on()
    for value in (1, 16.5):
        theirs.observe(value)
        ours.see(value)
    hand_on()

    def said(name):
        counts = [registry.get_sample_value(f"{name}_bucket", {"le": le}) for le in ("1.0", "4.0", "16.0", "+Inf")]
        return [*counts, registry.get_sample_value(f"{name}_count"), registry.get_sample_value(f"{name}_sum")]

    assert said("ours") == said("theirs") == [4, 7, 9, 12, 12, 1076.5]


def test_nothing_is_lost_while_others_scrape(registry):
    """Scrapes run in threads of their own, and several at a time."""
    count = Count(Counter("calls", "Calls.", registry=registry))
    spread = Spread(Histogram("took", "Seconds.", buckets=BOUNDS, registry=registry))
    over = threading.Event()

    def scrape():
        while not over.is_set():
            hand_on()

    scrapers = [threading.Thread(target=scrape) for _ in range(2)]
    for scraper in scrapers:
        scraper.start()
    for i in range(20_000):
        count.n += 1
        spread.see(i % 20)
    over.set()
    for scraper in scrapers:
        scraper.join()
    hand_on()
    assert registry.get_sample_value("calls_total") == registry.get_sample_value("took_count") == 20_000
    assert registry.get_sample_value("took_sum") == 190_000


async def test_where_workers_write_for_one_another_each_hands_on_by_itself(registry, monkeypatch, tmp_path):
    """And at the stop, what came since the last time."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(counting, "EVERY_S", 0.01)
    count = Count(Counter("calls", "Calls.", registry=registry))
    process = Process(LoopClock())
    await process.start()
    for n in (1, 2):
        count.n += 1
        async with asyncio.timeout(60):
            while registry.get_sample_value("calls_total") != n:
                await asyncio.sleep(0.01)
    monkeypatch.setattr(counting, "EVERY_S", 3600)
    await asyncio.sleep(0.05)
    count.n += 1
    await process.close()
    assert registry.get_sample_value("calls_total") == 3


@pytest.mark.parametrize("n", [-1, 10**400], ids=["back", "endless"])
def test_a_series_that_cannot_be_told_holds_up_no_other(registry, caplog, n):
    """A bug in one place must not take every metric away; it is told once, with its traceback, and then is over."""
    broken = Count(Counter("broken", "What goes back.", registry=registry))
    after = Count(Counter("after", "Counted behind it.", registry=registry))
    broken.n, after.n = n, 1
    hand_on()
    broken.n += 2
    hand_on()
    assert registry.get_sample_value("broken_total") == 2
    assert registry.get_sample_value("after_total") == 1
    assert caplog.text.count("is left out of one series") == 1
