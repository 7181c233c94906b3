"""Writes `docs/clients.md`: what each client was seen to do, and how it is pointed at the gateway."""

import re
import textwrap
from collections.abc import Callable, Iterable

from run import ROOT
from tests.clients.environments import version
from tests.clients.features import FEATURES, Feature
from tests.clients.rig import PROGRAMS
from tests.clients.roster import CLIENTS, Client

PAGE = ROOT / "docs" / "clients.md"

HEAD = """# Clients

Official and popular clients, unmodified, against a gateway process with one upstream of each dialect behind it: chat
completions, Responses, Anthropic's Messages, Gemini, Bedrock. A cell is what happened with all five (embeddings:
with the three that have them); the upstreams are scripted, so no model had to be lucky.

`python3 run.py clients` installs every client at its pinned version (`tests/clients/pins.toml`), runs them all, and
fails where this page says something else; with `GATEWAY_WRITE_CLIENTS=1` it writes the page. No client reaches the
internet meanwhile; one that tries fails the run.
"""

ERRORS = """
## Errors

What a client raises, in its own words: for a key that is none, for a model that is none, for an upstream that is busy
(and whether it shows how long the upstream wants to be left alone), and for a stream that breaks in the middle. The
agents end with an error and an exit code.
"""

POINTING = """
## How to point them here

Each from the code that was run. `URL` is the gateway (`http://127.0.0.1:8000`), `key` one of its keys, or anything
where it asks for none.
"""

Happened = Callable[[Client, Feature], str]
"""What happened with a client's feature: a word, or the exception that it raised; empty: it has no such feature."""


def as_expected(client: Client, feature: Feature) -> str:
    """Say what happens if all is as the roster has it."""
    if feature.name in client.without:
        return ""
    return client.raises[feature.name] if feature.worked is None else "works"


def page(happened: Happened) -> str:
    """Return the page."""
    notes = _Notes()
    shown = [feature for feature in FEATURES if feature.worked is not None]
    raised = [feature for feature in FEATURES if feature.worked is None]
    parts = [
        HEAD,
        _table(shown, happened, notes),
        notes.text(),
        ERRORS,
        _table(raised, happened, notes),
        POINTING,
        *(_pointing(client) for client in CLIENTS if _first_of_its_program(client)),
    ]
    return "\n".join(part.strip("\n") + "\n" for part in parts)


class _Notes:
    """Numbered by what they say."""

    def __init__(self) -> None:
        self._said: list[str] = []

    def number(self, note: str) -> int:
        if note not in self._said:
            self._said.append(note)
        return self._said.index(note) + 1

    def text(self) -> str:
        return "\n".join(f"{number}. {note}" for number, note in enumerate(self._said, 1))


def _table(features: Iterable[Feature], happened: Happened, notes: _Notes) -> str:
    features = list(features)
    rows = [["client", "version", *(feature.title for feature in features)]]
    rows.append(["---"] * len(rows[0]))
    for client in CLIENTS:
        cells = [_cell(client, feature, happened(client, feature), notes) for feature in features]
        rows.append([client.title, _versions(client), *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(client: Client, feature: Feature, word: str, notes: _Notes) -> str:
    if not word:
        return f"cannot ({notes.number(client.without[feature.name])})"
    if feature.worked is None:
        return f"`{word}`, and when to come again" if feature.status == 429 and client.shows_wait else f"`{word}`"
    note = client.notes.get(feature.name)
    return f"{word}, with ({notes.number(note)})" if note else word


def _versions(client: Client) -> str:
    return " · ".join(version(package, client.environment) for package in client.package.split())


def _first_of_its_program(client: Client) -> bool:
    return next(other for other in CLIENTS if other.program == client.program) is client


def _pointing(client: Client) -> str:
    source = (PROGRAMS / client.program).read_text()
    found = re.findall(r"(?:#|//) docs\n(.*?)\n *(?:#|//) end\n", source, re.DOTALL)
    lines = "\n".join(textwrap.dedent(lines).strip() for lines in found)
    language = (
        "toml"
        if client.package == "@openai/codex"
        else {"py": "python", "mjs": "js"}[client.program.rpartition(".")[2]]
    )
    return f"**{client.title}**\n\n```{language}\n{lines}\n```\n"
