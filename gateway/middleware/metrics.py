"""What Prometheus learns of each call.

OpenTelemetry's GenAI names stand beside the names that dashboards of this field know. Labels are bounded: the route as
it is configured (a pattern, not what a client made of it), the provider, the outcome; never a key, a user or a model
name that came from a client. Children are bound once for each combination: `labels()` costs four times an increment.

A model with everything takes 80 lines, 12 KB, so a thousand would make a page of 12 MB that takes more than a second to
write. The first of the configuration have series of their own, the same in every worker and on every machine, so that
sums over all of them are true; the rest is `other`. Histograms are nine tenths of it, and have a bound of their own.

The families are made once a process, on the default registry, so that a reload goes on counting and several workers
are added up (`PROMETHEUS_MULTIPROC_DIR`).
"""

from collections.abc import Mapping
from functools import cached_property, lru_cache, partial
from operator import attrgetter
from typing import Annotated, ClassVar

from msgspec import Meta
from prometheus_client import Counter, Gauge, Histogram

from gateway.core.call import ASKING, Call, Operation
from gateway.core.middleware import Handler
from gateway.core.receipt import Receipt
from gateway.core.reply import Reply
from gateway.core.resources import Resources
from gateway.core.usage import Usage
from gateway.middleware.base import Options

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68)
"""OpenTelemetry's buckets for a call's duration, and two more: a long answer takes minutes."""
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)

OTHER = "other"
"""The label of models that are not told apart."""
WHO = ("model", "provider")
KINDS = ("prompt", "completion", "cached", "cache_write", "reasoning")

CALLS = Counter("chat_completions", "Calls for a generated answer, by their outcome.", [*WHO, "outcome"])
OTHERS = Counter("gateway_operations", "All other calls, by their outcome.", ["operation", *WHO, "outcome"])
USED = Counter("chat_tokens", "Tokens; cached and cache_write are in prompt, reasoning in completion.", [*WHO, "kind"])
REVENUE = Gauge("revenue_total_usd", "What calls cost, in dollars.", WHO, multiprocess_mode="sum")
UNPRICED = Counter("gateway_cost_unknown", "Calls that used tokens at a price nobody knows.", WHO)
STREAMS = Gauge("active_streams_current", "Streams being answered now.", multiprocess_mode="livesum")
CACHE = Counter("cache_operations", "Cache look-ups by their result.", ["result"])
ERRORS = Counter("errors", "Calls that got no answer, or no whole one, by the class of the error.", ["type"])
ATTEMPTS = Counter("gateway_attempts", "Attempts at upstreams; no error means it answered.", ["provider", "error"])
ESTIMATED = Counter("gateway_usage_estimated", "Calls whose upstream did not say what they used.", WHO)
SKIPPED = Counter("gateway_skipped_events", "Events of streams that could not be read and were left out.", WHO)
RESCUES = Counter("gateway_rescues", "Streams that broke and were gone on with, by how.", ["how"])

GENAI = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
GENERATES: frozenset[Operation] = frozenset({"chat", "completions", "invalid"})
"""Calls for a generated answer; of one that cannot be read, we take it to be such."""
GENAI_NAMES: dict[Operation, str] = {"completions": "text_completion", "invalid": "chat"}
"""What OpenTelemetry's conventions call an operation, where it is not our own word."""
TOKEN_USAGE = Histogram("gen_ai_client_token_usage", "Tokens a call.", [*GENAI, "gen_ai_token_type"], buckets=TOKENS)
DURATION = Histogram("gen_ai_client_operation_duration", "Seconds, from call to end.", GENAI, buckets=SECONDS)
FIRST_TOKEN = Histogram(
    "gen_ai_server_time_to_first_token", "Seconds to a stream's first token.", GENAI, buckets=SECONDS
)


class MetricsOptions(Options, frozen=True, kw_only=True):
    """Counts calls for `/metrics`. With the defaults and one provider a model, the page stays under 1 MB."""

    operations: ClassVar[frozenset[Operation]] = frozenset({*ASKING, "responses", "invalid"})
    inside: ClassVar[Mapping[str, str]] = {}

    models: Annotated[int, Meta(ge=0)] = 200
    """Models with counters of their own, 1 KB each: the first so many under `models:`, names before
    patterns. The others are counted together, as `other`."""
    histograms: Annotated[int, Meta(ge=0)] = 25
    """How many of these have histograms of their own, 11 KB each for every provider that answers for it."""

    def build(self, resources: Resources) -> "Metrics":
        """Make the middleware."""
        names = [route.name for route in resources.routes]
        return Metrics(frozenset(names[self.models :]), frozenset(names[min(self.models, self.histograms) :]))


