"""Checks translations of requests against a table of what becomes of each leaf."""

import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st
from msgspec import to_builtins

from gateway.core.errors import BadRequest
from tests.translation.fates import ANYTHING, SAME, Fate, Table, fate_of
from tests.translation.leaves import Leaf, carries, entry_of, labelled, leaves, without

SPOKEN = re.compile(r"(?:messages|input)\[(?:user|assistant)\]\.content\[(?:input_|output_)?text\]\.text")
ROUND = settings(max_examples=60, phases=[Phase.generate])
MOST_ROUNDS = 20


def until_shown(checker: "Checker", check: Callable[..., None], **strategies: st.SearchStrategy[Any]) -> None:
    """Check requests that are made up, the same in every run, until all of the table is shown; two rounds at least."""
    for number in range(MOST_ROUNDS):
        seed(number)(ROUND(given(**strategies)(check)))()
        if number and not checker.unshown():
            return
    raise AssertionError(f"no request has shown it: {checker.unshown()}")


class Checker:
    """Checks requests of one surface at one target, and remembers which rows were shown to be true.

    Args:
        translate: writes a request for the target; `BadRequest` if it cannot.
        table: what is promised.
    """

    def __init__(self, translate: Callable[[dict[str, Any]], Any], table: Table) -> None:
        self._translate = translate
        self._table = table
        self._shown = Counter[tuple[str, str]]()

    def check(self, said: dict[str, Any]) -> Any:
        """Check a request without what is refused, and return its translation; and with one thing that is refused, of
        the kind seen least."""
        doomed = [leaf for leaf in labelled(said) if (found := fate_of(leaf.way, self._table)) and found[1].refused]
        entries = {entry_of(leaf.at) for leaf in doomed}
        written = self._check_plain(without(said, entries))
        if doomed:
            leaf = min(doomed, key=lambda leaf: self._shown[self._row(leaf)[0], "refused"])
            self._check_refused(without(said, entries - {entry_of(leaf.at)}), leaf)
        return written

    def unshown(self) -> list[str]:
        """Return what no request has shown of the table."""
        promised = [
            (row, what)
            for row, fate in self._table.items()
            for what, promise in (("found", fate.ways), ("dropped", fate.dropped), ("refused", fate.refused))
            if promise
        ]
        return [f"{row} is {what}" for row, what in promised if not self._shown[row, what]]

    def _row(self, leaf: Leaf) -> tuple[str, Fate]:
        found = fate_of(leaf.way, self._table)
        assert found is not None, f"{leaf.way} has no row"
        return found

    def _check_plain(self, said: dict[str, Any]) -> Any:
        written = to_builtins(self._translate(said))
        targets: dict[str, list[Any]] = {}
        for leaf in leaves(written):
            targets.setdefault(leaf.way, []).append(leaf.value)
        for leaf in labelled(said):
            row, fate = self._row(leaf)
            if any(says(value, leaf.value, fate) for way in fate.ways for value in targets.get(way, ())):
                self._shown[row, "found"] += 1
                continue
            assert fate.dropped, f"{leaf.way} ({leaf.value!r}) is lost: {json.dumps(written, ensure_ascii=False)}"
            self._shown[row, "dropped"] += 1
        self._check_order(said, written)
        return written

    def _check_order(self, said: dict[str, Any], written: Any) -> None:
        """What was said stands in its order."""
        text = json.dumps(written, ensure_ascii=False)
        spoken = [leaf.value for leaf in leaves(said) if SPOKEN.fullmatch(leaf.way)]
        places = [text.index(mark[0]) for value in spoken if (mark := re.match(r"<\d+>", value))]
        assert places == sorted(places), f"in another order: {text}"

    def _check_refused(self, said: dict[str, Any], leaf: Leaf) -> None:
        try:
            written = self._translate(said)
        except BadRequest as error:
            named, where = (re.sub(r"\d+", "", at) for at in (error.param or "", leaf.at))  # its neighbours are gone
            assert named and where.startswith(named), f"{error.message} names {error.param}, not {leaf.at}"
            self._shown[self._row(leaf)[0], "refused"] += 1
        else:
            row, fate = self._row(leaf)
            assert fate.dropped, f"{leaf.way} is not refused: {written}"
            self._shown[row, "dropped"] += 1


def says(found: Any, value: Any, fate: Fate) -> bool:
    """Tell whether what is found in a target is what the table promises."""
    if fate.said is ANYTHING:
        return True
    return carries(found, value if fate.said is SAME else fate.said)
