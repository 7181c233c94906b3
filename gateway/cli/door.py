"""How several workers share one door: whoever has fewest connections lets the next one in.

Processes that wait at the same socket are not woken in turn: the first that is awake takes all that stand there. Of 64
connections that came at once, one of two workers had every one, and kept them: load balancers and SDKs hold theirs for
hours. A socket for each worker (`SO_REUSEPORT`) would leave it to chance, 24 to 40 of 64, and lose whoever stands at
the door of a worker that dies. So each says how many it has, in memory that all of them see, lets one in at a time, and
leaves the next to the others for a moment when it has more than one of them.
"""

import asyncio
import logging
import mmap
import socket
from collections.abc import Callable
from pathlib import Path

MOST_WORKERS = 64
ABSENT = -1
"""Where a worker is not, or lets nobody in any more."""
LOOK_S = 0.001
"""How often who leaves it to the others looks whether they have caught up."""
MOST_LOOKS = 10
"""One that is busy, or hangs, may not come: then whoever waits is let in all the same."""
MOST_AT_ONCE = 64
"""Let in then: one at first, and twice as many each time that nobody else came."""
MOST_IN_LINE = 4096
SLACK = 16
"""One in so many more than the others is no difference."""
FULL_S = 1.0
"""Until the next attempt when the process may open no more files."""

log = logging.getLogger("gateway")


class Tally:
    """How many connections each worker has: a few bytes of a file that all of them have in memory."""

    def __init__(self, file: Path, *, new: bool = False) -> None:
        if new:
            file.write_bytes(bytes(4 * MOST_WORKERS))
        with file.open("r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), 4 * MOST_WORKERS)
        self._counts = memoryview(self._memory).cast("i")
        if new:
            for place in range(MOST_WORKERS):
                self[place] = ABSENT

    def __setitem__(self, place: int, count: int) -> None:
        """Say how many the worker at `place` has."""
        self._counts[place] = count

    def fewest(self) -> int:
        """Return how many the worker has that has fewest."""
        return min((count for count in self._counts.tolist() if count != ABSENT), default=0)

    def close(self) -> None:
        """Let go of the memory."""
        self._counts.release()
        self._memory.close()


class Door:
    """One worker at the door.

    Args:
        sock: it listens, and never blocks.
        tally: what all workers say.
        place: this one's in it.
    """

    def __init__(self, sock: socket.socket, tally: Tally, place: int) -> None:
        self._sock = sock
        self._tally = tally
        self._place = place
        self._entering = set[asyncio.Task[None]]()
        self._pause: asyncio.TimerHandle | None = None
        self._looks = 0
        self._at_once = 1

    def open(self, protocol: Callable[[], asyncio.Protocol], inside: Callable[[], int]) -> None:
        """Begin to let in.

        Args:
            protocol: makes what serves a connection.
            inside: says how many there are.
        """
        self._protocol = protocol
        self._inside = inside
        self._watch()

    def tell(self) -> int:
        """Say how many are in, and return it."""
        count = self._inside() + len(self._entering)
        self._tally[self._place] = count
        return count

    async def close(self) -> None:
        """Let in who waits in line, and nobody after that."""
        self._let_in_all(MOST_IN_LINE)
        self._leave_to_others()
        self._tally[self._place] = ABSENT
        if self._entering:
            await asyncio.wait(self._entering)

    def _watch(self) -> None:
        self._pause = None
        self.tell()
        asyncio.get_running_loop().add_reader(self._sock.fileno(), self._knocked)

    def _leave_to_others(self) -> None:
        asyncio.get_running_loop().remove_reader(self._sock.fileno())
        if self._pause is not None:
            self._pause.cancel()

    def _knocked(self) -> None:
        """Let one in, or leave it to somebody who has fewer."""
        if self._has_more():
            self._looks = 0
            self._stand_back(LOOK_S)
        else:
            self._at_once = 1
            self._let_in()

    def _has_more(self) -> bool:
        fewest = self._tally.fewest()
        return self.tell() > fewest + fewest // SLACK

    def _stand_back(self, seconds: float) -> None:
        self._leave_to_others()
        self._pause = asyncio.get_running_loop().call_later(seconds, self._look_again)

    def _look_again(self) -> None:
        self._looks += 1
        if not self._has_more():
            self._watch()
        elif self._looks < MOST_LOOKS:
            self._stand_back(LOOK_S)
        else:
            self._watch()
            self._let_in_all(self._at_once)
            self._at_once = min(2 * self._at_once, MOST_AT_ONCE)

    def _let_in_all(self, most: int) -> None:
        while most and self._let_in():
            most -= 1

    def _let_in(self) -> bool:
        """Let one in; return whether there was one."""
        try:
            sock, _ = self._sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False
        except OSError as error:
            log.error("nobody can be let in for a moment: %s", error.strerror)
            self._stand_back(FULL_S)
            return False
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = asyncio.ensure_future(self._enter(sock))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)
        self.tell()
        return True

    async def _enter(self, sock: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, sock)
        except OSError:  # gone already
            sock.close()
