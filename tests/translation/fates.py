"""What becomes of a leaf of a request on its way to a target."""

from typing import Any

from msgspec import Struct

ANYTHING: Any = "said in the target's own words"
SAME: Any = "the leaf's own value"


class Fate(Struct, frozen=True):
    """Where a leaf is found, and why it may not be: one that is neither found nor explained is a silent drop."""

    ways: tuple[str, ...] = ()
    """Where it may be found in the target, as `leaves` writes it; the usual one first."""
    said: Any = SAME
    """What is found there, if not `SAME`."""
    dropped: str = ""
    """Why it is left out; with `ways`: when it is."""
    refused: str = ""
    """Why the request is refused for it."""


Table = dict[str, Fate]
"""By way, or by the end of one behind a `*`."""


def kept(*ways: str, said: Any = SAME, unless: str = "") -> Fate:
    """It is found at one of `ways`."""
    return Fate(ways, said, unless)


def dropped(why: str) -> Fate:
    """It is left out."""
    return Fate(dropped=why)


def refused(why: str) -> Fate:
    """The request is refused, naming it."""
    return Fate(refused=why)


def fate_of(way: str, table: Table) -> tuple[str, Fate] | None:
    """Return the row of a way: its own, that of what it is in, or the longest that ends like it; `None`: none does."""
    if way in table:
        return way, table[way]
    around = [row for row in table if way.startswith((f"{row}.", f"{row}["))]
    rows = around or [row for row in table if row.startswith("*") and way.endswith(row[1:])]
    row = max(rows, key=len, default="")
    if not row:
        return None
    fate = table[row]
    return row, Fate((way, way.partition(": ")[0]), fate.said) if fate.ways == ("*",) else fate
