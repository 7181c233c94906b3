"""Short memory of one process: what counts when there is no Redis, and while Redis is gone.

Every operation is one step without an `await` inside, so that no other call can come in between.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from itertools import takewhile

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
        second = math.floor(now_s)
        self._forget(second)
        counters: list[_Counter] = []
        for meter, amount in asks:
            counter = self._counter(meter)
            if counter.used(second) + amount > meter.limit:
                return self._denied(asks, now_s)
            counters.append(counter)
        self._live.add(id)
        standings: list[Standing] = []
        for (meter, amount), counter in zip(asks, counters, strict=True):
            counter.take(id, amount, second)
            self._remember(meter.id, counter)
            standings.append(Standing(meter, meter.limit - counter.total, counter.reset_s(now_s)))
        return Held(id, tuple(asks), second, tuple(standings))

    def settle(self, held: Held, tokens: int | None) -> None:
        """Free the places of a call and correct its tokens, once; what is not held here is left alone."""
        if held.id not in self._live:
            return
        self._live.discard(held.id)
        for meter, amount in held.asks:
            if meter.kind == "concurrent":
                self._leave(meter.id, held.id)
            elif meter.kind == "tokens" and tokens is not None and tokens != amount:
                self._correct(meter, held, tokens - amount)

    async def standings(self, meters: Sequence[Meter]) -> tuple[Standing, ...]:
        """Tell how `meters` stand."""
        return self._standings(meters, self._clock.now())

    def __len__(self) -> int:
        """How many meters are remembered."""
        return len(self._windows) + len(self._places)

    def _denied(self, asks: Sequence[tuple[Meter, int]], now_s: float) -> Denied:
        """Return the refusal of `asks`: of several that find no room, the one that has to wait longest."""
        failing, longest_s = asks[0], -1.0
        for meter, amount in asks:
            counter = self._counter(meter)
            if counter.used(math.floor(now_s)) + amount > meter.limit:
                wait_s = math.inf if amount > meter.limit else counter.wait_s(amount, meter.limit, now_s)
                if wait_s > longest_s:
                    failing, longest_s = (meter, amount), wait_s
        standings = self._standings([meter for meter, _ in asks], now_s)
        return Denied(*failing, None if longest_s == math.inf else longest_s, standings)

    def _standings(self, meters: Sequence[Meter], now_s: float) -> tuple[Standing, ...]:
        found = [(meter, self._counter(meter)) for meter in meters]
        return tuple(
            Standing(meter, max(0, meter.limit - counter.used(math.floor(now_s))), counter.reset_s(now_s))
            for meter, counter in found
        )

    def _counter(self, meter: Meter) -> "_Counter":
        """Return what counts for `meter`; one that is not remembered has counted nothing."""
        if meter.kind == "concurrent":
            return self._places.get(meter.id) or _Places()
        return self._windows.get(meter.id) or _Window()

    def _remember(self, id: str, counter: "_Counter") -> None:
        if isinstance(counter, _Places):
            self._places[id] = counter
        else:
            self._windows[id] = counter
            self._windows.move_to_end(id)

    def _correct(self, meter: Meter, held: Held, change: int) -> None:
        """Charge now what was used beyond what was held, or give back what was not used where it still counts."""
        if change > 0:
            window = self._windows.get(meter.id) or _Window()
            window.take(held.id, change, math.floor(self._clock.now()))
            self._remember(meter.id, window)
        elif (window := self._windows.get(meter.id)) is not None:
            window.give_back(-change, held.at_s)

    def _leave(self, meter_id: str, id: str) -> None:
        places = self._places.get(meter_id)
        if places is not None:
            places.leave(id)
            if not places.total:
                del self._places[meter_id]

    def _forget(self, second: int) -> None:
        """Drop windows in which nothing counts any more, the longest untouched first."""
        for _ in range(FORGOTTEN_AT_ONCE):
            oldest = next(iter(self._windows), None)
            if oldest is None or self._windows[oldest].used(second):
                return
            del self._windows[oldest]


class _Window:
    """What was used in each second of the window, oldest first, and the sum."""

    __slots__ = ("_oldest", "buckets", "total")

    def __init__(self) -> None:
        self.buckets: dict[int, int] = {}
        self.total = 0
        self._oldest = 0
        """No bucket is of an earlier second."""

    def used(self, second: int) -> int:
        """Return how much counts in `second`."""
        if self._oldest < second - WINDOW_S:
            self._oldest = second - WINDOW_S
            for old in list(takewhile(lambda bucket: bucket < self._oldest, self.buckets)):
                self.total -= self.buckets.pop(old)
        return self.total

    def take(self, id: str, amount: int, second: int) -> None:
        """Count `amount` in `second`."""
        if amount:
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

    __slots__ = ("_taken", "total")

    def __init__(self) -> None:
        self._taken = set[str]()
        self.total = 0

    def used(self, second: int) -> int:
        return self.total

    def take(self, id: str, amount: int, second: int) -> None:
        self._taken.add(id)
        self.total = len(self._taken)

    def leave(self, id: str) -> None:
        self._taken.discard(id)
        self.total = len(self._taken)

    def wait_s(self, wanted: int, limit: int, now_s: float) -> float:
        return PLACE_WAIT_S

    def reset_s(self, now_s: float) -> float:
        return PLACE_WAIT_S if self.total else 0.0


_Counter = _Window | _Places


def _left(second: int, now_s: float) -> float:
    """Return the seconds until the bucket of `second` leaves the window."""
    return second + WINDOW_S + 1 - now_s


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

    def put(self, key: str, answer: bytes, ttl_s: float) -> None:
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
