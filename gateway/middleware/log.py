"""One line a call, written when it is over: who asked what of whom, how it went, what it used and cost.

Never a prompt, an answer or a secret, unless `content` asks for the first two. For people structlog renders it; what
programs read is encoded by msgspec alone: structlog's way to it took 10 µs of each call, this one takes 2.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar, Literal

import msgspec
import structlog
from msgspec import Struct

from gateway.core.call import EVERY, Call, Operation
from gateway.core.middleware import Handler
from gateway.core.price import dollars
from gateway.core.receipt import Receipt, Tried
from gateway.core.reply import Chunk, Reply
from gateway.core.resources import Clock, Lines, Resources
from gateway.core.usage import NOTHING_ELSE, Usage
from gateway.middleware.base import Options

ASKED_AS = b"x-client-request-id"
MOST_CHARS = 128
"""Of a text that a client or an upstream made up."""


class LogOptions(Options, frozen=True, kw_only=True):
    """How calls are logged."""

    operations: ClassVar[frozenset[Operation]] = EVERY
    inside: ClassVar[Mapping[str, str]] = {}

    format: Literal["auto", "json", "console"] = "auto"
    """`auto`: for people where there is a terminal, JSON everywhere else."""
    content: bool = False
    """Log the messages and the answer's text too. They are personal data: think before you turn it on."""

    def build(self, resources: Resources) -> "Log":
        """Make the middleware."""
        return Log(self, resources.clock, resources.lines)


class Line(Struct, kw_only=True, omit_defaults=True):
    """What is said of a call; what does not apply is left out. Few calls have more: the extras of their usage."""

    id: str
    client_request_id: str = ""
    trace_id: str = ""
    operation: str
    path: str = ""
    """Method and path of a request that goes on as it came."""
    outcome: str
    status: int
    error: str = ""
    code: str = ""
    key: str = ""
    user: str = ""
    team: str = ""
    model: str = ""
    deployment: str = ""
    upstream_id: str = ""
    stream: bool
    attempts: int
    failed: list[str] = []
    joined: list[str] = []
    cache: str = ""
    skipped: int = 0
    finish_reason: str = ""
    total_ms: float
    first_chunk_ms: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    service_tier: str = ""
    usage_estimated: bool | None = None
    cost_usd: str = ""
    messages: Any = None
    """With `content`, like the answer."""
    answer: str = ""
    event: str
    level: str
    timestamp: datetime


class Content(Struct):
    """What was asked and answered."""

    messages: Any
    chunks: Sequence[Chunk] = ()


class Log:
    """Writes a line for each call."""

    def __init__(self, options: LogOptions, clock: Clock, lines: Lines) -> None:
        console = options.format == "console" or (options.format == "auto" and lines.is_terminal)
        self._clock = clock
        self._content = options.content
        self._lines = lines
        self._render = _for_people(lines.is_terminal) if console else msgspec.json.Encoder().encode

    def __call__(self, call: Call, next: Handler) -> Awaitable[Reply]:
        """Ask for the line at the call's end."""
        if self._content:
            return self._with_content(call, next)
        call.at_end(partial(self._write, call, None))
        return next(call)

    async def _with_content(self, call: Call, next: Handler) -> Reply:
        content = Content(call.body.get("messages"))
        call.at_end(partial(self._write, call, content))
        reply = await next(call)
        content.chunks = reply.keep()
        return reply

    def _write(self, call: Call, content: Content | None, receipt: Receipt) -> None:
        line = _line_of(call, receipt, datetime.fromtimestamp(self._clock.wall(), UTC))
        if content is not None:
            line.messages, line.answer = content.messages, "".join(chunk.text for chunk in content.chunks)
        said: Line | dict[str, Any] = line
        usage = receipt.usage
        if usage is not None and usage.extras is not NOTHING_ELSE:
            extras = msgspec.structs.asdict(usage.extras)
            said = msgspec.to_builtins(line) | {name: count for name, count in extras.items() if count}
        self._lines.write(self._render(said) + b"\n")


