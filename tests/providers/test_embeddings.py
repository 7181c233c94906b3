"""Embeddings: what each provider is asked, how its answer is read, and what is refused rather than guessed."""

import base64
import contextlib
import json
import math
import random
import struct

import pytest

from gateway.core.call import Passage
from gateway.core.errors import BadRequest, Rejected, Unreachable, UpstreamFailed
from gateway.core.secret import Secret
from gateway.core.usage import Usage
from gateway.providers.base import Request, beside_chat
from gateway.providers.bedrock import BedrockOptions
from gateway.providers.cohere import CohereOptions
from gateway.providers.echo import EchoOptions
from gateway.providers.gemini import GeminiOptions
from gateway.providers.ollama import OllamaOptions
from gateway.providers.openai import OpenAI, OpenAIOptions
from gateway.providers.sigv4 import Credentials, signed
from gateway.providers.vendors import Vendor
from tests.providers.test_fuzz import ODD, VALUE
from tests.providers.test_golden import attempt

KEY = Secret("sk-test")
TITAN, EMBED_ON_BEDROCK = "amazon.titan-embed-text-v2:0", "us.cohere.embed-v4:0"
ARN = "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc"
HIDDEN = {"access_key_id": Secret("AKIDEXAMPLE"), "secret_access_key": Secret("secret-EXAMPLE")}
PROVIDERS = {
    "cohere": CohereOptions(api_key=KEY).build("cohere"),
    "gemini": GeminiOptions(api_key=KEY).build("gemini"),
    "ollama": OllamaOptions(num_ctx=512, keep_alive="10m").build("ollama"),
    "bedrock": BedrockOptions(api_key=KEY, region="us-east-1", behind={ARN: TITAN}).build("bedrock"),
    "signing": BedrockOptions(region="us-east-1", **HIDDEN).build("signing"),
    "mistral": OpenAIOptions(kind="mistral", api_key=KEY).build("mistral"),
    "openai": OpenAIOptions(api_key=KEY).build("openai"),
}
MODELS = {"cohere": "embed-v4.0", "gemini": "gemini-embedding-001", "ollama": "nomic", "bedrock": TITAN}
ANSWERS = {
    "cohere": {"embeddings": {"float": [[0.5, -1.0]]}, "meta": {"billed_units": {"input_tokens": 3}}},
    "gemini": {"embeddings": [{"values": [0.5, -1.0]}], "usageMetadata": {"promptTokenCount": 3}},
    "ollama": {"model": "nomic", "embeddings": [[0.5, -1.0]], "prompt_eval_count": 3},
    "bedrock": {"embedding": [0.5, -1.0], "inputTextTokenCount": 3},
}
EACH = pytest.mark.parametrize("name", ANSWERS)


def asking(model="m", **request):
    """An attempt at embeddings."""
    asked = {"input": "Hi", **request}
    return attempt(asked, model).but(operation="embeddings", passage=Passage("POST", "/embeddings"))


def embeds(name):
    return beside_chat(PROVIDERS[name])["embeddings"]


def sent(name, model="", **request):
    return embeds(name).request(asking(model or MODELS[name], **request))


def read(name, answer, model="", **request):
    """The answer that a client gets, and its chunk."""
    chunk = embeds(name).whole(asking(model or MODELS.get(name, "m"), **request), json.dumps(answer).encode())
    return json.loads(chunk.data), chunk


# ── What is asked ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "request_", "url", "body"),
    [
        (
            "cohere",
            {"input": ["a", "b"], "dimensions": 256, "truncate": "NONE", "user": "u"},
            "https://api.cohere.com/v2/embed",
            {
                "model": "embed-v4.0",
                "texts": ["a", "b"],
                "input_type": "search_document",
                "embedding_types": ["float"],
                "output_dimension": 256,
                "truncate": "NONE",
            },
        ),
        (
            "gemini",
            {"input": ["a"], "dimensions": 256, "input_type": "search_query", "user": "u"},
            "https://generativelanguage.googleapis.com/v1beta/models/gemini-embedding-001:batchEmbedContents",
            {
                "requests": [
                    {
                        "model": "models/gemini-embedding-001",
                        "content": {"parts": [{"text": "a"}]},
                        "outputDimensionality": 256,
                        "taskType": "RETRIEVAL_QUERY",
                    }
                ]
            },
        ),
        (
            "ollama",
            {"input": ["a", "b"], "dimensions": 256, "options": {"seed": 1}, "user": "u"},
            "http://localhost:11434/api/embed",
            {
                "model": "nomic",
                "input": ["a", "b"],
                "truncate": False,
                "dimensions": 256,
                "options": {"num_ctx": 512, "seed": 1},
                "keep_alive": "10m",
            },
        ),
        (
            "bedrock",
            {"dimensions": 256, "normalize": False, "user": "u"},
            "https://bedrock-runtime.us-east-1.amazonaws.com/model/amazon.titan-embed-text-v2%3A0/invoke",
            {"inputText": "Hi", "dimensions": 256, "normalize": False},
        ),
    ],
)
def test_each_is_asked_in_its_own_words(name, request_, url, body):
    """Its own fields as they came; `user` is for OpenAI alone."""
    request = sent(name, **request_)
    assert (request.url, json.loads(request.body)) == (url, body)


