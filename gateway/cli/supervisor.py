"""Several workers behind one socket, and the one process that looks after them.

The supervisor opens the socket, checks the configuration, and hands both to workers that it starts as fresh processes.
It starts again what dies, passes a new configuration on to all, and when it is told to stop it lets them finish. It
serves nothing itself, so no call can harm it.
"""

import asyncio
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from gateway.cli.door import ABSENT, Tally
from gateway.cli.server import ENDINGS_S, LEFTOVERS_S, TOLD_S
from gateway.settings.complaints import ConfigError
from gateway.settings.live import File, Handover, Live, Snapshot, read_text
from gateway.settings.process import Process

log = logging.getLogger("gateway")

LOOK_EVERY_S = 1.0
HELD_BACK = {signal.SIGHUP, signal.SIGINT}
"""Workers start with these blocked. They take the first when they can: one that came too soon would end them. The
second, which a terminal sends to everybody at once, they never take: the supervisor says when to stop."""
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

    def __init__(self, config: File, sock: socket.socket, workers: int, *, watch: bool, calls_s: float) -> None:
        """Take over a socket that listens and a configuration that was checked.

        Args:
            config: the configuration.
            sock: the socket.
            workers: how many.
            watch: reload when the file changes.
            calls_s: at a stop, how long a worker may still take and finish calls.
        """
        self._config = config
        self._socket = sock
        self._count = workers
        self._watch = watch
        self._calls_s = calls_s
        self._folder = Path(tempfile.mkdtemp(prefix="gateway-"))
        self._metrics = self._folder / "metrics"
        self._handover = Handover(self._folder, config.name)
        self._tally = Tally(self._folder / CONNECTIONS, new=True)
        self._places: dict[int, int] = {}
        """Of each worker, in the tally."""
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        self._started_s: dict[int, float] = {}
        self._signals: list[int] = []

    def run(self) -> int:
        """Supervise until told to stop; return the exit status."""
        self._metrics.mkdir()
        self._handover.write(self._config.read())
        wake = self._catch_signals()
        seen = self._config.version()
        try:
            while not self._times_stopped():
                self._keep_workers()
                select.select([wake], [], [], LOOK_EVERY_S)
                _drain(wake)
                changed = self._watch and self._config.version() != seen
                if changed or signal.SIGHUP in self._signals:
                    seen = self._config.version()
                    self._forget(signal.SIGHUP)
                    self._reload()
            return self._stop()
        finally:
            for process in self._workers.values():
                process.kill()
            self._tally.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _catch_signals(self) -> socket.socket:
        """Collect signals, and return a socket that becomes readable with each."""
        wake, write = socket.socketpair()
        for end in (wake, write):
            end.setblocking(False)
        signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)

        def catch(number: int, _: FrameType | None) -> None:
            self._signals.append(number)

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, catch)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
        signal.signal(signal.SIGCHLD, catch)  # a worker's death wakes us; that is all it does
        self._write = write
        return wake

    def _keep_workers(self) -> None:
        """Bury workers that ended, and start what is missing."""
        for pid, process in list(self._workers.items()):
            if process.poll() is not None:
                log.error("worker %d ended (%s); another takes its place", pid, process.returncode)
                self._bury(pid)
                lived_s = time.monotonic() - self._started_s.pop(pid)
                time.sleep(max(0.0, RESTART_PAUSE_S - lived_s))
        while len(self._workers) < self._count:
            self._start()

    def _start(self) -> None:
        descriptor = self._socket.fileno()
        command = [sys.executable, "-m", "gateway", "_worker", "--socket", str(descriptor)]
        place = min(set(range(self._count)) - set(self._places.values()))
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
        try:
            process = subprocess.Popen(  # noqa: S603 our own module, our own arguments
                [*command, "--folder", str(self._folder), "--config", self._config.name, "--place", str(place)],
                pass_fds=[descriptor],
                env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(self._metrics)},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
        log.info("worker %d starts", process.pid)
        self._workers[process.pid] = process
        self._places[process.pid] = place
        self._started_s[process.pid] = time.monotonic()

    def _bury(self, pid: int) -> None:
        """Forget an ended worker, also its live gauges (streams being answered)."""
        del self._workers[pid]
        self._tally[self._places.pop(pid)] = ABSENT
        self._handover.forget(pid)
        for file in self._metrics.glob(f"gauge_live*_{pid}.db"):
            file.unlink(missing_ok=True)

    def _reload(self) -> None:
        """Check the file once, then hand its text to every worker."""
        try:
            text = read_text(self._config)
            asyncio.run(Live(Snapshot(self._config.name, text), Process()).check())
        except ConfigError as error:
            log.error("the old configuration goes on serving: %s", error)
            self._handover.report_problem(str(error))
            return
        except Exception:
            log.exception("the old configuration goes on serving; the new one met a bug")
            return
        self._handover.write(text)
        for process in self._workers.values():
            process.send_signal(signal.SIGHUP)

    def _times_stopped(self) -> int:
        return self._signals.count(signal.SIGTERM) + self._signals.count(signal.SIGINT)

    def _forget(self, number: int) -> None:
        """Forget a signal that was acted on. In place: one may come at any moment, and must not be lost."""
        while number in self._signals:
            self._signals.remove(number)

    def _stop(self) -> int:
        """Let every worker finish, within the time it has; then end it. Told again, have them cut what they do."""
        self._socket.close()
        for process in self._workers.values():
            process.terminate()
        until_s = time.monotonic() + self._calls_s + LAST_WRITES_S
        cut = False
        while self._workers and time.monotonic() < until_s:
            if self._times_stopped() > 1 and not cut:
                cut = True
                for process in self._workers.values():
                    process.send_signal(CUT)
            for pid, process in list(self._workers.items()):
                if process.poll() is not None:
                    del self._workers[pid]
            time.sleep(0.02)
        return 1 if self._workers else 0


def _drain(wake: socket.socket) -> None:
    try:
        while wake.recv(4096):
            pass
    except BlockingIOError:
        return
