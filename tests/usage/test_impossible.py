"""A number of tokens that cannot be is none, of whichever provider: nothing that is made of it breaks."""

import json
import re

import pytest

from tests.places import receipts
from tests.script import Raw, Says, ScriptedUpstream
from tests.serving import serving

PROVIDERS = ("openai", "anthropic", "gemini", "bedrock")
CHAIN = [{"use": "metrics"}, {"use": "tests.places:KeepOptions"}, {"use": "cost"}, {"use": "retry", "attempts": 1}]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


def config(upstream: ScriptedUpstream, database: str) -> str:
    """A gateway with a model at every provider, named like it."""
    providers = {name: {"api_key": "secret", "base_url": upstream.origin} for name in PROVIDERS}
    providers["openai"]["base_url"] = upstream.url
    providers["bedrock"]["region"] = "eu-north-1"
    price = {"prompt": 1, "completion": 2}
    models = {name: {"deployments": [{"target": f"{name}/m", "price": price}]} for name in PROVIDERS}
    return json.dumps({"providers": providers, "models": models, "chain": CHAIN, "database": database})


@pytest.mark.parametrize("said", [-5, 10**13, 10**400], ids=["negative", "large", "endless"])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_nobody_can_have_used_is_not_counted(stream, said, tmp_path):
    """A database has no column for it, and metrics no number: what others used must be told all the same."""
    async with ScriptedUpstream() as upstream, serving(config(upstream, f"sqlite:///{tmp_path}/calls.db")) as gateway:
        for provider in PROVIDERS:
            before = counted(await gateway.http.get("/metrics"), provider)
            upstream.will(Says("Hello", said, said), Says("Hello", 7, 3))
            question = {"messages": [{"role": "user", "content": "Hi"}], "model": provider, "stream": stream}
            for _ in range(2):
                assert (await gateway.post("/v1/chat/completions", question)).status_code == 200
            await gateway.settle()
            used = [receipt.usage for receipt in receipts[-2:]]
            assert (used[1].prompt_tokens, used[1].completion_tokens, used[1].estimated) == (7, 3, False)
            assert 0 <= used[0].prompt_tokens + used[0].completion_tokens < 100
            after = counted(await gateway.http.get("/metrics"), provider)
            assert after - before == used[0].prompt_tokens + 7


@pytest.mark.parametrize("said", ["-0.5", "1e300", "123456789012345678901"])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_nobody_is_charged_is_no_cost(stream, said):
    """OpenRouter says what a call cost; where it cannot have, the price that is configured counts."""
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, "cost": json.loads(said)}
    choice = {"index": 0, "delta" if stream else "message": {"role": "assistant", "content": "Hi"}}
    kind = "chat.completion.chunk" if stream else "chat.completion"
    answer = {"id": "x", "object": kind, "created": 1, "model": "m", "choices": [choice | {"finish_reason": "stop"}]}
    body = json.dumps(answer | {"usage": usage}).encode()
    body = b"data: %b\n\ndata: [DONE]\n\n" % body if stream else body
    type_ = b"text/event-stream" if stream else b"application/json"
    raw = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (type_, len(body), body)
    async with ScriptedUpstream() as upstream:
        upstream.will(Raw(raw))
        providers = {"openrouter": {"api_key": "secret", "base_url": upstream.url}}
        place = {"target": "openrouter/m", "price": {"prompt": 1, "completion": 2}}
        models = {"m": {"deployments": [place]}}
        async with serving(json.dumps({"providers": providers, "models": models, "chain": CHAIN})) as gateway:
            question = {"messages": [{"role": "user", "content": "Hi"}], "model": "m", "stream": stream}
            assert (await gateway.post("/v1/chat/completions", question)).status_code == 200
            await gateway.settle()
            assert (receipts[-1].usage.prompt_tokens, receipts[-1].cost_nusd) == (5, 9_000)


BESIDE = {
    "embeddings": {"data": [{"object": "embedding", "index": 0, "embedding": [0.5]}]},
    "images/generations": {"created": 1, "data": [{"b64_json": "aa"}]},
    "moderations": {"results": []},
}


@pytest.mark.parametrize("said", [-5, 10**13, 10**400], ids=["negative", "large", "endless"])
@pytest.mark.parametrize("path", BESIDE)
async def test_nor_is_it_where_no_chat_is_asked_for(path, said, tmp_path):
    """Embeddings are estimated, of pictures counts what else was said; ten million dollars would empty every budget."""
    async with ScriptedUpstream() as upstream, serving(config(upstream, f"sqlite:///{tmp_path}/calls.db")) as gateway:
        details = {"audio_tokens": said, "image_tokens": said, "cached_tokens": said}
        counts = {"input_tokens": said, "output_tokens": 4, "total_tokens": said, "input_tokens_details": details}
        usage = counts if path.startswith("images") else {"prompt_tokens": said, "total_tokens": said}
        body = json.dumps({**BESIDE[path], "usage": usage}).encode()
        upstream.will(Raw(HEAD % len(body) + body))
        before = counted(await gateway.http.get("/metrics"), "openai")
        answer = await gateway.post(f"/v1/{path}", {"model": "openai", "input": "Hi", "prompt": "Hi"})
        await gateway.settle()
        page = await gateway.http.get("/metrics")
    cost = answer.headers["x-gateway-cost"]
    assert (answer.status_code, cost) == (200, "unknown") if path == "moderations" else float(cost) < 0.00001
    assert 0 <= counted(page, "openai") - before < 10


def counted(page, provider):
    """The prompt tokens of a provider, by the page of metrics."""
    assert page.status_code == 200, page.text
    who = f'model="{provider}",provider="{provider}"'
    found = re.search(rf'chat_tokens_total\{{kind="prompt",{who}\}} (\S+)', page.text)
    return float(found[1]) if found else 0.0
