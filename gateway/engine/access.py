"""Access tokens: fetched with a provider's grant, sent with its requests, and renewed before they end.

One fetch at a time, whoever waits for it. While a token is good nobody waits: it is renewed in the background, and an
outage of who makes tokens is felt only when it outlasts the token. Source: RFC 6749, "Issuing an Access Token".
"""

import asyncio
import logging
import re
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from gateway.core.errors import TimedOut, Unreachable, UpstreamFailed
from gateway.core.resources import Clock
from gateway.engine.failures import timed_out
from gateway.engine.transport import Deadline, Transport
from gateway.providers.base import Grant, Request
from gateway.providers.failures import UNREADABLE, brief
from gateway.providers.masking import masked

EARLY_S = 300.0
"""So long before its end a token is renewed; in its second half, if it lasts less than twice that."""
MARGIN_S = 10.0
"""So long before its end it is sent no more: it has to be good when it arrives, and clocks differ."""
PAUSE_S = 2.0
"""At least this long lies between the beginnings of two fetches."""
FETCH_S = 10.0
"""How long a fetch may take, all of it."""
MOST_BYTES = 64 * 1024
"""A longer answer is no token."""
PASSING = frozenset({408, 429})
"""Of the 4xx, those that say nothing about the credential."""

log = logging.getLogger("gateway")


class Access:
    """The access tokens of one grant; shared by all calls, and kept over reloads.

    Args:
        grant: says what to ask, and of whom.
        transport: carries the asking.
        clock: says how old a token is.
    """

    def __init__(self, grant: Grant, transport: Transport, clock: Clock) -> None:
        self._grant = grant
        self._transport = transport
        self._clock = clock
        self._bearer = ""
        self._renew_s = self._end_s = self._began_s = float("-inf")
        self._failure = Failure("no access token was ever asked for")
        self._fetching: asyncio.Task[None] | None = None

    async def authorize(self, request: Request, deadline: Deadline) -> None:
        """Give `request` a token that is good; at once, unless there is none.

        Raises:
            UpstreamFailed: there is none, and none can be had.
            TimedOut: `deadline` passed before there was one.
        """
        if self._clock.now() >= self._renew_s:
            await self._renew(deadline)
        request.headers["authorization"] = self._bearer

    def forget(self, request: Request) -> None:
        """Know that the token of `request` was refused: the next request gets another one."""
        if request.headers.get("authorization") == self._bearer:
            self._renew_s = self._end_s = float("-inf")
            self._failure = Failure("the upstream refused the last access token, and no other has been fetched yet")

    async def _renew(self, deadline: Deadline) -> None:
        now_s = self._clock.now()
        if self._fetching is None and now_s - self._began_s >= PAUSE_S:
            self._began_s = now_s
            self._fetching = asyncio.ensure_future(self._fetch(now_s))
        if now_s < self._end_s:
            return
        if (fetching := self._fetching) is not None:
            left_s = max(0.0, deadline.at_s - asyncio.get_running_loop().time())
            # Not the task itself: a client that leaves must not cancel it for others.
            done, _ = await asyncio.wait({fetching}, timeout=left_s)
            if not done:
                raise timed_out(deadline.clock)
        now_s = self._clock.now()
        if now_s >= self._end_s:
            raise self._failure.error(max(0.0, self._began_s + PAUSE_S - now_s))

    async def _fetch(self, asked_s: float) -> None:
        try:
            found = await self._ask()
        finally:
            self._fetching = None
        if isinstance(found, Failure):
            self._failure = found
            log.warning("%s; the last token is good for %.0f s", found.message, max(0.0, self._end_s - asked_s))
            return
        self._bearer = f"Bearer {found.secret}"
        self._end_s = asked_s + found.lasts_s - MARGIN_S
        self._renew_s = asked_s + max(found.lasts_s - EARLY_S, found.lasts_s / 2)

    async def _ask(self) -> "Token | Failure":
        request = self._grant.request(self._clock.wall())
        host = urlsplit(request.url).netloc
        deadline = Deadline(asyncio.get_running_loop().time() + FETCH_S, "total")
        try:
            response = await self._transport.send(request, connect_s=FETCH_S, deadline=deadline)
            try:
                body = await response.read(MOST_BYTES)
            finally:
                response.close()
        except TimedOut:
            return Failure(f"no access token could be fetched: {host} gave none in {FETCH_S:g} seconds")
        except UpstreamFailed as error:
            return Failure(f"no access token could be fetched from {host}: {error.message}")
        return read(response.status, body, host)


class Token(Struct, frozen=True):
    """What may be sent, and for how long from when it was asked for."""

    secret: str
    lasts_s: float


class Failure(Struct, frozen=True):
    """Why there is no token."""

    message: str
    refused: bool = False
    """The credential itself is not accepted: neither waiting nor asking again mends that."""

    def error(self, wait_s: float) -> UpstreamFailed:
        """Return it as the failure of an attempt; another fetch begins in `wait_s`."""
        if not self.refused:
            return Unreachable(self.message, retry_after_s=wait_s)
        return UpstreamFailed(self.message, code="upstream_auth_failed").lasting()


class _Said(Struct):
    access_token: str = ""
    expires_in: float | str = 0.0
    """Seconds; some write it as text."""
    error: str = ""
    error_description: str = ""


def read(status: int, body: bytes, host: str) -> Token | Failure:
    """Return what an answer of the token endpoint at `host` means. Nothing that may be a secret is repeated."""
    try:
        said = msgspec.json.decode(body, type=_Said)
        lasts_s = float(said.expires_in)
    except (*UNREADABLE, ValueError):
        said, lasts_s = _Said(), 0.0
    if status == 200 and re.fullmatch(r"[!-~]+", said.access_token) and MARGIN_S < lasts_s < float("inf"):
        return Token(said.access_token, lasts_s)
    if status == 200:
        return Failure(f"no access token could be fetched: {host} answered 200, but with none that can be used")
    why = masked(brief(": ".join(filter(None, (said.error, said.error_description)))))
    told = f"{status} {why}".strip()
    if 400 <= status < 500 and status not in PASSING:
        cure = "check the credentials of this provider"
        return Failure(f"{host} gave no access token for the gateway's own credential ({told}); {cure}", refused=True)
    return Failure(f"no access token could be fetched: {host} answered {told}")
