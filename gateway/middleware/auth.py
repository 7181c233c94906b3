"""Who is calling: a virtual key or a token, and which models it may use."""

from collections.abc import Mapping
from typing import ClassVar, Protocol

from msgspec.structs import replace

from gateway.core.call import ASKING, EVERY, Call, Operation
from gateway.core.errors import Forbidden, Unauthorized
from gateway.core.middleware import Handler
from gateway.core.principal import Principal
from gateway.core.reply import Reply
from gateway.core.resources import Keys, Resources
from gateway.middleware.base import Options
from gateway.middleware.jwt_options import JwtOptions


class AuthOptions(Options, frozen=True, kw_only=True):
    """Who is let in: the owners of the virtual keys under `keys:`, and those whose tokens can be believed."""

    operations: ClassVar[frozenset[Operation]] = EVERY
    inside: ClassVar[Mapping[str, str]] = {
        "log": "those who are turned away are logged too",
        "metrics": "those who are turned away are counted too",
    }

    jwt: JwtOptions | None = None
    """Accept the tokens of an identity provider too."""

    def build(self, resources: Resources) -> "Auth":
        """Make the middleware.

        Raises:
            ValueError: nobody could get in, or the `jwt` options do not go together.
        """
        if self.jwt is None and not len(resources.keys):
            raise ValueError(
                "auth would let nobody in: add `keys:` or `jwt:`, or take `auth` out of the chain to let everybody in"
            )
        if self.jwt is None:
            return Auth(resources.keys, None)
        from gateway.middleware.jwt_verifier import JwtVerifier  # noqa: PLC0415 its libraries take 0.2 s to import

        return Auth(resources.keys, JwtVerifier(self.jwt, resources.clock, resources.key_sets))


class Tokens(Protocol):
    """Knows whom a token speaks of."""

    async def principal(self, token: str) -> Principal:
        """Return whom `token` speaks of.

        Raises:
            Unauthorized: it cannot be believed.
            Unavailable: nobody can say at the moment.
        """
        ...


class Auth:
    """Finds the principal, writes it on the call and its receipt, and checks that it may use the model."""

    def __init__(self, keys: Keys, tokens: Tokens | None) -> None:
        self._keys = keys
        self._tokens = tokens
        theirs = ["one of the gateway's `keys:`"] if len(keys) else []
        theirs += ["a token"] if tokens is not None else []
        self._cure = f"send {' or '.join(theirs)} as `Authorization: Bearer …`"

    async def __call__(self, call: Call, next: Handler) -> Reply:
        """Pass the call on with its principal.

        Raises:
            Unauthorized: no credential, or none that opens anything.
            Forbidden: the model is not for this principal. Fallbacks are checked where they are chosen.
            Unavailable: a token cannot be checked at the moment.
        """
        try:
            secret = call.credential.reveal()
            known = self._keys.find(secret) if secret else None  # the digest of nothing may stand in a configuration
            principal = known or await self._otherwise(secret)
        except Unauthorized:
            call.receipt.headers["www-authenticate"] = "Bearer"  # RFC 9110 §15.5.2: a 401 has to say how
            raise
        call.receipt.principal = principal
        if (call.operation in ASKING or call.operation == "count") and not principal.may_use(call.model):
            raise Forbidden(_not_allowed(principal, call.model), param="model", code="model_not_allowed")
        return await next(replace(call, principal=principal))

    async def _otherwise(self, secret: str) -> Principal:
        """Return whom what is no key of ours speaks of."""
        if not secret:
            raise Unauthorized("no API key: send `Authorization: Bearer <key>`", code="missing_api_key")
        if self._tokens is not None and secret.count(".") == 2:
            return await self._tokens.principal(secret)
        shown = masked(secret)
        raise Unauthorized(f"no such API key{f': {shown}' if shown else ''}; {self._cure}")


def masked(secret: str) -> str:
    """Return what may be shown of a credential, enough to know it by: `sk-…wxyz`; of a short one nothing."""
    return f"{secret[:3]}…{secret[-4:]}" if len(secret) > 12 else ""


def _not_allowed(principal: Principal, model: str) -> str:
    allowed = ", ".join(principal.models[:20]) + (", …" if len(principal.models) > 20 else "")
    return f'this key may not use "{model[:100]}"; it may use {allowed or "no model at all"}'
