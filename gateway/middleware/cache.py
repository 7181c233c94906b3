"""A call that was made before is answered without an upstream.

What a client asks for decides, whatever its temperature: whoever wants another answer to the same question sends
`cache-control: no-cache`. An answer is kept with the chunks it came in, and told again as it came; asked for in the
other form it is folded into one, or unfolded into a stream. Only complete answers are kept, and only those of one
model: what another went on with when the first broke off was a makeshift.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from operator import attrgetter
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta, Struct

from gateway.core.call import Call, Operation
from gateway.core.middleware import Handler
from gateway.core.receipt import Receipt
from gateway.core.reply import Chunk, Reply
from gateway.core.resources import Answers, Resources
from gateway.core.units import Duration, Size
from gateway.core.usage import Usage
from gateway.middleware.base import Options
from gateway.wire.fold import fold, unfold

Scope = Literal["key", "team", "everyone"]

CACHED: frozenset[Operation] = frozenset({"chat", "embeddings", "moderations", "rerank"})
"""Calls whose answers are the same each time, or near enough, and are no files."""
FORM = 3
"""Changes with what is kept, so that an older version's entries are not found by a newer."""
SAME_ANSWER = frozenset(
    {
        "stream",  # the form, not what is said: both can be made of either
        "stream_options",
        "model",  # part of the key by itself
        "user",  # who asks, for the upstream's own abuse reports
        "safety_identifier",
        "metadata",  # a note to the upstream's dashboard
        "prompt_cache_key",  # where the upstream keeps its own cache
        "prompt_cache_retention",
        "store",  # only `true` has an effect, and passes by the cache altogether
    }
)
"""Fields that cannot change what is answered. A field that nobody here knows may, and so belongs to the key."""
WHOLE = frozenset({"stop", "length", "tool_calls"})
"""Reasons to end that a repeated call would meet again. A content filter may think otherwise the next time."""
OFF_LOOP_BYTES = 1_000_000
"""A longer body is hashed in a thread: 2 ms a megabyte would hold up every other call."""
NOTHING_SAID = frozenset[str]()

Put = Callable[[str, bytes, float], Awaitable[None] | None]
"""`Answers.put`."""

log = logging.getLogger("gateway")


class CacheOptions(Options, frozen=True, kw_only=True):
    """Keeps answers in Redis where `redis:` is set, and else in this process's memory."""

    operations: ClassVar[frozenset[Operation]] = CACHED
    inside: ClassVar[Mapping[str, str]] = {
        "auth": "an answer is kept for whoever paid for it, and only auth knows who that is",
        "limits": "an answer from the cache is a call too: it must not be free to repeat without end",
    }

    ttl: Duration = Duration(3600)
    """How long an answer is given again."""
    scope: Scope = "key"
    """Who shares answers: only the calls of one `key`, those of a `team`, or `everyone` (think of what they say!)."""
    max_answer: Size = Size(1_000_000)
    """A larger answer is not kept."""
    max_bytes: Size = Size(64_000_000)
    """What all answers together may take of this process's memory. In Redis, its own `maxmemory` decides."""

    def build(self, resources: Resources) -> "Cache":
        """Make the middleware.

        Raises:
            ValueError: nothing would ever be kept.
        """
        if self.ttl <= 0 or self.max_answer > self.max_bytes:
            raise ValueError("expected a `ttl` above zero, and a `max_answer` within `max_bytes`")
        return Cache(self, resources.answers)


class Piece(Struct, frozen=True, array_like=True):
    """A chunk as it is kept: the first fields of a `Chunk`."""

    data: bytes
    text: str
    usage: Usage | None
    finish_reason: str
    silent: bool
    usage_only: bool
    unseen: int = 0
    skipped: int = 0


class Kept(Struct, frozen=True, array_like=True):
    """An answer as it is kept."""

    stream: bool
    pieces: Annotated[list[Piece], Meta(min_length=1)]
    usage: Usage | None
    finish_reason: str


_encode_into = msgspec.msgpack.Encoder().encode_into
_decode = msgspec.msgpack.Decoder(Kept).decode
_fields_of = attrgetter(*Piece.__struct_fields__)
_sorted_json = msgspec.json.Encoder(order="sorted").encode


