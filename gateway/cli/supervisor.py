"""Several workers behind one socket, and the one process that looks after them.

The supervisor opens the socket, reads and checks the configuration, and forks: a worker has from it what was imported
and what the file says, and makes everything else itself. So a worker is there 0.2 s after the supervisor is ready; as a
fresh process it would import for 0.7 s, and read a file of 10,000 keys for as long again. The supervisor starts again
what dies, passes a new configuration on to all, and when it is told to stop it lets them finish. It serves nothing and
has no threads, so no call can harm it, and no fork finds a lock taken.
"""

import asyncio
import gc
import logging
import multiprocessing
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

from gateway.cli.door import ABSENT, Tally
from gateway.cli.server import ENDINGS_S, LEFTOVERS_S, TOLD_S
from gateway.settings.complaints import ConfigError
from gateway.settings.live import File, Handover, Live, read
from gateway.settings.load import Loaded
from gateway.settings.process import Process

log = logging.getLogger("gateway")

Work = Callable[[Handover, Loaded, File, socket.socket, Tally, int], None]
"""What a worker does: serve what is handed over, which was loaded of that file, on that socket, at its place."""

LOOK_EVERY_S = 1.0
FORK = multiprocessing.get_context("fork")
HELD_BACK = {signal.SIGHUP, signal.SIGINT}
"""Workers start with these blocked. They take the first when they can: one that came too soon would end them. The
second, which a terminal sends to everybody at once, they never take: the supervisor says when to stop."""
CAUGHT = HELD_BACK | {signal.SIGTERM, signal.SIGCHLD}
"""What the supervisor takes. A worker's death wakes it; that is all it does."""
CUT = signal.SIGUSR1
"""Tells a worker to wait for no call any more. No second SIGTERM: a service manager may send one beside ours."""
CONNECTIONS = "connections"
"""The file of the `Tally`."""
LAST_WRITES_S = TOLD_S + ENDINGS_S + LEFTOVERS_S + 1.0
"""What a worker takes at most when its calls' time is over."""
RESTART_PAUSE_S = 1.0
"""Between two starts of a worker that dies at once, so that a broken machine is not kept busy by it."""


