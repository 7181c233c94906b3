"""What is measured. Each scenario goes in rounds, and in each round every server takes its turn: what is compared was
measured within seconds, so that a machine whose speed drifts does not change the ratios."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msgspec import Struct

from bench.figures import ANY, Sample
from bench.measure import P50, P99, P999, Run, load
from bench.peers import Envoy, envoy_is_there, peers
from bench.servers import CHAIN, Direct, Gateway, Nginx, Redis, Server, Upstream, gateway_config
from bench.tools import LOAD_CORE, SERVER_CORE, needed, pinned, redis_program, say

LITTLE = 100.0
"""Who bears less than this many calls a second gets fewer rounds of what takes it long."""
RATES = (30, 200, 1000, 3000)
HOUR_AT_PER_S = 10
"""The soak is an hour's calls at this rate, sent as fast as they are answered."""
STREAM = "paced-40-60-25"
STREAM_EVENTS, STREAM_S = 40, 0.060 + 39 * 0.025
AT_A_TIME = (20, 200)
CONCURRENT = (1, 64, 1000)
SIZES = (1 << 10, 1 << 14, 1 << 17, 1 << 20)
MIDDLEWARES = (1, len(CHAIN), 25, 50)
NAMES = (1, 100, 1_000, 10_000)


class Effort(Struct, frozen=True):
    """How thoroughly to measure."""

    rounds: int
    seconds: float


FULL = Effort(rounds=3, seconds=1.5)
QUICK = Effort(rounds=2, seconds=1.0)


class Bench:
    """What the scenarios share: the upstream, the servers, and the samples so far."""

    def __init__(self, place: Path, stack: contextlib.ExitStack, effort: Effort) -> None:
        self.place, self.stack, self.effort = place, stack, effort
        self.samples: list[Sample] = []
        self.servers: list[Server] = []
        os.sched_setaffinity(0, {LOAD_CORE % (os.cpu_count() or 1)})
        self.upstream = stack.enter_context(Upstream(place))
        self.direct = Direct(self.upstream)
        self.nginx_program = needed("nginx", "nginx")

    def start(self, *, everyone: bool) -> None:
        """Start the servers; what that took, and what they need before anybody asks, is the first that is measured."""
        for make in self.makers(everyone=everyone):
            server = make()
            say(f"starting {server.title}")
            self.stack.enter_context(server)
            self.note("start", server, "first", 0, start_s=server.start_s)
            self.note("memory", server, ANY, 0, idle_mb=server.memory_mb())
            self.servers.append(server)
            self.run(server, calls=int(min(2000, server.bears_per_s)))  # compilers, caches, pools
            if server.streams:
                self.run(server, "burst-50", stamps=50, calls=int(min(500, server.bears_per_s)))

    def makers(self, *, everyone: bool) -> list[Callable[[], Server]]:
        """Return what makes each server that takes part."""
        makers: list[Callable[[], Server]] = [self.nginx, self.gateway]
        if everyone:
            makers += peers(self.place, self.upstream)
        elif envoy_is_there():
            makers.append(lambda: Envoy(self.place, self.upstream))
        return makers

    def nginx(self, workers: int = 1) -> Nginx:
        """Return nginx, not started."""
        return Nginx(self.place, self.upstream, self.nginx_program, workers=workers)

    def gateway(
        self, *, workers: int = 1, names: int = 0, middlewares: int = len(CHAIN), redis: str = "", database: str = ""
    ) -> Gateway:
        """Return ours, not started."""
        text = gateway_config(self.upstream.port, names=names, middlewares=middlewares, redis=redis, database=database)
        return Gateway(self.place, self.upstream, text, workers=workers)

    @property
    def pair(self) -> tuple[Server, Server]:
        """Return nginx and ours."""
        return self.servers[0], self.servers[1]

    def run(self, server: Server, model: str = "whole-1024", **options: float) -> Run:
        """Load a server, and let all others sleep."""
        for other in self.servers:
            other.signal(signal.SIGCONT if other is server else signal.SIGSTOP)
        return load(server, self.place, model, **options)  # type: ignore[arg-type]

    def run_beside(self, rival: Server | None, server: Server, *, seconds: float) -> Run:
        """Load two servers, which were asleep, at the same time, and return what the second did meanwhile."""
        both = [one for one in (rival, server) if one is not None]
        for one in both:
            one.signal(signal.SIGCONT)
        with ThreadPoolExecutor() as beside:
            if rival is not None:
                beside.submit(load, rival, self.place, seconds=seconds + 1.0)
                time.sleep(0.5)
            run = self.run(server, seconds=seconds)
        for one in both:
            one.signal(signal.SIGSTOP)
        return run

    def note(self, scenario: str, server: Server, case: object, round: int, **values: float) -> None:
        """Take down what was measured."""
        self.samples += [
            Sample(scenario, server.name, str(case), metric, round, float(f"{value:.6g}"))
            for metric, value in values.items()
        ]

    def rounds(self, server: Server | None = None) -> range:
        """Return the rounds to go; one only for who is slow."""
        few = server is not None and server.bears_per_s < LITTLE
        return range(1 if few else self.effort.rounds)


