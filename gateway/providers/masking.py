"""Takes keys out of what upstreams say: some repeat the key that they were sent, or a part of it."""

import re
from collections.abc import Mapping
from itertools import pairwise

MASK = "••••"
OPEN_HEADERS = frozenset({"accept", "anthropic-version", "content-type"})
"""Headers of ours that hold no secret."""
SHORTEST_SECRET = 6
"""Characters. What is shorter would take words out of the message."""

_WORD = r"""[^\s"'`,;()<>\[\]{}]+"""
_word = re.compile(_WORD)
_labelled = re.compile(
    rf"""
    (bearer\s+
    |(?:key|token|secret|password|credential)s?(?:\s\w+)?["'`]?\s*[:=]\s*["'`]?(?!\d+\b)
    |(?:key|token|secret|password|credential)s?\s+["'`(\[<])
    {_WORD}""",
    re.IGNORECASE | re.VERBOSE,
)
_in_url = re.compile(r"://[^/\s@]+@")
_prefixed = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:sk|pk|rk|gsk|csk|xai|pplx|hf|r8|fw|nvapi|tgp|ghp|glpat|sess)[-_]\S{4}|AIza|AKIA|ASIA|ya29\.|eyJ)"
)
_half_hidden = re.compile(r"\*{2}|•{2}|\w(?:…|\.{3,})\w")
_uuid = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_run = re.compile(r"[A-Za-z0-9]{12,}")
LONGEST_NAME = 23
"""Letters and digits without anything between them; a longer run is no word."""
SHORTEST_RANDOM = 16
MOST_CHANGES = 0.35
"""Of a word's characters, how many may be of another kind (capital, small, digit) than the one before: names change
kind at their parts, `Llama-3.1-405B`, and random characters everywhere."""


def masked(text: str) -> str:
    """Return `text` with a mask in place of each word that may be a key: rather one too many than one too few."""
    text = _in_url.sub(f"://{MASK}@", text)
    text = _labelled.sub(lambda found: found[1] + MASK, text)
    return _word.sub(lambda found: _word_masked(found[0]), text)


def without_credentials(body: bytes, headers: Mapping[str, str]) -> bytes:
    """Return an error's body with a mask in place of what `headers` sent, whatever it looks like."""
    for name, value in headers.items():
        if name in OPEN_HEADERS:
            continue
        secret = value.removeprefix("Bearer ")
        if len(secret) >= SHORTEST_SECRET:
            body = body.replace(secret.encode(), MASK.encode())
    return body


def _word_masked(word: str) -> str:
    bare = word.rstrip(".:!?")
    return MASK + word[len(bare) :] if _looks_secret(bare) else word


def _looks_secret(word: str) -> bool:
    if _prefixed.search(word) or _half_hidden.search(word) or _uuid.search(word):
        return True
    if any(len(run) > LONGEST_NAME or not (run.isalpha() or run.isdecimal()) for run in _run.findall(word)):
        return True
    kinds = [_kind(character) for character in word]
    changes = sum(bool(one and next and one != next) for one, next in pairwise(kinds))
    return len(word) >= SHORTEST_RANDOM and changes > MOST_CHANGES * len(word)


def _kind(character: str) -> str:
    """Return of which kind a character is; empty: of none, it stands between parts."""
    if character.isdecimal():
        return "digit"
    return "capital" if character.isupper() else "small" if character.islower() else ""
