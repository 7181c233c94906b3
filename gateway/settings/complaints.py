"""What is wrong with a configuration: every mistake with its place, its path and its cure."""

import difflib
import re
from collections.abc import Iterable
from typing import Self

from msgspec import Struct

Path = tuple[str | int, ...]
"""The way to a value: `("chain", 4, "ttl")`."""

MOST_NAMED = 12
"""Names that a cure lists when none of them is near."""


class Complaint(Struct, frozen=True, order=True):
    """One mistake."""

    line: int
    """From 1; 0: the whole file is meant."""
    column: int
    """From 1, in characters."""
    path: str
    """As people write it: `chain[4].ttl`. Empty: the document itself."""
    problem: str
    """What is wrong. Never the value of a secret or of an environment variable."""
    cure: str = ""
    """What to write instead; empty where the problem says it."""
    file: str = ""

    def __str__(self) -> str:
        """One line: `gateway.yaml:15:12 chain[4].ttl: expected a duration like 30s, got "soon"`."""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}{' ' + self.path if self.path else ''}: {'; '.join(filter(None, (self.problem, self.cure)))}"


class ConfigError(Exception):
    """A configuration that cannot be used, with all that is wrong with it."""

    def __init__(self, complaints: Iterable[Complaint]) -> None:
        self.complaints: tuple[Complaint, ...] = tuple(sorted(complaints))
        super().__init__("\n".join(map(str, self.complaints)))

    @classmethod
    def of(cls, file: str, problem: str) -> Self:
        """Make one about a file as a whole."""
        return cls([Complaint(file=file, line=0, column=0, path="", problem=problem)])


class OptionError(ValueError):
    """An option that turns out to be wrong when something is made of it, by whoever does not know where it stands."""

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(problem)
        self.option = option


def shown(path: Path) -> str:
    """Print a path: `models["gpt-4.1"].fallbacks[0]`."""
    text = "".join(_step(step) for step in path)
    return text.removeprefix(".")


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if re.fullmatch(r"[\w/*:-]+", step) else f'["{step}"]'


def near(name: str, names: Iterable[str]) -> str:
    """Return the cure for a name that is none of `names`: the one that was meant, or what there is."""
    known = list(dict.fromkeys(names))
    if close := difflib.get_close_matches(name, known, n=1, cutoff=0.6):
        return f'did you mean "{close[0]}"?'
    if not known:
        return ""
    more = f" and {len(known) - MOST_NAMED} more" if len(known) > MOST_NAMED else ""
    return f"there {'is' if len(known) == 1 else 'are'} {', '.join(known[:MOST_NAMED])}{more}"
