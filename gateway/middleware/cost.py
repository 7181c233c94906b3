"""What a call costs, in nano-dollars: the tokens of the answer times the price of the deployment that gave it."""

from gateway.core.call import Call
from gateway.core.middleware import Handler
from gateway.core.receipt import Receipt
from gateway.core.reply import Reply
from gateway.core.resources import Prices, Resources
from gateway.core.usage import Price, Usage
from gateway.middleware.base import Options


class CostOptions(Options, frozen=True, kw_only=True):
    """Nothing to choose: prices are a matter of `config/prices.yaml` and of each deployment's `price:`."""

    def build(self, resources: Resources) -> "Cost":
        """Make the middleware."""
        return Cost(resources.prices)


class Cost:
    """Writes the cost on the receipt: of a whole answer before its head leaves, of a stream when it is over.

    What a stream had used when its client left, or when it broke, is charged. The price is asked for when the answer
    begins, so that at its end nothing has to be waited for.
    """

    def __init__(self, prices: Prices) -> None:
        self._prices = prices

    async def __call__(self, call: Call, next: Handler) -> Reply:
        """Ask for the cost to be settled at the call's end, or settle it at once."""
        price: Price | None = None

        def settle(receipt: Receipt) -> None:
            if receipt.cost_nusd is None:
                receipt.cost_nusd = cost_nusd(receipt, receipt.usage, price)

        call.at_end(
            settle
        )  # before asking: so it runs after the endings of all who stand further in, who may count usage
        reply = await next(call)
        answered_by = call.receipt.answered_by
        if answered_by is not None:
            price = await self._prices.of(answered_by)
        if not call.stream and call.receipt.cost_nusd is None:
            call.receipt.cost_nusd = cost_nusd(call.receipt, reply.first.usage, price)
        return reply


def cost_nusd(receipt: Receipt, usage: Usage | None, price: Price | None) -> int | None:
    """Return what a call that used `usage` costs at `price`; `None`: nobody can say, which is not nothing.

    Where no answer began nothing is charged, although an upstream may count what it did before we gave it up.
    """
    answered_by = receipt.answered_by
    if receipt.cache == "hit" or answered_by is None or answered_by.error:
        return 0
    if usage is None:
        return None
    if usage.stated_cost_nusd is not None:
        return usage.stated_cost_nusd
    return None if price is None else price.cost_nusd(usage)
