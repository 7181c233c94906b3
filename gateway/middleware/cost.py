"""What a call costs, in nano-dollars: the tokens of each attempt times the price of the deployment that was asked."""

from collections.abc import Awaitable, Coroutine, Mapping
from typing import Any, ClassVar

from msgspec import Struct

from gateway.core.call import OF_MODELS, Call, Operation
from gateway.core.middleware import Handler
from gateway.core.price import Price
from gateway.core.receipt import Receipt, Tried
from gateway.core.reply import Chunk, Reply
from gateway.core.resources import Prices, Resources
from gateway.core.usage import Usage
from gateway.middleware.base import Options


class CostOptions(Options, frozen=True, kw_only=True):
    """Nothing to choose: prices are a matter of `config/prices.yaml` and of each deployment's `price:`."""

    operations: ClassVar[frozenset[Operation]] = frozenset({*OF_MODELS, "responses"})
    inside: ClassVar[Mapping[str, str]] = {
        "log": "a call's line says what it cost, so it is written when that is known",
        "metrics": "what a call cost is counted when it is known",
    }

    def build(self, resources: Resources) -> "Cost":
        """Make the middleware."""
        return Cost(resources.prices)


class Cost:
    """Writes the cost on the receipt: of a whole answer before its head leaves, of a stream before its last chunk does.

    Every attempt that used something is charged, also what a stream had used when its client left or when it broke, and
    what another attempt outran. Prices are asked for when the answer begins, so that at its end nothing has to be
    waited for.
    """

    def __init__(self, prices: Prices) -> None:
        self._prices = prices

    async def __call__(self, call: Call, next: Handler) -> Reply:
        """Write the cost down as soon as the answer says what it used, or else at the call's end."""
        receipt = call.receipt
        bill = Bill(receipt, self._prices)
        call.at_end(bill.close)  # asked for before the rooms further in ask for theirs, so it runs after them
        reply = await next(call)
        if receipt.cost_nusd is not None:
            return reply  # a room further in knows better: an answer it kept costs nothing
        usage = reply.first.usage
        waiting = bill.look_up() if usage is None else bill.charge(usage)
        if waiting is not None:
            await waiting
        if reply.rest is not None:
            reply.see_rest(bill.pass_on)
        return reply


class Bill(Struct):
    """What the attempts of one call cost."""

    receipt: Receipt
    prices: Prices
    known: dict[str, Price | None] = {}
    """By deployment, the prices that were asked for."""
    answer: Usage | None = None
    """What the answer used: for an attempt that does not know it itself."""

    def look_up(self) -> Coroutine[Any, Any, None] | None:
        """Learn the prices of the attempts so far; return the rest of it as soon as one has to be waited for."""
        for tried in self.receipt.tried:
            if tried.deployment not in self.known and (tried.usage is not None or not tried.error):
                try:
                    self.known[tried.deployment] = self.prices.at_hand(tried)
                except LookupError:
                    return self._look_up_late(tried)
        return None

    async def _look_up_late(self, tried: Tried) -> None:
        await self._ask(tried)
        if (rest := self.look_up()) is not None:
            await rest

    def charge(self, answer: Usage | None) -> Coroutine[Any, Any, None] | None:
        """Write down what all attempts cost together, the answer having used so much.

        `None`: nobody can say, which is not nothing. An attempt that said nothing is not charged, although its upstream
        may count what it did before it failed. What is returned does the same, once a price is there that nobody asked
        for yet.
        """
        receipt, known, total = self.receipt, self.known, 0
        self.answer, receipt.cost_nusd = answer, None
        for tried in receipt.tried:
            # Who answered is nobody where the cache or a room of its own did: that is free.
            usage = tried.usage or (answer if tried is receipt.answered_by else None)
            if usage is None:
                gave_up = receipt.outcome == "abandoned"  # the client did; the upstream may charge for it all the same
                if tried.error and not gave_up:
                    continue
                return None
            cost = usage.stated_cost_nusd
            if cost is None:
                try:
                    price = known[tried.deployment] if tried.deployment in known else self.prices.at_hand(tried)
                except LookupError:
                    return self._charge_late(tried, answer)
                cost = None if price is None else price.cost_nusd(usage)
            if cost is None:
                return None
            total += cost
        receipt.cost_nusd = total
        return None

    async def _charge_late(self, tried: Tried, answer: Usage | None) -> None:
        await self._ask(tried)
        if (rest := self.charge(answer)) is not None:
            await rest

    async def _ask(self, tried: Tried) -> None:
        self.known[tried.deployment] = None  # should the client leave meanwhile: asked for once is enough
        self.known[tried.deployment] = await self.prices.of(tried)

    def pass_on(self, chunk: Chunk) -> Chunk | Coroutine[Any, Any, Chunk]:
        """Return `chunk`, when what it says was used is billed; wait only for a price that nobody asked for yet."""
        if chunk.usage is None or (waiting := self.charge(chunk.usage)) is None:
            return chunk
        return self._pass_on_late(chunk, waiting)

    async def _pass_on_late(self, chunk: Chunk, waiting: Awaitable[None]) -> Chunk:
        await waiting
        return chunk

    def close(self, receipt: Receipt) -> Coroutine[Any, Any, None] | None:
        """Write the cost down; wait only for a price that nobody asked for yet."""
        if receipt.cost_nusd is not None and (self.answer is None or len(receipt.tried) < 2):
            return None  # a room further in knows better, or nothing came after what it was written down by
        return self.charge(receipt.usage or self.answer)
