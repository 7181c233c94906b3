"""Whose files, batches and stores are whose: what somebody made by a forwarded request is there for nobody else.

An account at a provider is one, and its callers are many. So what is made below `/v1` is written down with its owner
and the provider that made it: to everybody else it does not exist, in lists neither, and whoever asks for it again is
led to the same provider, wherever new ones are made by then. Where nobody is asked who they are, all is everybody's.

An id in the body of another request (the file of a batch, a file in a message) is not looked at: whoever knows it may
name it.
"""

import logging
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from gateway.core.call import Call, Passage
from gateway.core.errors import NotFound, Unavailable, Unreachable
from gateway.core.middleware import Handler
from gateway.core.principal import ANYONE
from gateway.core.reply import Chunk, Reply
from gateway.core.resources import Objects, Stored
from gateway.core.route import ALL, Deployment, Route

KEEP_S = 10 * 365 * 86400.0
"""How long it is known whose something is: providers keep most of it until it is deleted."""
MOST_READ_BYTES = 16 * 1024 * 1024
"""Of an answer that says what was made, or lists it."""
MOST_PAGES = 20
"""Pages of a list that are looked through for one with something of the caller's."""
log = logging.getLogger("gateway")

FILES = "files"
TWO_PARTS = frozenset({"fine_tuning", "messages", "chatkit", "realtime", "live", "audio", "safety"})
"""First parts of paths that name no kind of thing by themselves: `fine_tuning/jobs` does."""


class Made(Struct):
    """What an answer says that was made."""

    id: str = ""
    file: "Made | None" = None
    """Of an upload that is complete."""
    output_file_id: str | None = None
    error_file_id: str | None = None

    def all(self, family: str) -> list[tuple[str, str]]:
        """Return the kinds and ids of it, and of what came with it."""
        files = [self.file.id if self.file is not None else None, self.output_file_id, self.error_file_id]
        return [(kind, id) for kind, id in [(family, self.id), *((FILES, id) for id in files)] if id]


class Page(Struct):
    """A list's page."""

    data: list[Raw]
    has_more: bool = False


_made = msgspec.json.Decoder(Made)
_page = msgspec.json.Decoder(Page)
_fields = msgspec.json.Decoder(dict[str, Raw])