def test_who_says_what_the_vectors_are_for_is_understood():
    """A query that is embedded as a document is found less well, and nothing tells that it was."""
    assert json.loads(sent("cohere", input_type="search_query").body)["input_type"] == "search_query"
    assert json.loads(sent("cohere", task_type="RETRIEVAL_QUERY").body)["input_type"] == "search_query"
    for said in ({"task_type": "SEMANTIC_SIMILARITY"}, {"input_type": "SEMANTIC_SIMILARITY"}):
        (one,) = json.loads(sent("gemini", **said).body)["requests"]
        assert one["taskType"] == "SEMANTIC_SIMILARITY"
    (plain,) = json.loads(sent("gemini").body)["requests"]
    assert plain == {"model": "models/gemini-embedding-001", "content": {"parts": [{"text": "Hi"}]}}


def test_cohere_on_bedrock_takes_a_batch():
    """By its own words, wherever the profile leads; the model is named by the URL alone."""
    request = sent("bedrock", EMBED_ON_BEDROCK, input=["a", "b"])
    assert request.url.endswith("/model/us.cohere.embed-v4%3A0/invoke")
    assert json.loads(request.body) == {
        "texts": ["a", "b"],
        "input_type": "search_document",
        "embedding_types": ["float"],
    }
    said, chunk = read("bedrock", {"embeddings": {"float": [[1], [2]]}}, EMBED_ON_BEDROCK, input=["a", "b"])
    assert [one["embedding"] for one in said["data"]] == [[1], [2]]
    assert chunk.usage.estimated and chunk.usage.prompt_tokens > 0
    older, _ = read("bedrock", {"embeddings": [[1]], "response_type": "embeddings_floats"}, "cohere.embed-english-v3")
    assert older["data"][0]["embedding"] == [1]


def test_bedrock_is_asked_by_a_key_or_a_signature():
    """Over the very body that is sent, or AWS refuses it."""
    assert sent("bedrock").headers["authorization"] == "Bearer sk-test"
    asked = asking(TITAN)
    request = embeds("signing").request(asked)
    plain = Request(request.url, request.body, {"content-type": "application/json"})
    keys = Credentials(HIDDEN["access_key_id"], HIDDEN["secret_access_key"])
    expected = signed(plain, keys, region="us-east-1", service="bedrock", wall_s=asked.clock.wall())
    assert request.headers == expected.headers and request.headers["authorization"].startswith("AWS4-HMAC-SHA256")


def test_what_is_behind_an_arn_is_what_is_asked():
    """An application's inference profile does not say whose model it leads to."""
    assert json.loads(sent("bedrock", ARN).body) == {"inputText": "Hi"}


@pytest.mark.parametrize("many", [["a", "b"], []])
def test_titan_embeds_one_text_a_call(many):
    """And says what to do about it."""
    with pytest.raises(BadRequest, match=r"one text a call.*chunk_size=1") as refused:
        sent("bedrock", input=many)
    assert refused.value.param == "input"


def test_a_model_of_bedrocks_that_embeds_in_words_unknown_is_refused():
    """Rather than asked in the words of another."""
    with pytest.raises(BadRequest, match=r"amazon.titan-embed-text-… and cohere.embed-…") as refused:
        sent("bedrock", "amazon.nova-2-multimodal-embeddings-v1:0")
    assert refused.value.code == "operation_not_supported"


@EACH
@pytest.mark.parametrize("tokens", [[1, 2, 3], [[1, 2], [3]], ["a", 7]])
def test_tokens_are_refused(name, tokens):
    """They are another model's: read as this one's they would be another text."""
    with pytest.raises(BadRequest, match="check_embedding_ctx_length=False") as refused:
        sent(name, input=tokens)
    assert refused.value.param == "input"


@EACH
@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"input": None}, "input"),
        ({"input": {"text": "a"}}, "input"),
        ({"dimensions": "many"}, "dimensions"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"stream": True}, "stream"),
    ],
)
def test_what_is_wrong_is_named(name, wrong, param):
    """Before anybody is asked."""
    with pytest.raises(BadRequest) as refused:
        sent(name, **wrong)
    assert refused.value.param == param


# ── What is answered ─────────────────────────────────────────────────────────────────────────────────────────────


