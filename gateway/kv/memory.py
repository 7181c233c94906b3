"""Short memory of one process: what counts when there is no Redis, and while Redis is gone.

Every operation is one step without an `await` inside, so that no other call can come in between.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from itertools import repeat

from gateway.core.resources import Clock, Denied, Held, Meter, Standing

WINDOW_S = 60
"""How far back requests and tokens count. A bucket of one second leaves when all of it is older than this."""
PLACE_WAIT_S = 1.0
"""Nobody knows when a call will end, so whoever finds no place is told to ask again after this."""
FORGOTTEN_AT_ONCE = 8
"""Idle meters that one call clears away at most: no call pays for the traffic of a minute ago."""
ENTRY_BYTES = 200
"""What a kept answer takes besides its key and its bytes, about."""


class MemoryLimiter:
    """Counts by `clock`. Meters that hold nothing are forgotten."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._windows = OrderedDict[str, _Window]()
        self._places: dict[str, _Places] = {}
        self._live = set[str]()

    async def hold(self, id: str, asks: Sequence[tuple[Meter, int]]) -> Held | Denied:
        """Take all of `asks`, or nothing."""
        now_s = self._clock.now()
        self._forget(now_s)
        counters = [self._counter(meter) for meter, _ in asks]
        failing, wait_s = _longest_wait(asks, counters, now_s)
        if failing is not None:
            meter, wanted = failing
            standings = tuple(map(_standing, (meter for meter, _ in asks), counters, repeat(now_s)))
            return Denied(meter, wanted, None if wait_s == math.inf else wait_s, standings)
        self._live.add(id)
        for (meter, amount), counter in zip(asks, counters, strict=True):
            counter.take(id, amount, now_s)
            self._remember(meter, counter)
        standings = tuple(map(_standing, (meter for meter, _ in asks), counters, repeat(now_s)))
        return Held(id, tuple(asks), math.floor(now_s), standings)

    async def settle(self, held: Held, tokens: int | None) -> None:
        """Free the places of a call and correct its tokens, once; what is not held here is left alone."""
        if held.id not in self._live:
            return
        self._live.discard(held.id)
        now_s = self._clock.now()
        for meter, amount in held.asks:
            if meter.kind == "concurrent":
                self._leave(meter, held.id)
            elif meter.kind == "tokens" and tokens is not None and tokens > amount:
                counter = self._counter(meter)
                counter.take(held.id, tokens - amount, now_s)
                self._remember(meter, counter)
            elif meter.kind == "tokens" and tokens is not None and meter.id in self._windows:
                self._windows[meter.id].give_back(amount - tokens, held.at_s)

    async def standings(self, meters: Sequence[Meter]) -> tuple[Standing, ...]:
        """Tell how `meters` stand."""
        now_s = self._clock.now()
        return tuple(_standing(meter, self._counter(meter), now_s) for meter in meters)

    def __len__(self) -> int:
        """How many meters are remembered."""
        return len(self._windows) + len(self._places)

    def _counter(self, meter: Meter) -> "_Counter":
        """Return what counts for `meter`; one that is not remembered has counted nothing."""
        if meter.kind == "concurrent":
            return self._places.get(meter.id) or _Places()
        return self._windows.get(meter.id) or _Window()

    def _remember(self, meter: Meter, counter: "_Counter") -> None:
        if isinstance(counter, _Places):
            self._places[meter.id] = counter
        else:
            self._windows[meter.id] = counter
            self._windows.move_to_end(meter.id)

    def _leave(self, meter: Meter, id: str) -> None:
        places = self._places.get(meter.id)
        if places is not None:
            places.taken.discard(id)
            if not places.taken:
                del self._places[meter.id]

    def _forget(self, now_s: float) -> None:
        """Drop windows in which nothing counts any more, the longest untouched first."""
        for _ in range(FORGOTTEN_AT_ONCE):
            oldest = next(iter(self._windows), None)
            if oldest is None or self._windows[oldest].used(now_s):
                return
            del self._windows[oldest]


