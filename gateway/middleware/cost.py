"""What a call costs, in nano-dollars: the tokens of each attempt times the price of the deployment that was asked."""

from collections.abc import Coroutine, Mapping
from typing import Any, ClassVar

from gateway.core.call import OF_MODELS, Call, Operation
from gateway.core.middleware import Handler
from gateway.core.price import Price
from gateway.core.receipt import Receipt
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
        await bill.look_up()
        bill.take(reply.first)
        reply.see_rest(bill.pass_on)
        return reply


class Bill:
    """What the attempts of one call cost."""

    __slots__ = ("_answer", "_known", "_prices", "_receipt")

    def __init__(self, receipt: Receipt, prices: Prices) -> None:
        self._receipt = receipt
        self._prices = prices
        self._known: dict[str, Price | None] = {}
        self._answer: Usage | None = None
        """What the answer used: for an attempt that does not know it itself."""

    async def look_up(self) -> None:
        """Learn the prices of all attempts so far."""
        for tried in self._receipt.tried:
            if tried.deployment not in self._known and (tried.usage is not None or not tried.error):
                self._known[tried.deployment] = None  # should the client leave meanwhile: asked for once is enough
                self._known[tried.deployment] = await self._prices.of(tried)

    def take(self, chunk: Chunk) -> None:
        """Write the cost down if `chunk` says what was used."""
        if chunk.usage is not None:
            self._answer = chunk.usage
            self._receipt.cost_nusd = self._total_nusd()

    def pass_on(self, chunk: Chunk) -> Chunk | Coroutine[Any, Any, Chunk]:
        """Return `chunk`, when what it says was used is billed; wait only for a price that nobody asked for yet."""
        if chunk.usage is None:
            return chunk
        if self.lacks_a_price:
            return self._pass_on_late(chunk)
        self.take(chunk)
        return chunk

    @property
    def lacks_a_price(self) -> bool:
        """Whether an attempt was made that nobody has asked the price of."""
        return any(tried.usage is not None and tried.deployment not in self._known for tried in self._receipt.tried)

    def close(self, receipt: Receipt) -> Coroutine[Any, Any, None] | None:
        """Write the cost down; wait only for a price that nobody asked for yet."""
        if receipt.cost_nusd is not None and (self._answer is None or len(receipt.tried) < 2):
            return None  # a room further in knows better, or nothing came after what it was written down by
        self._answer = receipt.usage or self._answer
        if self.lacks_a_price:
            return self._close_late()
        if receipt.cost_nusd is None or len(receipt.tried) > 1:
            receipt.cost_nusd = self._total_nusd()
        return None

    def _total_nusd(self) -> int | None:
        """Return what all attempts cost together; `None`: nobody can say, which is not nothing.

        An attempt that said nothing is not charged, although its upstream may count what it did before it failed.
        """
        receipt, total = self._receipt, 0
        answered_by = receipt.answered_by  # nobody, where the cache or a room of its own answered: that is free
        for tried in receipt.tried:
            usage = tried.usage or (self._answer if tried is answered_by else None)
            if usage is None:
                gave_up = receipt.outcome == "abandoned"  # the client did; the upstream may charge for it all the same
                if tried.error and not gave_up:
                    continue
                return None
            cost = _cost_nusd(usage, self._known.get(tried.deployment))
            if cost is None:
                return None
            total += cost
        return total

    async def _pass_on_late(self, chunk: Chunk) -> Chunk:
        await self.look_up()
        self.take(chunk)
        return chunk

    async def _close_late(self) -> None:
        await self.look_up()
        self._receipt.cost_nusd = self._total_nusd()


def _cost_nusd(usage: Usage, price: Price | None) -> int | None:
    if usage.stated_cost_nusd is not None:
        return usage.stated_cost_nusd
    return None if price is None else price.cost_nusd(usage)