class Cache:
    """Answers from what is kept, or keeps what is answered."""

    def __init__(self, options: CacheOptions, answers: Answers) -> None:
        self._scope: Scope = options.scope
        self._ttl_s = float(options.ttl)
        self._max_answer = options.max_answer
        self._answers = answers
        self._written = bytearray()
        """Where answers are written, each copied once and not again whenever it grows: 0.7 µs."""

    async def __call__(self, call: Call, next: Handler) -> Reply:
        """Return the kept answer, or that of `next`."""
        wishes = _wishes(call)
        if "no-store" in wishes or not _is_cacheable(call):
            call.receipt.cache = "bypass"
            return await next(call)
        lookup, put = call.lookup, self._answers.put
        if lookup is not None and question_of(lookup.call) == question_of(call):
            key, put = lookup.key, lookup.put
        else:
            lookup = None
            key = await self._key_in_thread(call) if len(call.body.raw) > OFF_LOOP_BYTES else key_of(call, self._scope)
        if "no-cache" in wishes:
            call.receipt.cache = "bypass"
        else:
            found = await self._answers.get(key, waited_s=call.waited_s) if lookup is None else lookup.answer
            if found is not None and (reply := _again(found, key, call)) is not None:
                return reply
            call.receipt.cache = "miss"
        reply = await next(call)
        left = self._max_answer - len(reply.first.data)
        if left >= 0:
            chunks = [reply.first]
            if reply.rest is not None:
                reply.see_rest(Gathered(chunks, left).add)
            call.at_end(partial(self._keep, key, call, chunks, put))
        return reply

    def key_ahead(self, call: Call) -> str:
        """Return the key of a call that is not here yet, or nothing: it would not be looked up, or takes a thread."""
        if call.operation not in CACHED or len(call.body.raw) > OFF_LOOP_BYTES or not _is_cacheable(call):
            return ""
        return "" if "no-store" in _wishes(call) else key_of(call, self._scope)

    async def explain(self, call: Call) -> Mapping[str, object]:
        """Tell whether the call's answer is kept, if that can be known here, and under which key."""
        key = await self._key_in_thread(call)
        found, apart = await self._answers.get(key), self._answers.apart
        kept = "kept" if found is not None else f"not known here: {apart}" if apart else "not kept"
        return {"answer": kept, "key": key}

    async def _key_in_thread(self, call: Call) -> str:
        return await asyncio.to_thread(key_of, call, self._scope)

    def _keep(self, key: str, call: Call, chunks: list[Chunk], put: Put, receipt: Receipt) -> Awaitable[None] | None:
        """Keep the answer if it is all there, and one to give again."""
        if receipt.outcome != "finished" or not chunks or receipt.joined:
            return None
        if call.operation == "chat" and not _is_whole(chunks):
            return None
        kept = (call.stream, [_fields_of(chunk) for chunk in chunks], receipt.usage, receipt.finish_reason)  # a `Kept`
        _encode_into(kept, self._written)
        return put(key, bytes(self._written), self._ttl_s)


class Gathered:
    """The chunks of a stream as they pass, until they are more than is kept."""

    def __init__(self, chunks: list[Chunk], left: int) -> None:
        self._chunks = chunks
        """None at all, once they are too many."""
        self._left = left
        """How many bytes there may still be."""

    def add(self, chunk: Chunk) -> Chunk:
        """Take note of `chunk` and return it."""
        self._left -= len(chunk.data)
        if self._left < 0:
            self._chunks.clear()
        else:
            self._chunks.append(chunk)
        return chunk


def _is_whole(chunks: list[Chunk]) -> bool:
    """Whether the answer says why it ends, that is no reason to ask anew, and nothing of it is missing."""
    ends = False
    for chunk in chunks:
        if chunk.skipped or (chunk.finish_reason and chunk.finish_reason not in WHOLE):
            return False
        ends = ends or bool(chunk.finish_reason)
    return ends


question_of = attrgetter("body", "principal", "route", "model", "operation", "surface", "stream")
"""All that `key_of` looks at."""


def key_of(call: Call, scope: Scope) -> str:
    """Return what a call's answer is kept under: who may have it, who would be asked, and what is asked."""
    principal = call.principal
    owner = (scope, "")
    if scope != "everyone":  # those without a team are not a team
        owner = ("team", principal.team) if scope == "team" and principal.team else ("key", principal.id)
    # Where a name leads elsewhere after a reload, the answers of the old model are not its own.
    # And whoever shares an answer may also have asked whoever gave it: fallbacks are not for everyone.
    route = call.route
    places: list[str] = []
    if route is not None:
        places += [place.name for place in route.deployments]
        if route.fallbacks:
            places += [name for name in route.fallbacks if principal.may_use(name)]
    # A stream of chat completions can be told as a whole answer, and the other way; others are kept in both forms.
    form = "" if call.surface == "chat" else (call.surface, call.stream)
    asked = {name: said for name, said in call.body.fields.items() if name not in SAME_ANSWER}
    whole = _sorted_json((FORM, owner, call.operation, form, call.model, places, asked))
    return hashlib.blake2b(whole, digest_size=24).hexdigest()


def _again(found: bytes, key: str, call: Call) -> Reply | None:
    """Return the kept answer in the form that is asked for; `None`: it cannot be read."""
    try:
        kept = _decode(found)
        chunks = _told(kept, stream=call.stream)
    except (ValueError, KeyError) as error:
        log.warning("the cached answer %s cannot be read (%s); an upstream is asked instead", key, error)
        return None
    receipt = call.receipt
    receipt.cache, receipt.cost_nusd = "hit", 0
    receipt.usage, receipt.finish_reason = kept.usage, kept.finish_reason
    return Reply.of(*chunks)


def _told(kept: Kept, *, stream: bool) -> list[Chunk]:
    """Return the kept answer in the form that is asked for.

    Raises:
        ValueError, KeyError: it cannot be told in the other form, because it is no chat completion.
    """
    chunks = [Chunk(*_fields_of(piece)) for piece in kept.pieces]
    if kept.stream == stream:
        return chunks
    return unfold(chunks[0]) if stream else [fold(chunks)]


def _is_cacheable(call: Call) -> bool:
    """Whether the answer is nothing but an answer: it leaves nothing behind at the upstream, and is one."""
    if call.turn is not None and call.turn.keeps:
        return False
    body, fields = call.body, call.body.fields
    return not (
        ("store" in fields and body.get("store") is True)
        or ("background" in fields and body.get("background") is True)
        or ("n" in fields and body.get("n") not in (None, 1))
    )


def _wishes(call: Call) -> frozenset[str]:
    """Return the directives of the request's `cache-control` (RFC 9111 §5.2.1)."""
    said = call.headers.get("cache-control")
    return frozenset([directive.strip().lower() for directive in said.split(",")]) if said else NOTHING_SAID