def memory(bench: Bench) -> None:
    """Memory while loaded, and after an hour's calls."""
    say("memory, and an hour's calls")
    for server in bench.servers:
        calls = int(min(HOUR_AT_PER_S * 3600, server.bears_per_s * 10))
        run = bench.run(server, calls=calls, watch=True)
        bench.note("memory", server, ANY, 0, loaded_mb=run.memory_mb, soaked_mb=server.memory_mb(), soak_calls=calls)


def cpu(bench: Bench) -> None:
    """CPU per call at saturation, whole and streamed at once."""
    for model, stamps in (("whole-1024", 1), ("burst-50", 50)):
        say(f"CPU per call: {model}")
        for round in bench.rounds():
            for server in (server for server in bench.servers if stamps == 1 or server.streams):
                before_ns = bench.upstream.cpu_ns()
                run = bench.run(server, model, stamps=stamps, seconds=bench.effort.seconds)
                upstream_us = (bench.upstream.cpu_ns() - before_ns) / 1e3 / run.told.calls
                values = {"cpu_us": run.cpu_us_per_call, "calls_per_core_s": run.calls_per_core_s}
                bench.note("cpu", server, model, round, **values, upstream_us=upstream_us)


def latency(bench: Bench, rates: Iterable[int] = RATES) -> None:
    """Latency of whole calls that come at a fixed rate, whoever is slow."""
    for rate in rates:
        say(f"latency at {rate} calls a second")
        calls = max(60, int(rate * 1.2))
        for round in bench.rounds():
            for server in (bench.direct, *(server for server in bench.servers if rate <= server.bears_per_s)):
                told = bench.run(server, calls=calls, rate=rate, connections=256).told
                values = {"p50": told.latency_us[P50], "p99": told.latency_us[P99]}
                if calls >= 1000:
                    values["p999"] = told.latency_us[P999]
                bench.note("latency", server, rate, round, **values, late_p99=told.late_us[P99])


def streams(bench: Bench, at_a_time: Iterable[int] = AT_A_TIME) -> None:
    """Streams with the pace of a model: time to the first token, lag of each event, CPU per event."""
    for count in at_a_time:
        say(f"{count} streams at a time")
        for round in bench.rounds():
            for server in (bench.direct, *(server for server in bench.servers if server.streams)):
                if round not in bench.rounds(server):
                    continue
                slow = server.bears_per_s < LITTLE
                seconds = 1.0 if slow else bench.effort.seconds + 0.5
                options = {"rate": count / STREAM_S, "seconds": seconds, "connections": 1024}
                run = bench.run(server, STREAM, stamps=STREAM_EVENTS, **options)
                values = {"ttft_p50": run.told.first_us[P50], "ttft_p99": run.told.first_us[P99]}
                lags = {"lag_p50": run.told.lag_us[P50], "lag_p99": run.told.lag_us[P99]}
                bench.note("streams", server, count, round, cpu_us=run.cpu_us_per_event, **values, **lags)


def starts(bench: Bench) -> None:
    """From the start of the process to the first answer, again; and what importing ours takes, which is most of it."""
    say("starts and imports")
    for make in bench.makers(everyone=len(bench.servers) > 2):
        for round in range(1, bench.effort.rounds):
            server = make()
            if server.bears_per_s < LITTLE:
                break
            with server:
                bench.note("start", server, "first", round, start_s=server.start_s)
    for round in bench.rounds():
        bench.note("start", bench.servers[1], "import", round, import_s=import_s("gateway.cli.run"))


def import_s(module: str) -> float:
    """Return how long importing `module` takes, without the start of Python itself."""
    took: list[float] = []
    for code in ("pass", f"import {module}"):
        began_s = time.monotonic()
        subprocess.run([sys.executable, "-c", code], check=True, preexec_fn=pinned(SERVER_CORE), capture_output=True)
        took.append(time.monotonic() - began_s)
    return took[1] - took[0]


