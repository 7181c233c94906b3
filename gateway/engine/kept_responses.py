"""Responses that are kept: given again, deleted, cancelled, with what they were asked.

All of it is answered from what was kept here, whoever had answered. The upstream is asked in two cases: about a
response that it is still working on (`background`), and to delete what it keeps itself. What such a response used is
known when it is over; it is on the receipt of the first call that learns of it, and of no other.
"""

import asyncio
import logging
from collections.abc import Mapping
from urllib.parse import quote

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from gateway.core.call import Attempt, Call
from gateway.core.errors import BadRequest, NotFound, Rejected, Unavailable, Unreachable
from gateway.core.reply import Chunk, Reply
from gateway.core.resources import Objects, Routes, Stored
from gateway.core.route import Deployment, Route
from gateway.core.usage import Usage
from gateway.engine.transport import Deadline
from gateway.engine.upstream import Place
from gateway.middleware.history import ITEM, RESPONSE, items_of
from gateway.providers.base import KeepsResponses, LocalProvider
from gateway.wire.openai import encode
from gateway.wire.responses_kept import (
    RUNNING,
    Page,
    Record,
    deleted,
    head_of,
    history,
    output_items,
    page_of,
    read_record,
    shown,
)

MOST_ANSWER_BYTES = 64 * 1024 * 1024
MOST_ERROR_BYTES = 64 * 1024

log = logging.getLogger("gateway")


