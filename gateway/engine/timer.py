"""The one timer of a wait that is moved on all the time."""

import asyncio
from math import inf
from typing import Protocol


class Waiting(Protocol):
    """Whoever waits, as its timer sees it."""

    def late(self) -> None:
        """Look whether it has waited for long enough; if not, be told again."""
        ...


class Timer:
    """Rings for whoever waits, never too late, and sometimes too early: then it is set again.

    One that stays is left running when there is no more to wait for: whoever waits next will mostly wait for longer,
    and so most calls set none.
    """

    __slots__ = ("_handle", "_loop", "at_s", "stays", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, *, stays: bool = False) -> None:
        self.waiting: Waiting | None = None
        self.stays = stays
        """It goes on for whoever waits next."""
        self.at_s = inf
        """When it rings, on the event loop's clock; who wants it sooner has to `ring_at` that."""
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None

    def ring_at(self, at_s: float) -> None:
        """Ring then, and not when it would have."""
        if self._handle is not None:
            self._handle.cancel()
        self.at_s = at_s
        self._handle = self._loop.call_at(at_s, self._ring)

    def stop(self) -> None:
        """Ring for nobody any more."""
        self.waiting = None
        self.at_s = inf
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _ring(self) -> None:
        self._handle, self.at_s = None, inf
        if self.waiting is not None:
            self.waiting.late()
