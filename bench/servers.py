"""Servers under test, each a process tree whose CPU time and memory can be read; the upstream; Redis."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import redis

from bench.tools import LOAD_CORE, SERVER_CORE, compiled, free_port, pinned, wait_for

KEY = "bench-key-0123456789abcdef0123456789abcdef"
PATH = "/v1/chat/completions"
STAMP = re.compile(rb"@\d+")


class Process:
    """A process that is started in a folder of its own, which holds what it printed, and ended with its children."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        place: Path,
        *,
        core: int = SERVER_CORE,
        env: Mapping[str, str] | None = None,
        port: int,
        start_within_s: float = 60.0,
    ) -> None:
        self.name, self.port = name, port
        self._log = place / f"{name}.log"
        self._command, self._place, self._core = command, place, core
        self._env = {**os.environ, "NO_PROXY": "127.0.0.1", **(env or {})}
        self._start_within_s = start_within_s
        self._process: subprocess.Popen[bytes] | None = None
        self.start_s = 0.0
        """How long it took from the start of the process until it was `ready`."""

    def __enter__(self) -> Self:
        began_s = time.monotonic()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._place,
                env=self._env,
                preexec_fn=pinned(self._core),
                start_new_session=True,
            )
        try:
            wait_for(self.ready, self.problem, self._start_within_s)
        except BaseException:
            self.__exit__()
            raise
        self.start_s = time.monotonic() - began_s
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self.signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)

    def ready(self) -> bool:
        """Tell whether it takes connections."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            connection.connect()
        except OSError:
            return False
        finally:
            connection.close()
        return True

    def problem(self) -> str:
        """Return what it printed."""
        return f"{self.name} does not start, or does not answer right:\n{self._log.read_text(errors='replace')[-4000:]}"

    def pids(self) -> list[int]:
        """Return its process ids: its own, and all below."""
        assert self._process is not None
        found = [self._process.pid] if self._process.poll() is None else []
        for pid in found:  # grows as it is read
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        return found

    def signal(self, number: int) -> None:
        """Send a signal to all its processes. SIGSTOP: whoever is not measured takes no time from who is."""
        for pid in self.pids():
            os.kill(pid, number)

    def cpu_ns(self) -> int:
        """Return the user and system time of all its processes.

        From each process's own CPU clock: `/proc/PID/stat` counts in hundredths of a second. The number of the clock is
        made of the process id as clock_getcpuclockid(3) makes it.
        """
        return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in self.pids())

    def memory_mb(self) -> float:
        """Return the memory of all its processes in MB; pages that several share are counted once."""
        rollups = (Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self.pids())
        return sum(int(match[1]) for text in rollups if (match := re.search(r"^Pss:\s+(\d+)", text, re.M))) / 1024


class Server(Process):
    """A server that answers chat completions; it is ready when it has answered one right."""

    headers: Mapping[str, str] = {}
    """What it wants from its clients beside the usual."""
    title = ""
    """What the report calls it, with its version."""
    given = ""
    """What the report says of how it was set up."""
    bears_per_s = 1e6
    """The calls per second that it is asked at most where a rate is given; more than it can would only fill queues."""
    streams = True
    """Whether it streams at all."""

    def ready(self) -> bool:
        """Ask once."""
        return super().ready() and self.ask("whole-1024")

    def ask(self, model: str, stamps: int = 1) -> bool:
        """Tell whether one call is answered right."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", PATH, body(model), self.all_headers())
            answer = connection.getresponse()
            return len(STAMP.findall(answer.read())) == stamps and answer.status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def all_headers(self) -> dict[str, str]:
        """Return what each request carries."""
        usual = {"host": "bench", "content-type": "application/json", "authorization": f"Bearer {KEY}"}
        return {**usual, **self.headers}


