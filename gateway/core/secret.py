"""A secret that cannot be printed by accident."""


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
