"""Vertex AI: its credentials, addresses and headers; what is said there the golden files show."""

import json
from typing import Any
from urllib.parse import parse_qs

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.core.call import Headers
from gateway.core.errors import BadRequest
from gateway.core.secret import Secret
from gateway.engine.prices import table_prices
from gateway.providers.base import grant_of, speaks
from gateway.providers.google_credentials import TOKENS, Machine
from gateway.providers.vertex import Vertex, VertexOptions
from tests.providers.test_golden import attempt

HI = [{"role": "user", "content": "Hi"}]
NOW_S = 1_795_000_000.0


def pem(key: Any) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


KEY = rsa.generate_private_key(65537, 2048)
ACCOUNT = {
    "type": "service_account",
    "project_id": "from-the-key",
    "private_key_id": "key-1",
    "private_key": pem(KEY),
    "client_email": "gateway@from-the-key.iam.gserviceaccount.com",
    "token_uri": "https://oauth2.googleapis.com/token",
    "universe_domain": "googleapis.com",
}
PERSON = {
    "type": "authorized_user",
    "client_id": "id.apps.googleusercontent.com",
    "client_secret": "a-client-secret",
    "refresh_token": "1//a-refresh-token",
    "quota_project_id": "who-pays",
}


def options(credentials: Any = ACCOUNT, **more: Any) -> VertexOptions:
    said = credentials if isinstance(credentials, str) else json.dumps(credentials)
    return VertexOptions(**{"credentials": Secret(said), "location": "europe-west4", **more})


def vertex(credentials: Any = ACCOUNT, **more: Any) -> Vertex:
    return options(credentials, **more).build("vertex")


