"""How `gateway serve` runs: as one process, or as a supervisor and its workers."""

import asyncio
import contextlib
import errno
import gc
import logging
import multiprocessing
import os
import resource
import signal
import socket
import sys
import threading
from pathlib import Path

import click
import structlog
import uvloop

from gateway.cli.door import Door, Tally
from gateway.cli.server import LEFTOVERS_S, Server
from gateway.cli.startpage import start_page
from gateway.cli.supervisor import CUT, Supervisor
from gateway.core.shipped import shipped
from gateway.settings.complaints import ConfigError
from gateway.settings.live import File, Handover, Live, read
from gateway.settings.load import Loaded
from gateway.settings.process import Process

log = logging.getLogger("gateway")

WATCH_EVERY_S = 1.0


def alone(config: Path | None, host: str | None, port: int | None, *, watch: bool) -> None:
    """Serve in this process until told to stop.

    Raises:
        ClickException: the configuration has mistakes, or the address cannot be listened on.
    """
    source = _prepared(config)
    live = _checked(source)
    sock = _opened(live, source, host, port)
    uvloop.run(_run(live, sock, watching=source if watch else None))


def supervised(
    config: Path | None, host: str | None, port: int | None, *, workers: int, watch: bool, folder: Path
) -> int:
    """Serve in `workers` processes until told to stop, and look after them; return the exit status.

    What the file says is read once, here; the workers are forks, and build of it what they serve.

    Raises:
        ClickException: as above.
    """
    source = _prepared(config)
    try:
        loaded = read(source)
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    sock = _opened(_checked(source, loaded), source, host, port, workers)
    return Supervisor(source, loaded, sock, _work, workers=workers, watch=watch, folder=folder).run()


def _prepared(config: Path | None) -> File:
    log_to_stderr()
    allow_open_files()
    return open_config(config)


def _checked(source: File, loaded: Loaded | None = None) -> Live:
    try:
        live = Live(source, Process(), loaded=loaded)
        uvloop.run(live.check())
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    return live


def _opened(live: Live, source: File, host: str | None, port: int | None, workers: int = 1) -> socket.socket:
    """Listen, and say so."""
    server = live.gateway.server
    sock = listen(host or server.host, server.port if port is None else port)
    click.echo(start_page(live.gateway, source.name, sock.getsockname(), workers), err=True)
    return sock


def _work(handover: Handover, loaded: Loaded, source: File, sock: socket.socket, tally: Tally, place: int) -> None:
    """Serve as one worker of several, in a process of its own."""
    process = Process()

    async def everywhere(config_id: str) -> None:
        os.kill(os.getppid(), signal.SIGHUP)
        await handover.until_served(config_id, process.clock)

    live = Live(handover, process, loaded=loaded, original=source, everywhere=everywhere)
    uvloop.run(_run(live, sock, handover=handover, door=Door(sock, tally, place)))


async def _run(
    live: Live,
    sock: socket.socket,
    *,
    handover: Handover | None = None,
    door: Door | None = None,
    watching: File | None = None,
) -> None:
    """Serve until a signal says stop; reload when one says so."""
    server = Server(live, door)
    loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    async def reload() -> None:
        await live.reload_or_say_why()
        if handover is not None:
            handover.report(live.gateway.config_id)

    def on_hangup() -> None:
        tasks.add(task := asyncio.ensure_future(reload()))
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGHUP, on_hangup)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    if handover is None:
        loop.add_signal_handler(signal.SIGTERM, server.stop)
        loop.add_signal_handler(signal.SIGINT, server.stop)
    else:
        loop.add_signal_handler(signal.SIGTERM, server.drain)
        loop.add_signal_handler(CUT, server.cut)
        handover.report(live.gateway.config_id)
        tasks.add(asyncio.ensure_future(_stop_when_orphaned(server)))
    if watching is not None:
        tasks.add(asyncio.ensure_future(_watch(watching, live)))
    settle_garbage_collector()
    try:
        await server.serve(sockets=[sock])
    finally:
        for task in tasks:
            task.cancel()
        end_within(LEFTOVERS_S)


async def _watch(file: File, live: Live) -> None:
    """Reload when the file changes. Polled: an editor, git or a mounted ConfigMap may replace it in any way."""
    while True:
        await asyncio.sleep(WATCH_EVERY_S)
        if file.has_changed():
            await live.reload_or_say_why()


async def _stop_when_orphaned(server: Server) -> None:
    """Stop when the supervisor is gone, however it went and however early: no worker outlives it."""
    supervisor = multiprocessing.parent_process()
    assert supervisor is not None, "a worker was started by one"
    while os.getppid() == supervisor.pid:  # noqa: ASYNC110 no event tells of a parent's death everywhere
        await asyncio.sleep(1.0)
    server.drain()


def end_within(seconds: float) -> None:
    """See to it that this process ends soon, whatever a task or a thread is still waiting for."""

    def end() -> None:
        log.error("at the stop, something did not end within %g s, and was left", seconds)
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def open_config(path: Path | None) -> File:
    """Return the configuration at `path`, else this folder's, else the one that comes with the gateway.

    What it names as `package.module:Class` may lie beside it, as with every server that loads an application by name.
    """
    here = Path("gateway.yaml")
    path = path or (here if here.exists() else shipped("gateway.yaml"))
    sys.path.append(str(path.parent.resolve()))
    return File(path)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. `::` is every address of this machine, those of IPv4 too.

    Raises:
        ClickException: the port is taken or for others, or the address is none of this machine's.
    """
    family, shown = (socket.AF_INET6, f"[{host}]") if ":" in host else (socket.AF_INET, host)
    with contextlib.ExitStack() as unused:
        try:
            sock = unused.enter_context(socket.socket(family, socket.SOCK_STREAM))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if host == "::":
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind((host, port))
            sock.listen(2048)
        except (OSError, UnicodeError) as error:  # a name that cannot be one is no OSError
            why = getattr(error, "strerror", None) or str(error)
            of_port = isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES)
            cure = "another with --port" if of_port else "an address of this machine with --host, or in `server.host`"
            raise click.ClickException(f"cannot listen on {shown}:{port}: {why}; choose {cure}") from None
        sock.setblocking(False)
        unused.pop_all()
    return sock


def allow_open_files() -> None:
    """Take as many open files as this user may have: a call takes two, and the usual soft limit, 1,024, ends at 500."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS says that there is no limit, and has one
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def settle_garbage_collector() -> None:
    """Keep what was made at start out of every collection, and have the others be short.

    A call leaves no circle of references behind (`tests/counts`), so passes are rare, and find nothing: what counts is
    how long everybody waits for one. Over 50,000 young objects, which two hundred streams have, it was 10 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 50)


def log_to_stderr() -> None:
    """Log what is not a call (reloads, failures, bugs) to standard error: for people on a terminal, else as JSON."""
    renderer = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.format_exc_info,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers, root.level = [handler], logging.WARNING
    log.setLevel(logging.INFO)
