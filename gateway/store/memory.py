"""What is kept for clients where no database is: in this process's memory, within bounds.

It is lost with the process, and other workers know nothing of it. When it becomes too much, whoever has most loses
their oldest: nobody can push out what is another's by keeping more than they do. What goes before its time is counted.
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


class _Shelf:
    """What one owner has."""

    def __init__(self) -> None:
        self.things = OrderedDict[tuple[str, str], Stored]()
        """By kind and id, oldest first."""
        self.bytes = 0


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
        self._shelves = dict[str, _Shelf]()
        self._bytes = self._count = 0

    async def put(self, *stored: Stored) -> None:
        """Keep all of them."""
        for one in stored:
            self._drop(one.owner, one.kind, one.id)
            shelf = self._shelves.setdefault(one.owner, _Shelf())
            shelf.things[one.kind, one.id] = one
            self._count += 1
            self._grow(shelf, _size(one))
        self._make_room()

    async def update(self, stored: Stored, data: bytes) -> bool:
        """Replace the data of what is still as it was; return whether it was."""
        shelf, key = self._shelf(stored.owner), (stored.kind, stored.id)
        found = shelf.things.get(key)
        if found is None or found.data != stored.data:
            return False
        changed = shelf.things[key] = replace(found, data=data)
        self._grow(shelf, _size(changed) - _size(found))
        self._make_room()
        return True

    async def get(self, kind: str, owner: str, ids: Sequence[str]) -> dict[str, Stored]:
        """Return what is kept of `ids`."""
        things = self._shelf(owner).things
        found = {id: things.get((kind, id)) for id in ids}
        now_s = self._clock.wall()
        return {id: stored for id, stored in found.items() if stored is not None and stored.expires_s > now_s}

    async def newest(self, kind: str, owner: str, *, limit: int, after: str = "") -> list[Stored]:
        """Return the newest, newest first; those behind the one called `after`, where it is said."""
        now_s = self._clock.wall()
        mine = [s for s in self._shelf(owner).things.values() if s.kind == kind and s.expires_s > now_s]
        mine.sort(key=lambda stored: (stored.at_s, stored.id), reverse=True)
        if after:
            ids = [stored.id for stored in mine]
            mine = mine[ids.index(after) + 1 :] if after in ids else []
        return mine[:limit]

    async def delete(self, kind: str, owner: str, *ids: str) -> int:
        """Forget them; return how many were there."""
        found = await self.get(kind, owner, ids)
        for id in ids:
            self._drop(owner, kind, id)
        return len(found)

    async def sweep(self) -> int:
        """Forget what has expired; return how much it was."""
        now_s = self._clock.wall()
        everything = (stored for shelf in self._shelves.values() for stored in shelf.things.values())
        expired = [stored for stored in everything if stored.expires_s <= now_s]
        for stored in expired:
            self._drop(stored.owner, stored.kind, stored.id)
        return len(expired)

    def _shelf(self, owner: str) -> _Shelf:
        return self._shelves.get(owner) or _Shelf()

    def _grow(self, shelf: _Shelf, size: int) -> None:
        shelf.bytes += size
        self._bytes += size

    def _drop(self, owner: str, kind: str, id: str) -> None:
        shelf = self._shelf(owner)
        if (gone := shelf.things.pop((kind, id), None)) is not None:
            self._count -= 1
            self._grow(shelf, -_size(gone))
            if not shelf.things:
                del self._shelves[owner]

    def _make_room(self) -> None:
        while self._shelves and (self._bytes > self._most_bytes or self._count > self._most_objects):
            oldest = next(iter(max(self._shelves.values(), key=self._share).things.values()))
            if oldest.expires_s > self._clock.wall():
                EVICTED.inc()
            self._drop(oldest.owner, oldest.kind, oldest.id)

    def _share(self, shelf: _Shelf) -> float:
        """Return how much of the room an owner takes, of bytes or places: whichever is more."""
        return max(shelf.bytes / self._most_bytes, len(shelf.things) / self._most_objects)


def _size(stored: Stored) -> int:
    return len(stored.data) + OVERHEAD
