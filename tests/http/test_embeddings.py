"""Embeddings and rerank by providers that speak another dialect: the official SDK in front, the whole chain between."""

import asyncio
import base64
import json
import struct
import threading

import httpx
import openai
import pytest

from gateway.providers.embeddings import Embeddings
from tests.script import Busy, Fails, ScriptedUpstream
from tests.serving import serving

KEY = "key-of-team-a-0123456789"
CHAIN = (
    "chain: [{use: metrics}, {use: auth}, {use: limits}, {use: cache}, {use: cost},"
    " {use: retry, first_wait: 10ms, longest_wait: 50ms}]"
)
MODELS = {
    "cohere": "embed-v4.0",
    "gemini": "gemini-embedding-001",
    "ollama": "nomic-embed-text",
    "bedrock": "amazon.titan-embed-text-v2:0",
}
PATHS = {
    "cohere": "/v2/embed",
    "gemini": "/v1beta/models/gemini-embedding-001:batchEmbedContents",
    "ollama": "/api/embed",
    "bedrock": "/model/amazon.titan-embed-text-v2%3A0/invoke",
}
ERRORS = {
    "cohere": {"id": "e", "message": "too many texts"},
    "gemini": {"error": {"code": 400, "message": "too many texts", "status": "INVALID_ARGUMENT"}},
    "ollama": {"error": "too many texts"},
    "bedrock": {"message": "too many texts"},
}
NUMBERS = [0.5, -1.0, 0.25]
RANKED = {
    "id": "r-1",
    "results": [{"index": 1, "relevance_score": 0.9}],
    "meta": {"billed_units": {"search_units": 1}},
}
EACH = pytest.mark.parametrize("kind", MODELS)


def embedded(asked):
    """The answer of whichever upstream was asked: the vector of every text begins with its place."""
    said = asked.json
    if "texts" in said:
        vectors = [[at, *NUMBERS] for at, _ in enumerate(said["texts"])]
        return Fails(200, {"embeddings": {"float": vectors}, "meta": {"billed_units": {"input_tokens": 40}}})
    if "requests" in said:
        vectors = [{"values": [at, *NUMBERS]} for at, _ in enumerate(said["requests"])]
        return Fails(200, {"embeddings": vectors, "usageMetadata": {"promptTokenCount": 40}})
    if "inputText" in said:
        return Fails(200, {"embedding": [0, *NUMBERS], "inputTextTokenCount": 40})
    return Fails(200, {"embeddings": [[at, *NUMBERS] for at, _ in enumerate(said["input"])], "prompt_eval_count": 40})


def config_of(upstream, kinds, more=""):
    """`m` is at an upstream of these kinds, one after the other; `rerank` at Cohere."""
    named = {kind: {"base_url": upstream.origin, "api_key": "secret"} for kind in {*kinds, "cohere"}}
    if "bedrock" in named:
        named["bedrock"]["region"] = "eu-north-1"
    places = [{"target": f"{kind}/{MODELS[kind]}", "price": {"prompt": 2, "completion": 0}} for kind in kinds]
    models = {"m": {"deployments": places}, "rerank": "cohere/rerank-v3.5", "echo": "echo/echo"}
    return (
        f"providers: {json.dumps({**named, 'echo': {}})}\nmodels: {json.dumps(models)}\n"
        f"keys: [{{name: team-a, key: {KEY}, limits: {{tokens_per_minute: 100}}}}]\n{CHAIN}\n{more}"
    )


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as upstream:
        yield upstream


def one_gateway(upstream, *kinds):
    return serving(config_of(upstream, kinds))


@EACH
async def test_the_sdk_reads_the_embeddings_of_every_provider(upstream, kind):
    """In both encodings, with what they used and cost; one is kept apart from the other."""
    upstream.will(embedded, embedded)
    async with one_gateway(upstream, kind) as gateway:
        client = gateway.openai(KEY)
        for more in ({}, {"encoding_format": "float"}) * 2:
            raw = await client.embeddings.with_raw_response.create(model="m", input="Hi", **more)
            answer = raw.parse()
            assert (answer.data[0].embedding, answer.model) == ([0, *NUMBERS], "m")
            assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (40, 40)
    assert upstream.asked == 2
    assert {asked.path for asked in upstream.requests} == {PATHS[kind]}


@EACH
async def test_what_is_kept_is_answered_in_the_encoding_that_is_asked_for(upstream, kind):
    """A client that cannot read the other would not even notice."""
    upstream.will(embedded, embedded)
    async with one_gateway(upstream, kind) as gateway:
        told = []
        for encoding in ("base64", "float", "base64", "float"):
            body = {"model": "m", "input": "Hi", "encoding_format": encoding}
            told.append(await gateway.post("/v1/embeddings", body, {"authorization": f"Bearer {KEY}"}))
    assert [answer.headers["x-gateway-cache"] for answer in told] == ["miss", "miss", "hit", "hit"]
    assert [answer.headers["x-gateway-cost"] for answer in told] == ["0.000080000"] * 2 + ["0.000000000"] * 2
    packed, numbers = (answer.json()["data"][0]["embedding"] for answer in told[2:])
    assert struct.unpack("<4f", base64.b64decode(packed)) == (0, *NUMBERS) == tuple(numbers)


