"""The log's way out: lines wait for a moment, and many leave together.

Written one by one they took 6 µs of each call's CPU, where it was measured; together they take one. And a reader that
is slow holds up no call: nothing is written that it has no room for. A pipe that can be written to has room for
`PIPE_BUF` bytes and takes these in one piece, so that workers do not cut each other's lines. Two writes may still have
to wait for a reader: that of a longer line, which only `content` makes, and one for whose room another was faster.

What can be lost, and when:

- The process is stopped: what waits is written, for `CLOSE_S`; only with a reader that does not read it is lost.
- It is killed: the last `EVERY_S`.
- The reader does not read, or the disk is full: nothing at first; once `MOST_WAITING_BYTES` wait, the lines that come.

Whatever is lost is counted (`gateway_log_lines_lost_total`, a kill excepted), and told once at each change of state.
"""

import asyncio
import logging
import os
import select
from collections import deque
from functools import cached_property
from itertools import islice
from typing import TextIO

from prometheus_client import Counter

EVERY_S = 0.03
"""How long a line waits at most, where there is room for it."""
MOST_WAITING_BYTES = 8_000_000
"""About ten thousand lines."""
CLOSE_S = 1.0
"""At a stop, how long a reader may take for what waits."""
LOOK_EVERY_S = 0.02

LOST = Counter("gateway_log_lines_lost", "Lines of calls that the log's reader had no room for.")

log = logging.getLogger("gateway")


class Lines:
    """Writes lines to `file`, which has a descriptor, when it can."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._waiting = deque[bytes]()
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._lost = 0
        self._broken = False

    @property
    def is_terminal(self) -> bool:
        """Whether people read along."""
        return self._file.isatty()

    def write(self, line: bytes) -> None:
        """Have a line, its end included, written soon; never waits."""
        if self._bytes + len(line) > MOST_WAITING_BYTES:
            self._lose()
            return
        self._waiting.append(line)
        self._bytes += len(line)
        if self._closed:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EVERY_S, self._due)

    def flush(self) -> None:
        """Write what there is room for now."""
        try:
            while self._waiting and self._room.poll(0):
                self._write_piece()
        except BlockingIOError:
            return  # somebody else set the descriptor so, and was faster
        except OSError as error:
            if not self._broken:
                log.error("the log's lines cannot be written, and wait (%s)", error)
            self._broken = True
            return
        if not self._waiting:
            self._done()

    async def close(self) -> None:
        """Write what waits, as far as its reader takes it in time. Lines that come later are written at once."""
        loop = asyncio.get_running_loop()
        until_s, self._closed = loop.time() + CLOSE_S, True
        if self._timer is not None:
            self._timer.cancel()
        self.flush()
        while self._waiting and loop.time() < until_s:
            await asyncio.sleep(LOOK_EVERY_S)
            self.flush()
        if left := len(self._waiting):
            LOST.inc(left)
            log.error("at the stop, nobody took %d lines of the log any more", left)

    @cached_property
    def _descriptor(self) -> int:
        return self._file.fileno()

    @cached_property
    def _room(self) -> select.poll:
        room = select.poll()
        room.register(self._descriptor, select.POLLOUT)
        return room

    def _due(self) -> None:
        self._timer = None
        self.flush()
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(EVERY_S, self._due)

    def _write_piece(self) -> None:
        """Write as many whole lines as a pipe takes at once, and one at least.

        Raises:
            OSError: they cannot be written. They wait on.
        """
        count, size = 0, 0
        for line in self._waiting:
            size += len(line)
            if count and size > select.PIPE_BUF:
                break
            count += 1
        piece = b"".join(islice(self._waiting, count))
        written = os.write(self._descriptor, piece)
        for _ in range(count):
            self._waiting.popleft()
        self._bytes -= written
        if written < len(piece):
            self._waiting.appendleft(piece[written:])

    def _lose(self) -> None:
        LOST.inc()
        if not self._lost:
            log.error("lines of the log are lost: nobody takes the %d that wait", len(self._waiting))
        self._lost += 1

    def _done(self) -> None:
        if self._lost or self._broken:
            log.warning("the log's lines are written again; %d are missing", self._lost)
        self._lost, self._broken = 0, False
