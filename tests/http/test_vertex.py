"""Vertex AI behind the gateway: its tokens are fetched on the way, and no client or log sees them."""

import json

from gateway.engine import access
from tests.providers.test_vertex import ACCOUNT
from tests.script import Fails, Says, ScriptedUpstream
from tests.serving import CHAIN, serving

HELLO = Says("Hello there", prompt_tokens=100, completion_tokens=20)
MESSAGE = {"model": "claude", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}


def config_of(upstream: ScriptedUpstream) -> str:
    credentials = json.dumps({**ACCOUNT, "token_uri": f"{upstream.origin}/token"})
    vertex = {"credentials": credentials, "base_url": upstream.origin, "location": "us-east5"}
    models = {"claude": "vertex/claude-3-haiku@20240307", "gemini": "vertex/gemini-2.5-flash"}
    return f"providers: {{vertex: {json.dumps(vertex)}}}\nmodels: {json.dumps(models)}\n{CHAIN}\n"


def gives(token: str) -> Fails:
    return Fails(200, {"access_token": token, "expires_in": 3600})


async def test_a_token_is_fetched_once_and_sent_with_every_request():
    """To both publishers, for both dialects of clients, over a reload too."""
    async with ScriptedUpstream() as upstream, serving(config_of(upstream)) as gateway:
        upstream.will(gives("token-1"))
        assert (await gateway.ask(model="gemini")).status_code == 200
        upstream.will(HELLO)
        answer = (await gateway.post("/v1/messages", MESSAGE)).json()
        assert (answer["content"][0]["text"], answer["usage"]["input_tokens"]) == ("Hello there", 100)
        gateway.config.text += "\n# changed\n"
        await gateway.live.reload()
        assert "Hello" in await gateway.stream(model="claude")
        assert "Hello" in await gateway.stream(model="gemini")
    asked = [request for request in upstream.requests if request.path != "/token"]
    assert len(upstream.requests) - len(asked) == 1
    assert {request.headers["authorization"] for request in asked} == {"Bearer token-1"}
    place = "/projects/from-the-key/locations/us-east5/publishers"
    assert [request.path for request in asked] == [
        f"/v1beta1{place}/google/models/gemini-2.5-flash:generateContent",
        f"/v1{place}/anthropic/models/claude-3-haiku@20240307:rawPredict",
        f"/v1{place}/anthropic/models/claude-3-haiku@20240307:streamRawPredict",
        f"/v1beta1{place}/google/models/gemini-2.5-flash:streamGenerateContent",
    ]
    assert "model" not in asked[1].json
    assert asked[1].json["anthropic_version"] == "vertex-2023-10-16"


async def test_a_credential_that_google_refuses_is_a_failure_of_ours():
    """A 502, as for any key of ours that is refused: a 401 would tell the client that its own key is bad."""
    async with ScriptedUpstream() as upstream, serving(config_of(upstream)) as gateway:
        upstream.will(Fails(400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}))
        answer = await gateway.ask(model="gemini")
        assert answer.status_code == 502
        error = answer.json()["error"]
        assert error["code"] == "upstream_auth_failed"
        assert "400 invalid_grant: Invalid JWT Signature" in error["message"]
        assert upstream.asked == 1


async def test_an_outage_of_the_tokens_is_tried_again(monkeypatch):
    """It is an upstream that failed before it answered."""
    monkeypatch.setattr(access, "PAUSE_S", 0.05)
    async with ScriptedUpstream() as upstream, serving(config_of(upstream)) as gateway:
        upstream.will(Fails(503, {}), gives("token-1"), HELLO)
        assert (await gateway.ask(model="gemini")).json()["choices"][0]["message"]["content"] == "Hello there"


async def test_an_upstream_that_repeats_the_token_is_not_repeated():
    """Errors are shown to clients, and written to logs."""
    async with ScriptedUpstream() as upstream, serving(config_of(upstream)) as gateway:
        upstream.will(gives("plainword"), Fails(400, {"error": {"message": "bad plainword", "status": "INVALID"}}))
        answer = await gateway.ask(model="gemini")
        assert answer.status_code == 400
        assert "plainword" not in answer.text, "nothing that masks by its looks would know this one"


async def test_a_token_that_was_revoked_is_replaced(monkeypatch):
    """The call that learnt it fails; the next one has a new token."""
    monkeypatch.setattr(access, "PAUSE_S", 0.0)
    async with ScriptedUpstream() as upstream, serving(config_of(upstream)) as gateway:
        revoked = {"error": {"code": 401, "status": "UNAUTHENTICATED", "message": "no"}}
        upstream.will(gives("token-1"), Fails(401, revoked), gives("token-2"), HELLO)
        assert (await gateway.ask(model="gemini")).status_code == 502
        assert (await gateway.ask(model="gemini")).status_code == 200
    assert upstream.requests[-1].headers["authorization"] == "Bearer token-2"
