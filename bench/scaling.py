"""What streams, workers, keys and models take of a machine: the figures of `docs/scaling.md`.

Nothing here is a race: what is measured is the CPU time and the memory of the gateway's own processes and of Redis, for
each call, event and open stream. Client and upstream run in this process, on whatever is left of the machine.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path

from bench.tools import redis_program

KEY = "bench-key-0123456789abcdef0123456789abcdef"
EVENT = json.dumps({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [
    {"index": 0, "delta": {"content": "word "}, "finish_reason": None}]})  # fmt: skip
USAGE = {"prompt_tokens": 200, "completion_tokens": 150, "total_tokens": 350}
WHOLE = json.dumps({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "usage": USAGE, "choices": [
    {"index": 0, "message": {"role": "assistant", "content": "word " * 150}, "finish_reason": "stop"}]})  # fmt: skip
CHAIN = "[{use: log}, {use: metrics}, {use: auth}, {use: limits}, {use: cache, ttl: 1s}, {use: cost}, {use: retry}]"
LIMITS = "{requests_per_minute: 100000000, tokens_per_minute: 100000000000, concurrent: 1000000}"
CALLERS = 64
FOR_EVER = 10**9
ESTABLISHED = "01"
"""In `/proc/net/tcp`."""


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("what", choices=["streams", "workers"])
    parser.add_argument("--redis-server", default=str(redis_program()), help="default: the one in .venv")
    parser.add_argument("--seconds", type=float, default=2.5, help="of load, each time")
    parser.add_argument("--streams", type=int, nargs="*", default=[100, 500, 1000])
    parser.add_argument("--every", type=float, default=0.2, help="seconds between two events of a stream")
    asked = parser.parse_args()
    if asked.what == "streams":
        asyncio.run(streams(asked.streams, asked.seconds, asked.every))
    else:
        asyncio.run(workers(asked.redis_server, asked.seconds))


async def streams(counts: list[int], seconds: float, every_s: float) -> None:
    """Print what open streams take, idle and with an event every `every_s`."""
    print(f"{'streams':>8}{'KB each':>10}{'files each':>12}{'CPU µs/event':>14}{'events/s':>10}")
    for count in counts:
        async with upstream(every_s) as mock, gateway(mock, 1) as (port, pids):
            await load(port, 4, lambda: 200, stream=False)
            before, files = memory_kb(pids[0]), files_of(pids[0])
            callers = [await Caller.open(port) for _ in range(count)]
            for caller in callers:
                caller.send(stream=True)
            await asyncio.gather(*(caller.hears.wait() for caller in callers))
            began_s, cpu = time.monotonic(), cpu_s(pids[0])
            heard = sum(caller.events for caller in callers)
            await asyncio.sleep(seconds)
            events = sum(caller.events for caller in callers) - heard
            spent_s, took_s = cpu_s(pids[0]) - cpu, time.monotonic() - began_s
            each_kb = (memory_kb(pids[0]) - before) / count
            each_files = (files_of(pids[0]) - files) / count
            print(f"{count:8}{each_kb:10.1f}{each_files:12.1f}{spent_s / events * 1e6:14.1f}{events / took_s:10.0f}")
            for caller in callers:
                caller.close()


async def workers(redis_server: str, seconds: float) -> None:
    """Print what a call takes of one and of two workers and of Redis, and how calls spread over the workers."""
    print(f"{'workers':>8}{'CPU µs/call':>14}{'Redis µs/call':>15}{'calls/s':>10}  connections and CPU of each worker")
    with redis(redis_server) as (url, redis_pid):
        for count in (1, 2, 1, 2):
            async with upstream(0.0) as mock, gateway(mock, count, f"redis: {url}\n") as (port, pids):
                await load(port, CALLERS, lambda: 20, stream=False)
                before, redis_before = [cpu_s(pid) for pid in pids], cpu_s(redis_pid)
                began_s = time.monotonic()
                spread = list[int]()

                def more(
                    until_s: float = began_s + seconds,
                    spread: list[int] = spread,
                    asked: tuple[list[int], int] = (pids, port),
                ) -> int:
                    if not spread and time.monotonic() > until_s - seconds / 2:
                        spread += [connections(pid, asked[1]) for pid in asked[0]]
                    return FOR_EVER if time.monotonic() < until_s else 0

                calls = await load(port, CALLERS, more, stream=False)
                took_s = time.monotonic() - began_s
                spent = [cpu_s(pid) - was for pid, was in zip(pids, before, strict=True)]
                redis_us = (cpu_s(redis_pid) - redis_before) / calls * 1e6
                shares = ", ".join(f"{n} ({s / sum(spent):.0%})" for n, s in zip(spread, spent, strict=True))
                print(f"{count:8}{sum(spent) / calls * 1e6:14.1f}{redis_us:15.1f}{calls / took_s:10.0f}  {shares}")
        print(f"Redis keeps {redis_bytes(url)} bytes for one key's three limits and {len(WHOLE)} bytes an answer")


# ── Client and upstream


class Caller(asyncio.Protocol):
    """A client's connection: it asks, and counts what it hears."""

    def __init__(self) -> None:
        self.hears = asyncio.Event()
        self.events = 0
        self.done = asyncio.Event()
        self._text = 0
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, port: int) -> "Caller":
        """Connect."""
        _, caller = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return caller

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, *, stream: bool) -> None:
        """Ask for something new."""
        self._text += 1
        self.done.clear()
        said = f"{id(self)} {self._text} " + "Say something. " * 60
        body = json.dumps({"model": "mock", "messages": [{"role": "user", "content": said}], "stream": stream}).encode()
        assert self._transport is not None
        self._transport.write(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )

    def data_received(self, data: bytes) -> None:
        """Count it; an answer that is not streamed is the end of a call."""
        self.hears.set()
        self.events += data.count(b"data: ")
        if data.endswith(b"}"):
            self.done.set()
        if data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 200"):
            sys.exit(data.decode())

    def close(self) -> None:
        """Leave."""
        assert self._transport is not None
        self._transport.close()


