"""What is no chat is counted in its own way: pictures, sound by the second, speech by the character, search units."""

import json
from typing import ClassVar

import pytest

from gateway.core.call import OF_MODELS, Operation
from gateway.core.usage import Extras, Usage
from tests.places import KeepOptions, receipts
from tests.script import Events, Fails, Raw, ScriptedUpstream
from tests.serving import serving
from tests.usage.rows import prices

SOUND = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 5\r\n\r\nsound"
PRICE = {**prices(), "image": 0.04, "character": 15}
PICTURE = {"created": 1, "data": [{"b64_json": "aGk="}]}
DRAWN = {"input_tokens": 10, "input_tokens_details": {"text_tokens": 10, "image_tokens": 0}, "output_tokens": 1000}


class KeepAllOptions(KeepOptions, frozen=True, kw_only=True):
    """Keeps the receipts of calls that are no chat, too."""

    operations: ClassVar[frozenset[Operation]] = OF_MODELS


def config(upstream: ScriptedUpstream, price: dict[str, object]) -> str:
    provider = {"mock": {"kind": "openai", "base_url": upstream.url, "api_key": "secret"}}
    models = {"m": {"deployments": [{"target": "mock/m", "price": price}]}}
    chain = [{"use": "tests.usage.test_beside:KeepAllOptions"}, {"use": "cost"}, {"use": "retry"}]
    return json.dumps({"providers": provider, "models": models, "chain": chain})


CATS = {"prompt": "cats", "n": 2}
RANKED = {"query": "q", "documents": ["a"]}
LASTED = {"type": "duration", "seconds": 90}
HEARD = {"input_tokens": 14, "input_token_details": {"text_tokens": 4, "audio_tokens": 10}, "output_tokens": 5}
EMBEDDED = {"data": [{"index": 0, "embedding": [0.5]}], "usage": {"prompt_tokens": 3}}
UNITS = {"billed_units": {"search_units": 1}}
IMAGES, SPEECH, HEARING = "images/generations", "audio/speech", "audio/transcriptions"


@pytest.mark.parametrize(
    ("path", "asks", "answers", "usage", "micro_dollars"),
    [
        (IMAGES, CATS, {"created": 1, "data": [{"url": "u"}] * 2}, Usage(extras=Extras(images=2)), 80_000),
        (SPEECH, {"input": "Grüß Gott", "voice": "v"}, None, Usage(extras=Extras(characters=9)), 9 * 15),
        (HEARING, {}, {"text": "Hi", "usage": LASTED}, Usage(extras=Extras(audio_seconds=90)), 9_000),
        (HEARING, {}, {"text": "Hi", "duration": 89.6}, Usage(extras=Extras(audio_seconds=90)), 9_000),
        (HEARING, {}, {"text": "Hi", "usage": HEARD}, Usage(14, 5, extras=Extras(audio_prompt_tokens=10)), 94),
        ("rerank", RANKED, {"results": [], "meta": UNITS}, Usage(extras=Extras(searches=1)), 10_000),
        ("rerank", RANKED, {"results": [], "usage": {"total_tokens": 815}}, Usage(815), 815),
        ("embeddings", {"input": "Hi"}, EMBEDDED, Usage(3), 3),
        ("moderations", {"input": "Hi"}, {"results": []}, None, None),
    ],
)
async def test_each_operation_is_charged_by_what_its_answer_says(path, asks, answers, usage, micro_dollars):
    """A row says what is asked, what the upstream answers, and what that is on the receipt."""
    async with ScriptedUpstream() as upstream, serving(config(upstream, PRICE)) as gateway:
        upstream.will(Raw(SOUND) if answers is None else Fails(200, answers))
        if path == "audio/transcriptions":
            form = {"files": {"file": ("a.mp3", b"sound")}, "data": {"model": "m"}}
            answer = await gateway.http.post(f"/v1/{path}", **form)
        else:
            answer = await gateway.post(f"/v1/{path}", {"model": "m", **asks})
        assert answer.status_code == 200, answer.text
        await gateway.settle()
        assert receipts[-1].usage == usage
        assert receipts[-1].cost_nusd == (None if micro_dollars is None else micro_dollars * 1000)


async def test_a_picture_that_is_made_of_tokens_is_charged_by_them():
    """Those of a model that answers in pictures alone are all of pictures, whether it says so or not."""
    price = {"prompt": 5, "completion": 10, "image_completion": 40}
    async with ScriptedUpstream() as upstream, serving(config(upstream, price)) as gateway:
        upstream.will(Fails(200, {**PICTURE, "usage": DRAWN}))
        await gateway.post("/v1/images/generations", {"model": "m", "prompt": "a cat"})
        await gateway.settle()
        assert receipts[-1].usage == Usage(10, 1000, extras=Extras(images=1, image_completion_tokens=1000))
        assert receipts[-1].cost_nusd == 10 * 5000 + 1000 * 40_000


async def test_a_picture_without_a_price_has_no_known_cost():
    """Its model has a price by tokens, and the answer says none."""
    async with ScriptedUpstream() as upstream, serving(config(upstream, {"prompt": 1, "completion": 2})) as gateway:
        upstream.will(Fails(200, PICTURE))
        await gateway.post("/v1/images/generations", {"model": "m", "prompt": "a cat"})
        await gateway.settle()
        assert (receipts[-1].usage, receipts[-1].cost_nusd) == (Usage(extras=Extras(images=1)), None)


async def test_cohere_bills_a_rank_by_its_search_units():
    """Tokens it does not say; a price of `search` is what is charged."""
    async with ScriptedUpstream() as upstream:
        text = config(upstream, {"search": 0.002}).replace('"kind": "openai"', '"kind": "cohere"')
        async with serving(text) as gateway:
            ranked = {"id": "r", "results": [{"index": 0, "relevance_score": 0.5}], "meta": UNITS}
            upstream.will(Fails(200, ranked))
            answer = await gateway.post("/v1/rerank", {"model": "m", **RANKED})
            assert answer.status_code == 200, answer.text
            await gateway.settle()
    assert (receipts[-1].usage, receipts[-1].cost_nusd) == (Usage(extras=Extras(searches=1)), 2_000_000)


async def test_a_streamed_picture_is_counted_when_it_is_complete():
    """By its last event, which says its tokens."""
    async with ScriptedUpstream() as upstream, serving(config(upstream, PRICE)) as gateway:
        last = {"type": "image_generation.completed", "b64_json": "aGk=", "usage": DRAWN}
        partial = {"type": "image_generation.partial_image", "b64_json": "aA==", "partial_image_index": 0}
        upstream.will(Events(*(f"data: {json.dumps(one)}\n\n".encode() for one in (partial, last))))
        await gateway.post("/v1/images/generations", {"model": "m", "prompt": "a cat", "stream": True})
        await gateway.settle()
        assert receipts[-1].usage == Usage(10, 1000, extras=Extras(images=1, image_completion_tokens=1000))
