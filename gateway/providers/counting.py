"""Counts of tokens as upstreams say them: one that cannot be is none."""

MOST_TOKENS = 10**12
"""A larger count would not fit into what is made of it: the sum of a month, a column of a database."""


def count(said: float | None) -> int:
    """Return a count, which some write as `7.0`."""
    return int(said) if said is not None and 0 <= said <= MOST_TOKENS else 0