@pytest.mark.parametrize("kind", ["cohere", "gemini", "ollama"])
async def test_many_texts_come_back_in_their_order(upstream, kind):
    """As one call."""
    upstream.will(embedded)
    async with one_gateway(upstream, kind) as gateway:
        answer = await gateway.openai(KEY).embeddings.create(model="m", input=["a", "b", "c"], dimensions=4)
    assert [(one.index, one.embedding[0]) for one in answer.data] == [(0, 0), (1, 1), (2, 2)]
    assert upstream.asked == 1


@EACH
async def test_errors_of_every_provider_have_the_form_that_sdks_know(upstream, kind):
    """The upstream's own reason, and the exception that goes with it; its 401 is not about the client's key."""
    upstream.will(Fails(400, ERRORS[kind]), Fails(404, ERRORS[kind]), Fails(401, ERRORS[kind]), *[Busy()] * 3)
    async with one_gateway(upstream, kind) as gateway:
        embeddings = gateway.openai(KEY).embeddings
        with pytest.raises(openai.BadRequestError, match="too many texts"):
            await embeddings.create(model="m", input="a")
        with pytest.raises(openai.NotFoundError, match="too many texts"):
            await embeddings.create(model="m", input="b")
        with pytest.raises(openai.InternalServerError, match="own credential") as refused:
            await embeddings.create(model="m", input="c")
        assert refused.value.status_code == 502
        with pytest.raises(openai.RateLimitError):
            await embeddings.create(model="m", input="d")
    assert upstream.asked == 6


@EACH
async def test_a_200_that_is_no_answer_is_tried_again(upstream, kind):
    """And never passed on."""
    upstream.will(Fails(200, ERRORS[kind]), Fails(200, "<html>"), embedded)
    async with one_gateway(upstream, kind) as gateway:
        answer = await gateway.openai(KEY).embeddings.with_raw_response.create(model="m", input="a")
    assert answer.headers["x-gateway-attempts"] == "3" and answer.parse().data[0].embedding == [0, *NUMBERS]


async def test_another_provider_answers_for_one_that_fails(upstream):
    """The same texts for the same purpose, in the other's words, and in the encoding that the client asked for."""
    upstream.will(Fails(500), embedded)
    async with one_gateway(upstream, "cohere", "gemini") as gateway:
        answer = await gateway.openai(KEY).embeddings.with_raw_response.create(
            model="m", input=["a", "b"], extra_body={"input_type": "search_query"}
        )
    first, second = (asked.json for asked in upstream.requests)
    assert (first["texts"], first["input_type"]) == (["a", "b"], "search_query")
    assert [one["content"]["parts"][0]["text"] for one in second["requests"]] == ["a", "b"]
    assert {one["taskType"] for one in second["requests"]} == {"RETRIEVAL_QUERY"}
    assert answer.headers["x-gateway-deployment"] == "gemini/gemini-embedding-001"
    assert [one.embedding[0] for one in answer.parse().data] == [0, 1]


@EACH
async def test_limits_count_what_was_used(upstream, kind):
    """As the upstream counts it: two calls of 40 leave too little for a third that may need 25."""
    upstream.will(embedded, embedded)
    async with one_gateway(upstream, kind) as gateway:
        client = gateway.openai(KEY)
        for text in ("a", "b"):
            await client.embeddings.create(model="m", input=text)
            await gateway.settle()
        with pytest.raises(openai.RateLimitError, match="100 tokens a minute"):
            await client.embeddings.create(model="m", input="c" * 100)
    assert upstream.asked == 2


async def test_a_text_that_is_too_long_for_a_limit_is_named(upstream):
    """It can never pass, so nobody is asked, and the field is the one to make shorter."""
    async with one_gateway(upstream, "cohere") as gateway:
        with pytest.raises(openai.RateLimitError, match="can never pass") as refused:
            await gateway.openai(KEY).embeddings.create(model="m", input="long " * 1000)
        assert refused.value.param == "input"
        denied = await rerank(gateway, query="long " * 1000)
        assert denied.json()["error"]["param"] == "query"
    assert upstream.asked == 0


async def test_coheres_models_at_bedrock_are_asked_with_a_signature(upstream):
    """A batch a call, at Bedrock's address for the model."""
    upstream.will(embedded, Fails(403, {"message": "The security token included in the request is invalid."}))
    bedrock = {"base_url": upstream.origin, "region": "eu-north-1"}
    bedrock |= {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "secret-EXAMPLE"}
    config = {"providers": {"bedrock": bedrock}, "models": {"m": "bedrock/eu.cohere.embed-v4:0"}}
    async with serving(json.dumps(config)) as gateway:
        answer = await gateway.openai().embeddings.create(model="m", input=["a", "b"])
        with pytest.raises(openai.InternalServerError, match="own credential"):
            await gateway.openai().embeddings.create(model="m", input="a")
    assert [one.embedding for one in answer.data] == [[0, *NUMBERS], [1, *NUMBERS]]
    asked = upstream.requests[0]
    assert asked.path == "/model/eu.cohere.embed-v4%3A0/invoke"
    assert asked.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")


