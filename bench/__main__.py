"""CPU per call of the gateway's full chain, beside nginx as a plain proxy, in one run.

Each round measures both, in turn, so that a machine whose speed drifts does not change the ratio. The chain is the
whole one: log, metrics, auth, limits, cache look-up, cost, retry.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

MESSAGES = [{"role": "user", "content": "COUNT. " + "Say something. " * 60}]
KEY = "bench-key-0123456789abcdef0123456789abcdef"
CONNECTIONS = 64
STREAM_EVENTS = 50


def main() -> None:
    """Measure, and print one table."""
    options = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    options.add_argument("--seconds", type=int, default=5, help="of load, each time")
    options.add_argument("--rounds", type=int, default=3)
    asked = options.parse_args()
    for tool in ("nginx", "wrk"):
        if shutil.which(tool) is None:
            sys.exit(f"the bench needs {tool}: apt-get install {tool}")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        place = Path(folder)
        place.chmod(0o755)  # nginx's workers may run as nobody
        write_answers(place)
        mock, proxy, gateway = free_port(), free_port(), free_port()
        stack.enter_context(nginx(place / "mock", mock_config(mock, place), core=1))
        proxied = stack.enter_context(nginx(place / "proxy", proxy_config(proxy, mock), core=0))
        served = stack.enter_context(serve(place, gateway, mock))
        print(f"{'':10}{'':10}{'CPU µs/call':>14}{'× nginx':>10}{'calls/s':>10}")
        for kind in ("whole", "streamed"):
            compare(kind, place, asked.rounds, asked.seconds, proxied, proxy, served, gateway)


def compare(
    kind: str, place: Path, rounds: int, seconds: int, proxied: list[int], proxy: int, served: list[int], gateway: int
) -> None:
    """Measure nginx and the gateway in turn, and print a line for each."""
    script = write_script(place, kind)
    through_nginx = f"http://127.0.0.1:{proxy}/{kind}/v1/chat/completions"
    through_us = f"http://127.0.0.1:{gateway}/v1/chat/completions"
    plain: list[tuple[float, float]] = []
    ours: list[tuple[float, float]] = []
    load(script, through_us, 1)
    for _ in range(rounds):
        plain.append(measure(proxied, lambda: load(script, through_nginx, seconds)))
        ours.append(measure(served, lambda: load(script, through_us, seconds)))
    ratios = [mine[0] / theirs[0] for mine, theirs in zip(ours, plain, strict=True)]
    for name, figures, ratio in (("nginx", plain, 1.0), ("gateway", ours, statistics.median(ratios))):
        cpu, rate = (statistics.median(figure[i] for figure in figures) for i in (0, 1))
        print(f"{kind:10}{name:10}{cpu:14.1f}{ratio:10.1f}{rate:10.0f}")


def measure(pids: list[int], work: Callable[[], tuple[int, float]]) -> tuple[float, float]:
    """Return the CPU microseconds of `pids` per call, and calls per second, during `work`."""
    before = sum(map(cpu_s, pids))
    calls, seconds = work()
    return (sum(map(cpu_s, pids)) - before) / calls * 1e6, calls / seconds


def cpu_s(pid: int) -> float:
    """Return the user and system time of a process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(script: Path, url: str, seconds: int) -> tuple[int, float]:
    """Load the server at `url`; return how many calls it answered, and in which time."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script)]
    said = subprocess.run(
        pinned(1, [*command, url]),
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 30,
    ).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        sys.exit(f"the load met errors:\n{said}")
    match = re.search(r"(\d+) requests in ([\d.]+)s", said)
    assert match is not None, said
    return int(match[1]), float(match[2])


def write_script(place: Path, kind: str) -> Path:
    """Write what wrk sends: each time another text, so that no answer comes from the cache."""
    script = place / f"{kind}.lua"
    body = json.dumps({"model": kind, "messages": MESSAGES, "stream": kind == "streamed"})
    before, after = (json.dumps(part) for part in body.split("COUNT"))
    script.write_text(
        'wrk.headers["content-type"] = "application/json"\n'
        f'wrk.headers["authorization"] = "Bearer {KEY}"\n'
        "local count = os.time() * 1000000\n"
        "request = function()\n"
        "  count = count + 1\n"
        f'  return wrk.format("POST", nil, nil, {before} .. count .. {after})\n'
        "end\n"
    )
    return script


def write_answers(place: Path) -> None:
    """Write what the upstream answers: about 1 KB whole, `STREAM_EVENTS` events streamed."""
    usage = {"prompt_tokens": 200, "completion_tokens": 150, "total_tokens": 350}
    choice = {"index": 0, "message": {"role": "assistant", "content": "word " * 150}, "finish_reason": "stop"}
    whole = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "mock", "choices": [choice]}
    (place / "whole").write_text(json.dumps({**whole, "usage": usage}))
    deltas = [{"role": "assistant", "content": ""}, *({"content": "word "} for _ in range(STREAM_EVENTS)), {}]
    chunks = [chunk(delta, last=i == len(deltas) - 1) for i, delta in enumerate(deltas)]
    chunks.append({**chunk({}, last=False), "choices": [], "usage": usage})
    events = "".join(f"data: {json.dumps(said)}\n\n" for said in chunks)
    (place / "streamed").write_text(events + "data: [DONE]\n\n")


def mock_config(port: int, place: Path) -> str:
    """Return the upstream: it answers at once, from a file (nginx has to be told that POST may ask for one)."""
    kinds = (("whole", "application/json"), ("streamed", "text/event-stream"))
    locations = "".join(
        f"location /{kind}/ {{ root {place}; error_page 404 405 =200 /{kind}; }}\n"
        f"location = /{kind} {{ internal; root {place}; default_type {media}; error_page 405 =200 $uri; }}\n"
        for kind, media in kinds
    )
    return f"server {{ listen 127.0.0.1:{port};\n{locations} }}"


def chunk(delta: dict[str, str], *, last: bool) -> dict[str, object]:
    """Return one chunk of a stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": "stop" if last else None}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "mock", "choices": [choice]}


