"""Attempts as a fleet is told of them, without an upstream."""

from gateway.core.receipt import Receipt, Tried
from gateway.core.route import Deployment
from gateway.engine.fleet import LiveFleet
from tests.standins import StillClock

A, B = (Deployment(f"{name}/m", name, "m", label=f"{name}/*") for name in "ab")


class Attempt:
    """One attempt, from its begin: then it `speaks` or not, and ends well, ill or otherwise."""

    def __init__(self, fleet: LiveFleet, clock: StillClock, place: Deployment = A, call: Receipt | None = None) -> None:
        self._fleet = fleet
        self._clock = clock
        self._call = call or Receipt("")
        self.tried = Tried(place.name, place.provider, place.model, clock.now())
        self._call.tried.append(self.tried)
        fleet.begin(place, self.tried)

    def speaks(self, *, stream: bool = True) -> "Attempt":
        """The first content is here."""
        self.tried.first_chunk_s = self._clock.now() - self.tried.began_s
        self._fleet.spoke(self.tried, stream=stream)
        return self

    def answers(self) -> None:
        """It is over, and was well."""
        if self.tried.first_chunk_s is None:
            self.speaks()
        self._end()

    def fails(self, retry_after_s: float | None = None) -> None:
        """It is over, by the upstream's fault."""
        self.tried.error, self.tried.unhealthy, self.tried.retry_after_s = "Unreachable", True, retry_after_s
        self._end()

    def is_rejected(self) -> None:
        """The upstream refused this request."""
        self.tried.error, self.tried.status = "Rejected", 400
        self._end()

    def is_left(self, status: int = 0) -> None:
        """Nobody waited for it."""
        self.tried.error, self.tried.status = "CancelledError", status
        self._end()

    def _end(self) -> None:
        self._fleet.end(self.tried, self._call)