@EACH
def test_answers_have_openais_form(name):
    """The numbers as they came, and what was used."""
    said, chunk = read(name, ANSWERS[name])
    assert said == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -1.0]}],
        "model": "house-model",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }
    assert chunk.usage == Usage(prompt_tokens=3)


@EACH
def test_base64_is_answered_to_whoever_asks_for_it(name):
    """As 32-bit floats, the least byte first."""
    said, _ = read(name, ANSWERS[name], encoding_format="base64")
    assert struct.unpack("<2f", base64.b64decode(said["data"][0]["embedding"])) == (0.5, -1.0)


@EACH
def test_what_was_used_is_estimated_where_nobody_says_it(name):
    """And marked; a client that reads the usage finds one."""
    answer = {key: value for key, value in ANSWERS[name].items() if key in ("embeddings", "embedding")}
    said, chunk = read(name, answer, input="four words of text")
    assert chunk.usage.estimated and said["usage"]["prompt_tokens"] == chunk.usage.prompt_tokens == 5


@EACH
@pytest.mark.parametrize("answer", [{}, {"error": "model is loading"}, {"message": "model is loading"}, {"data": []}])
def test_a_200_without_embeddings_is_no_answer(name, answer):
    """Whoever failed that way may do better the next time, or another may."""
    with pytest.raises(Unreachable, match="no embeddings"):
        read(name, answer)


@pytest.mark.parametrize("name", ["cohere", "gemini", "ollama"])
def test_an_embedding_that_is_missing_is_noticed(name):
    """All behind it would be taken for another text's."""
    with pytest.raises(Unreachable, match="1 of 2"):
        read(name, ANSWERS[name], input=["a", "b"])


@EACH
def test_dimensions_that_a_model_does_not_know_are_noticed(name):
    """Some pass them over without a word; a database of vectors of another length has no use for these."""
    with pytest.raises(Rejected, match="makes 2 dimensions and cannot make 256") as refused:
        read(name, ANSWERS[name], dimensions=256)
    assert (refused.value.status, refused.value.param, refused.value.retryable) == (400, "dimensions", False)
    assert read(name, ANSWERS[name], dimensions=2)


@pytest.mark.parametrize("vector", [None, {"int8": [1]}, 7])
@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_what_is_no_vector_is_no_answer(vector, encoding):
    """Whoever it came from."""
    for name, answer in (("ollama", {"embeddings": [vector]}), ("openai", {"data": [{"embedding": vector}]})):
        with pytest.raises(Unreachable, match="no embeddings"):
            read(name, answer, encoding_format=encoding)


@pytest.mark.parametrize("vector", [["a"], [[0.5]], [None], [1e39]])
def test_vectors_that_are_no_floats_are_no_answer_in_base64(vector):
    """There is no telling what a client would make of them."""
    with pytest.raises(Unreachable, match="no lists of numbers"):
        read("ollama", {"embeddings": [vector]}, encoding_format="base64")


# ── OpenAI's dialect ─────────────────────────────────────────────────────────────────────────────────────────────


def entry(index, *numbers, **more):
    at = {} if index is None else {"index": index}
    return {"object": "embedding", **at, "embedding": list(numbers), **more}


def test_an_answer_in_openais_dialect_stays_as_it_came():
    """To the byte, whatever else is in it."""
    answer = {"object": "list", "data": [entry(0, 0.5, note=1), entry(1, -1.0)], "more": {"a": 1.50}, "usage": None}
    _, chunk = read("openai", answer, input=["a", "b"])
    assert chunk.data == json.dumps(answer).encode()


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings_come_in_the_order_of_their_texts(encoding):
    """Clients take the first for the first text's, whatever its index says; other fields stay with their entry."""
    data = [entry(1, -1.0, note="b"), entry(0, 0.5, note="a")]
    said, _ = read("openai", {"data": data, "model": "m"}, input=["a", "b"], encoding_format=encoding)
    assert [(one["index"], one["note"]) for one in said["data"]] == [(0, "a"), (1, "b")]
    assert said["model"] == "m"
    if encoding == "float":
        assert [one["embedding"] for one in said["data"]] == [[0.5], [-1.0]]


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_an_index_that_is_left_out_is_put_in(encoding):
    """It is what the place in the list says."""
    said, _ = read("openai", {"data": [entry(None, 1.0), entry(None, 2.0)]}, encoding_format=encoding)
    assert [one["index"] for one in said["data"]] == [0, 1]


@pytest.mark.parametrize("data", [[], None, {}, ["a"], [{"index": 0}]])
def test_no_embeddings_are_no_answer_in_openais_dialect_either(data):
    """The SDK raises a bare ValueError for an empty list."""
    with pytest.raises(Unreachable, match="embeddings"):
        read("openai", {"object": "list", "data": data})


