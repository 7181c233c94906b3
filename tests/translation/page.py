"""docs/translation.md, written from the tables that the tests check."""

from tests.translation import chat_tables, surface_tables
from tests.translation.fates import ANYTHING, SAME, Fate, Table, fate_of

HEAD = """# What a translation keeps

A client that speaks the dialect of its upstream is passed on as it came. For all others this page says what becomes of
each field: *kept* under its name, `→` another one, *dropped* and why, or **refused** with a 400 that names it. Nothing
else happens: the tables are the tests' own (`tests/translation`), which make requests up from everything that a schema
has and look for each value of them. Written by `GATEWAY_WRITE_DOCS=1 python3 run.py test tests/translation`.

A name in brackets is the role of a message, or the type of a part; `*` stands for anything, `–` for what goes with the
part it is in. Models differ: the tables are true of claude-sonnet-4-5 (at Anthropic, Bedrock and Vertex AI),
command-a-reasoning, gemini-2.5-flash (at both of Google's) and qwen3. A field that is none of OpenAI's is left out,
unless the provider has one of this name. Messages and Responses go by way of a chat completion to whoever does not
speak them: first their own table holds, then that provider's column.
"""

CHAT = {
    "anthropic": chat_tables.ANTHROPIC,
    "bedrock": chat_tables.BEDROCK,
    "cohere": chat_tables.COHERE,
    "gemini": chat_tables.GEMINI,
    "ollama": chat_tables.OLLAMA,
}


def page() -> str:
    """Return the whole page."""
    ways = dict.fromkeys(way for table in CHAT.values() for way in table if way != "*.cache_control")
    rows = {way: [_fate(way, table) for table in CHAT.values()] for way in ways}
    alike = {way: fates[0] for way, fates in rows.items() if fates[0] and all(fate == fates[0] for fate in fates)}
    parts = [HEAD, "## Chat completions, at every provider", "", *_two(alike)]
    parts += ["", "## Chat completions, at each provider", ""]
    parts += [f"| field | {' | '.join(CHAT)} |", "|---" * (len(CHAT) + 1) + "|"]
    for way, fates in rows.items():
        if way not in alike:
            parts.append(f"| `{way}` | {' | '.join(_cell(way, fate) for fate in fates)} |")
    parts += ["", "## Mistral", "", "As OpenAI's, but for these.", "", *_two(chat_tables.MISTRAL)]
    parts += ["", "## Messages, as a chat completion", "", *_two(surface_tables.MESSAGES)]
    parts += ["", "## Responses, as a chat completion", "", *_two(surface_tables.RESPONSES)]
    return "\n".join(parts) + "\n"


def _fate(way: str, table: Table) -> Fate | None:
    """Return what a table says of a way; `None`: what it is in is refused."""
    found = fate_of(way, table)
    return None if found is None else found[1]


def _two(table: Table) -> list[str]:
    rows = [f"| `{way}` | {_cell(way, fate)} |" for way, fate in table.items() if way != "*"]
    return ["| field | what becomes of it |", "|---|---|", *rows]


def _cell(way: str, fate: Fate | None) -> str:
    if fate is None:
        return "–"
    said: list[str] = []
    if fate.ways:
        there = "*kept*" if fate.ways[0] == way else f"→ `{fate.ways[0]}`"
        said.append(there if fate.said in (SAME, ANYTHING) else f"{there}: `{fate.said}`")
    if fate.refused:
        said.append(f"**refused**: {fate.refused}")
    if fate.dropped:
        said.append(f"*dropped*{' when' if said else ''}: {fate.dropped}")
    return "; ".join(said).replace("|", "\\|")
