"""The rows of `rows.yaml`, and the page that is printed of them."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct

from gateway.core.usage import Extras, Usage
from gateway.providers.vendors import vendor, vendor_names

ROWS = Path(__file__).with_name("rows.yaml")
OWN = {
    "anthropic": "messages",
    "azure": "chat",
    "bedrock": "bedrock",
    "cohere": "cohere",
    "gemini": "gemini",
    "ollama": "ollama",
}
"""The dialects of providers that are no row of `config/vendors.yaml`, or another by the same name."""
SURFACES = ("chat", "messages", "responses")
NANO = 10**9


class Row(Struct, frozen=True, kw_only=True):
    """One row."""

    provider: str
    dialect: str
    case: str
    usage: Usage
    cost_nusd: int | None
    says: dict[str, Any] | None
    beside: dict[str, Any]
    tool: bool
    streams_only: bool
    as_it_came: bool
    """Clients of the same dialect read the upstream's words, which add up to something else."""

    @property
    def surfaces(self) -> list[str]:
        """Whose clients are answered in this dialect of the provider's."""
        if self.dialect == "responses":
            return ["responses"]
        return [name for name in SURFACES if name != "responses" or "responses" not in surfaces_of(self.provider)]

    def passes_on(self, surface: str) -> bool:
        """Whether a client gets the upstream's own usage object."""
        return surface == self.dialect and (surface != "chat" or self.as_it_came)


def surfaces_of(provider: str) -> tuple[str, ...]:
    """Return the surfaces that a provider speaks itself."""
    if provider in OWN:
        return ("chat", "responses") if provider == "azure" else ()
    return vendor(provider).surfaces


def dialect_of(provider: str) -> str:
    """Return what a provider is asked in, unless its client speaks another surface of its own."""
    return OWN.get(provider, "chat")


def rows() -> list[Row]:
    """Return all rows, as they are written."""
    table: dict[str, Any] = yaml.safe_load(ROWS.read_text())
    return [_row(name, row) for name, cases in table.items() if name != "prices" for row in cases]


def prices() -> dict[str, Any]:
    """Return what everything costs in the table, as `price:` says it."""
    return yaml.safe_load(ROWS.read_text())["prices"]


def _row(name: str, said: dict[str, Any]) -> Row:
    provider, _, dialect = name.partition(" ")
    known = {"case", "says", "beside", "usage", "usd", "tool", "stream", "reads"}
    assert said.keys() <= known, said.keys() - known
    assert provider in OWN or provider in vendor_names()
    return Row(
        provider=provider,
        dialect=dialect or dialect_of(provider),
        case=said["case"],
        usage=usage_from(said["usage"]),
        cost_nusd=None if said["usd"] == "unknown" else _nano(said["usd"]),
        says=said.get("says"),
        beside=said.get("beside", {}),
        tool=said.get("tool", False),
        streams_only=said.get("stream", False),
        as_it_came=said.get("reads") is False,
    )


def usage_from(said: dict[str, Any]) -> Usage:
    """Return what a row says, in short words, as usage."""
    rest = dict(said)
    named: dict[str, Any] = {"service_tier": rest.pop("tier", ""), "estimated": rest.pop("estimated", False)}
    if "billed" in rest:
        named["billed_tokens"] = tuple(rest.pop("billed"))
    if "stated_usd" in rest:
        named["stated_cost_nusd"] = _nano(rest.pop("stated_usd"))
    counts = {name if name in Extras.__struct_fields__ else f"{name}_tokens": count for name, count in rest.items()}
    extras = {name: count for name, count in counts.items() if name in Extras.__struct_fields__}
    plain = {name: count for name, count in counts.items() if name not in extras}
    return Usage(**plain, **named, extras=Extras(**extras))


def _nano(dollars: object) -> int:
    return int(Decimal(str(dollars)) * NANO)


# ── The page ─────────────────────────────────────────────────────────────────────────────────────────────────────

HEAD = Path(__file__).with_name("head.md")


def page() -> str:
    """Return `docs/usage.md`."""
    told = ", ".join(f"`{name}` {_flat(price)}" for name, price in prices().items())
    return HEAD.read_text().replace("PRICES", told) + "".join(_line(row) for row in rows())


def _line(row: Row) -> str:
    apart = row.dialect in surfaces_of(row.provider) and row.dialect != "chat"
    provider = f"{row.provider}, Responses" if apart else row.provider
    says = " ".join(_flat(said) for said in (row.says, row.beside) if said)
    cost = "unknown" if row.cost_nusd is None else f"${Decimal(row.cost_nusd) / NANO:f}"
    case = f"{row.case} (streamed)" if row.streams_only else row.case
    return f"| {provider} | {case} | `{says}` | {_usage(row.usage)} | {cost} |\n"


def _usage(usage: Usage) -> str:
    counts = {name: getattr(usage, name) for name in Usage.__struct_fields__ if name.endswith("_tokens")}
    counts |= {name: getattr(usage.extras, name) for name in Extras.__struct_fields__}
    parts = [f"{_short(name)} {count}" for name, count in counts.items() if isinstance(count, int) and count]
    parts += [f"billed {usage.billed_tokens[0]} and {usage.billed_tokens[1]}"] if usage.billed_tokens else []
    parts += [f"tier {usage.service_tier}"] if usage.service_tier else []
    parts += ["its own bill"] if usage.stated_cost_nusd is not None else []
    return ", ".join([*parts, *(["estimated"] if usage.estimated else [])])


def _short(name: str) -> str:
    return name.removesuffix("_tokens").replace("cache_write", "written").replace("_", " ")


def _flat(said: Any) -> str:
    return json.dumps(said).replace('"', "").replace("|", "\\|")
