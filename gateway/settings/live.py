"""The configuration that serves now, and how the next one takes its place.

A reload builds a whole new graph beside the old one and then swaps one name: a call ends on the graph it began with,
and whatever is wrong with the new file leaves the old one serving. Where there are several workers, the supervisor
checks the file once and hands every worker the same text (`Handover`), so that none runs another version.
"""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from gateway.core.errors import Unavailable
from gateway.core.resources import Clock
from gateway.engine.engine import Engine
from gateway.engine.fleet import LiveFleet
from gateway.settings.build import Gateway, build
from gateway.settings.complaints import Complaint, ConfigError
from gateway.settings.load import Loaded, load, without_collections
from gateway.settings.process import Process
from gateway.store.recorder import Unusable

log = logging.getLogger("gateway")

FIXED = ("host", "port", "shutdown_delay", "drain")
"""Options of `server` that a running process cannot change."""
SETTLE_S = 3.0
"""At the stop, how long the endings of calls may take; what Redis does not take in time, its leases give back."""


class Source(Protocol):
    """Where the configuration's text comes from."""

    name: str
    """As complaints call it."""

    def read(self) -> str:
        """Return the text as it is now."""
        ...

    def problem(self) -> str:
        """Return what someone else found wrong with a newer text, if anything."""
        ...


