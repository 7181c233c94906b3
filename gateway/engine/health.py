"""How one deployment has been doing, and its circuit breaker.

A deployment that fails several times in a row, or too often of late, rests: nobody asks it. When the rest is over one
live call at a time tries it; if that is answered all may ask again, if not it rests for twice as long. Health is
learnt from calls that were made anyway and never asks for an answer that would have to be paid.
"""

import random
from collections import deque
from math import inf

from msgspec import Struct

from gateway.core.receipt import Tried
from gateway.core.resources import Rest

MOST_OUTCOMES = 1_000
"""Attempts that the error rate looks back at, at most."""
MOST_WAITS = 200
"""First tokens that a percentile is taken of."""
FEWEST_WAITS = 20
"""With fewer, nobody can say what is late."""
WEIGHT_OF_NEWEST = 0.2
"""How much of a new measurement goes into the mean: about the last ten count."""
JITTER = 0.2
"""A rest is up to so much longer, or all workers would come back at once."""
PROBED_S = 1.0
"""While one call tries a deployment that rested, the others are told to come back after so long."""
LONGEST_WISH_S = 300.0
"""An upstream that asks for more patience is tried after this."""


class Rules(Struct, frozen=True):
    """When a deployment rests, and for how long."""

    failures: int = 5
    """In a row."""
    error_rate: float = 0.5
    """Of the attempts within `window_s`, where there were `of_at_least` so many."""
    of_at_least: int = 20
    window_s: float = 30.0
    rest_s: float = 5.0
    """The first rest; each one after a trial that failed is twice as long."""
    longest_rest_s: float = 60.0


class Health:
    """One deployment's measurements and breaker."""

    __slots__ = (
        "_bad",
        "_outcomes",
        "_waits",
        "failures",
        "first_chunk_s",
        "in_flight",
        "label",
        "probe",
        "probing",
        "rests_until_s",
        "strikes",
        "wishes_until_s",
    )

    def __init__(self) -> None:
        self.label = ""
        """The deployment as it is configured, for metrics; empty until it is asked here."""
        self.in_flight = 0
        self.first_chunk_s: float | None = None
        """A moving mean. `None`: never asked."""
        self.failures = 0
        """In a row."""
        self.strikes = 0
        """Rests in a row. 0: it is well, all may ask."""
        self.rests_until_s = -inf
        self.wishes_until_s = -inf
        """The upstream itself asked not to be asked before."""
        self.probing = False
        """A call has leave to try it."""
        self.probe: Tried | None = None
        """The attempt that tries it."""
        self._outcomes: deque[tuple[float, bool]] = deque()
        self._bad = 0
        self._waits: deque[float] = deque(maxlen=MOST_WAITS)

    def rest(self, now_s: float) -> Rest | None:
        """Return why it is not to be asked now."""
        if self.strikes:
            left_s = PROBED_S if self.probing else self.rests_until_s - now_s
            if left_s > 0:
                return Rest(left_s, self.strikes)
        if self.wishes_until_s > now_s:
            return Rest(self.wishes_until_s - now_s)
        return None

    def spoke(self, first_chunk_s: float, *, stream: bool) -> None:
        """Take note of how soon it began to answer."""
        mean = self.first_chunk_s
        self.first_chunk_s = first_chunk_s if mean is None else mean + WEIGHT_OF_NEWEST * (first_chunk_s - mean)
        if stream:
            self._waits.append(first_chunk_s)

    def late_s(self, percentile: float) -> float | None:
        """Return the percentile of the last streams' first tokens; `None`: too few were seen."""
        if len(self._waits) < FEWEST_WAITS:
            return None
        ordered = sorted(self._waits)
        return ordered[min(len(ordered) - 1, int(percentile * len(ordered)))]

    def error_rate(self, now_s: float, window_s: float) -> float:
        """Return the share of failures among the attempts within the window."""
        self._forget(now_s - window_s)
        return self._bad / len(self._outcomes) if self._outcomes else 0.0

    def well(self, now_s: float) -> None:
        """Count an attempt that went well."""
        self.failures = 0
        self._count(now_s, bad=False)

    def failed(self, now_s: float, rules: Rules) -> bool:
        """Count an attempt that went wrong; return whether it has now been too many."""
        self.failures += 1
        self._count(now_s, bad=True)
        if self.failures >= rules.failures:
            return True
        rate = self.error_rate(now_s, rules.window_s)
        return len(self._outcomes) >= rules.of_at_least and rate >= rules.error_rate

    def lie_down(self, now_s: float, rules: Rules, chance: random.Random) -> float:
        """Rest, each time for longer; return for how long."""
        rest_s = min(rules.longest_rest_s, rules.rest_s * 2**self.strikes) * (1 + JITTER * chance.random())
        self.strikes += 1
        self.rests_until_s = now_s + rest_s
        self.probing, self.probe = False, None
        return rest_s

    def recover(self) -> None:
        """Be well again."""
        self.strikes = self.failures = self._bad = 0
        self._outcomes.clear()
        self.rests_until_s = -inf
        self.probing, self.probe = False, None

    def wish(self, now_s: float, seconds: float) -> None:
        """Heed what the upstream asked for."""
        self.wishes_until_s = max(self.wishes_until_s, now_s + min(seconds, LONGEST_WISH_S))

    def _count(self, now_s: float, *, bad: bool) -> None:
        self._outcomes.append((now_s, bad))
        self._bad += bad
        if len(self._outcomes) > MOST_OUTCOMES:
            self._bad -= self._outcomes.popleft()[1]

    def _forget(self, before_s: float) -> None:
        while self._outcomes and self._outcomes[0][0] < before_s:
            self._bad -= self._outcomes.popleft()[1]