async def load(port: int, callers: int, more: Callable[[], int], *, stream: bool) -> int:
    """Ask on so many connections, `more()` times on each, as soon as it is answered; return the number of calls."""
    made = 0

    async def keep_asking() -> None:
        nonlocal made
        caller = await Caller.open(port)
        mine = 0
        while mine < more():
            caller.send(stream=stream)
            await caller.done.wait()
            mine, made = mine + 1, made + 1
        caller.close()

    await asyncio.gather(*(keep_asking() for _ in range(callers)))
    return made


class Mock(asyncio.Protocol):
    """An upstream that answers whole calls at once, and streams for ever."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._said = b""
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Fall silent."""
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer what is complete."""
        self._said += data
        head, end, body = self._said.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        if not end or length is None or len(body) < int(length[1]):
            return
        self._said = b""
        if re.search(rb'"stream": ?true', body):
            self._task = asyncio.ensure_future(self._stream())
        else:
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(WHOLE)}\r\n\r\n".encode()
            self._transport.write(head + WHOLE.encode())

    async def _stream(self) -> None:
        event = f"data: {EVENT}\n\n".encode()
        chunk = b"%x\r\n%b\r\n" % (len(event), event)
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        while True:
            self._transport.write(chunk)
            await asyncio.sleep(self._every_s)


@contextlib.asynccontextmanager
async def upstream(every_s: float) -> AsyncGenerator[int, None]:
    """Serve as the upstream; yield its port."""
    server = await asyncio.get_running_loop().create_server(lambda: Mock(every_s), "127.0.0.1", 0, backlog=4096)
    yield server.sockets[0].getsockname()[1]
    server.close()


# ── Processes


@contextlib.asynccontextmanager
async def gateway(mock: int, count: int, more: str = "") -> AsyncGenerator[tuple[int, list[int]], None]:
    """Run the gateway with its whole chain; yield its port, and the process ids of its workers."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "gateway.yaml"
        config.write_text(
            f"server: {{port: {port}}}\nproviders: {{m: {{kind: openai, base_url: http://127.0.0.1:{mock}/v1,"
            " api_key: none}}\n"
            "models: {mock: {deployments: [{target: m/mock, price: {prompt: 1, completion: 2}}]}}\n"
            f"keys: [{{name: bench, key: {KEY}, limits: {LIMITS}}}]\nchain: {CHAIN}\n{more}"
        )
        command = [sys.executable, "-m", "gateway", "serve", "--config", str(config), "--workers", str(count)]
        process = started(command)
        try:
            yield port, await ready(process.pid, port, count)
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait, 60)


def started(command: list[str]) -> "subprocess.Popen[bytes]":
    """Start a process that may say what it likes."""
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


async def ready(pid: int, port: int, count: int) -> list[int]:
    """Return the process ids of the workers, once each of them lets somebody in."""
    until_s = time.monotonic() + 30
    callers: list[Caller] = []
    while time.monotonic() < until_s:
        await asyncio.sleep(0.1)
        with contextlib.suppress(OSError):
            callers.append(await Caller.open(port))
        pids = children(pid) if count > 1 else [pid]
        if len(pids) == count and all(connections(worker, port) for worker in pids):
            for caller in callers:
                caller.close()
            await asyncio.sleep(0.5)
            return pids
    sys.exit("the gateway does not start")


@contextlib.contextmanager
def redis(binary: str) -> Generator[tuple[str, int], None, None]:
    """Run a Redis that saves nothing; yield its URL and its process id."""
    port = free_port()
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while not answers(port):
            time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0", process.pid
    finally:
        process.terminate()
        process.wait(20)


def redis_bytes(url: str) -> int:
    """Return what the keys of the limits take of Redis's memory."""
    with socket.create_connection(("127.0.0.1", int(re.findall(r":(\d+)/", url)[0]))) as client:
        client.sendall(b"EVAL \"local n = 0 for _, k in ipairs(redis.call('KEYS', 'gateway:limits:*')) do n = n +"
                       b" redis.call('MEMORY', 'USAGE', k) end return n\" 0\r\n")  # fmt: skip
        return int(client.recv(64).strip(b":\r\n"))


def answers(port: int) -> bool:
    """Tell whether somebody listens."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def children(pid: int) -> list[int]:
    """Return the process ids of a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_s(pid: int) -> float:
    """Return the user and system time of a process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_kb(pid: int) -> int:
    """Return the memory of a process that nobody else has."""
    said = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kb) for kb in re.findall(r"^Private_(?:Clean|Dirty): +(\d+)", said, re.MULTILINE))


def files_of(pid: int) -> int:
    """Return how many files and sockets a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def connections(pid: int, port: int) -> int:
    """Return how many connections to `port` a process holds."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {row[9] for row in rows if int(row[1].partition(":")[2], 16) == port and row[3] == ESTABLISHED}
    mine = 0
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            mine += file.readlink().name.removeprefix("socket:[").removesuffix("]") in inodes
    return mine


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


if __name__ == "__main__":
    main()
