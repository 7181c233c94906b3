"""How an attempt speaks HTTP: what a transport is, whichever it is."""

from typing import Protocol

from gateway.providers.base import Request


class Deadline:
    """When waiting ends, and in whose name: one for an exchange, moved on as the exchange proceeds.

    One timer serves it (it is armed again lazily when it fires early), because a scope per wait would cost more than
    the rest of the call: `asyncio.timeout` 6 µs and `anyio.fail_after` 13 µs each, against 1.6 µs for one timer.
    """

    __slots__ = ("at_s", "clock")

    def __init__(self, at_s: float, clock: str) -> None:
        self.at_s = at_s
        """On the event loop's clock."""
        self.clock = clock
        """Named in the error when it fires; see `gateway.core.route.ClockName`."""


class Response(Protocol):
    """An upstream's answer: a head, and a body still to be read."""

    status: int
    headers: dict[str, str]
    """Lower-case names; of a repeated header, the last value."""

    @property
    def ended(self) -> bool:
        """The whole body is here, though it may still have to be read."""
        ...

    async def more(self) -> bytes:
        """Return what has come of the body since it was asked for last, content-encoding undone; nothing at its end.

        Raises:
            Unreachable: the connection broke before the body's end.
            TimedOut: the exchange's deadline passed.
        """
        ...

    async def read(self, most: int) -> bytes:
        """Return the whole body.

        Raises:
            Unreachable: the connection broke, or the body is longer than `most` bytes.
            TimedOut: the exchange's deadline passed.
        """
        ...

    def whole(self) -> bytes | None:
        """Return the body, where none was taken and all of it is here; `None`: it has to be waited for."""
        ...

    def drain(self, within_s: float) -> None:
        """Let go of it while nothing more is said: the connection is reused if the body ends soon, and closed if not.

        Args:
            within_s: how soon; nobody waits for it.
        """
        ...

    def close(self) -> None:
        """Let go of it: the connection is reused if the body was read to its end, closed at once if not."""
        ...


class Transport(Protocol):
    """Sends requests over connections that it owns."""

    async def send(self, request: Request, *, connect_s: float, deadline: Deadline) -> Response:
        """Send `request` and return the answer's head. The caller closes the response, however its use ends.

        Args:
            request: what to send, and where.
            connect_s: how long a new connection may take, TLS included.
            deadline: bounds this wait and all later reads of the body; the caller may move it on at any time.

        Raises:
            Unreachable: no connection, or it broke before the head came.
            TimedOut: the connection took longer than `connect_s`, or `deadline` passed.
        """
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...
