"""Signatures: AWS refuses a request for one byte that was signed otherwise than it was sent."""

import pytest

from gateway.core.secret import Secret
from gateway.providers.base import Request
from gateway.providers.sigv4 import Credentials, signed

KEY = Credentials(Secret("AKIDEXAMPLE"), Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"))
TOKEN = Secret("6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267")
WALL_S = 1_440_938_160.0
"""2015-08-30 12:36:00 UTC, the moment of all of AWS's examples."""


def authorization(request: Request, credentials: Credentials = KEY, service: str = "service") -> str:
    return signed(request, credentials, region="us-east-1", service=service, wall_s=WALL_S).headers["authorization"]


@pytest.mark.parametrize(
    ("request_", "credentials", "names", "signature"),
    [
        (
            Request("https://example.amazonaws.com/", b"", {}, "GET"),
            KEY,
            "host;x-amz-date",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            Request("https://example.amazonaws.com", b"", {}, "POST"),
            KEY,
            "host;x-amz-date",
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        ),
        (
            Request(
                "https://example.amazonaws.com/",
                b"Param1=value1",
                {"content-type": "application/x-www-form-urlencoded"},
            ),
            KEY,
            "content-type;host;x-amz-date",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
        (
            Request("https://example.amazonaws.com/", b"", {}, "GET"),
            Credentials(KEY.access_key_id, KEY.secret_access_key, TOKEN),
            "host;x-amz-date;x-amz-security-token",
            "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8",
        ),
    ],
    ids=["get-vanilla", "post-vanilla", "post-x-www-form-urlencoded", "get-vanilla-with-session-token"],
)
def test_it_signs_as_aws_does(request_, credentials, names, signature):
    """Cases of AWS's own test suite, by their names there."""
    assert authorization(request_, credentials) == (
        f"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={names}, Signature={signature}"
    )


def test_the_query_is_signed_too():
    """The example of AWS's documentation."""
    request = Request(
        "https://iam.amazonaws.com/?Version=2010-05-08&Action=ListUsers",
        b"",
        {"content-type": "application/x-www-form-urlencoded; charset=utf-8"},
        "GET",
    )
    assert authorization(request, service="iam").endswith(
        "Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    )


def test_the_path_is_encoded_once_more_than_it_is_sent():
    """Model ids hold colons: `%3A` is signed as `%253A`. The signature was computed step by step with openssl."""
    request = Request(
        "https://bedrock-runtime.us-east-1.amazonaws.com/model/anthropic.claude-3-haiku-20240307-v1%3A0/converse",
        b"{}",
        {"content-type": "application/json"},
    )
    assert authorization(request, service="bedrock").endswith(
        "Signature=1e3e5ff96e9eaa6f374cc3e88308f4dd8c58e317eb37fe847a49419ac9af2387"
    )


def test_nothing_is_changed_but_the_headers_and_no_secret_is_sent():
    """The request may be signed again by the next attempt."""
    request = Request("https://example.amazonaws.com/", b"body", {"content-type": "text/plain"})
    sent = signed(request, KEY, region="us-east-1", service="service", wall_s=WALL_S)
    assert request.headers == {"content-type": "text/plain"}
    assert (sent.url, sent.body, sent.method) == (request.url, request.body, request.method)
    assert sent.headers["x-amz-date"] == "20150830T123600Z"
    assert KEY.secret_access_key.reveal() not in repr(sent)
    assert repr(KEY).count("••••") == 2
