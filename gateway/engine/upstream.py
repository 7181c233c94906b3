"""The one place that talks to upstreams: it sends a provider's request and waits for the first chunk.

The first chunk is the first that says something: a role alone, or an error right behind it, commits us to nothing, so
another deployment may still be asked.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.call import Attempt, Call
from gateway.core.errors import Broke, TimedOut, Unreachable, UpstreamFailed
from gateway.core.receipt import Receipt
from gateway.core.reply import Chunk, Reply
from gateway.engine.engine import estimated_usage
from gateway.engine.fleet import LiveFleet
from gateway.engine.transport import Deadline, Response, Transport
from gateway.providers.base import LocalProvider, Provider, Reader, Request
from gateway.wire.fold import unfold
from gateway.wire.openai import usage_event

MOST_ANSWER_BYTES = 256 * 1024 * 1024
MOST_ERROR_BYTES = 64 * 1024
DRAIN_S = 0.25
"""How long the end of a finished stream's body is waited for, off the client's path, to keep the connection."""


class Place(Struct, frozen=True):
    """A configured provider and how to reach it."""

    provider: Provider
    transport: Transport
    traceparent: bool = False


class Upstream:
    """The last handler of the chain."""

    def __init__(self, places: Mapping[str, Place | LocalProvider], fleet: LiveFleet) -> None:
        self._places = places
        self._fleet = fleet
        self._draining = set[asyncio.Task[None]]()

    async def __call__(self, call: Call) -> Reply:
        """Return the reply once its first chunk is here: until then a middleware may still try elsewhere.

        Raises:
            UpstreamFailed: no first chunk came.
        """
        assert isinstance(call, Attempt), "a middleware must choose a deployment"
        place = self._places[call.deployment.provider]
        name = call.deployment.name
        self._fleet.begin(name)
        call.at_end(lambda _: self._fleet.end(name, call.tried.first_chunk_s))
        reply = await self._answer(call, place)
        call.tried.first_chunk_s = call.clock.now() - call.tried.began_s
        call.at_end(lambda receipt: _close_tried(call, receipt))
        return reply

    async def _answer(self, attempt: Attempt, place: Place | LocalProvider) -> Reply:
        if not isinstance(place, Place):
            return Reply.of(*place.answer(attempt))
        provider = place.provider
        deadline = _deadline(attempt)
        response = await place.transport.send(
            _request(attempt, provider, place.traceparent),
            connect_s=attempt.deployment.timeouts.connect_s,
            deadline=deadline,
        )
        lent = Lent(response)
        attempt.at_end(lambda _: self._let_go(lent, deadline))
        tried = attempt.tried
        tried.status = response.status
        tried.upstream_id = response.headers.get("x-request-id") or response.headers.get("request-id") or ""
        if response.status >= 300:
            raise await _refusal(provider, response, deadline)
        if attempt.stream and "json" not in response.headers.get("content-type", ""):
            return await _streamed(attempt, provider.reader(attempt), lent, deadline)
        whole = provider.whole(attempt, await response.read(MOST_ANSWER_BYTES))
        if whole.usage is None:
            whole = replace(whole, usage=estimated_usage(attempt, len(whole.text) + whole.unseen))
        return Reply.of(*unfold(whole)) if attempt.stream else Reply(whole)

    def _let_go(self, lent: "Lent", deadline: Deadline) -> None:
        """Give the connection back; of a finished stream, when its body's last bytes have come, which say nothing."""
        if not lent.finished:
            lent.response.close()
            return
        task = asyncio.ensure_future(_drain(lent.response, deadline))
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)


class Lent(Struct):
    """An upstream's answer, lent to an attempt until it is over."""

    response: Response
    finished: bool = False
    """It said that it is done; what is left of its body says nothing."""


async def _streamed(attempt: Attempt, reader: Reader, lent: Lent, deadline: Deadline) -> Reply:
    if "html" in lent.response.headers.get("content-type", ""):
        raise Unreachable(f"{attempt.deployment.provider} answered with a web page instead of a stream")
    chunks = _chunks(attempt, reader, lent, deadline)
    try:
        first = await _first_that_speaks(chunks)
    except BaseException:
        await chunks.aclose()
        raise
    return Reply(first, _rest(chunks))


