"""AWS Signature Version 4: how a request proves that its sender has the secret, without sending it.

Source: docs.aws.amazon.com/IAM, "Create a signed AWS API request".
"""

import hmac
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import quote, urlsplit

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.secret import Secret
from gateway.providers.base import Request


class Credentials(Struct, frozen=True):
    """Who signs."""

    access_key_id: Secret
    secret_access_key: Secret
    session_token: Secret = Secret()
    """Comes with temporary credentials, and with none else."""


def signed(request: Request, credentials: Credentials, *, region: str, service: str, wall_s: float) -> Request:
    """Return `request` with its signature: over its method, URL, body and all headers that it has by now.

    Args:
        request: with its final URL. What is added on the way out (`user-agent`, `traceparent`) is not signed.
        credentials: of who signs.
        region: `us-east-1`.
        service: the name that AWS signs by: `bedrock`.
        wall_s: now, in seconds since 1970; AWS takes a signature for a few minutes.
    """
    moment = f"{datetime.fromtimestamp(wall_s, UTC):%Y%m%dT%H%M%SZ}"
    scope = f"{moment[:8]}/{region}/{service}/aws4_request"
    headers = {**request.headers, "x-amz-date": moment}
    if credentials.session_token:
        headers["x-amz-security-token"] = credentials.session_token.reveal()
    asked, names = _canonical(request, headers)
    statement = "\n".join(("AWS4-HMAC-SHA256", moment, scope, sha256(asked.encode()).hexdigest()))
    key = f"AWS4{credentials.secret_access_key.reveal()}".encode()
    for part in scope.split("/"):
        key = _hmac(key, part)
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key_id.reveal()}/{scope}, "
        f"SignedHeaders={names}, Signature={_hmac(key, statement).hex()}"
    )
    return replace(request, headers=headers)


def _canonical(request: Request, headers: dict[str, str]) -> tuple[str, str]:
    """Return the request as AWS writes it down to sign it, and the names of the headers in it.

    Its path is encoded twice, once more than it is sent: `%3A` becomes `%253A`. Of all services only S3 does not.
    """
    url = urlsplit(request.url)
    lines = sorted({**headers, "host": url.netloc.lower()}.items())
    names = ";".join(name for name, _ in lines)
    parts = (
        request.method,
        quote(url.path or "/"),
        "&".join(sorted(url.query.split("&"))),
        *(f"{name}:{' '.join(value.split())}" for name, value in lines),
        "",
        names,
        sha256(request.body).hexdigest(),
    )
    return "\n".join(parts), names


def _hmac(key: bytes, message: str) -> bytes:
    return hmac.digest(key, message.encode(), "sha256")