def test_nothing_is_embedded_for_who_sends_nothing():
    """An empty list is the right answer to an empty list."""
    assert read("openai", {"data": []}, input=[])[0] == {"data": []}


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 7, "total_tokens": 7}, 7),
        ({"prompt_tokens": 7, "completion_tokens": 0, "total_tokens": 7}, 7),
        ({"total_tokens": 7}, 7),
        ({"input_tokens": 7}, 7),
        ({}, None),
        (None, None),
        ("many", None),
    ],
)
def test_what_vendors_say_they_used_is_read(usage, tokens):
    """Mistral's and vLLM's, Jina's sum alone; where nothing is said, it is estimated further out."""
    _, chunk = read("openai", {"data": [entry(0, 1.0)], "usage": usage})
    assert (chunk.usage and chunk.usage.prompt_tokens) == tokens


def test_what_a_vendor_calls_otherwise_is_renamed_for_its_embeddings_too():
    """And what it refuses is left out: Mistral answers 422 to a field that it does not know."""
    request = sent("mistral", "codestral-embed", dimensions=256, user="u", encoding_format="base64")
    assert json.loads(request.body) == {
        "input": "Hi",
        "model": "codestral-embed",
        "output_dimension": 256,
        "encoding_format": "base64",
    }


def test_a_vendor_that_refuses_an_encoding_is_not_asked_for_it():
    """A row of `drops` is all it takes: what comes is encoded here."""
    row = Vendor(base_url="https://v.example/v1", docs="", drops=("encoding_format",))
    provider = OpenAI(row, "", {}).beside_chat["embeddings"]
    asked = asking(encoding_format="base64")
    assert json.loads(provider.request(asked).body) == {"input": "Hi", "model": "m"}
    said = json.loads(provider.whole(asked, json.dumps({"data": [entry(0, 0.5)]}).encode()).data)
    assert said["data"][0]["embedding"] == base64.b64encode(struct.pack("<f", 0.5)).decode()


@pytest.mark.parametrize("name", [*ANSWERS, "openai"])
@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_a_damaged_answer_is_an_answer_or_a_failure_of_the_upstream(name, encoding):
    """Never a bug of ours: that would be a 500, and speak against nobody."""
    dice, read_any = random.Random(name), 0
    whole = {"object": "list", "data": [entry(0, 0.5), entry(1, -1.0)], "usage": {"prompt_tokens": 3}}
    asked = asking(MODELS.get(name, "m"), encoding_format=encoding)
    for _ in range(500):
        body = json.dumps(ANSWERS.get(name, whole)).encode()
        for _ in range(dice.randrange(1, 3)):
            value = dice.choice(list(VALUE.finditer(body)))
            body = body[: value.start()] + dice.choice(ODD) + body[value.end() :]
        with contextlib.suppress(UpstreamFailed):
            read_any += bool(embeds(name).whole(asked, body).data)
    assert read_any


# ── The echo ─────────────────────────────────────────────────────────────────────────────────────────────────────


def echoed(**request):
    (chunk,) = beside_chat(EchoOptions().build("echo"))["embeddings"].answer(asking("echo", **request))
    return json.loads(chunk.data), chunk


def test_the_echo_makes_the_same_of_the_same_text():
    """So that a search over its vectors finds what was put in, and nothing else."""
    said, chunk = echoed(input=["one two", "three", "one two"])
    first, other, again = (one["embedding"] for one in said["data"])
    assert first == again and len(first) == 64
    assert math.hypot(*first) == pytest.approx(1) and math.hypot(*other) == pytest.approx(1)
    assert abs(sum(a * b for a, b in zip(first, other, strict=True))) < 0.6
    assert chunk.usage == Usage(prompt_tokens=5)
    assert said["usage"] == {"prompt_tokens": 5, "total_tokens": 5}


def test_the_echo_makes_as_many_dimensions_as_are_asked_for():
    """In both encodings the same numbers, as far as 32 bits hold them."""
    said, _ = echoed(dimensions=3)
    packed, _ = echoed(dimensions=3, encoding_format="base64")
    numbers = struct.unpack("<3f", base64.b64decode(packed["data"][0]["embedding"]))
    assert numbers == pytest.approx(said["data"][0]["embedding"])


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": 10**9}, "dimensions"),
        ({"input": []}, "input"),
        ({"input": ["a"] * 1000, "dimensions": 4096}, "input"),
        ({"input": [1, 2]}, "input"),
        ({"stream": True}, "stream"),
    ],
)
def test_the_echo_refuses_what_would_be_no_answer_or_too_much(wrong, param):
    """All vectors are made in one go, while nobody else is served."""
    with pytest.raises(BadRequest) as refused:
        echoed(**wrong)
    assert refused.value.param == param