class Owners:
    """Knows what is whose.

    Args:
        objects: where it is written down.
        places: of each provider that passes requests on, where that is.
    """

    def __init__(self, objects: Objects, places: Mapping[str, Deployment]) -> None:
        self._objects = objects
        self._places = places

    async def __call__(self, call: Call, next: Handler) -> Reply:
        """Pass the request on if what it is about is the caller's.

        Raises:
            NotFound: it is not, or there is no such thing.
            Unavailable: nobody can say.
        """
        passage = call.passage
        if passage is None or call.principal is ANYONE or call.route is None or not call.route.name.startswith("v1/"):
            return await next(call)
        family, id, rest = _parts(call.route, passage.path)
        if id:
            return await self._about(call, next, family, id, rest)
        if passage.method == "GET":
            return await self._listed(call, next, family)
        await self._find(call, family, "none")  # who cannot be written down is not made either
        return await self._noted(call, await next(call), family)

    async def _about(self, call: Call, next: Handler, family: str, id: str, rest: str) -> Reply:
        """Ask about one thing, of whoever made it."""
        assert call.passage is not None
        stored = await self._find(call, family, id)
        if stored is None:
            hint = self._objects.hint
            raise NotFound(f"there is no {id[:100]} among your {family}{hint}")
        reply = await next(self._to(call, stored.provider))
        if call.passage.method == "DELETE" and not rest and reply.status < 300:
            await self._objects.delete(family, call.principal.id, id)
            return reply
        is_told = not rest or call.passage.method == "POST"  # else it may be its content, of any length
        return await self._noted(call, reply, family) if is_told else reply

    async def _noted(self, call: Call, reply: Reply, family: str) -> Reply:
        """Write down what an answer says was made."""
        if not _is_json(reply):
            return reply
        body = await _read(reply)
        try:
            made = _made.decode(body).all(family)
        except (msgspec.DecodeError, RecursionError):
            log.warning("what call %s made cannot be read from its answer, so it is nobody's", call.id)
            made = []
        await self._keep(call, made)
        return _whole(reply, body)

    async def _listed(self, call: Call, next: Handler, family: str) -> Reply:
        """Return the first page that has something of the caller's, and of that nothing else."""
        for _ in range(MOST_PAGES):
            reply = await next(call)
            if reply.status >= 300:
                return reply
            body = await _read(reply)
            try:
                page, fields = _page.decode(body), _fields.decode(body)
                made = [_made.decode(one) for one in page.data]
            except msgspec.DecodeError:
                raise Unreachable(f"the list of {family} cannot be read, so it cannot be told whose they are") from None
            known = await self._objects.get(family, call.principal.id, [one.id for one in made])
            mine = [(one, raw) for one, raw in zip(made, page.data, strict=True) if one.id in known]
            if mine or not page.has_more or not made:
                await self._keep(call, [found for one, _ in mine for found in one.all(FILES) if found[1] != one.id])
                return _whole(reply, _listing(fields, mine))
            call = call.but(passage=_after(call.passage, made[-1].id))
        raise Unavailable(f"none of the {family} on {MOST_PAGES} pages is yours; ask for more on a page (`limit`)")

    async def _find(self, call: Call, family: str, id: str) -> Stored | None:
        return (await self._objects.get(family, call.principal.id, [id])).get(id)

    async def _keep(self, call: Call, made: list[tuple[str, str]]) -> None:
        """Write down whose `made` is.

        Raises:
            Unavailable: it cannot be written down.
        """
        assert call.route is not None
        now_s, provider = call.clock.wall(), call.route.deployments[0].provider
        owner = call.principal.id
        try:
            await self._objects.put(
                *(Stored(id, kind, owner, b"{}", now_s, now_s + KEEP_S, provider=provider) for kind, id in made)
            )
        except Unavailable:
            log.error("%s is %s's at %s, which could not be written down", [id for _, id in made], owner, provider)
            raise

    def _to(self, call: Call, provider: str) -> Call:
        """Return a call on its way to the provider that made what it is about, if that is still there."""
        route, place = call.route, self._places.get(provider)
        assert route is not None
        if place is None or route.deployments[0].provider == provider:
            return call
        return call.but(route=replace(route, deployments=(place,)))


def _parts(route: Route, path: str) -> tuple[str, str, str]:
    """Return what kind of thing a path is about, its id, and what stands behind that."""
    named, path = route.name.removeprefix("v1/"), path.strip("/")
    family = named
    if named == ALL:
        parts = path.split("/")
        family = "/".join(parts[:2] if parts[0] in TWO_PARTS else parts[:1])
    id, _, rest = path.removeprefix(family).strip("/").partition("/")
    return family, id, rest


def _is_json(reply: Reply) -> bool:
    return any(name == b"content-type" and b"json" in value for name, value in reply.headers or ())


def _listing(fields: dict[str, Raw], mine: list[tuple[Made, Raw]]) -> bytes:
    """Return a page as it came, with nothing in it but what is the caller's."""
    ends = {"first_id": mine[0][0].id if mine else None, "last_id": mine[-1][0].id if mine else None}
    said = {name: id for name, id in ends.items() if name in fields}
    return msgspec.json.encode({**fields, "data": [raw for _, raw in mine], **said})


async def _read(reply: Reply) -> bytes:
    """Return a whole answer.

    Raises:
        Unreachable: it is longer than such answers are.
    """
    pieces, size = [reply.first.data], len(reply.first.data)
    if reply.rest is not None:
        async for chunk in reply.rest:
            pieces.append(chunk.data)
            size += len(chunk.data)
            if size > MOST_READ_BYTES:
                raise Unreachable(f"the upstream's answer is longer than {MOST_READ_BYTES} bytes")
    return b"".join(pieces)


def _whole(reply: Reply, body: bytes) -> Reply:
    headers = tuple((name, value) for name, value in reply.headers or () if name != b"content-length")
    return Reply(Chunk(body), None, reply.status, (*headers, (b"content-length", b"%d" % len(body))))


def _after(passage: Passage | None, id: str) -> Passage:
    """Return the request for the page behind the one that ends with `id`."""
    assert passage is not None
    after = "after_id" if "anthropic-version" in passage.headers else "after"
    query = [(name, value) for name, value in parse_qsl(passage.query, keep_blank_values=True) if name != after]
    return replace(passage, query=urlencode([*query, (after, id)]))
