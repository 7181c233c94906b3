"""What a call costs, in nano-dollars: the tokens of the answer times the price of the deployment that gave it."""

from collections.abc import Mapping
from typing import ClassVar

from gateway.core.call import Call
from gateway.core.middleware import Handler
from gateway.core.receipt import Receipt
from gateway.core.reply import Chunk, Reply
from gateway.core.resources import Prices, Resources
from gateway.core.usage import Price, Usage
from gateway.middleware.base import Options


class CostOptions(Options, frozen=True, kw_only=True):
    """Nothing to choose: prices are a matter of `config/prices.yaml` and of each deployment's `price:`."""

    inside: ClassVar[Mapping[str, str]] = {
        "log": "a call's line says what it cost, so it is written when that is known",
        "metrics": "what a call cost is counted when it is known",
    }

    def build(self, resources: Resources) -> "Cost":
        """Make the middleware."""
        return Cost(resources.prices)


class Cost:
    """Writes the cost on the receipt: of a whole answer before its head leaves, of a stream before its last chunk does.

    What a stream had used when its client left, or when it broke, is charged. The price is asked for when the answer
    begins, so that at its end nothing has to be waited for.
    """

    def __init__(self, prices: Prices) -> None:
        self._prices = prices

    async def __call__(self, call: Call, next: Handler) -> Reply:
        """Write the cost down as soon as the answer says what it used, or else at the call's end."""
        receipt = call.receipt
        price: Price | None = None

        def count(chunk: Chunk) -> Chunk:
            if chunk.usage is not None:
                receipt.cost_nusd = cost_nusd(receipt, chunk.usage, price)
            return chunk

        def settle(receipt: Receipt) -> None:
            if receipt.cost_nusd is None:
                receipt.cost_nusd = cost_nusd(receipt, receipt.usage, price)

        call.at_end(settle)  # asked for before the rooms further in ask for theirs, so it runs after them
        reply = await next(call)
        if receipt.cost_nusd is not None:
            return reply  # a room further in knows better: an answer it kept costs nothing
        receipt.usage = reply.first.usage or receipt.usage  # kept, should the client leave while the price is looked up
        if receipt.answered_by is not None:
            price = await self._prices.of(receipt.answered_by)
        if call.stream:
            reply.map(count)
        else:
            count(reply.first)
        return reply


def cost_nusd(receipt: Receipt, usage: Usage | None, price: Price | None) -> int | None:
    """Return what a call that used `usage` costs at `price`; `None`: nobody can say, which is not nothing.

    Where no answer began nothing is charged, although an upstream may count what it did before we gave it up.
    """
    answered_by = receipt.answered_by
    if answered_by is None:
        return 0  # a hit in the cache, too, asks nobody
    if usage is None:
        gave_up = receipt.outcome == "abandoned"  # the client did; the upstream may charge for it all the same
        return 0 if answered_by.error and not gave_up else None
    if usage.stated_cost_nusd is not None:
        return usage.stated_cost_nusd
    return None if price is None else price.cost_nusd(usage)