def concurrency(bench: Bench) -> None:
    """CPU per call with few and many calls under way: at saturation, and at a steady rate with a slow upstream."""
    say("concurrency")
    fast = [server for server in bench.servers if server.bears_per_s > 1000]
    for round in bench.rounds():
        for count in CONCURRENT:
            for server in fast:
                run = bench.run(server, connections=count, seconds=0.8)
                bench.note("concurrency", server, count, round, cpu_us=run.cpu_us_per_call)
    for round in bench.rounds()[:2]:
        for count in CONCURRENT:
            for server in fast:
                delay_ms = count * 2  # at 500 calls a second, `count` of them are under way
                run = bench.run(server, f"whole-1024-{delay_ms}", rate=500, seconds=1.2, connections=2048)
                bench.note("waiting", server, count, round, cpu_us=run.cpu_us_per_call)


def sizes(bench: Bench) -> None:
    """CPU per call by the size of what is sent, and of what is answered."""
    say("sizes")
    for round in bench.rounds()[:2]:
        for size in SIZES:
            for server in bench.pair:
                sent = bench.run(server, size=size, seconds=0.8, connections=16)
                answered = bench.run(server, f"whole-{size}", seconds=0.8, connections=16)
                bench.note("sent", server, size, round, cpu_us=sent.cpu_us_per_call)
                bench.note("answered", server, size, round, cpu_us=answered.cpu_us_per_call)


def variants(bench: Bench) -> None:
    """CPU per call of ours by what its configuration says: middlewares, keys and models, Redis, a database."""
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(Redis(bench.place, redis_program()))
        made: list[tuple[str, object, int, Server]] = []
        for count in MIDDLEWARES:
            made.append(("middlewares", count, 0, bench.gateway(middlewares=count)))
        for count in NAMES:
            made.append(("names", count, count, bench.gateway(names=count)))
        database = f"sqlite:///{bench.place}/calls.db"
        made.append(("stores", "memory", 0, bench.gateway()))
        made.append(("stores", "Redis", 0, bench.gateway(redis=redis.url)))
        made.append(("stores", "SQLite", 0, bench.gateway(database=database)))
        for scenario, case, spread, server in made:
            say(f"{scenario}: {case}")
            with server:
                bench.note(scenario, server, case, 0, start_s=server.start_s, idle_mb=server.memory_mb())
                bench.run(server, calls=500, spread=spread)
                asked, calls = redis.asked(), 0
                for round in bench.rounds():
                    for one in (bench.servers[0], server):
                        run = bench.run(one, seconds=0.6, spread=spread if one is server else 0)
                        bench.note(scenario, one, case, round, cpu_us=run.cpu_us_per_call)
                        calls += run.told.calls if one is server else 0
                if case == "Redis" and redis.asked() - asked < 3 * calls:
                    sys.exit("with Redis: it was given up, for it came too late; nothing was measured")


def workers(bench: Bench) -> None:
    """What a second process adds, with Redis, where each has half of a core: load, upstream and Redis have the other.

    One process shares its core with a rival, a server of its own that is loaded just as well; two share it with each
    other.
    """
    say("workers")
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(Redis(bench.place, redis_program()))
        made: list[tuple[int, Server, Server | None]] = [
            (1, bench.nginx(), bench.nginx()),
            (2, bench.nginx(2), None),
            (1, bench.gateway(redis=redis.url), bench.gateway()),
            (2, bench.gateway(workers=2, redis=redis.url), None),
        ]
        for server in (server for _, *servers in made for server in servers if server is not None):
            stack.enter_context(server)
            bench.run(server, calls=3000)
            server.signal(signal.SIGSTOP)
        for round in bench.rounds():
            for count, server, rival in made:
                run = bench.run_beside(rival, server, seconds=bench.effort.seconds)
                rate = run.told.calls / run.told.seconds
                bench.note("workers", server, count, round, cpu_us=run.cpu_us_per_call, calls_per_s=rate)


def everything(bench: Bench) -> None:
    """The full run."""
    bench.start(everyone=True)
    for scenario in (cpu, latency, streams, concurrency, sizes, variants, workers, memory, starts):
        scenario(bench)


def quick(bench: Bench) -> None:
    """What fits into a minute."""
    bench.start(everyone=False)
    cpu(bench)
    latency(bench, rates=(1000,))
    streams(bench, at_a_time=(20,))
