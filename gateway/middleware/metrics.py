"""What Prometheus learns of each call.

OpenTelemetry's GenAI names stand beside the names that dashboards of this field know. Labels are bounded: the route as
it is configured (a pattern, not what a client made of it), the provider, the outcome; never a key, a user or a model
name that came from a client. The series of each combination are bound once, and count plain numbers (`core.counting`).

A model with everything takes 80 lines, 12 KB, so a thousand would make a page of 12 MB that takes more than a second to
write. The first of the configuration have series of their own, the same in every worker and on every machine, so that
sums over all of them are true; the rest is `other`. Histograms are nine tenths of it, and have a bound of their own.

The families are made once a process, on the default registry, so that a reload goes on counting and several workers
are added up (`PROMETHEUS_MULTIPROC_DIR`).
"""

from collections.abc import Awaitable, Mapping
from functools import lru_cache, partial
from typing import Annotated, ClassVar

from msgspec import Meta
from prometheus_client import Counter, Gauge

from gateway.core.call import ASKING, Call, Operation
from gateway.core.counting import Count, Counts, Histogram, Spreads
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
NUSD_A_DOLLAR = 10**9

CALLS = Counts(Counter("chat_completions", "Calls for a generated answer, by their outcome.", [*WHO, "outcome"]))
OTHERS = Counts(Counter("gateway_operations", "All other calls, by their outcome.", ["operation", *WHO, "outcome"]))
USED = Counts(
    Counter("chat_tokens", "Tokens; cached and cache_write are in prompt, reasoning in completion.", [*WHO, "kind"])
)
REVENUE = Counts(
    Gauge("revenue_total_usd", "What calls cost at their upstreams, in dollars.", WHO, multiprocess_mode="sum"),
    per=NUSD_A_DOLLAR,
)
UNPRICED = Counts(Counter("gateway_cost_unknown", "Calls that used tokens at a price nobody knows.", WHO))
STREAMS = Count(Gauge("active_streams_current", "Streams being answered now.", multiprocess_mode="livesum"))
CACHE = Counts(Counter("cache_operations", "Cache look-ups by their result.", ["result"]))
ERRORS = Counts(Counter("errors", "Calls that got no answer, or no whole one, by the class of the error.", ["type"]))
ATTEMPTS = Counts(
    Counter("gateway_attempts", "Attempts at upstreams; no error means it answered.", ["provider", "error"])
)
ESTIMATED = Counts(Counter("gateway_usage_estimated", "Calls whose upstream did not say what they used.", WHO))
SKIPPED = Counts(Counter("gateway_skipped_events", "Events of streams that could not be read and were left out.", WHO))
RESCUES = Counts(Counter("gateway_rescues", "Streams that broke and were gone on with, by how.", ["how"]))

GENAI = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
GENERATES: frozenset[Operation] = frozenset({"chat", "completions", "invalid"})
"""Calls for a generated answer; of one that cannot be read, we take it to be such."""
GENAI_NAMES: dict[Operation, str] = {"completions": "text_completion", "invalid": "chat"}
"""What OpenTelemetry's conventions call an operation, where it is not our own word."""
TOKEN_USAGE = Spreads(
    Histogram("gen_ai_client_token_usage", "Tokens a call.", [*GENAI, "gen_ai_token_type"], buckets=TOKENS)
)
DURATION = Spreads(Histogram("gen_ai_client_operation_duration", "Seconds, from call to end.", GENAI, buckets=SECONDS))
FIRST_TOKEN = Spreads(
    Histogram("gen_ai_server_time_to_first_token", "Seconds to a stream's first token.", GENAI, buckets=SECONDS)
)
"""Of a whole answer, nobody sees the first token before the last."""


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

    def __call__(self, call: Call, next: Handler) -> Awaitable[Reply]:
        """Ask for the count at the call's end."""
        if call.operation == "responses":
            call.at_end(partial(_count_late, self._families["chat"]))
            return next(call)
        families = self._families[call.operation]
        call.at_end(partial(_count, families))
        if call.stream:
            STREAMS.n += 1
            call.at_end(partial(_count_stream, families))
        return next(call)


def _count_late(families: "_Families", receipt: Receipt) -> None:
    """Count what a response used that was made in the background; the call that made it was counted then."""
    tried = receipt.answered_by
    if tried is not None and receipt.usage is not None:
        families[receipt.route or "unknown", tried.provider].used(receipt.usage, receipt.cost_nusd)


def _count_stream(families: "_Families", receipt: Receipt) -> None:
    STREAMS.n -= 1
    if receipt.first_chunk_s is not None:
        families.of(receipt).first_token(receipt.first_chunk_s)


def _count(families: "_Families", receipt: Receipt) -> None:
    family = families.of(receipt)
    family.outcomes[receipt.outcome].n += 1
    family.duration.see(receipt.total_s)
    if receipt.error:
        ERRORS[receipt.error].n += 1
    if receipt.cache:
        CACHE[receipt.cache].n += 1
    for attempt in receipt.tried:
        ATTEMPTS[attempt.provider, attempt.error].n += 1
    if len(receipt.tried) > 1:
        for attempt in receipt.joined:
            RESCUES[attempt.why].n += 1
    if receipt.skipped:
        family.skipped(receipt.skipped)
    if receipt.usage is not None and receipt.cache != "hit":
        family.used(receipt.usage, receipt.cost_nusd)


class _Outcomes(dict[str, Count]):
    """Calls of one model, provider and operation, by their outcome."""

    def __init__(self, who: tuple[str, str], operation: Operation) -> None:
        super().__init__()
        self._who = who
        self._operation = operation

    def __missing__(self, outcome: str) -> Count:
        generates = self._operation in GENERATES
        count = CALLS[*self._who, outcome] if generates else OTHERS[self._operation, *self._who, outcome]
        self[outcome] = count
        return count


class _Family:
    """The series of one model, provider and operation; `timed` is the model's name in histograms."""

    def __init__(self, model: str, timed: str, provider: str, operation: Operation) -> None:
        self._who = who = (model, provider)
        self._genai = genai = (GENAI_NAMES.get(operation, operation), provider, timed)
        self.outcomes = _Outcomes(who, operation)
        self.duration = DURATION[genai]
        self._input = TOKEN_USAGE[*genai, "input"]
        self._output = TOKEN_USAGE[*genai, "output"]
        self._prompt, self._completion, self._cached, self._cache_write, self._reasoning = (
            USED[*who, kind] for kind in KINDS
        )
        self._revenue = REVENUE[who]

    def first_token(self, after_s: float) -> None:
        FIRST_TOKEN[self._genai].see(after_s)

    def skipped(self, events: int) -> None:
        SKIPPED[self._who].n += events

    def used(self, usage: Usage, cost_nusd: int | None) -> None:
        self._input.see(usage.prompt_tokens)
        self._output.see(usage.completion_tokens)
        self._prompt.n += usage.prompt_tokens
        self._completion.n += usage.completion_tokens
        self._cached.n += usage.cached_tokens
        self._cache_write.n += usage.cache_write_tokens
        self._reasoning.n += usage.reasoning_tokens
        if usage.estimated:
            ESTIMATED[self._who].n += 1
        if cost_nusd is None:
            UNPRICED[self._who].n += 1
        else:
            self._revenue.n += cost_nusd


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
