"""What a request of the Responses surface builds on, found again: for its owner alone."""

from collections.abc import Sequence

from msgspec import Raw
from msgspec.structs import replace

from gateway.core.errors import BadRequest
from gateway.core.resources import Objects, Stored
from gateway.wire.responses_kept import RUNNING, Asked, Fields, Record, history, output_items, read_record, references

RESPONSE = "response"
ITEM = "response_item"
"""The kinds of what is kept: a response; of each item of its output, whose it is: the id of the response."""
NOT_FOUND = "previous_response_not_found"
"""OpenAI's own code, with which its clients know to send the whole conversation instead."""
MOST_TURNS = 500
"""Responses that one may build on."""
MOST_BYTES = 64 * 1024 * 1024
"""What they may be together."""
MOST_REFERENCES = 1_000
"""Items that a request may name instead of sending them."""


class History:
    """Finds what one request builds on.

    Args:
        objects: where responses are kept.
        owner: whose they have to be.
    """

    def __init__(self, objects: Objects, owner: str) -> None:
        self.chain: tuple[str, ...] = ()
        self.size = 0
        """Bytes that the chain takes."""
        self._read_bytes = 0
        self._objects = objects
        self._owner = owner
        self._providers = set[str]()

    @property
    def provider(self) -> str:
        """Whose upstream has all of it itself; empty: nobody's."""
        return next(iter(self._providers)) if len(self._providers) == 1 else ""

    async def before(self, previous: str) -> list[Raw]:
        """Return all that was said before, up to the response `previous` with it.

        Raises:
            BadRequest: a part of it is not there, not over, or it is too long.
        """
        (stored,) = await self._found([previous])
        last = self._read(stored)
        self.chain = (*last.chain, previous)
        if len(self.chain) > MOST_TURNS:
            raise _too_long(f"{len(self.chain)} responses, and {MOST_TURNS} are the most")
        self._grow(last.size)
        self.size = last.size + len(stored.data)
        records = [read_record(one.data) for one in await self._found(last.chain)] if last.chain else []
        return history([*records, last])

    async def resolved(self, asked: Asked) -> Asked:
        """Return a request with the items that it only names.

        Raises:
            BadRequest: one is not there, or they are too many.
        """
        names = references(asked)
        if len(names) > MOST_REFERENCES:
            raise BadRequest(f"input: at most {MOST_REFERENCES} items may be named, got {len(names)}", param="input")
        if not names:
            return asked
        holders = await self._objects.get(ITEM, self._owner, list(names.values()))
        items: dict[str, Fields] = {}
        for holder in dict.fromkeys(stored.data.decode() for stored in holders.values()):
            for stored in (await self._objects.get(RESPONSE, self._owner, [holder])).values():
                items |= output_items(self._read(stored))
        assert isinstance(asked.input, list)
        said: list[Fields] = []
        for number, item in enumerate(asked.input):
            name = names.get(number)
            if name is not None and name not in items:
                problem = f"Item with id '{name[:100]}' not found{self._objects.hint}"
                raise BadRequest(f"{problem}; send the item itself", param=f"input[{number}]", code="item_not_found")
            said.append(item if name is None else items[name])
        return Asked(said, store=asked.store, background=asked.background, include=asked.include)

    def _read(self, stored: Stored) -> Record:
        record = read_record(stored.data)
        if record.head.status in RUNNING:
            problem = f'"{stored.id}" is not over yet: retrieve it until it is'
            raise BadRequest(f"previous_response_id: {problem}", param="previous_response_id")
        self._providers.add(stored.provider if record.native else "")
        self._grow(len(stored.data))
        return record

    def _grow(self, size: int) -> None:
        self._read_bytes += size
        if self._read_bytes > MOST_BYTES:
            raise _too_long(f"{self._read_bytes} bytes, and {MOST_BYTES} are the most")

    async def _found(self, ids: Sequence[str]) -> list[Stored]:
        """Return responses of the owner's.

        Raises:
            BadRequest: one is not there, or another's, which is the same.
        """
        found = await self._objects.get(RESPONSE, self._owner, ids)
        for id in ids:
            if id not in found:
                problem = f"Previous response with id '{id[:100]}' not found{self._objects.hint}"
                raise BadRequest(problem, param="previous_response_id", code=NOT_FOUND)
        return [found[id] for id in ids]


def items_of(response: Stored, record: Record) -> list[Stored]:
    """Return what is kept of a response's items, so that a request may name them: where each of them is."""
    there = response.id.encode()
    return [replace(response, id=id, kind=ITEM, data=there) for id in output_items(record) if id]


def _too_long(problem: str) -> BadRequest:
    cure = "begin anew with a summary of it in `input`"
    return BadRequest(f"previous_response_id: it builds on {problem}; {cure}", param="previous_response_id")
