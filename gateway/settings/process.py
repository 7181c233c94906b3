"""What outlives a reload: connections, counters, cached answers and measurements of this process."""

import asyncio
import importlib
import os
import sys
from typing import TYPE_CHECKING

from gateway.core.counting import hand_on, keep_handing_on
from gateway.core.resources import Clock, Objects
from gateway.core.shipped import shipped
from gateway.engine.access import Access
from gateway.engine.clock import SystemClock
from gateway.engine.discovery import Discovery
from gateway.engine.fits import Lessons
from gateway.engine.fleet import LiveFleet
from gateway.engine.jwks import JWKS
from gateway.engine.prices import overrides_of
from gateway.engine.proxies import EnvironmentProxies
from gateway.engine.transport import Transport
from gateway.kv.memory import MemoryAnswers, MemoryLimiter
from gateway.providers.base import Grant
from gateway.settings.reach import Reach, roots
from gateway.store.lines import Lines
from gateway.store.memory import MemoryObjects
from gateway.store.recorder import Recorder
from gateway.store.sweeping import keep_sweeping

if TYPE_CHECKING:
    from gateway.kv.redis import RedisStore
    from gateway.store.objects import SqlObjects

CACHE_BYTES = 64 * 1024 * 1024


class Process:
    """The parts that one configuration hands to the next."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.fleet = LiveFleet(self.clock)
        self.limiter = MemoryLimiter(self.clock)
        self.answers = MemoryAnswers(CACHE_BYTES, self.clock)
        self.lines = Lines(sys.stdout)
        self.key_sets = JWKS(self.clock)
        self.lessons = Lessons(self.clock)
        self.discovery = Discovery(self.clock)
        prices = shipped("config/prices.yaml")
        self.price_overrides = overrides_of(prices.read_text(), str(prices))
        self.proxies = EnvironmentProxies(os.environ, roots)
        self._transports: dict[Reach, Transport] = {}
        self._accesses: dict[tuple[Grant, Reach], Access] = {}
        self._redis: dict[str, RedisStore] = {}
        self._recorders: dict[str, Recorder] = {}
        self._memory = MemoryObjects(self.clock)
        self._objects: dict[str, SqlObjects] = {}
        self._sweeping: dict[str, asyncio.Task[None]] = {}
        self._handing_on: asyncio.Task[None] | None = None
        self._started: set[str] = set()

    def transport(self, reach: Reach = Reach()) -> Transport:  # noqa: B008 it is frozen
        """Return what carries requests that way, the same as long as the process lives."""
        transport = self._transports.get(reach)
        if transport is None:
            transport = self._transports[reach] = reach.transport(self.proxies)
        return transport

    def access(self, grant: Grant, reach: Reach) -> Access:
        """Return where the access tokens of `grant` come from, the same as long as the process lives."""
        access = self._accesses.get((grant, reach))
        if access is None:
            access = self._accesses[grant, reach] = Access(grant, self.transport(reach), self.clock)
        return access

    def redis(self, url: str) -> "RedisStore":
        """Return the store at `url`, the same as long as the process lives.

        Raises:
            ValueError: the URL is none.
        """
        store = self._redis.get(url)
        if store is None:
            # Imported here: it takes 0.3 s, and whoever starts without Redis need not wait for it.
            redis = importlib.import_module("gateway.kv.redis")
            store = self._redis[url] = redis.RedisStore(url, self.clock)
        return store

    def recorder(self, url: str) -> Recorder:
        """Return the recorder for the database at `url`, the same as long as the process lives.

        It is started by who uses it; one that no configuration uses any more writes what it still has.

        Raises:
            ValueError: the URL is none.
        """
        recorder = self._recorders.get(url)
        if recorder is None:
            # Imported here: SQLAlchemy takes half a second, and whoever starts without a database need not wait for it.
            calls = importlib.import_module("gateway.store.calls")
            recorder = self._recorders[url] = Recorder(calls.CallTable(url), self.clock)
        return recorder

    def objects(self, url: str) -> Objects:
        """Return what keeps things for clients in the database at `url`, the same as long as the process lives.

        Without a database it is this process's memory.

        Raises:
            ValueError: the URL is none.
        """
        if not url:
            return self._memory
        objects = self._objects.get(url)
        if objects is None:
            module = importlib.import_module("gateway.store.objects")  # imported here: see `recorder`
            objects = self._objects[url] = module.SqlObjects(url, self.clock)
        return objects

    async def start(self) -> None:
        """Connect to what was asked for since the last start, have deleted what expires, and tell what is counted."""
        for url, objects in {"": self._memory, **self._objects}.items():
            if url not in self._sweeping:
                self._sweeping[url] = asyncio.ensure_future(keep_sweeping(objects, self.clock))
        if self._handing_on is None and "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            self._handing_on = asyncio.ensure_future(keep_handing_on(self.clock))
        for url in self._redis.keys() - self._started:
            await self._redis[url].start()
            self._started.add(url)

    async def close(self) -> None:
        """Write what is still to be logged, recorded and counted, and close every connection."""
        if self._handing_on is not None:
            self._handing_on.cancel()
        hand_on()
        await self.lines.close()
        for sweeping in self._sweeping.values():
            sweeping.cancel()
        await self.fleet.close()
        self.discovery.close()
        databases = (*self._recorders.values(), *self._objects.values())
        await asyncio.gather(*(database.close() for database in databases))
        for store in self._redis.values():
            await store.close()
        for transport in self._transports.values():
            await transport.close()