class Metrics:
    """Counts each call at its end.

    Args:
        uncounted: models without counters of their own.
        untimed: models without histograms of their own.
    """

    def __init__(self, uncounted: frozenset[str] = frozenset(), untimed: frozenset[str] = frozenset()) -> None:
        self._families = {
            operation: _Families(operation, uncounted, untimed) for operation in MetricsOptions.operations
        }

    async def __call__(self, call: Call, next: Handler) -> Reply:
        """Ask for the count at the call's end."""
        if call.operation == "responses":
            call.at_end(partial(_count_late, self._families["chat"]))
            return await next(call)
        call.at_end(partial(_count, self._families[call.operation]))
        if call.stream:
            STREAMS.inc()
            call.at_end(partial(_count_stream, self._families[call.operation]))
        return await next(call)


def _count_late(families: "_Families", receipt: Receipt) -> None:
    """Count what a response used that was made in the background; the call that made it was counted then."""
    tried = receipt.answered_by
    if tried is not None and receipt.usage is not None:
        families[receipt.route or "unknown", tried.provider].used(receipt.usage, receipt.cost_nusd)


def _count_stream(families: "_Families", receipt: Receipt) -> None:
    STREAMS.dec()
    if receipt.first_chunk_s is not None:
        families.of(receipt).first_token.observe(receipt.first_chunk_s)


def _count(families: "_Families", receipt: Receipt) -> None:
    family = families.of(receipt)
    family.outcome(receipt.outcome).inc()
    family.duration.observe(receipt.total_s)
    if receipt.error:
        _error(receipt.error).inc()
    if receipt.cache:
        _cache(receipt.cache).inc()
    for attempt in receipt.tried:
        _attempt(attempt.provider, attempt.error).inc()
    for attempt in receipt.joined:
        RESCUES.labels(attempt.why).inc()
    if receipt.skipped:
        family.skipped(receipt.skipped)
    if receipt.usage is not None and receipt.cache != "hit":
        family.used(receipt.usage, receipt.cost_nusd)


class _Family:
    """Every child of one model, provider and operation, bound; `timed` is the model's name in histograms."""

    def __init__(self, model: str, timed: str, provider: str, operation: Operation) -> None:
        self._who = (model, provider)
        self._operation = operation
        self._outcomes: dict[str, Counter] = {}
        self._genai = genai = (GENAI_NAMES.get(operation, operation), provider, timed)
        self.duration = DURATION.labels(*genai)
        self._input = TOKEN_USAGE.labels(*genai, "input")
        self._output = TOKEN_USAGE.labels(*genai, "output")
        self._kinds = [USED.labels(*self._who, kind) for kind in KINDS]
        self._revenue = REVENUE.labels(*self._who)

    @cached_property
    def first_token(self) -> Histogram:
        """For streams: of a whole answer, nobody sees the first token before the last."""
        return FIRST_TOKEN.labels(*self._genai)

    def outcome(self, outcome: str) -> Counter:
        child = self._outcomes.get(outcome)
        if child is None:
            generates = self._operation in GENERATES
            child = (
                CALLS.labels(*self._who, outcome) if generates else OTHERS.labels(self._operation, *self._who, outcome)
            )
            self._outcomes[outcome] = child
        return child

    def skipped(self, events: int) -> None:
        SKIPPED.labels(*self._who).inc(events)

    def used(self, usage: Usage, cost_nusd: int | None) -> None:
        self._input.observe(usage.prompt_tokens)
        self._output.observe(usage.completion_tokens)
        for child, count in zip(self._kinds, _counts(usage), strict=True):
            if count:
                child.inc(count)
        if usage.estimated:
            ESTIMATED.labels(*self._who).inc()
        if cost_nusd is None:
            UNPRICED.labels(*self._who).inc()
        else:
            self._revenue.inc(cost_nusd / 10**9)


_counts = attrgetter(*(f"{kind}_tokens" for kind in KINDS))


class _Families(dict[tuple[str, str], _Family]):
    """The families of one operation, by route and provider; both come from the configuration."""

    def __init__(self, operation: Operation, uncounted: frozenset[str], untimed: frozenset[str]) -> None:
        super().__init__()
        self._operation = operation
        self._uncounted = uncounted
        self._untimed = untimed

    def of(self, receipt: Receipt) -> _Family:
        """Return the family that a call counts in."""
        tried = receipt.answered_by
        return self[receipt.route or "unknown", tried.provider if tried else "none"]

    def __missing__(self, who: tuple[str, str]) -> _Family:
        route, provider = who
        counted = OTHER if route in self._uncounted else route
        timed = OTHER if route in self._untimed else route
        family = self[who] = _family(counted, timed, provider, self._operation)
        return family


@lru_cache(10_000)
def _family(model: str, timed: str, provider: str, operation: Operation) -> _Family:
    return _Family(model, timed, provider, operation)


@lru_cache(1_000)
def _error(name: str) -> Counter:
    return ERRORS.labels(name)


@lru_cache(8)
def _cache(result: str) -> Counter:
    return CACHE.labels(result)


@lru_cache(1_000)
def _attempt(provider: str, error: str) -> Counter:
    return ATTEMPTS.labels(provider, error)
