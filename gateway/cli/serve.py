"""`gateway serve`: one process, or a supervisor and its workers."""

import asyncio
import contextlib
import gc
import logging
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
from gateway.cli.supervisor import CONNECTIONS, CUT, Supervisor
from gateway.core.shipped import shipped
from gateway.settings.complaints import ConfigError
from gateway.settings.live import File, Handover, Live
from gateway.settings.process import Process

log = logging.getLogger("gateway")

WATCH_EVERY_S = 1.0


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="Default: ./gateway.yaml, else the one shipped.")
@click.option("--host", help="Overrides `server.host`.")
@click.option("--port", type=int, help="Overrides `server.port`; 0 takes a free one.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes.")
@click.option("--watch", is_flag=True, help="Reload when the file changes.")
def serve(config: Path | None, host: str | None, port: int | None, workers: int, watch: bool) -> None:
    """Start the gateway."""
    log_to_stderr()
    allow_open_files()
    source = open_config(config)
    try:
        live = Live(source, Process())
        uvloop.run(live.check())
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    server = live.gateway.server
    sock = listen(host or server.host, server.port if port is None else port)
    click.echo(start_page(live.gateway, source.name, sock.getsockname(), workers), err=True)
    if workers > 1:
        calls_s = server.shutdown_delay + server.drain
        sys.exit(Supervisor(source, sock, workers, watch=watch, calls_s=calls_s).run())
    uvloop.run(_run(live, sock, watching=source if watch else None))


@click.command("_worker", hidden=True)
@click.option("--socket", "descriptor", type=int, required=True)
@click.option("--folder", type=click.Path(path_type=Path), required=True)
@click.option("--config", type=click.Path(path_type=Path), required=True)
@click.option("--place", type=int, required=True)
def worker(descriptor: int, folder: Path, config: Path, place: int) -> None:
    """Serve on a socket that the supervisor opened, what the supervisor hands over."""
    log_to_stderr()
    handover, process, original = Handover(folder, str(config)), Process(), open_config(config)

    async def everywhere(config_id: str) -> None:
        os.kill(os.getppid(), signal.SIGHUP)
        await handover.until_served(config_id, process.clock)

    live = Live(handover, process, original=original, everywhere=everywhere)
    sock = socket.socket(fileno=descriptor)
    door = Door(sock, Tally(folder / CONNECTIONS), place)
    uvloop.run(_run(live, sock, handover=handover, door=door))


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
    seen = file.version()
    while True:
        await asyncio.sleep(WATCH_EVERY_S)
        if (now := file.version()) != seen:
            seen = now
            await live.reload_or_say_why()


async def _stop_when_orphaned(server: Server) -> None:
    """Stop when the supervisor is gone, however it went: no worker outlives it."""
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110 no event tells of a parent's death everywhere
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
        ClickException: the address is taken, or none of this machine's.
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
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise click.ClickException(f"cannot listen on {shown}:{port}: {why}; choose another with --port") from None
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
