"""Google's credentials, and how access tokens are asked for with each.

Sources: developers.google.com/identity, "Using OAuth 2.0 for server to server applications" and "… for web server
applications"; cloud.google.com/docs, "Application default credentials", "Access the metadata server".
"""

from pathlib import Path
from typing import Literal
from urllib.parse import urlencode, urlsplit

import msgspec
from msgspec import Struct

from gateway.core.secret import Secret
from gateway.providers.base import Grant, Request

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
ASSERTION_S = 3600
"""How long what a service account signs may be believed: Google takes no longer."""
FORM = {"content-type": "application/x-www-form-urlencoded"}
TOKENS = "https://oauth2.googleapis.com/token"
METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"
"""Plain HTTP to an address that leads no further than the machine's own host."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class ServiceAccount(Struct, frozen=True):
    """A grant by a service account's private key: it signs who it is, and gets a token for that."""

    email: str
    private_key: Secret
    key_id: str
    token_url: str

    def request(self, wall_s: float) -> Request:
        """Return what to ask for a token with.

        Raises:
            ValueError: the private key is none.
        """
        import jwt  # noqa: PLC0415 it takes 0.1 s, as long as all providers do, and few gateways sign anything

        claims = {
            "iss": self.email,
            "scope": SCOPE,
            "aud": self.token_url,
            "iat": int(wall_s),
            "exp": int(wall_s) + ASSERTION_S,
        }
        try:
            headers = {"kid": self.key_id} if self.key_id else None
            signed = jwt.encode(claims, self.private_key.reveal(), algorithm="RS256", headers=headers)
        except (jwt.PyJWTError, ValueError, TypeError):
            raise ValueError("its private_key is no RSA key in PEM") from None
        asked = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": signed}
        return Request(self.token_url, urlencode(asked).encode(), dict(FORM))


class AuthorizedUser(Struct, frozen=True):
    """A grant by a person, who has let `gcloud` act in their name."""

    client_id: str
    client_secret: Secret
    refresh_token: Secret
    token_url: str

    def request(self, wall_s: float) -> Request:
        """Return what to ask for a token with."""
        asked = {
            "grant_type": "refresh_token",
            "client_id": self.client_id,
            "client_secret": self.client_secret.reveal(),
            "refresh_token": self.refresh_token.reveal(),
        }
        return Request(self.token_url, urlencode(asked).encode(), dict(FORM))


class Machine(Struct, frozen=True):
    """A grant by being there: on Google Cloud, a machine is told the tokens of its service account."""

    url: str = METADATA

    def request(self, wall_s: float) -> Request:
        """Return what to ask for a token with."""
        return Request(self.url, b"", {"metadata-flavor": "Google"}, "GET")


class Credential(Struct, frozen=True):
    """A grant, and what was written beside it."""

    grant: Grant | None
    """`None`: none is needed."""
    project: str = ""
    """Empty: it does not say."""
    quota_project: str = ""
    """Whose quota is used, where that is another project."""


class _File(Struct):
    type: str = ""
    project_id: str = ""
    quota_project_id: str = ""
    token_uri: str = TOKENS
    client_email: str = ""
    private_key: str = ""
    private_key_id: str = ""
    client_id: str = ""
    client_secret: str = ""
    refresh_token: str = ""


NEEDED: dict[str, tuple[Literal["client_email", "private_key", "client_id", "client_secret", "refresh_token"], ...]] = {
    "service_account": ("client_email", "private_key"),
    "authorized_user": ("client_id", "client_secret", "refresh_token"),
}
"""By the type of credential, what it cannot do without."""


def credential(said: Secret) -> Credential:
    """Return the credential that `said` is, or names: JSON, the path of a file with it, or `metadata`.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it holds no credential that can be used here; no secret is repeated.
    """
    text = said.reveal().strip()
    if text == "metadata":
        return Credential(Machine())
    if not text.startswith("{"):
        text = Path(text).expanduser().read_text(encoding="utf-8")
    try:
        file = msgspec.json.decode(text, type=_File)
    except (msgspec.DecodeError, RecursionError):
        raise ValueError("it is not the JSON of a Google credential") from None
    if file.type not in NEEDED:
        known = " and ".join(NEEDED)
        raise ValueError(f'a credential of type "{file.type}" is not known here; {known} are')
    if missing := [name for name in NEEDED[file.type] if not getattr(file, name)]:
        raise ValueError(f"it has no {missing[0]}")
    return Credential(_grant(file), file.project_id, file.quota_project_id)


def _grant(file: _File) -> Grant:
    url = urlsplit(file.token_uri)
    if not url.hostname or not (url.scheme == "https" or (url.scheme == "http" and url.hostname in LOOPBACK)):
        raise ValueError("its token_uri is no https:// address: a secret is sent there")
    if file.type == "authorized_user":
        return AuthorizedUser(file.client_id, Secret(file.client_secret), Secret(file.refresh_token), file.token_uri)
    grant = ServiceAccount(file.client_email, Secret(file.private_key), file.private_key_id, file.token_uri)
    grant.request(0.0)  # so that a key that cannot sign is known at once
    return grant
