"""How one deployment has been doing, and its circuit breaker.

A deployment that fails several times in a row, or too often of late, rests: nobody asks it. When the rest is over one
live call at a time tries it; if that is answered all may ask again, if not it rests for twice as long. Health is
learnt from calls that were made anyway and never asks for an answer that would have to be paid.
"""

import random
from collections import deque
from math import inf
from typing import Literal

from msgspec import Struct

from gateway.core.resources import Rest

MOST_OUTCOMES = 1_000
"""Attempts that the error rate looks back at, at most."""
MOST_WAITS = 200
"""First tokens that a percentile is taken of."""
FEWEST_WAITS = 20
"""With fewer, nobody can say what is late."""
WEIGHT_OF_NEWEST = 0.2
"""How much of a new measurement goes into the mean: about the last ten count, or fewer where they are old."""
FADES_S = 60.0
"""A measurement is worth half after so long: one that was slow once gets another chance."""
MOST_DOUBLINGS = 30
"""Long before, the longest rest is reached; what is down for a day would leave the range of numbers."""
JITTER = 0.2
"""A rest is up to so much longer, or all workers would come back at once."""
TRIED_S = 1.0
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


class Condition(Struct, frozen=True):
    """How a deployment is, for people to read."""

    name: str
    state: Literal["well", "resting", "trying"]
    """`trying`: its rest is over, and one call at a time finds out whether it answers."""
    rests_for_s: float
    """How long nobody asks it."""
    failures: int
    """In a row."""
    error_rate: float
    in_flight: int
    first_chunk_s: float | None
    """The mean time to its first content, or to a whole answer. `None`: not measured here."""


class Health:
    """One deployment's measurements and breaker."""

    __slots__ = (
        "_bad",
        "_outcomes",
        "_waits",
        "asked_s",
        "changed_s",
        "failures",
        "first_chunk_s",
        "in_flight",
        "label",
        "measured_s",
        "rests_until_s",
        "strikes",
        "trial_until_s",
        "wishes_until_s",
    )

    def __init__(self) -> None:
        self.label = ""
        """The deployment as it is configured, for metrics; empty until it is asked here."""
        self.in_flight = 0
        self.asked_s = -inf
        """When it was asked last."""
        self.first_chunk_s: float | None = None
        """A moving mean. `None`: never answered."""
        self.measured_s = -inf
        """When it was measured last."""
        self.failures = 0
        """In a row."""
        self.strikes = 0
        """Rests in a row. 0: it is well, all may ask."""
        self.rests_until_s = -inf
        self.trial_until_s = -inf
        """A call, here or in another process, has leave to try it; nobody else has before."""
        self.wishes_until_s = -inf
        """The upstream itself asked not to be asked before."""
        self.changed_s = -inf
        """When this process saw it fall ill or get well. What began before says nothing of how it has been since."""
        self._outcomes: deque[tuple[float, bool]] = deque()
        self._bad = 0
        self._waits: deque[float] = deque(maxlen=MOST_WAITS)

    @property
    def matters_until_s(self) -> float:
        """When it was, or will be, last of use to know all this."""
        return max(self.asked_s, self.rests_until_s, self.wishes_until_s)

    def rest(self, now_s: float) -> Rest | None:
        """Return why it is not to be asked now."""
        if self.strikes:
            if self.rests_until_s > now_s:
                return Rest(self.rests_until_s - now_s, self.strikes)
            if self.trial_until_s > now_s:
                return Rest(TRIED_S, self.strikes)
        if self.wishes_until_s > now_s:
            return Rest(self.wishes_until_s - now_s)
        self.wishes_until_s = -inf
        return None

    def is_resting(self, now_s: float) -> bool:
        """Tell whether it was found ill and has not answered since, or its upstream asked not to be asked."""
        return self.strikes > 0 or self.wishes_until_s > now_s

    def condition(self, name: str, now_s: float, rules: Rules) -> Condition:
        """Return how it is."""
        left_s = max(0.0, self.rests_until_s - now_s, self.wishes_until_s - now_s)
        return Condition(
            name=name,
            state="resting" if left_s else "trying" if self.strikes else "well",
            rests_for_s=round(left_s, 1),
            failures=self.failures,
            error_rate=round(self.error_rate(now_s, rules.window_s), 3),
            in_flight=self.in_flight,
            first_chunk_s=None if self.first_chunk_s is None else round(self.first_chunk_s, 3),
        )

    def spoke(self, now_s: float, first_chunk_s: float, *, stream: bool) -> None:
        """Take note of how soon it began to answer."""
        mean = self.first_chunk_s
        if mean is None:
            self.first_chunk_s = first_chunk_s
        else:
            weight = 1 - (1 - WEIGHT_OF_NEWEST) * 0.5 ** ((now_s - self.measured_s) / FADES_S)
            self.first_chunk_s = mean + weight * (first_chunk_s - mean)
        self.measured_s = now_s
        if stream:
            self._waits.append(first_chunk_s)

    def expected_s(self, now_s: float) -> float:
        """Return how soon it may be expected to answer.

        Nothing, as long as it was never measured: somebody should find out. While somebody does, not at all.
        """
        mean = self.first_chunk_s
        if self.in_flight:
            return inf if mean is None else mean
        return 0.0 if mean is None else mean * 0.5 ** ((now_s - self.measured_s) / FADES_S)

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
        self._outcomes.append((now_s, False))
        if len(self._outcomes) > MOST_OUTCOMES:
            self._bad -= self._outcomes.popleft()[1]

    def failed(self, now_s: float, rules: Rules) -> bool:
        """Count an attempt that went wrong; return whether it has now been too many."""
        self.failures += 1
        self._outcomes.append((now_s, True))
        self._bad += 1
        if len(self._outcomes) > MOST_OUTCOMES:
            self._bad -= self._outcomes.popleft()[1]
        if self.failures >= rules.failures:
            return True
        rate = self.error_rate(now_s, rules.window_s)
        return len(self._outcomes) >= rules.of_at_least and rate >= rules.error_rate

    def lie_down(self, now_s: float, rules: Rules, chance: random.Random) -> float:
        """Rest, each time for longer; return for how long."""
        doubled = 2.0 ** min(self.strikes, MOST_DOUBLINGS)
        rest_s = min(rules.longest_rest_s, rules.rest_s * doubled) * (1 + JITTER * chance.random())
        self.strikes += 1
        self.rests_until_s = now_s + rest_s
        self.trial_until_s = -inf
        self.changed_s = now_s
        return rest_s

    def recover(self, now_s: float) -> None:
        """Be well again."""
        self.strikes = self.failures = self._bad = 0
        self._outcomes.clear()
        self.rests_until_s = self.trial_until_s = -inf
        self.changed_s = now_s

    def wish(self, now_s: float, seconds: float) -> bool:
        """Heed what the upstream asked for; return whether it rests by that, and did not before."""
        rested = self.is_resting(now_s)
        self.wishes_until_s = max(self.wishes_until_s, now_s + min(seconds, LONGEST_WISH_S))
        return not rested and self.is_resting(now_s)

    def _forget(self, before_s: float) -> None:
        while self._outcomes and self._outcomes[0][0] < before_s:
            self._bad -= self._outcomes.popleft()[1]
