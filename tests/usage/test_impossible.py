"""A number of tokens that cannot be is none, of whichever provider: nothing that is made of it breaks."""

import json
import re

import pytest

from tests.places import receipts
from tests.script import Says, ScriptedUpstream
from tests.serving import serving

PROVIDERS = ("openai", "anthropic", "gemini", "bedrock")
CHAIN = [{"use": "metrics"}, {"use": "tests.places:KeepOptions"}, {"use": "cost"}, {"use": "retry", "attempts": 1}]


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


def counted(page, provider):
    """The prompt tokens of a provider, by the page of metrics."""
    assert page.status_code == 200, page.text
    who = f'model="{provider}",provider="{provider}"'
    found = re.search(rf'chat_tokens_total\{{kind="prompt",{who}\}} (\S+)', page.text)
    return float(found[1]) if found else 0.0