class Supervisor:
    """Starts workers, and keeps them."""

    def __init__(
        self,
        config: File,
        loaded: Loaded,
        sock: socket.socket,
        work: Work,
        *,
        workers: int,
        watch: bool,
        folder: Path,
    ) -> None:
        """Take over a socket that listens and a configuration that was checked.

        Args:
            config: the configuration.
            loaded: what it says.
            sock: the socket.
            work: what each worker does.
            workers: how many.
            watch: reload when the file changes.
            folder: where they meet; nobody else may read it, for the configuration is laid there.
        """
        self._config = config
        self._loaded = loaded
        self._socket = sock
        self._work = work
        self._count = workers
        self._watch = watch
        self._calls_s = loaded.settings.server.shutdown_delay + loaded.settings.server.drain
        """At a stop, how long a worker may still take and finish calls."""
        self._metrics = folder / "metrics"
        self._handover = Handover(folder, config.name)
        self._tally = Tally(folder / CONNECTIONS, new=True)
        self._places: dict[int, int] = {}
        """Of each worker, in the tally."""
        self._workers: dict[int, BaseProcess] = {}
        self._started_s: dict[int, float] = {}
        self._signals: list[int] = []

    def run(self) -> int:
        """Supervise until told to stop; return the exit status."""
        self._handover.write(self._loaded.text)
        wake = self._catch_signals()
        try:
            while not self._times_stopped():
                self._keep_workers()
                select.select([wake], [], [], LOOK_EVERY_S)
                _drain(wake)
                changed = self._watch and self._config.has_changed()
                if changed or signal.SIGHUP in self._signals:
                    self._forget(signal.SIGHUP)
                    self._reload()
            return self._stop()
        finally:
            for process in self._workers.values():
                process.kill()
            self._tally.close()

    def _catch_signals(self) -> socket.socket:
        """Collect signals, and return a socket that becomes readable with each."""
        wake, write = socket.socketpair()
        for end in (wake, write):
            end.setblocking(False)
        signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)

        def catch(number: int, _: FrameType | None) -> None:
            self._signals.append(number)

        for number in CAUGHT:
            signal.signal(number, catch)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
        self._write = write
        return wake

    def _keep_workers(self) -> None:
        """Bury workers that ended, and start what is missing."""
        for pid, process in list(self._workers.items()):
            if process.exitcode is not None:
                log.error("worker %d ended (%s); another takes its place", pid, process.exitcode)
                self._bury(pid)
                lived_s = time.monotonic() - self._started_s.pop(pid)
                time.sleep(max(0.0, RESTART_PAUSE_S - lived_s))
        while len(self._workers) < self._count:
            try:
                self._start()
            except OSError as error:  # no room for a process
                log.error("no worker can be started (%s); it is tried again", error.strerror)
                return

    def _start(self) -> None:
        place = min(set(range(self._count)) - set(self._places.values()))
        process = FORK.Process(target=self._begin, args=(place,))
        with _undisturbed():
            process.start()
        assert process.pid is not None, "it was started"
        log.info("worker %d starts", process.pid)
        self._workers[process.pid] = process
        self._places[process.pid] = place
        self._started_s[process.pid] = time.monotonic()

    def _begin(self, place: int) -> None:
        """Be a worker: nothing that came by the fork may be taken for the supervisor's own."""
        signal.set_wakeup_fd(-1)
        for number in CAUGHT:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT - HELD_BACK)
        self._workers.clear()
        self._work(self._handover, self._loaded, self._config, self._socket, self._tally, place)

    def _bury(self, pid: int) -> None:
        """Forget an ended worker, also its live gauges (streams being answered)."""
        del self._workers[pid]
        self._tally[self._places.pop(pid)] = ABSENT
        self._handover.forget(pid)
        for file in self._metrics.glob(f"gauge_live*_{pid}.db"):
            file.unlink(missing_ok=True)

    def _reload(self) -> None:
        """Check the file once, then hand its text to every worker; those that start later have what was read here."""
        try:
            loaded = read(self._config)
            asyncio.run(Live(self._config, Process(), loaded=loaded).check())
        except ConfigError as error:
            log.error("the old configuration goes on serving: %s", error)
            self._handover.report_problem(str(error))
            return
        except Exception:
            log.exception("the old configuration goes on serving; the new one met a bug")
            return
        self._loaded = loaded
        self._handover.write(loaded.text)
        self._tell_all(signal.SIGHUP)

    def _tell_all(self, number: signal.Signals) -> None:
        for pid, process in self._workers.items():
            if process.exitcode is None:
                os.kill(pid, number)

    def _times_stopped(self) -> int:
        return self._signals.count(signal.SIGTERM) + self._signals.count(signal.SIGINT)

    def _forget(self, number: int) -> None:
        """Forget a signal that was acted on. In place: one may come at any moment, and must not be lost."""
        while number in self._signals:
            self._signals.remove(number)

    def _stop(self) -> int:
        """Let every worker finish, within the time it has; then end it. Told again, have them cut what they do."""
        self._socket.close()
        self._tell_all(signal.SIGTERM)
        until_s = time.monotonic() + self._calls_s + LAST_WRITES_S
        cut = False
        while self._workers and time.monotonic() < until_s:
            if self._times_stopped() > 1 and not cut:
                cut = True
                self._tell_all(CUT)
            for pid, process in list(self._workers.items()):
                if process.exitcode is not None:
                    del self._workers[pid]
            time.sleep(0.02)
        return 1 if self._workers else 0


def _drain(wake: socket.socket) -> None:
    try:
        while wake.recv(4096):
            pass
    except BlockingIOError:
        return


@contextmanager
def _undisturbed() -> Generator[None]:
    """Fork within this: a signal waits until who gets it knows who it is, and no collection touches what is shared.

    Pages are shared until somebody writes to them, and a collection writes to every object it looks at.
    """
    gc.freeze()
    signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)
        gc.unfreeze()
