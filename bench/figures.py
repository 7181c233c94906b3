"""Samples, and what is said of them: medians, ranges, and ratios of pairs."""

import statistics
from collections.abc import Callable, Iterable

from msgspec import Struct

UNIT = "nginx"
Pairing = Callable[[float, float], float]

ANY = "-"
"""The case of a scenario that has only one."""


class Sample(Struct, frozen=True, array_like=True):
    """One value that was measured."""

    scenario: str
    server: str
    case: str
    metric: str
    round: int
    value: float


class Figure(Struct, frozen=True):
    """What several rounds gave."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Figure | None":
        """Return the median and the range of `values`; None where there are none."""
        some = sorted(values)
        return cls(statistics.median(some), some[0], some[-1]) if some else None

    def __str__(self) -> str:
        """`12.3 (11.9–13.0)`, or `12.3` where one round is all there is."""
        if self.low == self.high:
            return number(self.median)
        return f"{number(self.median)} ({number(self.low)}–{number(self.high)})"


class Samples:
    """All samples of a run, asked by scenario, server, case and metric."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._values: dict[tuple[str, str, str, str], dict[int, float]] = {}
        for sample in samples:
            key = (sample.scenario, sample.server, sample.case, sample.metric)
            self._values.setdefault(key, {})[sample.round] = sample.value

    def servers(self, scenario: str) -> list[str]:
        """Return who took part, in the order in which they did."""
        return list(dict.fromkeys(key[1] for key in self._values if key[0] == scenario))

    def cases(self, scenario: str, server: str) -> list[str]:
        """Return the cases that were measured of a server."""
        return list(dict.fromkeys(key[2] for key in self._values if key[:2] == (scenario, server)))

    def figure(self, scenario: str, server: str, case: str, metric: str) -> Figure | None:
        """Return what was measured; None where nothing was."""
        return Figure.of(self._of(scenario, server, case, metric).values())

    def ratio(self, scenario: str, server: str, case: str, metric: str) -> Figure | None:
        """Return how many times nginx's figure of the same round and case it is."""
        return self._paired(scenario, server, case, metric, UNIT, lambda mine, theirs: mine / theirs)

    def added(self, scenario: str, server: str, case: str, metric: str) -> Figure | None:
        """Return by how much it is more than without any proxy, in the same round and case."""
        return self._paired(scenario, server, case, metric, "direct", lambda mine, theirs: mine - theirs)

    def _of(self, scenario: str, server: str, case: str, metric: str) -> dict[int, float]:
        return self._values.get((scenario, server, case, metric), {})

    def _paired(self, scenario: str, server: str, case: str, metric: str, other: str, how: Pairing) -> Figure | None:
        mine, theirs = self._of(scenario, server, case, metric), self._of(scenario, other, case, metric)
        return Figure.of(how(value, theirs[i]) for i, value in mine.items() if i in theirs)


def number(value: float) -> str:
    """Write a number as people do: three digits that count, thousands set apart."""
    if abs(value) >= 1000:
        digits = -2 if abs(value) >= 10_000 else -1
        return f"{round(value, digits):,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