def body(model: str, size: int = 1024) -> bytes:
    """Return a request for `model` of about `size` bytes; `#` stands for a number of its own (`c/load.c`)."""
    said: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": ""}]}
    if not model.startswith(("whole", "@")):
        said["stream"] = True
    words = "#" * 16 + " Say something." * (size // 15 + 1)
    said["messages"] = [{"role": "user", "content": words[: max(16, size - len(json.dumps(said)))]}]
    return json.dumps(said).encode()


class Upstream(Process):
    """The upstream of all: `c/upstream.c`."""

    def __init__(self, place: Path) -> None:
        port = free_port()
        super().__init__("upstream", [compiled("upstream"), str(port)], place, core=LOAD_CORE, port=port)


class Direct(Server):
    """The upstream asked without anything between: what latencies are compared with."""

    title = "no proxy"

    def __init__(self, upstream: Upstream) -> None:
        self.name, self.port = "direct", upstream.port
        self.pids = upstream.pids

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class Nginx(Server):
    """A plain proxy, as fast as nginx goes: the unit of all ratios."""

    given = (
        "Debian's package; one worker, connections to the upstream kept, no buffering of answers, no access log. It "
        "checks, counts and logs nothing: it is the unit, not a gateway."
    )

    def __init__(self, place: Path, upstream: Upstream, program: str, *, workers: int = 1) -> None:
        version = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr
        self.title = f"nginx {version.strip().rpartition('/')[2]}"
        port = free_port()
        home = place / f"nginx-{port}"
        home.mkdir()
        config = home / "nginx.conf"
        config.write_text(nginx_config(home, port, upstream.port, workers))
        super().__init__("nginx", [program, "-c", str(config), "-p", str(home)], home, port=port)


def nginx_config(home: Path, port: int, upstream: int, workers: int) -> str:
    """Return nginx.conf."""
    temporary = "".join(f"{kind}_temp_path {home};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    return f"""
    daemon off; worker_processes {workers}; pid {home}/pid; error_log {home}/error.log; worker_rlimit_nofile 65536;
    events {{ worker_connections 16384; }}
    http {{
        access_log off; keepalive_requests 100000000; client_max_body_size 0; client_body_buffer_size 2m;
        {temporary}
        upstream mock {{ server 127.0.0.1:{upstream}; keepalive 2048; keepalive_requests 100000000; }}
        server {{
            listen 127.0.0.1:{port} backlog=4096;
            location / {{
                proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
            }}
        }}
    }}
    """


class Redis(Process):
    """A server that speaks Redis's protocol, from the wheel that the tests use. It saves nothing."""

    def __init__(self, place: Path, program: Path) -> None:
        port = free_port()
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        super().__init__("redis", command, place, core=LOAD_CORE, port=port)
        self.url = f"redis://127.0.0.1:{port}/0"

    def asked(self) -> int:
        """Return how many commands it has had."""
        client: Any = redis.Redis(port=self.port)
        with client:
            return int(client.info("stats")["total_commands_processed"])


class Gateway(Server):
    """Ours, with its whole chain."""

    given = (
        "one process, everything on: log (JSON lines to a file), metrics, auth, limits (requests, tokens and "
        "concurrent calls of each key), cache (looked up and written for each call; every question is new), cost, "
        "retry. In memory, but for the rows that say Redis."
    )

    def __init__(self, place: Path, upstream: Upstream, text: str, *, name: str = "gateway", workers: int = 1) -> None:
        home, port = place / f"{name}-{free_port()}", free_port()
        home.mkdir()
        command = [sys.executable, "-m", "gateway", "serve", "--config", str(write_config(home, text))]
        command += ["--port", str(port), "--workers", str(workers)]
        super().__init__(name, command, home, port=port)
        self.title = "this gateway"


def write_config(home: Path, text: str) -> Path:
    """Write gateway.yaml, and the idle middlewares that it may name."""
    (home / "noop.py").write_text(NOOP + "\n\n".join(map(NOOP_OPTIONS.format, range(50))))
    config = home / "gateway.yaml"
    config.write_text(text)
    return config


NOOP = '''
"""A middleware that does nothing, to see what one more costs."""

from gateway.middleware.base import Options


class Noop:
    async def __call__(self, call, next):
        return await next(call)


'''
NOOP_OPTIONS = '''class Noop{}(Options, frozen=True, kw_only=True):
    """Does nothing."""

    def build(self, resources):
        return Noop()
'''
"""One class each, as the same middleware may not be in a chain twice."""

CHAIN = ["log", "metrics", "auth", "limits", "cache", "cost", "retry"]
LIMITS = "{requests_per_minute: 100000000, tokens_per_minute: 100000000000, concurrent: 100000}"
PRICE = "{prompt: 1, completion: 2}"


def gateway_config(
    upstream: int, *, names: int = 0, middlewares: int = len(CHAIN), redis: str = "", database: str = ""
) -> str:
    """Return gateway.yaml: `names` keys and as many models more, and a chain of `middlewares`, idle ones included."""
    keys = [(KEY, "bench"), *((spread_key(f"{i:08}"), f"k{i}") for i in range(names))]
    chain = CHAIN[:-1] + [f"'noop:Noop{i}'" for i in range(middlewares - len(CHAIN))] + CHAIN[-1:]
    if middlewares == 1:
        keys, chain = [], CHAIN[-1:]
    lines = [
        "server: {max_calls: 5000}",
        f"redis: '{redis}'",
        f"database: '{database}'",
        f"providers: {{up: {{kind: openai, base_url: 'http://127.0.0.1:{upstream}/v1', api_key: none}}}}",
        "models:",
        *(f"  '{kind}-*': {{deployments: [{{target: 'up/{kind}-*', price: {PRICE}}}]}}" for kind in ("paced", "whole")),
        *(f"  {name}: {{deployments: [{{target: up/{name}, price: {PRICE}}}]}}" for name in ("whole-1024", "burst-50")),
        *(f"  m{i:08}: {{deployments: [{{target: up/whole-1024, price: {PRICE}}}]}}" for i in range(names)),
        "keys:" if keys else "",
        *(f"  - {{name: {name}, key: {key}, limits: {LIMITS}}}" for key, name in keys),
        "chain:",
        *(f"  - use: {use}" for use in chain),
    ]
    return "\n".join(lines) + "\n"


def spread_key(number: str) -> str:
    """Return one of many keys."""
    return f"bench-key-of-many-0123456789abcdef-{number}"
