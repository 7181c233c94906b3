"""The one place that talks to upstreams: it sends a provider's request and waits for the first chunk.

The first chunk is the first that says something: a role alone, or an error right behind it, commits us to nothing, so
another deployment may still be asked (`streaming`).
"""

import asyncio
import os
from collections.abc import Mapping
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.call import Attempt, Call, Operation
from gateway.core.errors import TimedOut, Unreachable, UpstreamFailed
from gateway.core.receipt import Tried
from gateway.core.reply import Chunk, Reply
from gateway.engine.access import Access
from gateway.engine.engine import IN_TOKENS, estimated_usage
from gateway.engine.passing import Lent, is_no_text, lacking, passed_on
from gateway.engine.patience import Patience, Sent
from gateway.engine.streaming import streamed
from gateway.engine.transport import Deadline, Response, Transport
from gateway.providers.base import LocalProvider, Provider, Request, beside_chat, speaks
from gateway.providers.beside_usage import usage_unsaid
from gateway.providers.bridge import Bridge, as_chat, plain_for
from gateway.providers.masking import without_credentials
from gateway.wire.chat_events import ChatDecoder
from gateway.wire.fold import unfold
from gateway.wire.openai import with_usage
from gateway.wire.surfaces import SURFACES

MOST_ANSWER_BYTES = 256 * 1024 * 1024
MOST_ERROR_BYTES = 64 * 1024
OFF_LOOP_BYTES = 1_000_000
"""A longer answer of embeddings is read in a thread: 13 ms a megabyte would hold up every other call."""
REFUSAL_S = 5.0
"""How long the reason of an error is waited for."""


class Place(Struct, frozen=True):
    """A configured provider and how to reach it."""

    provider: Provider
    transport: Transport
    traceparent: bool = False
    beside_chat: Mapping[Operation, Provider] = {}
    """Who translates what it does besides generating answers."""
    access: Access | None = None
    """Where the provider's access tokens come from; `None`: its requests carry their credential already."""


class Upstream:
    """The last handler of the chain."""

    def __init__(self, places: Mapping[str, Place | LocalProvider]) -> None:
        self._places = places

    async def __call__(self, call: Call) -> Reply:
        """Return the reply once its first chunk is here: until then a middleware may still try elsewhere.

        Raises:
            UpstreamFailed: no first chunk came.
        """
        assert isinstance(call, Attempt), "a middleware must choose a deployment"
        place = self._places[call.deployment.provider]
        if not isinstance(place, Place):
            return _local(call, place)
        try:
            if call.translated:
                call = call.but(body=plain_for(place.provider, call.body))
            provider = place.provider if call.surface == call.operation == "chat" else _provider(call, place)
            request = provider.request(call)
            if place.traceparent and call.trace:
                request.headers["traceparent"] = child_of(call.trace)
            patience = Patience(call, uploads=request.upload is not None)
            sent = None if request.upload is None else Sent(request.upload, patience)
            if sent is not None:
                request = replace(request, upload=sent)
            if place.access is not None:
                await place.access.authorize(request, patience)
            try:
                response = await place.transport.send(
                    request, connect_s=call.deployment.timeouts.connect_s, deadline=patience
                )
            except UpstreamFailed as error:
                call.tried.reason = error.message
                if sent is not None and sent.is_under_way:
                    error.unhealthy = False  # an upstream that hangs up on a slow client is none
                raise
            return await self._answer(call, place, provider, request, response, patience)
        except TimedOut as error:
            if error.clock:
                error.then = call.deployment.timeouts.then_after(error.clock)
            raise
        except asyncio.CancelledError:
            if call.operation in IN_TOKENS:  # it was asked, and may count what it did
                call.tried.usage = call.tried.usage or estimated_usage(call, call.tried.chars)
            raise

    async def _answer(
        self,
        attempt: Attempt,
        place: Place,
        provider: Provider,
        request: Request,
        response: Response,
        patience: Patience,
    ) -> Reply:
        """Return what an upstream answers whose head is here."""
        tried, headers = attempt.tried, response.headers
        tried.status = response.status
        tried.upstream_id = headers.get("x-request-id") or headers.get("request-id") or ""
        lent = Lent(response)
        if not response.ended:
            attempt.at_end(lent.give_back)
        if attempt.stream or not response.ended:
            patience.has_head()
        if attempt.operation == "forward":
            return await passed_on(lent, patience, request.headers)
        if response.status >= 300:
            if place.access is not None and response.status == 401:
                place.access.forget(request)
            raise await _refusal(provider, request, response, patience)
        if attempt.stream:
            if _is_stream(headers.get("content-type", "")):
                return await streamed(attempt, provider.reader(attempt), lent, patience)
        elif attempt.operation != "chat" and is_no_text(headers.get("content-type", "")):
            reply = await passed_on(lent, patience, request.headers)
            tried.usage = usage_unsaid(attempt)
            return replace(reply, first=replace(reply.first, usage=tried.usage))
        body = response.whole()
        if body is None:
            body = await _whole_body(response, patience)
        if attempt.stream and isinstance(provider, Bridge):
            return _told(tried, provider.told(attempt, body))
        if attempt.operation == "embeddings" and len(body) > OFF_LOOP_BYTES:
            return _whole(attempt, await asyncio.to_thread(provider.whole, attempt, body))
        return _whole(attempt, provider.whole(attempt, body))


