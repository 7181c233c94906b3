"""What is kept for clients where no database is: in this process's memory, within bounds.

It is lost with the process, other workers know nothing of it, and when it becomes too much the oldest goes first,
whoever's it is. What goes before its time is counted.
"""

from collections import OrderedDict
from collections.abc import Sequence

from msgspec.structs import replace
from prometheus_client import Counter

from gateway.core.resources import Clock, Stored

MOST_BYTES = 64 * 1024 * 1024
MOST_OBJECTS = 10_000
OVERHEAD = 1_000
"""Bytes that an object takes besides its data, about."""

EVICTED = Counter("gateway_objects_evicted", "What this process kept for clients and forgot before its time.")

Key = tuple[str, str, str]


class MemoryObjects:
    """Satisfies `core.resources.Objects`."""

    hint = (
        "; without `database:` each worker of this gateway keeps its own for a while, and forgets them when it ends: "
        "set one"
    )

    def __init__(self, clock: Clock, *, most_bytes: int = MOST_BYTES, most_objects: int = MOST_OBJECTS) -> None:
        self._clock = clock
        self._most_bytes = most_bytes
        self._most_objects = most_objects
        self._kept = OrderedDict[Key, Stored]()
        self._bytes = 0

    async def put(self, *stored: Stored) -> None:
        """Keep all of them."""
        for one in stored:
            key = (one.owner, one.kind, one.id)
            self._drop(key)
            self._kept[key] = one
            self._bytes += _size(one)
        self._make_room()

    async def update(self, stored: Stored, data: bytes) -> bool:
        """Replace the data of what is still as it was; return whether it was."""
        key = (stored.owner, stored.kind, stored.id)
        found = self._kept.get(key)
        if found is None or found.data != stored.data:
            return False
        changed = self._kept[key] = replace(found, data=data)
        self._bytes += _size(changed) - _size(found)
        self._make_room()
        return True

    async def get(self, kind: str, owner: str, ids: Sequence[str]) -> dict[str, Stored]:
        """Return what is kept of `ids`."""
        found = {id: self._kept.get((owner, kind, id)) for id in ids}
        now_s = self._clock.wall()
        return {id: stored for id, stored in found.items() if stored is not None and stored.expires_s > now_s}

    async def newest(self, kind: str, owner: str, *, limit: int, after: str = "") -> list[Stored]:
        """Return the newest, newest first; those behind the one called `after`, where it is said."""
        now_s = self._clock.wall()
        mine = [s for s in self._kept.values() if (s.owner, s.kind) == (owner, kind) and s.expires_s > now_s]
        mine.sort(key=lambda stored: (stored.at_s, stored.id), reverse=True)
        if after:
            ids = [stored.id for stored in mine]
            mine = mine[ids.index(after) + 1 :] if after in ids else []
        return mine[:limit]

    async def delete(self, kind: str, owner: str, *ids: str) -> int:
        """Forget them; return how many were there."""
        found = await self.get(kind, owner, ids)
        for id in ids:
            self._drop((owner, kind, id))
        return len(found)

    async def sweep(self) -> int:
        """Forget what has expired; return how much it was."""
        now_s = self._clock.wall()
        expired = [key for key, stored in self._kept.items() if stored.expires_s <= now_s]
        for key in expired:
            self._drop(key)
        return len(expired)

    def _drop(self, key: Key) -> None:
        if (gone := self._kept.pop(key, None)) is not None:
            self._bytes -= _size(gone)

    def _make_room(self) -> None:
        while self._kept and (self._bytes > self._most_bytes or len(self._kept) > self._most_objects):
            oldest = next(iter(self._kept))
            if self._kept[oldest].expires_s > self._clock.wall():
                EVICTED.inc()
            self._drop(oldest)


def _size(stored: Stored) -> int:
    return len(stored.data) + OVERHEAD
