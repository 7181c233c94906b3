"""Which tokens (JWT) are accepted. Apart from the verifier, whose libraries most gateways need not import."""

from msgspec import Struct

from gateway.core.secret import Secret
from gateway.core.units import Duration


class Claims(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a token says what; dots lead inward, as in `app_metadata.team`."""

    user: str = "sub"
    """Who it is: limits, budgets and logs go by `user:<this>`."""
    team: str = ""
    """The team. Empty: tokens name none."""
    models: str = ""
    """The models that may be used: a list, or names with spaces between. A token without the claim may use none.
    Empty: every token may use every model."""
    admin: str = ""
    """`true` makes an administrator, and nothing else does. Empty: no token makes one."""


class JwtOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tokens that are accepted beside virtual keys. Each has to say when it expires (`exp`)."""

    secret: Secret = Secret()
    """Shared with whoever signs the tokens (HS256 …). Either this or `jwks_url`."""
    jwks_url: str = ""
    """Where the signer publishes its keys: `https://…/.well-known/jwks.json`. `http://` only inside your network."""
    algorithms: tuple[str, ...] = ()
    """What tokens may be signed with. Left out: HS256 with a `secret`, RS256 and ES256 with a `jwks_url`."""
    issuer: str = ""
    """What `iss` must be. Empty: anything."""
    audience: str | tuple[str, ...] = ()
    """What `aud` must be, or one of several. Left out: anything, also tokens made for other services."""
    leeway: Duration = Duration(30)
    """How much the signer's clock may differ from ours."""
    claims: Claims = Claims()
    """Where tokens say what."""
    require: dict[str, str | int | bool] = {}
    """Claims and the values they must have; of a list, one: `{role: authenticated}`."""
