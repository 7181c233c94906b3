"""One run of the load generator against one server, with what the server's processes used meanwhile."""

import subprocess
import sys
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from bench.servers import PATH, Server, body, spread_key
from bench.tools import LOAD_CORE, compiled, pinned

P50, P90, P99, P999 = 0, 1, 2, 3
"""Where in a list of the load generator's a percentile stands."""


class Told(Struct, frozen=True):
    """What the load generator tells (`c/load.c`); times in microseconds."""

    calls: int
    failed: int
    events: int
    seconds: float
    latency_us: list[float]
    first_us: list[float]
    lag_us: list[float]
    late_us: list[float]


class Run(Struct, frozen=True):
    """One run, and what it cost the server."""

    told: Told
    cpu_us: float
    memory_mb: float
    """The most that was seen, if it was watched."""

    @property
    def cpu_us_per_call(self) -> float:
        return self.cpu_us / self.told.calls

    @property
    def cpu_us_per_event(self) -> float:
        return self.cpu_us / self.told.events

    @property
    def calls_per_core_s(self) -> float:
        """Calls per second, were the server to have one core for itself."""
        return self.told.calls / self.cpu_us * 1e6


def load(
    server: Server,
    place: Path,
    model: str = "whole-1024",
    *,
    stamps: int = 1,
    connections: int = 64,
    seconds: float = 0,
    calls: int = 0,
    rate: float = 0,
    size: int = 1024,
    spread: int = 0,
    watch: bool = False,
) -> Run:
    """Load `server`, open at `rate` or else as fast as it answers.

    Exits where a single answer is not right: what is not right is not fast.
    """
    request = place / "request"
    request.write_bytes(written(server, model, size, spread))
    options = {"port": server.port, "file": request, "stamps": stamps, "connections": connections}
    options |= {"calls": calls, "seconds": seconds, "rate": rate, "spread": max(1, spread)}
    command = [str(compiled("load")), *(f"{name}={value}" for name, value in options.items())]
    before_ns, memory_mb = server.cpu_ns(), 0.0
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=pinned(LOAD_CORE)
    ) as load:
        while watch and load.poll() is None:
            memory_mb = max(memory_mb, server.memory_mb())
            time.sleep(0.2)
        said, problem = load.communicate()
    cpu_us = (server.cpu_ns() - before_ns) / 1e3
    if load.returncode:
        sys.exit(f"{server.name}, {model}: {problem.decode()}\n{server.problem()}")
    told = msgspec.json.decode(said, type=Told)
    if told.failed or not told.calls:
        sys.exit(f"{server.name}, {model}: {told.failed} calls failed: {problem.decode()}")
    return Run(told, cpu_us, memory_mb)


def written(server: Server, model: str, size: int, spread: int) -> bytes:
    """Return a whole request, as the load generator sends it."""
    headers = server.all_headers()
    if spread:
        model, headers["authorization"] = "m@@@@@@@@", f"Bearer {spread_key('@@@@@@@@')}"
    content = body(model, size)
    headers["content-length"] = str(len(content))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {PATH} HTTP/1.1\r\n{lines}\r\n".encode() + content
