"""A gateway while it starts: signals that come too soon, and a supervisor that does not live to see it."""

import contextlib
import os
import signal
import socket
import time

import pytest

from tests.serving import started

SLOW = '''
"""A middleware that takes its time where it is told to: to be imported, or to be built in a worker."""

import os
import pathlib
import time

from gateway.middleware.base import Options

ME = os.getpid()


def wait(where):
    if os.environ["SLOW"] == where:
        pathlib.Path(f"waits-{os.getpid()}").touch()
        while not pathlib.Path("go").exists():
            time.sleep(0.02)


class SlowOptions(Options, frozen=True):
    def build(self, resources):
        if os.getpid() != ME:
            wait("worker")
        return lambda call, next: next(call)


wait("import")
'''
CONFIG = (
    "providers: {echo: {}}\nmodels: {echo: echo/echo}\n"
    "chain: [{use: 'slow:SlowOptions'}, {use: metrics}, {use: cost}, {use: retry}]\n"
)


@pytest.fixture
def folder(tmp_path):
    """A configuration that waits in the middle of the start, and a place for what is temporary."""
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "gateway.yaml").write_text(CONFIG)
    (tmp_path / "tmp").mkdir()
    return tmp_path


def starting(folder, slow, workers, *more):
    environment = {"TMPDIR": str(folder / "tmp"), "SLOW": slow}
    return started(folder, "--workers", str(workers), *more, environment=environment)


def waiting(folder, count=1):
    """Return the processes that wait, when they are so many."""
    until_s = time.monotonic() + 60
    while len(found := list(folder.glob("waits-*"))) < count:
        assert time.monotonic() < until_s, (folder / "gateway.log").read_text()
        time.sleep(0.02)
    return [int(file.name.partition("-")[2]) for file in found]


def test_a_start_that_is_stopped_leaves_nothing_behind(folder):
    """Neither the folder in which workers meet, nor a stack trace; and it was no failure."""
    with starting(folder, "import", 2) as gateway:
        waiting(folder)
        assert len(list((folder / "tmp").glob("gateway-*"))) == 1
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(60) == 0
    assert not list((folder / "tmp").iterdir())
    assert not gateway.said


@pytest.mark.parametrize("workers", [1, 2])
def test_a_reload_that_is_asked_for_too_soon_is_done_later(folder, workers):
    """Whoever watches the file may have changed it while it was read."""
    with starting(folder, "import", workers) as gateway:
        waiting(folder)
        gateway.process.send_signal(signal.SIGHUP)
        (folder / "go").touch()
        gateway.until_ready()
        gateway.until_said("goes on serving: .* says nothing new")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_changes_while_it_is_read_is_read_again(folder, workers):
    """What is watched is whether it differs from what serves, not from what it was when all was ready."""
    with starting(folder, "import", workers, "--watch") as gateway:
        waiting(folder)
        (folder / "gateway.yaml").write_text(CONFIG.replace("echo: echo/echo", "other: echo/echo"))
        (folder / "go").touch()
        gateway.until_said("serves, in place of")


def test_a_worker_whose_supervisor_is_killed_while_it_starts_ends(folder):
    """None outlives it: one that took whoever is its parent now for the supervisor would serve for ever."""
    with starting(folder, "worker", 2) as gateway:
        workers = waiting(folder, 2)
        port = int(gateway.until_said(r"http://127\.0\.0\.1:(\d+)/v1")[1])
        try:
            gateway.process.kill()
            gateway.process.wait(60)
            (folder / "go").touch()
            until_s = time.monotonic() + 60
            while _is_open(port):
                assert time.monotonic() < until_s, gateway.said
                time.sleep(0.05)
        finally:
            for worker in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)


def _is_open(port):
    """Whether anybody has the socket at which workers let clients in."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True