@EACH
async def test_tokens_of_another_model_are_refused(upstream, kind):
    """With what langchain has to be told; nobody is asked."""
    async with one_gateway(upstream, kind) as gateway:
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
            await gateway.openai(KEY).embeddings.create(model="m", input=[1, 2, 3])
        with pytest.raises(openai.BadRequestError, match="input"):
            await gateway.openai(KEY).post("/embeddings", body={"model": "m"}, cast_to=object)
    assert upstream.asked == 0


async def test_the_first_try_needs_no_key(upstream):
    """The echo embeds what it is sent, by itself."""
    async with one_gateway(upstream, "cohere") as gateway:
        client = gateway.openai(KEY)
        answer = await client.embeddings.create(model="echo", input=["Hello there", "you"], dimensions=8)
        same = await client.embeddings.create(model="echo", input="Hello there", dimensions=8, encoding_format="float")
    assert answer.data[0].embedding == pytest.approx(same.data[0].embedding)
    assert len(answer.data[0].embedding) == 8 and answer.data[0].embedding != answer.data[1].embedding
    assert answer.usage.prompt_tokens == 3


async def test_a_question_without_its_text_is_told_what_is_missing():
    """In OpenAI's words, as for `messages`."""
    async with serving("providers: {echo: {}}\nmodels: {echo: echo/echo}\nchain: [{use: retry}]\n") as gateway:
        answer = await gateway.post("/v1/embeddings", {"model": "echo"})
        error = answer.json()["error"]
        assert (answer.status_code, error["message"]) == (400, "there is no `input`")
        assert (error["param"], error["code"]) == ("input", "missing_required_parameter")


async def test_many_vectors_hold_up_nobody(upstream, monkeypatch):
    """To pack a thousand takes longer than a call; whoever comes meanwhile is answered."""
    answered, whole = threading.Event(), Embeddings.whole

    def slow(self, attempt, body):
        assert answered.wait(60), "nobody else was answered"
        return whole(self, attempt, body)

    monkeypatch.setattr(Embeddings, "whole", slow)
    upstream.will(Fails(200, {"embeddings": [[0.5] * 250_000]}))
    async with one_gateway(upstream, "ollama") as gateway:
        client = gateway.openai(KEY)
        reading = asyncio.ensure_future(client.embeddings.create(model="m", input="a"))
        await upstream.until(lambda: upstream.asked)
        await client.embeddings.create(model="echo", input="a")
        answered.set()
        assert len((await reading).data[0].embedding) == 250_000


# ── Rerank ───────────────────────────────────────────────────────────────────────────────────────────────────────


def rerank(gateway, **more) -> "httpx.Response":
    body = {"model": "rerank", "query": "q", "documents": ["a", "b"], **more}
    return gateway.post("/v1/rerank", body, {"authorization": f"Bearer {KEY}"})


async def test_documents_are_ranked(upstream):
    """In the shape that Cohere's and Jina's clients read; a repeated call is answered from the cache."""
    upstream.will(Fails(200, RANKED), Fails(200, RANKED))
    async with one_gateway(upstream, "cohere") as gateway:
        told = [await rerank(gateway, return_documents=True) for _ in range(2)]
        plain = await rerank(gateway)
    result = {"index": 1, "relevance_score": 0.9}
    for answer in told:
        assert answer.json() == {**RANKED, "model": "rerank", "results": [{**result, "document": {"text": "b"}}]}
    assert plain.json()["results"] == [result]
    assert [answer.headers["x-gateway-cache"] for answer in (*told, plain)] == ["miss", "hit", "miss"]
    assert upstream.requests[0].path == "/v2/rerank" and upstream.requests[0].json["model"] == "rerank-v3.5"


async def test_a_rerank_that_fails_says_why(upstream):
    """In OpenAI's shape, as everything here."""
    upstream.will(Fails(400, {"message": "documents: too many"}))
    async with one_gateway(upstream, "cohere") as gateway:
        failed, refused = await rerank(gateway), await rerank(gateway, documents=[{"title": "a"}])
    assert (failed.status_code, failed.json()["error"]["message"]) == (400, "documents: too many")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "documents[0]")


async def test_what_is_to_be_ranked_counts_against_limits(upstream):
    """By estimate, for Cohere counts searches and no tokens."""
    upstream.will(Fails(200, RANKED))
    async with one_gateway(upstream, "cohere") as gateway:
        assert (await rerank(gateway, documents=["a" * 280, "b"])).status_code == 200
        await gateway.settle()
        denied = await rerank(gateway, documents=["c" * 280, "d"])
    assert denied.status_code == 429 and upstream.asked == 1
