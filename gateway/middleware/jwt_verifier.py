"""Tokens of an identity provider (JWT): whom they speak of, if they can be believed."""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, cast

import jwt
from jwt.algorithms import HMACAlgorithm

from gateway.core.errors import Unauthorized
from gateway.core.principal import Principal
from gateway.core.resources import Clock, KeySets
from gateway.middleware.jwt_options import Claims, JwtOptions

SHARED = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Algorithms with a shared secret, and how many bytes it must have (RFC 7518 §3.2)."""
PUBLIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Algorithms with a public key."""
MOST_TOKEN_CHARS = 16 * 1024
MOST_ID_CHARS = 256
MOST_REMEMBERED = 10_000
LAST_SECOND = 10**12
"""No time is later, in seconds since 1970; a token may also say `Infinity`, or a number of a thousand digits."""
REMEMBERED_S = 600.0
"""How long a verified token is believed without being verified again: a withdrawn key has its effect by then."""


class JwtVerifier:
    """Verifies tokens, and remembers those it has verified by the digest of the whole of them.

    Raises:
        ValueError: the options do not go together; the message says how they would.
    """

    def __init__(self, options: JwtOptions, clock: Clock, key_sets: KeySets | None) -> None:
        self._options = options
        self._algorithms = _algorithms(options)
        self._secret = _shared_secret(options, self._algorithms) if options.secret else b""
        self._clock = clock
        if options.jwks_url and key_sets is None:
            raise ValueError("jwks_url: nothing can be fetched here; use `secret`")
        self._key_sets = key_sets
        self._remembered: OrderedDict[bytes, tuple[Principal, float]] = OrderedDict()

    async def principal(self, token: str) -> Principal:
        """Return whom `token` speaks of.

        Raises:
            Unauthorized: it cannot be believed, or is over; the message says which.
            Unavailable: the signer's keys cannot be fetched.
        """
        if len(token) > MOST_TOKEN_CHARS or not token.isascii():
            raise Unauthorized(f"this is no token: more than {MOST_TOKEN_CHARS} characters, or others than ASCII")
        digest = hashlib.sha256(token.encode()).digest()
        now = self._clock.wall()
        known = self._remembered.get(digest)
        if known is not None and now < known[1]:
            self._remembered.move_to_end(digest)
            return known[0]
        claims = await self._claims(token)
        until_s = self._check_time(claims, now)
        self._check_required(claims)
        principal = _principal(claims, self._options.claims)
        self._remembered[digest] = (principal, min(until_s, now + REMEMBERED_S))
        if len(self._remembered) > MOST_REMEMBERED:
            self._remembered.popitem(last=False)
        return principal

    async def _claims(self, token: str) -> dict[str, Any]:
        """Return what `token` says, its signature, issuer and audience checked, its time not."""
        options = self._options
        try:
            header = jwt.get_unverified_header(token)
            algorithm = header.get("alg")
            if algorithm not in self._algorithms:
                raise jwt.InvalidAlgorithmError(f"it is signed with another algorithm than {self._algorithms}")
            return jwt.decode(
                token,
                await self._key(algorithm, header.get("kid", "")),
                algorithms=[algorithm],
                issuer=options.issuer or None,
                audience=options.audience or None,
                # Its own look at the time goes by the machine's clock; `_check_time` goes by the gateway's.
                options={
                    "verify_aud": bool(options.audience),
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "enforce_minimum_key_length": True,
                },
            )
        except jwt.PyJWTError as error:
            raise Unauthorized(f"the token is not valid: {_reason(error)}") from error

    async def _key(self, algorithm: str, kid: str) -> jwt.PyJWK | bytes:
        if self._key_sets is None or not self._options.jwks_url:
            return self._secret
        found = await self._key_sets.find(self._options.jwks_url, kid)
        if found is None:
            raise jwt.InvalidKeyError("its signer publishes no such key")
        if found.get("alg", algorithm) != algorithm:
            raise jwt.InvalidAlgorithmError("its signer uses this key with another algorithm")
        return jwt.PyJWK(dict(found), algorithm)

    def _check_time(self, claims: Mapping[str, Any], now: float) -> float:
        """Return until when the token is good, in seconds since 1970.

        Raises:
            Unauthorized: it is not yet, or no more, or does not say.
        """
        expires_s = _seconds(claims, "exp")
        if expires_s is None:
            raise Unauthorized("the token does not say when it expires (`exp`), so it is not accepted")
        if now >= expires_s + self._options.leeway:
            raise Unauthorized("the token has expired; get a new one", code="expired_token")
        begins_s = _seconds(claims, "nbf")
        if begins_s is not None and now < begins_s - self._options.leeway:
            raise Unauthorized("the token is not valid yet (`nbf`)")
        return expires_s + self._options.leeway

    def _check_required(self, claims: Mapping[str, Any]) -> None:
        for path, wanted in self._options.require.items():
            if not any(type(said) is type(wanted) and said == wanted for said in _each(_claim(claims, path))):
                raise Unauthorized(f"the token's claim `{path}` is not what this gateway asks for")


