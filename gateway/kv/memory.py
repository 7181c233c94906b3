"""Short memory of one process: what counts when there is no Redis, and while Redis is gone.

Every operation is one step without an `await` inside, so that no other call can come in between.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence

from gateway.core.resources import Clock, Denied, Held, Meter, Standing

WINDOW_S = 60
"""How far back requests and tokens count. A bucket of one second leaves when all of it is older than this."""
GONE_AFTER_S = WINDOW_S + 1
"""When a bucket has left, from the second that it is of."""
PLACE_WAIT_S = 1.0
"""Nobody knows when a call will end, so whoever finds no place is told to ask again after this."""
FORGOTTEN_AT_ONCE = 8
"""Idle meters that one call clears away at most: no call pays for the traffic of a minute ago."""
APART = "the serving process alone knows; set `redis:`"
"""What to tell somebody who asks another process than the one that serves."""
ENTRY_BYTES = 200
"""What a kept answer takes besides its key and its bytes, about."""


class MemoryLimiter:
    """Counts by `clock`. Meters that hold nothing are forgotten within the minute."""

    apart = APART

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._windows = OrderedDict[str, _Window]()
        """By the meter, the longest untouched first."""
        self._idle_from_s = 0
        """Before this second, all of them may still count something."""
        self._places: dict[str, int] = {}
        """How many calls are in flight, by the meter."""
        self._live = set[str]()

    async def hold(self, id: str, asks: Sequence[tuple[Meter, int]]) -> Held | Denied:
        """Take all of `asks`, or nothing."""
        now_s = self._clock.now()
        second = int(now_s)
        if second >= self._idle_from_s:
            self._forget(second)
        windows: list[_Window | None] = []
        for meter, amount in asks:
            if meter.kind == "concurrent":
                window, used = None, self._places.get(meter.id, 0)
            else:
                window = self._window(meter.id, second)
                used = 0 if window is None else window.total
            if used + amount > meter.limit:
                return self._denied(asks, now_s)
            windows.append(window)
        self._live.add(id)
        whole_s = second + GONE_AFTER_S - now_s
        standings: list[Standing] = []
        for (meter, amount), window in zip(asks, windows, strict=True):
            if meter.kind == "concurrent":
                taken = self._places[meter.id] = self._places.get(meter.id, 0) + amount
                standings.append(Standing(meter, meter.limit - taken, PLACE_WAIT_S))
                continue
            if window is None:
                window = self._windows[meter.id] = _Window(second)
            window.take(amount)
            reset_s = whole_s if amount else window.reset_s(now_s)
            standings.append(Standing(meter, meter.limit - window.total, reset_s))
        return Held(id, tuple(asks), second, tuple(standings))

    def settle(self, held: Held, tokens: int | None) -> None:
        """Free the places of a call and correct its tokens, once; what is not held here is left alone."""
        if held.id not in self._live:
            return
        self._live.discard(held.id)
        for meter, amount in held.asks:
            if meter.kind == "concurrent":
                left = self._places[meter.id] - amount
                if left:
                    self._places[meter.id] = left
                else:
                    del self._places[meter.id]
            elif meter.kind == "tokens" and tokens is not None and tokens != amount:
                self._correct(meter.id, tokens - amount, held.at_s)

    async def standings(self, meters: Sequence[Meter]) -> tuple[Standing, ...]:
        """Tell how `meters` stand."""
        now_s = self._clock.now()
        return tuple([self._standing(meter, now_s) for meter in meters])

    def __len__(self) -> int:
        """How many meters are remembered."""
        return len(self._windows) + len(self._places)

    def _window(self, meter_id: str, second: int) -> "_Window | None":
        """Return a meter's window as it is in `second`; one that is not remembered has counted nothing."""
        window = self._windows.get(meter_id)
        if window is not None and window.second != second:
            window.slide(second)
            self._windows.move_to_end(meter_id)
        return window

    def _standing(self, meter: Meter, now_s: float) -> Standing:
        if meter.kind == "concurrent":
            taken = self._places.get(meter.id, 0)
            return Standing(meter, max(0, meter.limit - taken), PLACE_WAIT_S if taken else 0.0)
        window = self._window(meter.id, int(now_s))
        if window is None:
            return Standing(meter, meter.limit, 0.0)
        return Standing(meter, max(0, meter.limit - window.total), window.reset_s(now_s))

    def _denied(self, asks: Sequence[tuple[Meter, int]], now_s: float) -> Denied:
        """Return the refusal of `asks`: of several that find no room, the one that has to wait longest."""
        waits_s = [self._wait_s(meter, amount, now_s) for meter, amount in asks]
        longest_s = max(waits_s)
        meter, wanted = asks[waits_s.index(longest_s)]
        standings = tuple([self._standing(meter, now_s) for meter, _ in asks])
        return Denied(meter, wanted, None if longest_s == math.inf else longest_s, standings)

    def _wait_s(self, meter: Meter, wanted: int, now_s: float) -> float:
        """Return when there may be room for `wanted`; 0: there is."""
        if wanted > meter.limit:
            return math.inf
        if meter.kind == "concurrent":
            return PLACE_WAIT_S if self._places.get(meter.id, 0) + wanted > meter.limit else 0.0
        window = self._window(meter.id, int(now_s))
        return 0.0 if window is None else window.wait_s(wanted, meter.limit, now_s)

    def _correct(self, meter_id: str, change: int, at_s: int) -> None:
        """Charge now what was used beyond what was held, or give back what was not used where it still counts."""
        if change > 0:
            second = int(self._clock.now())
            window = self._window(meter_id, second)
            if window is None:
                window = self._windows[meter_id] = _Window(second)
            window.take(change)
        elif (window := self._windows.get(meter_id)) is not None:
            window.give_back(-change, at_s)

    def _forget(self, second: int) -> None:
        """Drop windows in which nothing counts any more."""
        for _ in range(FORGOTTEN_AT_ONCE):
            oldest = next(iter(self._windows), None)
            if oldest is None:
                return
            self._idle_from_s = self._windows[oldest].second + GONE_AFTER_S
            if second < self._idle_from_s:
                return
            del self._windows[oldest]