def _for_people(colors: bool) -> Callable[[Line | dict[str, Any]], bytes]:
    renderer = structlog.dev.ConsoleRenderer(colors=colors, sort_keys=False)

    def render(line: Line | dict[str, Any]) -> bytes:
        said = msgspec.to_builtins(line)
        return renderer(None, said["level"], said).encode()

    return render


def _line_of(call: Call, receipt: Receipt, at: datetime) -> Line:
    """Return the line: what every call has, and then what this one has.

    Python collects more than 15 keyword arguments in a dictionary first: all of them at once took twice as long.
    """
    tried, principal, answered_by = receipt.tried, receipt.principal, receipt.answered_by
    line = Line(
        id=call.id,
        operation=call.operation,
        outcome=receipt.outcome,
        status=receipt.status,
        key=principal.id,
        model=receipt.model,
        stream=call.stream,
        attempts=len(tried),
        cache=receipt.cache,
        finish_reason=receipt.finish_reason,
        total_ms=round(receipt.total_s * 10_000) / 10,  # `round(…, 1)` takes four times as long
        event="call",
        level="info" if receipt.outcome in ("finished", "abandoned") else "warning",
        timestamp=at,
    )
    if principal.user or principal.team:
        line.user, line.team = principal.user, principal.team
    if ASKED_AS in call.headers.raw:
        line.client_request_id = call.headers.raw[ASKED_AS].decode("latin-1")
    if call.trace:
        line.trace_id = call.trace[3:35]
    if call.passage is not None:
        line.path = f"{call.passage.method} {call.passage.path}"
    if receipt.error:
        line.error, line.code = receipt.error, receipt.code
    if answered_by is not None:
        line.deployment, line.upstream_id = answered_by.deployment, answered_by.upstream_id
        if len(tried) > 1 or answered_by.error:
            line.failed = [_failed(one) for one in tried if one.error]
            line.joined = [f"{one.why} {_plain(one.deployment)}" for one in receipt.joined]
    if receipt.skipped:
        line.skipped = receipt.skipped
    if receipt.first_chunk_s is not None:
        line.first_chunk_ms = round(receipt.first_chunk_s * 10_000) / 10
    if receipt.usage is not None:
        _add_usage(line, receipt.usage, receipt.cost_nusd)
    _clean(line)
    return line


def _add_usage(line: Line, usage: Usage, cost_nusd: int | None) -> None:
    line.prompt_tokens, line.completion_tokens = usage.prompt_tokens, usage.completion_tokens
    line.cached_tokens, line.cache_write_tokens = usage.cached_tokens, usage.cache_write_tokens
    line.reasoning_tokens, line.usage_estimated = usage.reasoning_tokens, usage.estimated
    line.cost_usd = "unknown" if cost_nusd is None else dollars(cost_nusd)
    if usage.service_tier:
        line.service_tier = usage.service_tier


def _clean(line: Line) -> None:
    """Make plain what others made up. Nearly always it is, which is asked once for all of it."""
    said = f"{line.client_request_id}{line.path}{line.model}{line.deployment}{line.upstream_id}{line.service_tier}"
    if len(said) > MOST_CHARS or not said.isprintable():
        for name in ("client_request_id", "path", "model", "deployment", "upstream_id", "service_tier"):
            setattr(line, name, _plain(getattr(line, name)))


def _plain(text: str) -> str:
    """Return what others made up as a log, and the terminal it may run through, can take it."""
    text = text[:MOST_CHARS]
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _failed(tried: Tried) -> str:
    """`openai/gpt-4o-mini Busy 429`, or `openai/gpt-4o-mini Unreachable: the upstream refuses connections; …`."""
    said = " ".join(part for part in (tried.deployment, tried.error, str(tried.status or "")) if part)
    return f"{said}: {_plain(tried.reason)}" if tried.reason else said