class File:
    """A file, as the user names it."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._read = self._version()

    def read(self) -> str:
        """Return what the file says now."""
        self._read = self._version()  # before: what changes while it is read has changed since
        return self._path.read_text()

    def problem(self) -> str:
        """Return nothing: whoever reads a file finds its mistakes."""
        return ""

    def has_changed(self) -> bool:
        """Return whether the file is another than the one that was read last."""
        return self._version() != self._read

    def _version(self) -> tuple[int, int]:
        """Return something that differs when the file does; zeros while there is none."""
        try:
            stat = self._path.stat()
        except OSError:
            return 0, 0
        return stat.st_mtime_ns, stat.st_ino


def read(source: Source) -> Loaded:
    """Return what a configuration says.

    Raises:
        ConfigError: there is none, or it has mistakes.
    """
    try:
        text = source.read()
    except OSError as error:
        raise ConfigError.of(source.name, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError.of(source.name, "is not text in UTF-8") from None
    return load(text, name=source.name, environment=os.environ)


class Live:
    """Holds the graph that serves, and changes it."""

    def __init__(
        self,
        source: Source,
        process: Process,
        *,
        loaded: Loaded | None = None,
        original: Source | None = None,
        everywhere: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """Load the configuration.

        Args:
            source: where the text is that this process serves.
            process: what outlives every graph.
            loaded: what `source` says now, where it was read before.
            original: the file that the user edits, where that is not `source`.
            everywhere: has all workers take the configuration of this id; `None`: this process is the only one.

        Raises:
            ConfigError: it has mistakes.
        """
        self._source = source
        self._original = original or source
        self._process = process
        self._everywhere = everywhere
        self._reloading = asyncio.Lock()
        self._warming: asyncio.Task[None] | None = None
        self.name = source.name
        self.clock: Clock = process.clock
        self.began_s = process.clock.now()
        self.draining = False
        self._problem = ""
        self._retired: list[Engine] = []
        self.followers: list[Callable[[Gateway], None]] = []
        """Who go by the configuration outside its graph: told when another serves."""
        self.gateway: Gateway = self._built(source, loaded)
        self._began_with = self.gateway.server
        self._take_up(self.gateway)

    @property
    def last_error(self) -> str:
        """Why the newest configuration does not serve; empty when it does."""
        return self._problem or self._source.problem()

    @property
    def fleet(self) -> LiveFleet:
        """How every deployment has been doing, under whichever configuration."""
        return self._process.fleet

    @property
    def redis(self) -> str:
        """How the shared store is: `none` is configured, `ok`, or `gone` (limits do what `without_redis` says)."""
        store = self.gateway.store
        return "none" if store is None else "gone" if store.degraded else "ok"

    @property
    def database(self) -> str:
        """How the record of calls is: `none` is configured, `ok`, or `gone` (rows wait in memory)."""
        recorder = self.gateway.recorder
        return "none" if recorder is None else recorder.state

    async def check(self) -> None:
        """See, before anything is served, that what must be there at the start is there.

        Raises:
            ConfigError: the database cannot be used.
        """
        await self._check(self.gateway)

    @asynccontextmanager
    async def running(self, _: object = None) -> AsyncGenerator[None, None]:
        """Start what the graph needs; at the end settle every call and close every connection."""
        await self._start(self.gateway)
        self._warm()
        try:
            yield
        finally:
            self.draining = True
            if self._warming is not None:
                self._warming.cancel()
            await self._settle()
            await self._process.close()

    @asynccontextmanager
    async def looking(self) -> AsyncGenerator[None, None]:
        """Connect to what is looked at, for who serves nobody: nothing is made or written, and no upstream asked."""
        await self._connect(self.gateway)
        try:
            yield
        finally:
            await self._process.close()

    async def _settle(self) -> None:
        """Wait until every ending has run, but not for ever: what they leave must still be written."""
        try:
            async with asyncio.timeout(SETTLE_S):
                for engine in (*self._retired, self.gateway.engine):
                    await engine.settle()
        except TimeoutError:
            log.error("at the stop, endings of calls took longer than %g s, and were cut", SETTLE_S)

    async def reload(self) -> str:
        """Serve the configuration as it now is; return its id.

        Raises:
            ConfigError: it has mistakes; the old one goes on serving.
        """
        async with self._reloading:
            try:
                gateway = await asyncio.to_thread(self._built, self._source)
                await self._check(gateway)
            except ConfigError as error:
                self._problem = str(error)
                raise
            old, self._problem = self.gateway, ""
            if gateway.config_id != old.config_id:
                await self._start(gateway)
                self.gateway = gateway
                self._take_up(gateway)
                self._retired = [engine for engine in self._retired if engine.busy] + [old.engine]
                for follow in self.followers:
                    follow(gateway)
                self._warm()
                log.info("configuration %s serves, in place of %s", gateway.config_id, old.config_id)
                if fixed := [
                    name for name in FIXED if getattr(gateway.server, name) != getattr(self._began_with, name)
                ]:
                    log.warning("server.%s: takes effect at the next start", ", server.".join(fixed))
            else:
                log.info("configuration %s goes on serving: %s says nothing new", old.config_id, self.name)
            return gateway.config_id

    async def reload_or_say_why(self) -> None:
        """Reload on a signal or a changed file: nobody waits for an answer, so the log gets it."""
        try:
            await self.reload()
        except ConfigError as error:
            log.error("the old configuration goes on serving: %s", error)
        except Exception:
            log.exception("the old configuration goes on serving; the new one met a bug")

    async def reload_everywhere(self) -> str:
        """Reload in every worker, and return when all have; see `reload`."""
        if self._everywhere is None:
            return await self.reload()
        try:
            gateway = await asyncio.to_thread(self._built, self._original)
            await self._check(gateway)
        except ConfigError as error:
            self._problem = str(error)
            raise
        await self._everywhere(gateway.config_id)
        return gateway.config_id

    async def _check(self, gateway: Gateway) -> None:
        try:
            if gateway.recorder is not None:
                await gateway.recorder.check()
        except Unusable as error:
            raise ConfigError([Complaint(0, 0, "database", str(error), file=self.name)]) from None

    async def _connect(self, gateway: Gateway) -> None:
        if gateway.store is not None:
            gateway.store.do_without(gateway.without_redis)
        await self._process.start()
        self.fleet.share(None if gateway.store is None else gateway.store.rests)

    async def _start(self, gateway: Gateway) -> None:
        await self._connect(gateway)
        if gateway.recorder is not None:
            gateway.recorder.start()
        self._process.discovery.follow(gateway.sources)

    def _take_up(self, gateway: Gateway) -> None:
        """Have what outlives the configurations go by this one."""
        self._process.answers.resize(gateway.cache_bytes)
        self.fleet.rules = gateway.rules

    def _warm(self) -> None:
        """Look prices up beside the first calls: the price table takes half a second to load."""
        places = [place for route in self.gateway.routes for place in route.deployments if "*" not in place.model]
        self._warming = asyncio.ensure_future(self.gateway.prices.warm(places))

    def _built(self, source: Source, loaded: Loaded | None = None) -> Gateway:
        with without_collections():
            return build(loaded or read(source), self._process)


class Handover:
    """How a supervisor and its workers agree on a configuration: a folder that all of them see.

    `config.yaml` is the text that all shall serve; each worker writes the id of what it serves beside it.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._folder = folder

    def read(self) -> str:
        """Return the text that the supervisor handed over."""
        return (self._folder / "config.yaml").read_text()

    def write(self, text: str) -> None:
        """Hand over a text, whole or not at all."""
        self.report_problem("")
        new = self._folder / "config.yaml.new"
        new.write_text(text)
        new.replace(self._folder / "config.yaml")

    def report_problem(self, problem: str) -> None:
        """Say what is wrong with the configuration that was not handed over; empty: nothing."""
        (self._folder / "problem").write_text(problem)

    def problem(self) -> str:
        """Return what is wrong with a newer configuration, if anything is."""
        file = self._folder / "problem"
        return file.read_text() if file.exists() else ""

    def report(self, config_id: str) -> None:
        """Say what this worker serves."""
        (self._folder / f"worker-{os.getpid()}").write_text(config_id)

    def forget(self, pid: int) -> None:
        """Forget a worker that has ended."""
        (self._folder / f"worker-{pid}").unlink(missing_ok=True)

    def served(self) -> dict[int, str]:
        """Return what each worker says it serves, by its process id."""
        return {int(file.name.partition("-")[2]): file.read_text() for file in self._folder.glob("worker-*")}

    async def until_served(self, config_id: str, clock: Clock, *, within_s: float = 10.0) -> None:
        """Wait until every worker serves `config_id`.

        Raises:
            Unavailable: one does not, in time.
        """
        until_s = clock.now() + within_s
        while lagging := [pid for pid, id in self.served().items() if id != config_id]:
            if clock.now() > until_s:
                raise Unavailable(f"{len(lagging)} of the workers do not serve {config_id} after {within_s:g} s")
            await clock.sleep(0.02)