def _is_stream(content_type: str) -> bool:
    """Tell a stream from a whole answer, which some upstreams give though they were asked for a stream."""
    return "json" not in content_type or "ndjson" in content_type


def _provider(attempt: Attempt, place: Place) -> Provider:
    """Return who translates for this attempt.

    Raises:
        BadRequest: the provider generates answers, and nothing else.
    """
    if attempt.operation != "chat":
        provider = place.beside_chat.get(attempt.operation)
        if provider is None:
            raise lacking(attempt)
        return provider
    if attempt.surface == "chat" or attempt.surface in speaks(place.provider, attempt.deployment.model):
        return place.provider
    return Bridge(place.provider, SURFACES[attempt.surface], attempt, partial(estimated_usage, attempt))


def _local(attempt: Attempt, provider: LocalProvider) -> Reply:
    """Return the answer of a provider that needs no upstream."""
    if attempt.operation != "chat":
        doer = beside_chat(provider).get(attempt.operation)
        if doer is None:
            raise lacking(attempt)
        chunks = doer.answer(attempt)
    elif attempt.surface == "chat":
        chunks = provider.answer(attempt)
    else:
        surface, decoder = SURFACES[attempt.surface], ChatDecoder()
        said = [event for chunk in provider.answer(as_chat(attempt, surface)) for event in decoder.feed(chunk)]
        writer = surface.writer(attempt)
        chunks = writer.stream(said) + writer.end() if attempt.stream else [writer.whole(said)]
    return _told(attempt.tried, chunks)


def _told(tried: Tried, chunks: list[Chunk]) -> Reply:
    """Return an answer that is here already."""
    for chunk in chunks:
        _note(tried, chunk)
    return Reply.of(*chunks)


def _whole(attempt: Attempt, whole: Chunk) -> Reply:
    """Return an answer that came whole."""
    if attempt.stream and (attempt.surface != "chat" or attempt.operation != "chat"):
        raise Unreachable("the upstream gave a whole answer where a stream was asked for")
    tried = attempt.tried
    if whole.usage is None and attempt.operation in IN_TOKENS:
        usage = estimated_usage(attempt, len(whole.text) + whole.unseen)
        told = attempt.operation == "chat" and attempt.surface == "chat"
        whole = replace(whole, data=with_usage(whole.data, usage) if told else whole.data, usage=usage)
    tried.usage, tried.chars = whole.usage, len(whole.text) + whole.unseen
    return Reply.of(*unfold(whole)) if attempt.stream else Reply(whole)


async def _whole_body(response: Response, patience: Patience) -> bytes:
    """Return the body of a whole answer. Blank lines say no more than that the upstream is alive."""
    pieces: list[bytes] = []
    size = 0
    while piece := await response.more():
        size += len(piece)
        if size > MOST_ANSWER_BYTES:
            raise Unreachable(f"the upstream's answer is longer than {MOST_ANSWER_BYTES} bytes")
        pieces.append(piece)
        patience.pause()
        if piece.isspace():
            patience.check()
        else:
            patience.heard(len(piece))
    return b"".join(pieces)


def _note(tried: Tried, chunk: Chunk) -> None:
    tried.chars += len(chunk.text) + chunk.unseen
    if chunk.usage is not None:
        tried.usage = chunk.usage


async def _refusal(provider: Provider, request: Request, response: Response, deadline: Deadline) -> UpstreamFailed:
    """Return what an answer other than 2xx means. Redirects are not followed: they would carry the key elsewhere."""
    if response.status < 400:
        return Unreachable(f"the upstream answered with a redirect ({response.status}); check its base_url")
    deadline.at_s = min(deadline.at_s, asyncio.get_running_loop().time() + REFUSAL_S)
    try:
        body = await response.read(MOST_ERROR_BYTES)
    except (Unreachable, TimedOut):
        body = b""  # the status says enough; the reason broke off on its way
    return provider.error(response.status, response.headers, without_credentials(body, request.headers))


def child_of(traceparent: str) -> str:
    """Return the header for a span of ours within the client's trace (W3C Trace Context)."""
    version, trace_id, _, flags = traceparent.split("-")[:4]
    return f"{version}-{trace_id}-{os.urandom(8).hex()}-{flags}"