async def _first_that_speaks(chunks: AsyncGenerator[Chunk, None]) -> Chunk:
    """Return the first chunk with content, with the silent ones before it joined on."""
    silent: list[Chunk] = []
    async for chunk in chunks:
        if not chunk.silent:
            if not silent:
                return chunk
            all = [*silent, chunk]
            skipped = sum(piece.skipped for piece in all)
            return replace(chunk, data=b"".join(piece.data for piece in all), skipped=skipped)
        if not chunk.usage_only:
            silent.append(chunk)
    raise Broke("the upstream's stream ended before it said anything")


async def _chunks(attempt: Attempt, reader: Reader, lent: Lent, deadline: Deadline) -> AsyncGenerator[Chunk, None]:
    """Yield the chunks as they come, and the usage by estimate if the upstream never says it."""
    loop, timeouts = asyncio.get_running_loop(), attempt.deployment.timeouts
    total_at_s, counted = _total_at(attempt), False
    async with aclosing(lent.response.pieces()) as pieces:
        async for data in pieces:
            for chunk in reader.feed(data):
                counted = counted or chunk.usage is not None
                yield chunk
                if not chunk.silent:
                    idle_at_s = loop.time() + timeouts.idle_s
                    deadline.at_s, deadline.clock = min((idle_at_s, "idle"), (total_at_s, "total"))
            if reader.finished:
                break
    for chunk in reader.end():
        counted = counted or chunk.usage is not None
        yield chunk
    lent.finished = True
    if not counted:
        usage = estimated_usage(attempt, attempt.receipt.completion_chars)
        created = int(attempt.clock.wall())
        yield Chunk(usage_event(f"chatcmpl-{attempt.id}", created, attempt.model, usage), usage=usage, usage_only=True)


async def _rest(chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[Chunk, None]:
    """Yield the chunks behind the first. Whatever fails now breaks an answer that had begun."""
    async with aclosing(chunks):
        try:
            async for chunk in chunks:
                yield chunk
        except Broke:
            raise
        except UpstreamFailed as error:
            raise Broke(f"the answer broke off: {error.message}", code=error.code) from error


async def _refusal(provider: Provider, response: Response, deadline: Deadline) -> UpstreamFailed:
    """Return what an answer other than 2xx means. Redirects are not followed: they would carry the key elsewhere."""
    if response.status < 400:
        return Unreachable(f"the upstream answered with a redirect ({response.status}); check its base_url")
    deadline.at_s = min(deadline.at_s, asyncio.get_running_loop().time() + 5.0)
    try:
        body = await response.read(MOST_ERROR_BYTES)
    except (Unreachable, TimedOut):
        body = b""  # the status says enough; the reason broke off on its way
    return provider.error(response.status, response.headers, body)


async def _drain(response: Response, deadline: Deadline) -> None:
    """Read the body's last bytes, which say nothing more, so that the connection can be used again."""
    deadline.at_s = asyncio.get_running_loop().time() + DRAIN_S
    try:
        async for _ in response.pieces():
            pass
    except UpstreamFailed:
        pass  # the answer is complete; the connection is just not worth keeping
    response.close()


def _request(attempt: Attempt, provider: Provider, traceparent: bool) -> Request:
    request = provider.request(attempt)
    if traceparent and attempt.trace:
        request.headers["traceparent"] = child_of(attempt.trace)
    return request


def child_of(traceparent: str) -> str:
    """Return the header for a span of ours within the client's trace (W3C Trace Context)."""
    version, trace_id, _, flags = traceparent.split("-")[:4]
    return f"{version}-{trace_id}-{os.urandom(8).hex()}-{flags}"


def _deadline(attempt: Attempt) -> Deadline:
    total_at_s = _total_at(attempt)
    if not attempt.stream:
        return Deadline(total_at_s, "total")
    first_at_s = asyncio.get_running_loop().time() + attempt.deployment.timeouts.first_token_s
    return Deadline(*min((first_at_s, "first_token"), (total_at_s, "total")))


def _total_at(attempt: Attempt) -> float:
    """When the call's time is over, on the loop's clock."""
    return asyncio.get_running_loop().time() + attempt.deadline_s - attempt.clock.now()


def _close_tried(attempt: Attempt, receipt: Receipt) -> None:
    attempt.tried.total_s = attempt.clock.now() - attempt.tried.began_s
    attempt.tried.usage = receipt.usage