class KeptResponses:
    """Answers about responses of the caller's; those of others do not exist.

    Args:
        objects: where they are kept.
        places: the upstreams, by provider.
        routes: where deployments and their prices are found again.
    """

    def __init__(self, objects: Objects, places: Mapping[str, Place | LocalProvider], routes: Routes) -> None:
        self._objects = objects
        self._places = places
        self._routes = routes

    async def retrieve(self, call: Call, id: str, *, sealed: bool) -> Reply:
        """Return a response; of one that is not over, how far its upstream is.

        Raises:
            NotFound: it is not there.
        """
        stored, record = await self._find(call, id)
        if record.head.status not in RUNNING:
            return Reply(Chunk(shown(record, sealed=sealed)))
        return await self._asked(call, stored, record, "GET", "")

    async def cancel(self, call: Call, id: str) -> Reply:
        """Have the upstream stop to work on a response.

        Raises:
            NotFound: it is not there.
            BadRequest: it was not made in the background.
        """
        stored, record = await self._find(call, id)
        head = record.head
        if not head.background:
            cure = "leave the connection to stop one that is being answered"
            raise BadRequest(f"only responses made with `background` can be cancelled; {cure}", param="response_id")
        if head.status not in RUNNING:
            return Reply(Chunk(shown(record, sealed=False)))
        return await self._asked(call, stored, record, "POST", "/cancel")

    async def delete(self, call: Call, id: str) -> Reply:
        """Forget a response, here and where it was made.

        Raises:
            NotFound: it is not there.
            UpstreamFailed: who made it keeps it, and did not delete it; then it is here, too, to be deleted again.
        """
        stored, record = await self._find(call, id)
        if record.native:
            await self._delete_upstream(call, stored, record)
        owner = call.principal.id
        if not await self._objects.delete(RESPONSE, owner, id):
            raise self._not_found(id)
        await self._objects.delete(ITEM, owner, *output_items(record))
        return Reply(Chunk(deleted(id)))

    async def input_items(self, call: Call, id: str, page: Page, *, sealed: bool) -> Reply:
        """Return a page of all that a response was made from: also what the responses before it were.

        Raises:
            NotFound: it, or one that it builds on, is not there.
            BadRequest: `page` goes on from what is not there.
        """
        _, record = await self._find(call, id)
        before = await self._objects.get(RESPONSE, call.principal.id, record.chain)
        if gone := [one for one in record.chain if one not in before]:
            raise self._not_found(gone[0])
        items = history(read_record(before[one].data) for one in record.chain)
        return Reply(Chunk(page_of([*items, *record.input], page, sealed=sealed)))

    async def _find(self, call: Call, id: str) -> tuple[Stored, Record]:
        stored = (await self._objects.get(RESPONSE, call.principal.id, [id])).get(id)
        if stored is None:
            raise self._not_found(id)
        return stored, read_record(stored.data)

    def _not_found(self, id: str) -> NotFound:
        return NotFound(f"Response with id '{id[:100]}' not found{self._objects.hint}", param="response_id")

    # ── What upstreams are asked ─────────────────────────────────────────────────────────────────────────────────

    async def _asked(self, call: Call, stored: Stored, record: Record, method: str, verb: str) -> Reply:
        """Return what the upstream says of a response that was not over, and keep it."""
        answer = await self._ask(call, stored, record, method, verb)
        try:
            head = head_of(answer)
        except msgspec.DecodeError:
            head = None
        if head is None or head.id != stored.id:
            raise Unreachable("the upstream answered, but not with this response")
        if bytes(record.response) == answer:
            return Reply(Chunk(answer))
        over = head.status not in RUNNING
        news = replace(record, response=Raw(answer), unbilled=record.unbilled and not over)
        changed = await self._objects.update(stored, encode(news))
        if changed:
            await self._objects.put(*items_of(stored, news))
        usage = self._used(stored, answer) if over and record.unbilled and changed else None
        if usage is not None:
            call.receipt.cost_nusd = None  # to be known
        return Reply(Chunk(answer, usage=usage))

    def _used(self, stored: Stored, answer: bytes) -> Usage | None:
        place = self._places[stored.provider]
        if isinstance(place, Place) and isinstance(place.provider, KeepsResponses):
            return place.provider.used_in(answer)
        return None

    async def _delete_upstream(self, call: Call, stored: Stored, record: Record) -> None:
        if stored.provider not in self._places:
            log.warning("%s is deleted here only: the provider %s is not configured", stored.id, stored.provider)
            return
        try:
            await self._ask(call, stored, record, "DELETE", "")
        except Rejected as error:
            if error.status != 404:  # it has forgotten it already
                raise

    async def _ask(self, call: Call, stored: Stored, record: Record, method: str, verb: str) -> bytes:
        """Return what the upstream that made a response says of it.

        Raises:
            UpstreamFailed: it does not answer, or refuses.
            Unavailable: there is no such upstream any more.
        """
        place = self._places.get(stored.provider)
        if not isinstance(place, Place) or not isinstance(place.provider, KeepsResponses):
            raise Unavailable(f"the provider that works on it, {stored.provider}, is not configured any more")
        route = self._routes.find(record.model)
        receipt = call.receipt
        receipt.model, receipt.route = record.model, route.name if route else ""
        receipt.cost_nusd = 0  # to ask for it costs nothing
        async with call.attempt(_deployment(stored, route)) as attempt:
            return await _answer(attempt, place, place.provider, method, f"/{quote(stored.id, safe='')}{verb}")


def _deployment(stored: Stored, route: Route | None) -> Deployment:
    """Return who made a response: as configured now, or else as it was called."""
    for deployment in route.deployments if route else ():
        if deployment.name == stored.deployment:
            return deployment
    return Deployment(stored.deployment, stored.provider, stored.deployment.partition("/")[2])


async def _answer(attempt: Attempt, place: Place, provider: KeepsResponses, method: str, path: str) -> bytes:
    timeouts, loop = attempt.deployment.timeouts, asyncio.get_running_loop()
    at_s = loop.time() + min(timeouts.total_s, attempt.deadline_s - attempt.clock.now())
    response = await place.transport.send(
        provider.kept_request(attempt, method, path), connect_s=timeouts.connect_s, deadline=Deadline(at_s, "total")
    )
    try:
        attempt.tried.status = response.status
        attempt.tried.upstream_id = response.headers.get("x-request-id", "")
        if response.status >= 300:
            raise provider.error(response.status, response.headers, await response.read(MOST_ERROR_BYTES))
        return await response.read(MOST_ANSWER_BYTES)
    finally:
        response.close()
