"""The vendors that speak OpenAI's dialect, and what each does otherwise: rows of `config/vendors.yaml`."""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from gateway.core.call import Surface
from gateway.core.route import Prefill
from gateway.core.shipped import shipped
from gateway.core.usage import tier_named


class Vendor(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row."""

    base_url: str
    """Where `/chat/completions` is, without it."""
    docs: str
    """The page that the row was written from."""
    key_variable: str = ""
    """The environment variable in which people keep the key."""
    key: Literal["required", "optional"] = "required"
    price_table: str = ""
    """What genai-prices calls the vendor; empty: its prices are not known."""
    renames: dict[str, str] = {}
    """Fields of a request, of chat or of embeddings, that it knows by another name. One that the client sent by both is
    sent as it came."""
    drops: tuple[str, ...] = ()
    """Fields of a request that it refuses and that change nothing of the answer."""
    stream_options: Literal["known", "refused"] = "known"
    """Whether `stream_options.include_usage` may be asked; `refused`: it says the usage without."""
    reasoning_tokens: Literal["inside", "apart"] = "inside"
    """`apart`: `completion_tokens` leaves them out; only `total_tokens` has them."""
    tool_calls: Literal["pieces", "whole"] = "pieces"
    """`whole`: every entry is a call of its own, whatever its `index` and `id` say."""
    surfaces: tuple[Surface, ...] = ("chat",)
    """What it speaks besides: a client of the same surface gets its bytes as they came."""
    keeps_responses: bool = False
    """It keeps responses unless told not to, and answers what follows them; others that speak Responses refuse that."""
    keeps: tuple[str, ...] = ()
    """Fields that are not OpenAI's, and that it takes all the same where a translated request carries them."""
    prefill: Prefill = "none"
    """Whether its models go on from a last message of the assistant's."""
    states_cost: bool = False
    """Its `usage.cost` is what the call cost, in dollars."""
    tool_call_ids: Literal["any", "nine"] = "any"
    """`nine`: of nine letters and digits; one of another form, made elsewhere, is a 400 and is written as such."""
    same_price_tiers: tuple[str, ...] = ()
    """Service tiers that cost what the usual one does."""
    searching_models: tuple[str, ...] = ()
    """Parts of the names of models that search the web for each answer and do not count it."""
    wants_reasoning: bool = False
    """A turn that called tools has to come back with its `reasoning_content`, be it empty; without it is a 400."""

    def renamed(self, fields: Mapping[str, Raw]) -> dict[str, object]:
        """Return the fields of a request that the vendor knows by another name, or must not see (`None`)."""
        if not (self.drops or self.renames):
            return {}
        changes: dict[str, object] = {name: None for name in self.drops if name in fields}
        for ours, theirs in self.renames.items():
            if ours in fields:
                changes[ours] = None
                changes[theirs] = fields.get(theirs, fields[ours])
        return changes

    def tier(self, said: object) -> str:
        """Return the service tier that an answer names, where it has prices of its own."""
        tier = tier_named(said)
        return "" if tier in self.same_price_tiers else tier

    def always_searches(self, model: str) -> bool:
        """Tell whether `model` searches the web for each answer."""
        return bool(self.searching_models) and any(part in model for part in self.searching_models)


def vendor(name: str) -> Vendor:
    """Return the row of `name`.

    Raises:
        ValueError: there is none; the message names the cure.
    """
    rows = _rows()
    if name not in rows:
        near = get_close_matches(name, rows, 1)
        cure = f'did you mean "{near[0]}"?' if near else f"known are {', '.join(sorted(rows))}"
        raise ValueError(f'no vendor is called "{name}"; {cure}')
    return rows[name]


def vendor_names() -> frozenset[str]:
    """Return the names of all rows."""
    return frozenset(_rows())


def vendor_at(base_url: str) -> Vendor | None:
    """Return the vendor whose public API `base_url` is; `None`: it is a server of one's own, or one we do not know."""
    name = name_at(base_url)
    return _rows()[name] if name else None


def name_at(base_url: str) -> str:
    """Return the name of the vendor whose public API `base_url` is; empty: nobody's that we know."""
    for name, row in _rows().items():
        if row.key == "required" and row.base_url.split("/")[2] == base_url.partition("://")[2].partition("/")[0]:
            return name
    return ""


@cache
def _rows() -> dict[str, Vendor]:
    return msgspec.yaml.decode(shipped("config/vendors.yaml").read_bytes(), type=dict[str, Vendor])