def proxy_config(port: int, mock: int) -> str:
    """Return a plain proxy, as fast as nginx goes."""
    return f"""
    upstream mock {{ server 127.0.0.1:{mock}; keepalive {CONNECTIONS * 2}; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
        }}
    }}"""


@contextlib.contextmanager
def nginx(place: Path, servers: str, *, core: int) -> Generator[list[int]]:
    """Run nginx with one worker; yield the worker's process id."""
    place.mkdir()
    config = place / "nginx.conf"
    config.write_text(
        f"daemon off; worker_processes 1; pid {place}/pid; error_log {place}/error.log;\n"
        "events { worker_connections 1024; }\n"
        f"http {{ access_log off; keepalive_requests 1000000; client_body_temp_path {place}; proxy_temp_path {place};\n"
        f"fastcgi_temp_path {place}; uwsgi_temp_path {place}; scgi_temp_path {place};{servers}\n}}"
    )
    process = subprocess.Popen(pinned(core, ["nginx", "-c", str(config), "-p", str(place)]), stderr=subprocess.DEVNULL)
    try:
        yield [int(pid) for pid in wait_for(lambda: children(process.pid))]
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def serve(place: Path, port: int, mock: int) -> Generator[list[int]]:
    """Run the gateway with its whole chain; yield its process id."""
    config = place / "gateway.yaml"
    config.write_text(
        f"server: {{port: {port}}}\n"
        "providers:\n"
        f"  whole: {{kind: openai, base_url: http://127.0.0.1:{mock}/whole/v1, api_key: none}}\n"
        f"  streamed: {{kind: openai, base_url: http://127.0.0.1:{mock}/streamed/v1, api_key: none}}\n"
        "models:\n"
        "  whole: {deployments: [{target: whole/mock, price: {prompt: 1, completion: 2}}]}\n"
        "  streamed: {deployments: [{target: streamed/mock, price: {prompt: 1, completion: 2}}]}\n"
        f"keys:\n  - {{name: bench, key: {KEY}, limits: {{requests_per_minute: 100000000,"
        " tokens_per_minute: 100000000000, concurrent: 10000}}\n"
        "chain: [{use: log}, {use: metrics}, {use: auth}, {use: limits}, {use: cache, ttl: 1s}, {use: cost},"
        " {use: retry}]\n"
    )
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(config)]
    with (place / "gateway.log").open("wb") as log:
        process = subprocess.Popen(pinned(0, command), stdout=log, stderr=subprocess.STDOUT)
    try:
        try:
            wait_for(lambda: answers(f"http://127.0.0.1:{port}/ready"))
        except SystemExit:
            sys.exit((place / "gateway.log").read_text())
        yield [process.pid]
    finally:
        process.terminate()
        process.wait(40)


def pinned(core: int, command: list[str]) -> list[str]:
    """Return `command` kept on one core, where the machine has two and `taskset`."""
    if shutil.which("taskset") is None or (os.cpu_count() or 1) < 2:
        return command
    return ["taskset", "-c", str(core), *command]


def children(pid: int) -> list[str]:
    """Return the process ids of a process's children."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def answers(url: str) -> bool:
    """Tell whether `url` answers."""
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except OSError:
        return False


def wait_for(what: Callable[[], T], within_s: float = 15.0) -> T:
    """Return what `what` returns, once it is something."""
    until_s = time.monotonic() + within_s
    while not (found := what()):
        if time.monotonic() > until_s:
            sys.exit("a server did not start; is a port taken?")
        time.sleep(0.05)
    return found


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


if __name__ == "__main__":
    main()
