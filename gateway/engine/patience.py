"""How long an attempt's answer is waited for: which clock runs, and when it fires."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from math import inf

from gateway.core.call import Attempt, Upload
from gateway.engine.failures import timed_out
from gateway.engine.transport import Deadline
from gateway.wire.estimate import CHARS_A_TOKEN

LAST_WORDS_S = 1.0
"""How long, when an answer is complete, its usage and `[DONE]` are waited for: some servers never say them."""


class Patience(Deadline):
    """The clocks of one attempt, and which of them runs next. See `Timeouts`.

    What an answer may fall behind its pace is a credit of time: waiting spends it, tokens earn it. Neither it nor
    `idle` runs while the answer's reader is the one who is slow. Where the request `uploads` what its client is still
    sending, only `total` runs until it `has_asked`.
    """

    __slots__ = (
        "_credit_s",
        "_first_at_s",
        "_first_token_s",
        "_heard_at_s",
        "_now",
        "_timeouts",
        "_total_at_s",
    )

    def __init__(self, attempt: Attempt, *, uploads: bool = False) -> None:
        self._now = asyncio.get_running_loop().time
        self._timeouts = timeouts = attempt.deployment.timeouts
        self._total_at_s = self.at_s = self._now() + attempt.deadline_s - attempt.clock.now()
        self.clock = "total"
        self._first_at_s = inf
        self._first_token_s = timeouts.first_token_s if attempt.stream else inf
        self._credit_s = timeouts.idle_s
        self._heard_at_s = inf
        if not uploads:
            self.has_asked()

    def has_asked(self) -> None:
        """Know that the request has been sent to its end: the head is next, and the first token behind it."""
        now_s = self._now()
        self._first_at_s, head_at_s = now_s + self._first_token_s, now_s + self._timeouts.headers_s
        if head_at_s < self._first_at_s and head_at_s < self._total_at_s:
            self.at_s, self.clock = head_at_s, "headers"
        else:
            self.has_head()

    def has_head(self) -> None:
        """Know that the head is here."""
        if self._first_at_s <= self._total_at_s:
            self.at_s, self.clock = self._first_at_s, "first_token"
        else:
            self.at_s, self.clock = self._total_at_s, "total"

    def pause(self) -> None:
        """Stop the clocks of silence: something came, and its reader is next."""
        if self._heard_at_s != inf:
            now_s = self._now()
            self._credit_s -= now_s - self._heard_at_s
            self._heard_at_s = now_s

    def resume(self) -> None:
        """Wait on where it was stopped, for nothing of content came."""
        if self._heard_at_s != inf:
            now_s = self._now()
            self.at_s += now_s - self._heard_at_s
            self._heard_at_s = now_s
            self._sooner(self._total_at_s, "total")

    def check(self) -> None:
        """Look at the clock behind a piece without content: where one follows the other, no wait would be too long.

        Raises:
            TimedOut: it has passed.
        """
        if self._now() >= self.at_s:
            raise timed_out(self.clock)

    def heard(self, chars: int) -> None:
        """Wait on, now that a piece of content came, of so many characters."""
        timeouts = self._timeouts
        now_s = self._heard_at_s = self._now()
        at_s, clock = now_s + timeouts.idle_s, "idle"
        if timeouts.tokens_per_s:
            earned_s = chars / CHARS_A_TOKEN / timeouts.tokens_per_s
            self._credit_s = min(timeouts.idle_s, self._credit_s + earned_s)
            if now_s + self._credit_s < at_s:
                at_s, clock = now_s + self._credit_s, "throughput"
        if self._total_at_s < at_s:
            at_s, clock = self._total_at_s, "total"
        self.at_s, self.clock = at_s, clock

    def for_last_words(self) -> None:
        """Know that the answer is complete: what may still follow is not worth waiting for."""
        self._sooner(self._now() + LAST_WORDS_S, "idle")

    def _sooner(self, at_s: float, clock: str) -> None:
        if at_s < self.at_s:
            self.at_s, self.clock = at_s, clock


class Sent:
    """An upload at whose end the head is waited for: before, its client may be the slow one. Satisfies `Upload`."""

    def __init__(self, upload: Upload, patience: Patience) -> None:
        self._upload = upload
        self._patience = patience
        self.is_under_way = False
        """It has begun, and not ended: what goes wrong may be the client's doing."""

    @property
    def length(self) -> int | None:
        """How long it is."""
        return self._upload.length

    @property
    def spent(self) -> bool:
        """It cannot be sent once more."""
        return self._upload.spent

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield it from its beginning."""
        self.is_under_way = True
        async with aclosing(self._upload.pieces()) as pieces:
            async for piece in pieces:
                yield piece
        self.is_under_way = False
        self._patience.has_asked()