def _algorithms(options: JwtOptions) -> tuple[str, ...]:
    if bool(options.secret) == bool(options.jwks_url):
        raise ValueError(
            "jwt needs either `secret` or `jwks_url`"
            + (", not both: a token must have one way to be believed" if options.secret else "; both are empty")
        )
    if options.jwks_url and not options.jwks_url.startswith(("https://", "http://")):
        raise ValueError(f'jwks_url: expected https://…, got "{options.jwks_url}"')
    possible, usual = (tuple(SHARED), ("HS256",)) if options.secret else (PUBLIC, ("RS256", "ES256"))
    for name in options.algorithms:
        if name not in possible:
            reason = "`secret`" if options.secret else "`jwks_url`"
            raise ValueError(f'algorithms: "{name}" does not go with {reason}; possible are {", ".join(possible)}')
    return options.algorithms or usual


def _shared_secret(options: JwtOptions, algorithms: tuple[str, ...]) -> bytes:
    secret = options.secret.reveal().encode()
    needed = max(SHARED[name] for name in algorithms)
    if len(secret) < needed:
        raise ValueError(
            f"secret: {len(secret)} bytes are too few to be safe with {', '.join(algorithms)}: it needs {needed}; "
            "make one with `openssl rand -base64 48`"
        )
    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    except jwt.InvalidKeyError as error:
        raise ValueError(
            "secret: this is a public key, which everybody knows; publish it and use `jwks_url`"
        ) from error
    return secret


def _reason(error: jwt.PyJWTError) -> str:
    """Return why PyJWT refused a token, in words that repeat nothing of the token."""
    match error:
        case jwt.InvalidSignatureError():
            return "its signature does not match"
        case jwt.InvalidAudienceError():
            return "it was made for another service (`aud`)"
        case jwt.InvalidIssuerError():
            return "it was made by somebody else (`iss`)"
        case jwt.MissingRequiredClaimError():
            return f"its claim `{error.claim}` is missing"
        case jwt.InvalidAlgorithmError() | jwt.InvalidKeyError():
            return "it is not signed with an algorithm and a key that are accepted here"
        case _:
            return "it cannot be read"


def _principal(claims: Mapping[str, Any], names: Claims) -> Principal:
    user = _text(claims, names.user)
    if not user:
        raise Unauthorized(f"the token does not say whose it is (`{names.user}`)")
    return Principal(
        f"user:{user}",
        user=user,
        team=_text(claims, names.team),
        models=_models(claims, names.models),
        admin=bool(names.admin) and _claim(claims, names.admin) is True,
    )


def _text(claims: Mapping[str, Any], path: str) -> str:
    said = _claim(claims, path) if path else None
    if said is None:
        return ""
    text = str(said)
    is_text = isinstance(said, str | int) and not isinstance(said, bool) and not re.search("[\ud800-\udfff]", text)
    if not is_text or len(text) > MOST_ID_CHARS:
        raise Unauthorized(f"the token's claim `{path}` is no text of at most {MOST_ID_CHARS} characters")
    return text


def _models(claims: Mapping[str, Any], path: str) -> tuple[str, ...]:
    if not path:
        return ("*",)
    said = _claim(claims, path)
    names = said.split() if isinstance(said, str) else _each(said)
    return tuple(name for name in names if isinstance(name, str))


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    said = claims.get(name)
    if said is None:
        return None
    if isinstance(said, bool) or not isinstance(said, int | float) or not abs(said) < LAST_SECOND:
        raise Unauthorized(f"the token's claim `{name}` is no time")
    return float(said)


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """Return the claim at `path`: by its whole name, dots and all, or else by following the dots."""
    if path in claims:
        return claims[path]
    found: object = claims
    for name in path.split("."):
        found = cast("Mapping[str, object]", found).get(name) if isinstance(found, Mapping) else None
    return found


def _each(said: Any) -> list[Any]:
    return cast("list[Any]", said) if isinstance(said, list) else [said]
