"""The public keys that token issuers publish (JWKS): fetched, kept, and fetched again when they change.

Strangers decide which key id is asked for, so a set is fetched at most once in `PAUSE_S` whatever they ask; and an
issuer that cannot be reached changes nothing: the keys it last published stay valid until it says otherwise.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
from msgspec import Struct

from gateway.core.errors import Unavailable
from gateway.core.resources import Clock

FRESH_S = 600.0
"""How long a set is believed without asking again; a key that is withdrawn is refused after this."""
PAUSE_S = 30.0
"""At least this long lies between two fetches of one set."""
FETCH_S = 5.0
"""How long a fetch may take, all of it."""
MOST_BYTES = 512 * 1024
"""A longer set is none."""
MOST_KEYS = 200

KEY_TYPES = frozenset({"RSA", "EC", "OKP"})
"""Public ones. `oct` is a shared secret, and what is published is none."""

log = logging.getLogger("gateway")

Key = Mapping[str, object]


class JWKS:
    """Published key sets by their URL; share one instance over all reloads, so that a reload forgets no key.

    Args:
        clock: says how old a set is.
        get: fetches a URL's body; `OSError` or `ValueError` when it cannot.
    """

    def __init__(self, clock: Clock, get: "Callable[[str], Awaitable[bytes]] | None" = None) -> None:
        self._clock = clock
        self._get = get or http_get
        self._sets: dict[str, _KeySet] = {}

    async def find(self, url: str, kid: str) -> Key | None:
        """Return the key that the set at `url` calls `kid` (empty: its only key); `None`: it has no such key.

        Raises:
            Unavailable: the set was never fetched, and cannot be now.
        """
        kept = self._sets.setdefault(url, _KeySet())
        key = _pick(kept.keys, kid)
        if key is not None and self._clock.now() - kept.fetched_s < FRESH_S:
            return key
        await self._refresh(url, kept)
        if not kept.keys:
            raise Unavailable(
                "the keys that tokens are checked with cannot be fetched at the moment; try again soon",
                retry_after_s=max(1.0, kept.began_s + PAUSE_S - self._clock.now()),
            )
        return _pick(kept.keys, kid)

    async def _refresh(self, url: str, kept: "_KeySet") -> None:
        """Fetch the set again, or wait for the fetch that is under way; nothing, if the last one was just now."""
        if kept.fetching is None:
            if self._clock.now() - kept.began_s < PAUSE_S:
                return
            kept.began_s = self._clock.now()
            kept.fetching = asyncio.ensure_future(self._fetch(url, kept))
        await asyncio.wait({kept.fetching})  # not the task itself: a client that leaves must not cancel it for others

    async def _fetch(self, url: str, kept: "_KeySet") -> None:
        try:
            async with asyncio.timeout(FETCH_S):
                kept.keys = _read(await self._get(url))
            kept.fetched_s = self._clock.now()
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            reason = str(error) or type(error).__name__
            log.warning("the JWKS at %s cannot be had (%s); %d keys are kept", url, reason, len(kept.keys))
        finally:
            kept.fetching = None


class _KeySet(Struct):
    keys: Sequence[Key] = ()
    fetched_s: float = float("-inf")
    began_s: float = float("-inf")
    """When the last fetch began, whatever became of it."""
    fetching: "asyncio.Task[None] | None" = None


class _Published(Struct):
    keys: list[dict[str, object]]


def _read(body: bytes) -> list[Key]:
    """Return the keys that signatures can be checked with.

    Raises:
        ValueError: there are none.
    """
    published = msgspec.json.decode(body, type=_Published).keys[:MOST_KEYS]
    keys: list[Key] = [key for key in published if key.get("kty") in KEY_TYPES and key.get("use", "sig") == "sig"]
    if not keys:
        raise ValueError("it has no public key for signatures")
    return keys


def _pick(keys: Sequence[Key], kid: str) -> Key | None:
    if not kid:
        return keys[0] if len(keys) == 1 else None
    return next((key for key in keys if key.get("kid") == kid), None)


async def http_get(url: str) -> bytes:
    """Return the body of `url`. Redirects are not followed: the keys come from where the configuration says.

    Raises:
        ValueError: the answer is none, or longer than `MOST_BYTES`.
        OSError: there was no answer.
    """
    roots = await asyncio.to_thread(_root_certificates)
    import httpx  # noqa: PLC0415 see _root_certificates

    body = bytearray()
    try:
        async with httpx.AsyncClient(verify=roots, timeout=FETCH_S) as client, client.stream("GET", url) as response:
            if response.status_code != 200:
                raise ValueError(f"status {response.status_code}")
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MOST_BYTES:
                    raise ValueError(f"more than {MOST_BYTES} bytes")
    except (httpx.HTTPError, httpx.InvalidURL, ImportError) as error:  # the last: of a SOCKS proxy in the environment
        raise OSError(str(error) or type(error).__name__) from error
    return bytes(body)


def _root_certificates() -> ssl.SSLContext:
    """Load what a fetch needs, in a thread: the loop carries everybody's streams meanwhile."""
    import httpx  # noqa: PLC0415 it takes 0.3 s, a third of the whole start, and most gateways fetch no keys

    return httpx.create_ssl_context()
