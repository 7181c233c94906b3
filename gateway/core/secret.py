"""A secret that cannot be printed by accident."""

import re

QUOTES = "\"'`\u2018\u2019\u201a\u201c\u201d\u201e"
"""Those of shells and YAML, and the curly ones that word processors make of them."""
_PLAIN = re.compile(r"[!#-&(-_a-~]*")
"""What needs no second look: visible ASCII without quotes."""


class Secret:
    """A credential. Prints as dots in every format; `reveal()` is for the one place that sends or hashes it."""

    __slots__ = ("_value",)

    def __init__(self, value: str = "") -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself."""
        return self._value

    def __bool__(self) -> bool:
        """Whether there is one at all."""
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        """Equal secrets are equal. Not in constant time: authentication compares digests."""
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        """Hash of the secret, so that settings stay comparable."""
        return hash(self._value)

    def __repr__(self) -> str:
        """Dots, and not how many."""
        return "••••" if self._value else "(none)"


def flaw(secret: str) -> str:
    """Return what keeps a credential from being sent, or recognised, as it is written; empty: nothing does.

    A credential travels in a header: a line of Latin-1 (RFC 9110, "Field Values") that receivers strip of spaces around
    it. What is returned shows nothing of it.
    """
    if _PLAIN.fullmatch(secret):
        return ""
    if re.search(r"[\r\n]", secret):
        within = re.search(r"[\r\n]", secret.strip())
        ends = re.search(r"[\r\n]\s*$", secret)
        return f"has a line break {'inside' if within else 'at its end' if ends else 'at its start'}"
    if secret != secret.strip():
        return f"has a space at its {'end' if secret != secret.rstrip() else 'start'}"
    if len(secret) > 1 and secret[0] in QUOTES and secret[-1] in QUOTES:
        return "has a pair of quotes around it"
    if re.search(r"[^\t -~\x80-\xff]", secret):
        return "has a character that headers cannot carry"
    return ""
