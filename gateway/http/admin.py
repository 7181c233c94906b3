"""What operators do at run time."""

import ipaddress

from litestar.types import HTTPScope, Receive

from gateway.core.call import Body, Call, Headers
from gateway.core.errors import BadRequest, Forbidden, GatewayError
from gateway.core.reply import Chunk, Reply
from gateway.http.requests import invalid_call, new_call, require_method
from gateway.settings.build import Gateway
from gateway.settings.complaints import ConfigError
from gateway.settings.live import Live
from gateway.wire.openai import encode

FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
"""What a proxy adds: the request only seems to come from this machine."""


class ReloadReader:
    """Reads `POST /admin/reload`: take the configuration file as it now is, in every worker.

    It is for operators: a key with `admin: true`, or, where nobody is asked for a key, this machine alone.
    """

    def __init__(self, live: Live) -> None:
        self._live = live

    async def __call__(self, gateway: Gateway, scope: HTTPScope, receive: Receive, id: str) -> Call:
        """Return the call."""
        headers = Headers(dict(scope["headers"]))
        try:
            require_method(scope, "POST")
            require_operator(gateway, scope, headers)
        except GatewayError as error:
            return invalid_call(gateway, headers, id, error)
        return new_call(gateway, headers, Body(), id, "admin", "").but(own=self._reload)

    async def _reload(self, call: Call) -> Reply:
        require_admin(self._live.gateway, call)
        try:
            config = await self._live.reload_everywhere()
        except ConfigError as error:
            raise BadRequest(f"the old configuration goes on serving: {error}", code="invalid_config") from None
        return Reply(Chunk(encode({"config": config})))


def require_operator(gateway: Gateway, scope: HTTPScope, headers: Headers) -> None:
    """Refuse who is not on this machine, where nobody is asked for a key.

    Raises:
        Forbidden: the request comes, or may come, from elsewhere.
    """
    if not gateway.has_auth and (not _is_loopback(scope) or any(headers.get(name) for name in FORWARDED)):
        raise Forbidden("without keys, only this machine may do that; add a key with `admin: true`")


def require_admin(gateway: Gateway, call: Call) -> None:
    """Refuse who has another key than an operator's, where keys are asked for.

    Raises:
        Forbidden: the key is none with `admin: true`.
    """
    if gateway.has_auth and not call.principal.admin:
        raise Forbidden("this key may not do that; it takes one with `admin: true`")


async def admitted(gateway: Gateway, call: Call) -> Call:
    """Return the call with its principal, as `auth` sees it; nobody else of the chain hears of it.

    Raises:
        GatewayError: it is not let in.
    """
    let_in: list[Call] = []

    async def admit(call: Call) -> Reply:
        let_in.append(call)
        return Reply(Chunk(b""))

    auth = next((room for name, _, room in gateway.rooms if name == "auth"), None)
    if auth is None:
        return call
    await auth(call, admit)
    return let_in[0]


async def sees_inside(gateway: Gateway, headers: Headers) -> bool:
    """Tell whether somebody may read what only operators should, of a page that all may read: an operator by the key
    that was sent, or, where nobody is asked for a key, anybody.
    """
    if not gateway.has_auth:
        return True
    try:
        call = await admitted(gateway, new_call(gateway, headers, Body(), "", "admin", ""))
    except GatewayError:
        return False
    return call.principal.admin


def _is_loopback(scope: HTTPScope) -> bool:
    client = scope["client"]
    try:
        return client is not None and ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False
