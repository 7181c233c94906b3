"""The table `calls`. Rows are only ever inserted, so that many processes may write at once and none waits for
another's lock.
"""

import asyncio
from collections.abc import Sequence

from msgspec.structs import asdict

from gateway.store import database
from gateway.store.database import Database, is_of_a_row
from gateway.store.recorder import Record
from gateway.store.schema import CALLS


class CallTable:
    """The table, in the database at one URL; see `recorder.Table`.

    Raises:
        ValueError: the URL is none that we can use; the message quotes nothing of it.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url)
        self._insert = self._database.insert(CALLS).on_conflict_do_nothing()

    async def open(self) -> None:
        """Connect, make what is missing, and see that rows can be written.

        Raises:
            Unusable: one of these cannot be done.
        """
        await self._database.open()

    async def insert(self, records: Sequence[Record]) -> int:
        """Write `records`; return how many will never be taken.

        Raises:
            Unusable: the database is gone, or takes nothing.
        """
        try:
            await self._write(records)
        except self._database.failures as error:
            if not is_of_a_row(error):
                raise self._database.unusable(error) from None
            if len(records) == 1:
                return 1
        else:
            return 0
        return sum([await self.insert([record]) for record in records])

    async def close(self) -> None:
        """Disconnect."""
        await self._database.close()

    async def _write(self, records: Sequence[Record]) -> None:
        async with asyncio.timeout(database.ANSWER_S), self._database.engine.begin() as connection:
            await connection.execute(self._insert, [asdict(record) for record in records])
