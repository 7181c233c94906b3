"""Counting, for Prometheus, at next to no cost for a call: plain numbers, which are handed on now and then.

prometheus_client enters three functions and takes a lock for each increment, and more for a histogram; a call makes a
dozen of them. Here one is an addition. What came since is handed on before each scrape of this process, and where
several workers write for whichever of them is scraped (`PROMETHEUS_MULTIPROC_DIR`), every `EVERY_S` and at the stop: a
worker that is killed loses what it counted in that time.

The thread of the event loop alone counts, and whichever thread scrapes hands on. What was handed on is kept beside what
was counted, and only the difference goes on, so the two need no lock between them.
"""

import logging
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Protocol

import prometheus_client
from prometheus_client import Counter, Gauge
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import REGISTRY, Collector

from gateway.core.resources import Clock

EVERY_S = 1.0
"""How old the numbers of other workers may be."""

log = logging.getLogger("gateway")


class _Value(Protocol):
    def inc(self, amount: float) -> None: ...


class Histogram(prometheus_client.Histogram):
    """A histogram that takes many observations in one step: its like in prometheus_client takes them one by one."""

    _sum: _Value
    _buckets: list[_Value]

    @property
    def bounds(self) -> Sequence[float]:
        """The highest value of each bucket, the last of them infinite."""
        return self._upper_bounds

    def add(self, counts: Iterable[int], total: float) -> None:
        """Observe so many values in each bucket, which are `total` together."""
        self._sum.inc(total)
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)


class Count:
    """One series of a counter or a gauge; to count is to change `n`.

    Args:
        series: where it is handed on.
        per: how many make one there, where `n` counts in smaller pieces.
    """

    __slots__ = ("_handed", "_per", "_series", "n")

    def __init__(self, series: Counter | Gauge, per: int = 1) -> None:
        self.n = 0
        self._handed = 0
        self._series = series
        self._per = per
        _counted.append(self)

    def hand_on(self) -> None:
        """Hand on what came since the last time."""
        n, handed = self.n, self._handed
        if n != handed:
            self._handed = n
            self._series.inc((n - handed) / self._per)


class Spread:
    """One series of a histogram."""

    __slots__ = ("_bounds", "_counts", "_handed", "_handed_total", "_series", "_total")

    def __init__(self, series: Histogram) -> None:
        self._series = series
        self._bounds = series.bounds
        self._counts = [0] * len(self._bounds)
        self._handed = self._counts.copy()
        self._total = self._handed_total = 0.0
        _counted.append(self)

    def see(self, value: float) -> None:
        """Observe a value."""
        self._total += value  # before its count, by which `hand_on` knows that there is something
        self._counts[bisect_left(self._bounds, value)] += 1

    def hand_on(self) -> None:
        """Hand on what came since the last time."""
        if self._counts != self._handed:
            counts, total = self._counts.copy(), self._total
            self._series.add(map(int.__sub__, counts, self._handed), total - self._handed_total)
            self._handed, self._handed_total = counts, total


class Counts(dict[str | tuple[str, ...], Count]):
    """The series of a metric by their labels; each is made when it is asked for.

    Args:
        metric: the metric.
        per: see `Count`.
    """

    def __init__(self, metric: Counter | Gauge, per: int = 1) -> None:
        super().__init__()
        self._metric = metric
        self._per = per

    def __missing__(self, labels: str | tuple[str, ...]) -> Count:
        count = self[labels] = Count(self._metric.labels(*_each(labels)), self._per)
        return count


class Spreads(dict[str | tuple[str, ...], Spread]):
    """The series of a histogram by their labels; each is made when it is asked for."""

    def __init__(self, metric: Histogram) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, labels: str | tuple[str, ...]) -> Spread:
        spread = self[labels] = Spread(self._metric.labels(*_each(labels)))
        return spread


def _each(labels: str | tuple[str, ...]) -> tuple[str, ...]:
    return (labels,) if isinstance(labels, str) else labels


_counted: list[Count | Spread] = []
"""All there are: as many as prometheus_client has, which forgets none either."""
_handing_on = Lock()


def hand_on() -> None:
    """Hand on all that was counted so far; any thread may. A bug in what one series counts holds up no other."""
    with _handing_on:
        for series in _counted:
            try:
                series.hand_on()
            except (ValueError, OverflowError):  # a counter that went back, a number that no float can be
                log.exception("what was counted since the last scrape is left out of one series of /metrics")


async def keep_handing_on(clock: Clock) -> None:
    """Hand on every `EVERY_S`, until cancelled."""
    while True:
        await clock.sleep(EVERY_S)
        hand_on()


class _First(Collector):
    """Stands before all other metrics in the registry, so that whoever reads it reads what was counted so far."""

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        hand_on()
        return ()


REGISTRY.register(_First())