class _Window:
    """What was used in each second of the window, oldest first, and the sum, as they are in `second`."""

    __slots__ = ("buckets", "second", "total")

    def __init__(self, second: int) -> None:
        self.buckets: dict[int, int] = {}
        self.total = 0
        self.second = second

    def slide(self, second: int) -> None:
        """Go on to `second`: what does not count there any more is let go."""
        self.second = second
        for bucket in list(self.buckets):
            if bucket >= second - WINDOW_S:
                return
            self.total -= self.buckets.pop(bucket)

    def take(self, amount: int) -> None:
        """Count `amount` now."""
        if amount:
            self.buckets[self.second] = self.buckets.get(self.second, 0) + amount
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
        """Return the seconds until there may be room for `wanted`, which is not more than `limit`; 0: there is."""
        over = self.total + wanted - limit
        if over <= 0:
            return 0.0
        for second, amount in self.buckets.items():
            over -= amount
            if over <= 0:
                return second + GONE_AFTER_S - now_s
        return self.reset_s(now_s)

    def reset_s(self, now_s: float) -> float:
        """Return the seconds until nothing counts, if nothing more is taken."""
        for newest in reversed(self.buckets):
            return newest + GONE_AFTER_S - now_s
        return 0.0


class MemoryAnswers:
    """Keeps answers up to `max_bytes` in all; those that were not asked for longest go first."""

    apart = APART

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
        if key in self._kept:
            self._drop(key)
        size = len(key) + len(answer) + ENTRY_BYTES
        if size > self._max_bytes:
            return
        self._kept[key] = (self._clock.now() + ttl_s, answer)
        self.bytes += size
        if self.bytes > self._max_bytes:
            self._shrink()

    def __len__(self) -> int:
        """How many answers are kept."""
        return len(self._kept)

    def _drop(self, key: str) -> None:
        _, answer = self._kept.pop(key)
        self.bytes -= len(key) + len(answer) + ENTRY_BYTES

    def _shrink(self) -> None:
        while self.bytes > self._max_bytes:
            key, (_, answer) = self._kept.popitem(last=False)
            self.bytes -= len(key) + len(answer) + ENTRY_BYTES