class _Window:
    """What was used in each second of the window, oldest first, and the sum."""

    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        self.buckets: dict[int, int] = {}
        self.total = 0

    def used(self, now_s: float) -> int:
        """Return how much counts now."""
        oldest = math.floor(now_s) - WINDOW_S
        while self.buckets and (second := next(iter(self.buckets))) < oldest:
            self.total -= self.buckets.pop(second)
        return self.total

    def take(self, id: str, amount: int, now_s: float) -> None:
        if amount:
            second = math.floor(now_s)
            self.buckets[second] = self.buckets.get(second, 0) + amount
            self.total += amount

    def give_back(self, amount: int, at_s: int) -> None:
        """Undo what was taken in the second `at_s`, if that still counts."""
        back = min(amount, self.buckets.get(at_s, 0))
        if back:
            self.total -= back
            self.buckets[at_s] -= back
            if not self.buckets[at_s]:
                del self.buckets[at_s]

    def wait_s(self, wanted: int, limit: int, now_s: float) -> float:
        """Return the seconds until there may be room for `wanted`, which is not more than `limit`."""
        over = self.total + wanted - limit
        for second, amount in self.buckets.items():
            over -= amount
            if over <= 0:
                return _left(second, now_s)
        return self.reset_s(now_s)

    def reset_s(self, now_s: float) -> float:
        """Return the seconds until nothing counts, if nothing more is taken."""
        return _left(next(reversed(self.buckets)), now_s) if self.buckets else 0.0


class _Places:
    """The calls in flight."""

    __slots__ = ("taken",)

    def __init__(self) -> None:
        self.taken = set[str]()

    def used(self, now_s: float) -> int:
        return len(self.taken)

    def take(self, id: str, amount: int, now_s: float) -> None:
        self.taken.add(id)

    def wait_s(self, wanted: int, limit: int, now_s: float) -> float:
        return PLACE_WAIT_S

    def reset_s(self, now_s: float) -> float:
        return PLACE_WAIT_S if self.taken else 0.0


_Counter = _Window | _Places


def _longest_wait(
    asks: Sequence[tuple[Meter, int]], counters: Sequence[_Counter], now_s: float
) -> tuple[tuple[Meter, int] | None, float]:
    """Return the ask for which there is no room, and how long to wait for it; of several, the longest."""
    failing, longest_s = None, -1.0
    for (meter, amount), counter in zip(asks, counters, strict=True):
        if counter.used(now_s) + amount > meter.limit:
            wait_s = math.inf if amount > meter.limit else counter.wait_s(amount, meter.limit, now_s)
            if wait_s > longest_s:
                failing, longest_s = (meter, amount), wait_s
    return failing, longest_s


def _left(second: int, now_s: float) -> float:
    """Return the seconds until the bucket of `second` leaves the window."""
    return second + WINDOW_S + 1 - now_s


def _standing(meter: Meter, counter: _Counter, now_s: float) -> Standing:
    return Standing(meter, max(0, meter.limit - counter.used(now_s)), counter.reset_s(now_s))


class MemoryAnswers:
    """Keeps answers up to `max_bytes` in all; those that were not asked for longest go first."""

    def __init__(self, max_bytes: int, clock: Clock) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._kept = OrderedDict[str, tuple[float, bytes]]()
        self.bytes = 0
        """What is kept now takes about this much."""

    def resize(self, max_bytes: int) -> None:
        """Keep no more than `max_bytes` from now on."""
        self._max_bytes = max_bytes
        self._shrink()

    async def get(self, key: str, *, waited_s: float = 0.0) -> bytes | None:
        """Return what is kept under `key` and not too old; nothing is waited for here."""
        entry = self._kept.get(key)
        if entry is None:
            return None
        until_s, answer = entry
        if self._clock.now() >= until_s:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return answer

    async def put(self, key: str, answer: bytes, ttl_s: float) -> None:
        """Keep `answer`, and let go of what there is no room for with it; one that is too large is not kept."""
        self._drop(key)
        if _size(key, answer) > self._max_bytes:
            return
        self._kept[key] = (self._clock.now() + ttl_s, answer)
        self.bytes += _size(key, answer)
        self._shrink()

    def __len__(self) -> int:
        """How many answers are kept."""
        return len(self._kept)

    def _drop(self, key: str) -> None:
        if (entry := self._kept.pop(key, None)) is not None:
            self.bytes -= _size(key, entry[1])

    def _shrink(self) -> None:
        while self.bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))


def _size(key: str, answer: bytes) -> int:
    return len(key) + len(answer) + ENTRY_BYTES
