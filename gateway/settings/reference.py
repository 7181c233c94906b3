"""docs/configuration.md: every option, written from the JSON schema, so that it cannot say anything else."""

from typing import Any

from gateway.settings.jsonschema import schema

HEAD = """# Configuration

Written by `gateway schema --markdown`; the same words are in `config/schema.json`, which editors complete from.
Durations are written `250ms`, `30s`, `10m`, `1h30m`; sizes `512KB`, `32MB`, `1GiB`. `${NAME}` is a variable of the
environment and must be set, `${NAME:-default}` has a default. An unknown key is an error, wherever it stands.
"""

SECTIONS = (
    ("server", "Server"),
    ("models", "RouteSettings"),
    ("models, each of `deployments`", "DeploymentSettings"),
    ("models, `timeouts`", "TimeoutSettings"),
    ("models, `price`", "PriceOptions"),
    ("models, `price`, `above`", "LongPrompt"),
    ("proxy, each service", "ServiceSettings"),
    ("responses", "ResponsesSettings"),
    ("keys", "KeySettings"),
    ("keys, `limits`", "Limits"),
)


def markdown() -> str:
    """Return the whole page."""
    whole = schema()
    definitions: dict[str, Any] = whole["definitions"]
    parts = [HEAD, "## The file\n", _table(whole["properties"])]
    for title, name in SECTIONS:
        parts += [f"## {title}\n", definitions[name]["description"] + "\n", _table(definitions[name]["properties"])]
    for kind, name in _options(definitions, "use"):
        parts += [f"## chain: `use: {kind}`\n", _told(definitions, name)]
    for kind, name in _providers(whole):
        parts += [f"## providers: `{kind}`\n", _told(definitions, name)]
    return "\n".join(parts).rstrip() + "\n"


def _options(definitions: dict[str, Any], marker: str) -> list[tuple[str, str]]:
    """Return middlewares with the names of their definitions."""
    return [
        (definition["properties"][marker]["const"], name)
        for name, definition in definitions.items()
        if "const" in definition.get("properties", {}).get(marker, {})
    ]


def _providers(whole: dict[str, Any]) -> list[tuple[str, str]]:
    """Return each kind of provider with the name of its definition; vendors share OpenAI's."""
    kinds: dict[str, list[str]] = {}
    for provider, rule in whole["properties"]["providers"]["properties"].items():
        kinds.setdefault(rule["allOf"][1]["then"]["$ref"].rpartition("/")[2], []).append(provider)
    return [("`, `".join(providers), name) for name, providers in kinds.items()]


def _told(definitions: dict[str, Any], name: str, option: str = "") -> str:
    """Return a table of options, and one for each of them that has options of its own."""
    definition = definitions[name]
    properties: dict[str, Any] = definition["properties"]
    title = f"`{option}`: " if option else ""
    inner: dict[str, list[str]] = {}
    for other, said in properties.items():
        if reference := said.get("allOf", [{}])[0].get("$ref"):
            inner.setdefault(reference.rpartition("/")[2], []).append(other)
    tables = [_told(definitions, reference, "`, `".join(others)) for reference, others in inner.items()]
    return "\n".join([f"{title}{definition['description']}\n", _table(properties), *tables])


def _table(properties: dict[str, Any]) -> str:
    """Return a table of options; those with options of their own are tables further down."""
    rows = [
        f"| `{name}` | {_cell(said.get('description', ''))} | {_default(said)} |"
        for name, said in properties.items()
        if "const" not in said
    ]
    return "\n".join(["| option | what it does | default |", "|---|---|---|", *rows, ""]) if rows else "No options.\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _default(said: dict[str, Any]) -> str:
    default = said.get("default")
    return "" if default is None else f"`{str(default).lower() if isinstance(default, bool) else default}`"
