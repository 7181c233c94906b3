"""Virtual keys, as the configuration lists them: found by digest, so that no secret is kept."""

import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import Struct

from gateway.core.errors import Unauthorized
from gateway.core.principal import Principal
from gateway.core.resources import Clock

HASHED = "sha256:"
"""How a key is written whose secret is not to stand in the configuration."""


class VirtualKey(Struct, frozen=True):
    """A secret we issued, by its digest, and whom it belongs to."""

    digest: bytes
    """SHA-256. No salt and no stretching: a key is random and long, and this is computed for every call."""
    principal: Principal
    expires_s: float | None = None
    """Seconds since 1970 from which on it is refused. `None`: never."""


class VirtualKeys:
    """All virtual keys.

    Args:
        keys: in any order; of 10,000 one is found as fast as of one.
        clock: says when a key's time is over.

    Raises:
        ValueError: two keys have the same secret.
    """

    def __init__(self, keys: Sequence[VirtualKey], clock: Clock) -> None:
        self._clock = clock
        self._keys: dict[bytes, VirtualKey] = {}
        for key in keys:
            twin = self._keys.setdefault(key.digest, key)
            if twin is not key:
                raise ValueError(
                    f'"{twin.principal.id}" and "{key.principal.id}" have the same secret: '
                    "nobody could say whom a call is charged to; give each its own"
                )

    def find(self, secret: str) -> Principal | None:
        """Return whom `secret` belongs to; `None`: nobody.

        What came is always hashed, so the digest in a configuration that leaked opens nothing.

        Raises:
            Unauthorized: its time is over.
        """
        digest = _digest(secret)
        key = self._keys.get(digest)
        if key is None or not hmac.compare_digest(key.digest, digest):
            return None
        if key.expires_s is not None and self._clock.wall() >= key.expires_s:
            raise Unauthorized(
                f"this API key expired on {datetime.fromtimestamp(key.expires_s, UTC):%Y-%m-%d at %H:%M UTC}; "
                "ask for a new one",
                code="expired_api_key",
            )
        return key.principal

    def __len__(self) -> int:
        """How many keys there are."""
        return len(self._keys)


def digest_of(written: str) -> bytes:
    """Return the digest of a key as it is written: the secret itself, or `sha256:` and 64 hexadecimal digits.

    Raises:
        ValueError: it is empty, or its digest is none.
    """
    if not written:
        raise ValueError("the key is empty: is its environment variable set?")
    if not written.startswith(HASHED):
        return _digest(written)
    if not re.fullmatch(r"[0-9a-fA-F]{64}", written.removeprefix(HASHED)):
        raise ValueError("expected 64 hexadecimal digits after `sha256:`, as `sha256sum` prints them")
    return bytes.fromhex(written.removeprefix(HASHED))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
