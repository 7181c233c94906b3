"""How much may be asked of upstreams beyond the calls themselves.

When everything fails, three attempts a call are three times the load on what is already down. So the attempts of all
calls together have one budget: a share of the calls of the last seconds, and a few more for those who make few calls.
"""

from gateway.core.resources import Clock

WINDOW_S = 10
"""How far back calls count."""


class Allowance:
    """Counts calls and extras by the second; both are forgotten after `WINDOW_S`.

    Args:
        clock: what time it is.
        share: of the calls, how many extras they allow for.
        floor: extras within the window that need no calls.
    """

    def __init__(self, clock: Clock, share: float, *, floor: int) -> None:
        self._clock = clock
        self._share = share
        self._floor = floor
        self._second = 0
        self._calls = [0] * WINDOW_S
        self._extras = [0] * WINDOW_S

    def earn(self) -> None:
        """Note a call."""
        second = int(self._clock.now())
        if second != self._second:
            self._forget(second)
        self._calls[second % WINDOW_S] += 1

    def spend(self) -> bool:
        """Take one extra, if there is one left."""
        second = int(self._clock.now())
        self._forget(second)
        if sum(self._extras) + 1 > self._floor + self._share * sum(self._calls):
            return False
        self._extras[second % WINDOW_S] += 1
        return True

    def _forget(self, second: int) -> None:
        """Forget what has become too old by this second."""
        for passed in range(self._second + 1, min(second, self._second + WINDOW_S) + 1):
            self._calls[passed % WINDOW_S] = self._extras[passed % WINDOW_S] = 0
        self._second = max(second, self._second)