def message(model: str, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    """An attempt of a client that speaks messages."""
    called = attempt({"max_tokens": 9, "messages": HI, **fields}, model)
    raw = {name.encode(): value.encode() for name, value in (headers or {}).items()}
    return called.but(surface="messages", headers=Headers(raw))


def test_a_service_account_signs_who_it_is():
    """Google checks the signature with the account's public key, and for whom, by whom and until when it is."""
    grant = grant_of(vertex())
    assert grant is not None
    request = grant.request(NOW_S)
    form = parse_qs(request.body.decode())
    assert (request.url, form["grant_type"]) == (TOKENS, ["urn:ietf:params:oauth:grant-type:jwt-bearer"])
    (signed,) = form["assertion"]
    assert jwt.get_unverified_header(signed)["kid"] == "key-1"
    at_any_time = {"verify_exp": False, "verify_iat": False}
    claims = jwt.decode(signed, KEY.public_key(), ["RS256"], audience=TOKENS, options=at_any_time)
    assert claims == {
        "iss": ACCOUNT["client_email"],
        "scope": "https://www.googleapis.com/auth/cloud-platform",
        "aud": TOKENS,
        "iat": NOW_S,
        "exp": NOW_S + 3600,
    }


def test_a_person_s_refresh_token_is_changed_for_an_access_token():
    """What `gcloud auth application-default login` leaves; it names whose quota is used too."""
    provider = vertex(PERSON, project="p")
    grant = grant_of(provider)
    assert grant is not None
    request = grant.request(NOW_S)
    assert parse_qs(request.body.decode()) == {
        "grant_type": ["refresh_token"],
        "client_id": [PERSON["client_id"]],
        "client_secret": [PERSON["client_secret"]],
        "refresh_token": [PERSON["refresh_token"]],
    }
    assert provider.request(attempt({"messages": HI}, "gemini-2.5-flash")).headers["x-goog-user-project"] == "who-pays"


def test_a_machine_of_google_s_is_told_its_tokens():
    """By the metadata server, which answers only who says that it means to ask it."""
    grant = grant_of(vertex("metadata", project="p"))
    assert grant == Machine()
    request = Machine().request(NOW_S)
    assert (request.method, request.headers) == ("GET", {"metadata-flavor": "Google"})
    assert request.url.startswith("http://metadata.google.internal/")


def test_a_ready_token_needs_no_other_credential():
    """And goes before it."""
    provider = vertex(api_key=Secret("ya29.ready"), project="p")
    assert grant_of(provider) is None
    request = provider.request(attempt({"messages": HI}, "gemini-2.5-flash"))
    assert request.headers["authorization"] == "Bearer ya29.ready"


def test_equal_credentials_share_their_tokens():
    """A reload that changes something else asks for no new one."""
    assert grant_of(vertex()) == grant_of(vertex(location="us"))
    assert hash(grant_of(vertex())) == hash(grant_of(vertex()))
    assert grant_of(vertex()) != grant_of(vertex({**ACCOUNT, "client_email": "other@x"}))


def test_a_credential_may_be_the_path_of_a_file(tmp_path):
    """As GOOGLE_APPLICATION_CREDENTIALS has it."""
    file = tmp_path / "key.json"
    file.write_text(json.dumps(ACCOUNT))
    assert options(str(file)).off() == ""
    assert grant_of(vertex(str(file))) == grant_of(vertex())


def test_what_is_not_configured_is_off_and_says_why(tmp_path):
    """A machine without an account at Google starts all the same."""
    assert VertexOptions().off() == "its credentials are empty; set GOOGLE_APPLICATION_CREDENTIALS"
    unreadable = "the file of its credentials cannot be read"
    assert options("/no/such/file.json").off() == f"{unreadable} (No such file or directory)"
    assert options(str(tmp_path)).off() == f"{unreadable} (Is a directory)"
    assert options(PERSON).off() == "its project is empty; set GOOGLE_CLOUD_PROJECT"
    assert options().off() == options(PERSON, project="p").off() == ""


@pytest.mark.parametrize(
    ("credentials", "said"),
    [
        ("{", "it is not the JSON of a Google credential"),
        ("{}", 'a credential of type "" is not known here; service_account and authorized_user are'),
        ({"type": "external_account"}, 'a credential of type "external_account" is not known here'),
        ({**ACCOUNT, "client_email": ""}, "it has no client_email"),
        ({**ACCOUNT, "private_key": "-----BEGIN"}, "its private_key is no RSA key in PEM"),
        ({**ACCOUNT, "private_key": pem(ec.generate_private_key(ec.SECP256R1()))}, "its private_key is no RSA key"),
        ({**ACCOUNT, "token_uri": "http://example.org/token"}, "its token_uri is no https:// address"),
        ({**ACCOUNT, "token_uri": "https://"}, "its token_uri is no https:// address"),
        ({**PERSON, "refresh_token": ""}, "it has no refresh_token"),
    ],
)
def test_a_credential_that_cannot_be_used_is_told_at_the_start(credentials, said):
    """Not by the first call. It is off and no mistake: the variable may be meant for another program."""
    assert options(credentials, project="p").off().startswith(f"its credentials cannot be used: {said}")


@pytest.mark.parametrize("wrong", [{"location": "Europe!"}, {"location": ""}, {"project": "a/b"}])
def test_what_becomes_part_of_an_address_is_checked(wrong):
    """Requests with our token go to the address that it makes."""
    with pytest.raises(ValueError, match="write one like"):
        options(**wrong)


@pytest.mark.parametrize(
    ("more", "begins"),
    [
        ({}, "https://europe-west4-aiplatform.googleapis.com/v1beta1/projects/from-the-key/locations/europe-west4/"),
        ({"location": "global"}, "https://aiplatform.googleapis.com/v1beta1/projects/from-the-key/locations/global/"),
        ({"location": "eu"}, "https://aiplatform.eu.rep.googleapis.com/v1beta1/projects/from-the-key/locations/eu/"),
        ({"project": "mine"}, "https://europe-west4-aiplatform.googleapis.com/v1beta1/projects/mine/"),
        ({"base_url": "https://gcp.example/v1/"}, "https://gcp.example/v1beta1/projects/from-the-key/"),
    ],
)
def test_the_location_is_the_address(more, begins):
    """Every place has a host of its own; `global` has none in its name."""
    url = vertex(**more).request(attempt({"messages": HI}, "gemini-2.5-flash")).url
    assert url.startswith(begins)
    assert url.endswith("/publishers/google/models/gemini-2.5-flash:generateContent")


@pytest.mark.parametrize("model", ["claude-x@1/../..", "gemini?key=x", "claude-a:b#", "модель"])
def test_a_models_name_cannot_leave_its_place_in_the_path(model):
    """Patterns let clients choose the name; it must not choose the endpoint."""
    url = vertex().request(attempt({"messages": HI}, model)).url
    name, _, method = url.partition("/models/")[2].rpartition(":")
    assert method in ("generateContent", "rawPredict")
    assert not set("/?#:") & set(name)


def test_who_speaks_messages_reaches_claude_with_them_as_they_came():
    """But for the model, which the address says, and the version, which the body does."""
    said = message("claude-opus-5", stream=True, system="Be kind.", metadata={"user_id": "u"}, future={"a": [1]})
    request = vertex().request(said)
    assert request.url.endswith("/publishers/anthropic/models/claude-opus-5:streamRawPredict")
    came = json.loads(said.body.raw)
    del came["model"]
    assert json.loads(request.body) == {**came, "anthropic_version": "vertex-2023-10-16"}


def test_betas_go_with_them_and_the_version_does_not():
    """Vertex has one version, which is not the header's."""
    betas = {"anthropic-beta": "context-1m-2025-08-07", "anthropic-version": "2026-10-21"}
    headers = vertex().request(message("claude-opus-5", betas)).headers
    assert headers["anthropic-beta"] == "context-1m-2025-08-07"
    assert "anthropic-version" not in headers


def test_only_claude_speaks_messages_there():
    """Gemini is spoken to by way of chat completions."""
    provider = vertex()
    assert speaks(provider, "claude-opus-5") == {"chat", "messages"}
    assert speaks(provider, "gemini-2.5-pro") == {"chat"}


def test_a_refusal_is_the_same_as_at_their_makers():
    """One translation for both places."""
    for model, param in (("gemini-2.5-flash", "n"), ("claude-opus-5", "n")):
        with pytest.raises(BadRequest) as raised:
            vertex().request(attempt({"messages": HI, "n": 2}, model))
        assert raised.value.param == param


def test_both_have_prices_there():
    """Claude's at Google are in Google's table, under its names there; a proxy's prices are nobody's."""
    table = options().price_table()
    for model in ("gemini-2.5-pro", "claude-sonnet-4-5@20250929", "claude-opus-4-1@20250805"):
        assert table_prices(table, model), model
    assert options(base_url="https://proxy.example").price_table() == ""
    assert options(base_url="https://psc.p.googleapis.com").price_table() == "google"


def test_prefill_is_claude_s_until_4_5():
    """As it is at Anthropic: what continues a broken stream there continues it here."""
    assert options().prefill("claude-sonnet-4-5@20250929") == "plain"
    assert options().prefill("claude-opus-5") == options().prefill("gemini-2.5-pro") == "none"


def test_no_secret_is_printed():
    """Settings are logged."""
    shown = f"{options()} {grant_of(vertex())} {grant_of(vertex(PERSON, project='p'))}"
    for secret in ("PRIVATE KEY", "a-client-secret", "a-refresh-token"):
        assert secret not in shown
    assert b"PRIVATE" not in msgspec.json.encode(str(options()))
