"""What clients are told of models: by the configuration, by the upstreams' own lists, by prices and facts."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import openai
import pytest

from tests.script import Asked, Fails, ScriptedUpstream, Silent, taking_nobody
from tests.serving import Serving, serving

CHAIN = "chain: [{use: retry, attempts: 2, first_wait: 10ms}]"
OPENAI = [
    {"id": "gpt-4o-mini", "object": "model", "created": 1721172741, "owned_by": "system"},
    {"id": "o3", "object": "model", "created": 1744225308, "owned_by": "system"},
]


def lists(*entries: dict[str, Any], name: str = "data", **more: object) -> Fails:
    """An upstream's list."""
    return Fails(200, {name: list(entries), **more})


def config(providers: dict[str, str], models: str = "", more: str = CHAIN) -> str:
    """Providers as they are written, each with a pattern for all of its models."""
    rows = "".join(f"  {name}: {{{options}}}\n" for name, options in providers.items())
    patterns = "".join(f'  "{name}/*": {name}/*\n' for name in providers)
    return f"providers:\n{rows}models:\n{models}{patterns}{more}\n"


def followed(url: str, kind: str = "openai", every: str = "1h", more: str = "") -> str:
    """A provider that is asked for its list."""
    return f"kind: {kind}, base_url: {url}, api_key: sk-upstream, discover: {every}{more}"


async def until(holds: Callable[[], Awaitable[object]], within_s: float = 20.0) -> None:
    """Wait until `holds()`."""
    async with asyncio.timeout(within_s):
        while not await holds():
            await asyncio.sleep(0.01)


async def ids(gateway: Serving, path: str = "/v1/models", key: str = "") -> list[str]:
    answer = await get(gateway, path, key)
    return [model["id"] for model in answer["data"]]


async def get(gateway: Serving, path: str, key: str = "", **headers: str) -> Any:
    sent = {**headers, **({"authorization": f"Bearer {key}"} if key else {})}
    answer = await gateway.http.get(path, headers=sent)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def provider(gateway: Serving, name: str, key: str = "") -> dict[str, Any]:
    """What is told of a provider."""
    said = await get(gateway, "/v1/models/providers", key)
    return next(one for one in said["data"] if one["id"] == name)


async def until_listed(gateway: Serving, *names: str) -> None:
    async def listed() -> bool:
        states = [(await provider(gateway, name))["discovery"]["state"] for name in names]
        return all(state == "fresh" for state in states)

    await until(listed)


# ── Discovered ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_pattern_lists_the_real_names_and_the_sdk_gets_each_of_them():
    """People choose a model from a list; a pattern is none."""
    async with ScriptedUpstream() as upstream:
        upstream.always("models", lists(*OPENAI))
        text = config({"openai": followed(upstream.url, more=", vendor: openai"), "echo": ""}, "  fast: openai/o3\n")
        async with serving(text) as gateway:
            await until_listed(gateway, "openai")
            client = gateway.openai()
            listed = [model async for model in client.models.list()]
            assert [model.id for model in listed] == ["fast", "echo/echo", "openai/gpt-4o-mini", "openai/o3"]
            for model in listed:
                assert await client.models.retrieve(model.id) == model
            assert (listed[3].created, listed[3].owned_by, listed[3].object) == (1744225308, "openai", "model")
            assert (upstream.requests[0].method, upstream.requests[0].path) == ("GET", "/v1/models")
            assert upstream.requests[0].headers["authorization"] == "Bearer sk-upstream"


async def test_every_dialects_list_is_read_to_its_last_page():
    """Each has its own address, its own names and its own way of saying that there is more."""

    def anthropic(asked: Asked) -> Fails:
        if "after_id=claude-b" in asked.query:
            return lists({"type": "model", "id": "claude-c", "display_name": "C", "created_at": "2026-01-01T00:00:00Z"})
        entries = [
            {"type": "model", "id": f"claude-{x}", "max_tokens": 64000, "max_input_tokens": 200000} for x in "ab"
        ]
        return lists(*entries, has_more=True, last_id="claude-b")

    def gemini(asked: Asked) -> Fails:
        if "pageToken=t%2F2" in asked.query:
            return lists({"name": "models/gemini-b", "inputTokenLimit": 1000, "thinking": True}, name="models")
        return lists({"name": "models/gemini-a"}, name="models", nextPageToken="t/2")

    def cohere(asked: Asked) -> Fails:
        if "page_token=2" in asked.query:
            return lists({"name": "command-b", "context_length": 128000.0}, name="models")
        return lists({"name": "command-a", "features": ["tools"]}, name="models", next_page_token="2")

    summary = {
        "modelId": "amazon.nova-lite-v1:0",
        "inputModalities": ["TEXT", "IMAGE"],
        "responseStreamingSupported": True,
    }
    scripts: dict[str, tuple[str, Any, list[str]]] = {
        "anthropic": ("models", anthropic, ["claude-a", "claude-b", "claude-c"]),
        "gemini": ("models", gemini, ["gemini-a", "gemini-b"]),
        "cohere": ("models", cohere, ["command-a", "command-b"]),
        "ollama": ("tags", lists({"name": "llama3.2:3b"}, name="models"), ["llama3.2:3b"]),
        "bedrock": ("foundation-models", lists(summary, name="modelSummaries"), ["amazon.nova-lite-v1:0"]),
        "together": ("models", Fails(200, b'[{"id": "meta/llama", "context_length": 8192}]'), ["meta/llama"]),
    }
    async with contextlib.AsyncExitStack() as stack:
        providers: dict[str, str] = {}
        for kind, (last, step, _) in scripts.items():
            upstream = await stack.enter_async_context(ScriptedUpstream())
            upstream.always(last, step)
            providers[kind] = followed(upstream.origin, kind)
        gateway = await stack.enter_async_context(serving(config(providers)))
        await until_listed(gateway, *scripts)
        expected = sorted(f"{kind}/{name}" for kind, (_, _, names) in scripts.items() for name in names)
        assert await ids(gateway) == expected
        facts = {model["id"]: model["gateway"] for model in (await get(gateway, "/v1/models"))["data"]}
        assert (facts["anthropic/claude-a"]["context_window"], facts["anthropic/claude-a"]["max_output_tokens"]) == (
            200000,
            64000,
        )
        assert facts["anthropic/claude-c"]["display_name"] == "C"
        assert facts["gemini/gemini-b"]["capabilities"]["reasoning"] is True
        assert facts["gemini/gemini-a"]["capabilities"]["reasoning"] is None
        assert facts["cohere/command-a"]["capabilities"] == {
            "tools": True, "vision": False, "reasoning": False, "json_schema": False, "streaming": None,
        }  # fmt: skip
        assert facts["cohere/command-b"]["context_window"] == 128000
        assert facts["bedrock/amazon.nova-lite-v1:0"]["capabilities"]["vision"] is True
        assert facts["together/meta/llama"]["context_window"] == 8192


async def test_a_dead_a_mute_and_a_senseless_upstream_harm_nobody():
    """Each is shown with what is wrong; the others' models are there at once."""
    with taking_nobody() as dead:
        async with ScriptedUpstream() as well, ScriptedUpstream() as mute, ScriptedUpstream() as senseless:
            well.always("models", lists({"id": "a"}))
            mute.always("models", Silent())
            senseless.always("models", Fails(200, "<html><title>Sign in</title></html>"))
            urls = {"well": well.url, "mute": mute.url, "senseless": senseless.url, "dead": dead}
            async with serving(config({name: followed(url) for name, url in urls.items()})) as gateway:
                await until_listed(gateway, "well")

                async def complained() -> object:
                    return (await provider(gateway, "senseless"))["discovery"]["error"]

                await until(complained)
                assert await ids(gateway) == ["well/a"]
                assert "Sign in" in (await provider(gateway, "senseless"))["discovery"]["error"]
                assert (await provider(gateway, "mute"))["discovery"]["state"] == "never"
                assert (await gateway.ask(model="well/a")).status_code == 200
                assert (await gateway.openai().models.retrieve("dead/x")).owned_by == "dead"


async def test_the_last_list_stays_while_an_upstream_cannot_say_and_is_replaced_when_it_can():
    """An outage of minutes must not empty the menus of everybody's clients."""
    async with ScriptedUpstream() as upstream:
        upstream.always("models", lists({"id": "a"}))
        async with serving(config({"own": followed(upstream.url, every="1s")})) as gateway:
            await until_listed(gateway, "own")
            upstream.always("models", Fails(500, {"error": {"message": "down, says sk-upstream"}}))

            async def failed() -> object:
                return (await provider(gateway, "own"))["discovery"]["error"]

            await until(failed)
            said = await provider(gateway, "own")
            assert await ids(gateway) == ["own/a"]
            assert "down" in said["discovery"]["error"] and "sk-upstream" not in said["discovery"]["error"]
            assert said["discovery"]["models"] == said["models"] == 1
            upstream.always("models", lists({"id": "a"}, {"id": "b"}))

            async def renewed() -> bool:
                return await ids(gateway) == ["own/a", "own/b"]

            await until(renewed)
            assert (await provider(gateway, "own"))["discovery"]["error"] is None


async def test_a_list_outlives_a_reload_that_does_not_touch_its_provider():
    """Who edits a key's limit must not have to wait for all upstreams again."""
    async with ScriptedUpstream() as upstream:
        upstream.always("models", lists({"id": "a"}))
        async with serving(config({"own": followed(upstream.url)})) as gateway:
            await until_listed(gateway, "own")
            gateway.config.text += "health: {failures: 7}\n"
            await gateway.live.reload()
            assert (await ids(gateway), upstream.asked) == (["own/a"], 1)
            gateway.config.text = gateway.config.text.replace(", discover: 1h", "")
            await gateway.live.reload()
            assert await ids(gateway) == []
            assert (await provider(gateway, "own"))["discovery"] is None


async def test_a_refresh_asks_everybody_now():
    """A model that came out today."""
    async with ScriptedUpstream() as upstream:
        upstream.always("models", lists({"id": "a"}))
        async with serving(config({"own": followed(upstream.url)})) as gateway:
            await until_listed(gateway, "own")
            upstream.always("models", lists({"id": "b"}))
            answer = await gateway.http.post("/v1/models/refresh")
            assert (answer.status_code, answer.json()["data"][0]["discovery"]["models"]) == (200, 1)
            assert await ids(gateway) == ["own/b"]
            forwarded = await gateway.http.post("/v1/models/refresh", headers={"x-forwarded-for": "203.0.113.9"})
            assert (forwarded.status_code, upstream.asked) == (403, 2)


async def test_names_win_over_patterns_and_a_fixed_part_of_a_pattern_is_kept():
    """A listed name leads where a call with it would lead."""
    async with ScriptedUpstream() as one, ScriptedUpstream() as two:
        one.always(
            "models", lists({"id": "acc/models/x"}, {"id": "acc/models/yy"}, {"id": "acc/models/y"}, {"id": "other"})
        )
        two.always("models", lists({"id": "z"}))
        providers = f"providers:\n  one: {{{followed(one.url)}}}\n  two: {{{followed(two.url)}}}\n"
        models = "models:\n  m/x: two/z\n  'm/*': 'one/acc/models/*'\n  'm/y*': two/*\n"
        async with serving(f"{providers}{models}{CHAIN}\n") as gateway:
            await until_listed(gateway, "one", "two")
            assert await ids(gateway) == ["m/x", "m/y", "m/yz"]
            assert (await get(gateway, "/v1/models/m/y"))["owned_by"] == "one"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("kind: azure, base_url: https://x.openai.azure.com, api_key: k, discover: 1h", "name your deployments"),
        ("kind: openai, api_key: k, discover: 100ms", "at least 1s"),
        ("kind: openai, api_key: k, discover: true", "a duration like 30s"),
    ],
)
def test_what_cannot_be_discovered_is_a_mistake_of_the_configuration(options: str, words: str):
    """And no option is accepted and ignored."""
    from gateway.settings.build import build
    from gateway.settings.complaints import ConfigError
    from gateway.settings.load import load
    from gateway.settings.process import Process

    text = config({"p": options})
    with pytest.raises(ConfigError, match=words):
        build(load(text, name="gateway.yaml", environment={}), Process())


# ── What is known ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_model_is_told_with_its_prices_limits_and_capabilities():
    """From the price table, config/models.yaml and the list, whoever knows; null is what nobody knows."""
    async with ScriptedUpstream() as upstream:
        upstream.always("models", lists(*OPENAI, {"id": "unheard-of"}))
        async with serving(config({"openai": followed(upstream.url, more=", vendor: openai")})) as gateway:
            await until_listed(gateway, "openai")
            mini = (await get(gateway, "/v1/models/openai/gpt-4o-mini"))["gateway"]
            assert (mini["providers"], mini["context_window"], mini["max_output_tokens"]) == (["openai"], 128000, 16384)
            assert mini["prices"]["unit"] == "USD per million tokens"
            assert mini["prices"]["prompt"] == "0.15" and mini["prices"]["completion"] == "0.6"
            assert mini["capabilities"]["vision"] is True and mini["capabilities"]["reasoning"] is False
            assert mini["input_modalities"] == ["text", "image"] and mini["unsupported_parameters"] == []
            o3 = (await get(gateway, "/v1/models/openai/o3"))["gateway"]
            assert "temperature" in o3["unsupported_parameters"]
            unknown = (await get(gateway, "/v1/models/openai/unheard-of"))["gateway"]
            lacking = ("context_window", "max_output_tokens", "prices", "input_modalities", "display_name")
            assert [unknown[name] for name in lacking] == [None] * 5
            assert set(unknown["capabilities"].values()) == {None}


async def test_what_is_said_of_a_model_holds_whichever_deployment_answers():
    """The smallest window, the highest price, what all can do; nothing where one of them is not known."""
    async with ScriptedUpstream() as upstream:
        entries = [
            {"id": "a", "context_length": 1000, "supported_parameters": ["tools", "reasoning"]},
            {"id": "b", "context_length": 500, "supported_parameters": ["tools"], "max_completion_tokens": 9},
        ]
        upstream.always("models", lists(*entries))
        models = (
            "  both: {deployments: [{target: own/a, price: {prompt: 1, completion: 2}},"
            " {target: own/b, price: {prompt: 0.5, completion: 3, cached: 0.25}}]}\n"
        )
        async with serving(config({"own": followed(upstream.url)}, models)) as gateway:
            await until_listed(gateway, "own")
            facts = (await get(gateway, "/v1/models/both"))["gateway"]
            assert (facts["context_window"], facts["max_output_tokens"]) == (500, None)
            assert (facts["capabilities"]["tools"], facts["capabilities"]["reasoning"]) == (True, False)
            highest = {"prompt": "1", "completion": "3", "cached": "1", "cache_write": "1"}
            assert facts["prices"] == {**highest, "above": [], "unit": "USD per million tokens"}


# ── Asked for in other ways ──────────────────────────────────────────────────────────────────────────────────────

SEVERAL = config(
    {"echo": ""}, "  fast-4o: echo/one\n  gpt-4o: echo/two\n  my/gpt-4o-mini: echo/three\n  zeta: echo/four\n"
)


async def test_a_search_finds_by_words_the_best_first():
    """People type what they remember, without the dashes; at most so many, and told how many there are."""
    async with serving(SEVERAL) as gateway:
        assert await ids(gateway, "/v1/models/search?q=gpt4o") == ["gpt-4o", "my/gpt-4o-mini"]
        assert await ids(gateway, "/v1/models/search?q=4o+GPT") == ["gpt-4o", "my/gpt-4o-mini"]
        assert await ids(gateway, "/v1/models/search?q=three") == ["my/gpt-4o-mini"]
        assert await ids(gateway, "/v1/models/search?q=gpt+zeta") == []
        first = await get(gateway, "/v1/models/search?q=4o&limit=1")
        assert (first["total"], first["has_more"], len(first["data"])) == (3, True, 1)
        rest = await ids(gateway, "/v1/models/search?q=4o&limit=5&offset=1")
        assert [first["data"][0]["id"], *rest] == ["gpt-4o", "fast-4o", "my/gpt-4o-mini"]
        assert len(await ids(gateway, "/v1/models/search?provider=echo&capability=streaming")) == 1
        for wrong in ("limit=0", "limit=101", "limit=x", "offset=-1", "capability=magic", f"q={'x' * 300}"):
            answer = await gateway.http.get(f"/v1/models/search?{wrong}")
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, wrong.partition("=")[0])
        for wrong, cure in (("query", "did you mean q?"), ("ofset", "did you mean offset?"), ("xyz", "there are q, ")):
            error = (await gateway.http.get(f"/v1/models/search?{wrong}=foo")).json()["error"]
            assert error["param"] == wrong and f'"{wrong}" is no parameter here; {cure}' in error["message"]


async def test_a_comparison_shows_in_what_models_differ():
    """And not in what they are alike."""
    text = config(
        {"own": "kind: openai, base_url: http://127.0.0.1:1"},
        "  a: {deployments: [{target: own/x, price: {prompt: 1, completion: 2}}]}\n"
        "  b/c: {deployments: [{target: own/y, price: {prompt: 1, completion: 3}}]}\n",
    )
    async with serving(text) as gateway:
        said = await get(gateway, "/v1/models/compare?model_ids=a,b/c")
        assert [model["id"] for model in said["data"]] == ["a", "b/c"]
        assert said["differences"] == {"prices.completion": {"a": "2", "b/c": "3"}}
        unknown = await gateway.http.get("/v1/models/compare?model_ids=a,none")
        assert (unknown.status_code, unknown.json()["error"]["param"]) == (404, "model_ids")
        for wrong in ("", "?model_ids=a", f"?model_ids={','.join(map(str, range(11)))}"):
            assert (await gateway.http.get(f"/v1/models/compare{wrong}")).status_code == 400


async def test_providers_are_shown_on_and_off_and_how_they_are():
    """What an operator looks at first."""
    async with ScriptedUpstream() as upstream:
        rows = {
            "own": f"kind: openai, base_url: {upstream.url}",
            "openai": 'api_key: ""',
            "echo": "",
        }
        async with serving(config(rows, "  mock: own/m\n") + "health: {failures: 1, rest: 1m}\n") as gateway:
            upstream.will(Fails(500), Fails(500))
            await gateway.ask()
            assert await provider(gateway, "own") == {
                "id": "own", "kind": "openai", "status": "on", "reason": None, "models": 1, "discovery": None,
                "health": {"asked": 1, "resting": 1}, "object": "provider",
            }  # fmt: skip
            off = await provider(gateway, "openai")
            assert (off["status"], off["models"], off["health"]) == ("off", 0, None)
            assert "OPENAI_API_KEY" in off["reason"]


async def test_a_model_that_is_called_like_a_page_is_asked_for_by_its_id():
    """`?id=` reaches any model, and slashes need no care in a path."""
    models = "  providers: echo/a\n  search: echo/b\n  refresh: echo/c\n  a/b/c: echo/d\n"
    async with serving(config({"echo": ""}, models)) as gateway:
        for name in ("providers", "search", "refresh", "a/b/c", "echo/anything"):
            assert (await get(gateway, f"/v1/models?id={name}"))["id"] == name
        assert (await get(gateway, "/v1/models/providers"))["data"][0]["object"] == "provider"
        for path in ("a/b/c", "a%2Fb%2Fc", "refresh", "echo/search"):
            assert (await get(gateway, f"/v1/models/{path}"))["id"] == path.replace("%2F", "/")
        with pytest.raises(openai.NotFoundError):
            await gateway.openai().models.retrieve("none/such")


# ── By whom ──────────────────────────────────────────────────────────────────────────────────────────────────────

KEYS = (
    "keys:\n"
    "  - {name: small, key: sk-small-0123456789, models: ['own/a*', both]}\n"
    "  - {name: boss, key: sk-boss-0123456789, admin: true}\n"
    "chain: [{use: auth}, {use: retry}]\n"
)
SMALL, BOSS = "sk-small-0123456789", "sk-boss-0123456789"


async def test_a_key_sees_the_models_that_it_may_use_and_no_trace_of_others():
    """In no list, search or comparison, and in no provider's state."""
    async with ScriptedUpstream() as upstream:
        upstream.always("models", lists({"id": "a1"}, {"id": "secret"}))
        rows = {
            "own": followed(upstream.url),
            "hidden": 'kind: openai, base_url: http://127.0.0.1:1, api_key: ""',
            "echo": "",
        }
        async with serving(config(rows, "  both: own/secret\n  mine: echo/echo\n", KEYS)) as gateway:

            async def listed() -> bool:
                return (await provider(gateway, "own", BOSS))["discovery"]["state"] == "fresh"

            await until(listed)
            assert await ids(gateway, key=SMALL) == ["both", "own/a1"]
            assert await ids(gateway, "/v1/models/search?q=own", SMALL) == ["own/a1", "both"]
            assert len(await ids(gateway, key=BOSS)) == 5
            for path in ("own/secret", "compare?model_ids=both,own/secret", "mine"):
                refused = await gateway.http.get(f"/v1/models/{path}", headers={"authorization": f"Bearer {SMALL}"})
                assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
                assert "a1" not in refused.text
            mine = (await get(gateway, "/v1/models/providers", SMALL))["data"]
            assert [(one["id"], one["models"]) for one in mine] == [("own", 2)]
            assert [one["id"] for one in (await get(gateway, "/v1/models/providers", BOSS))["data"]] == list(rows)
            for path in ("", "/providers", "/search", "/compare?model_ids=a,b", "/own/a1"):
                assert (await gateway.http.get(f"/v1/models{path}")).status_code == 401
            sent = [{"authorization": f"Bearer {key}"} for key in (SMALL, BOSS)]
            refreshed = [await gateway.http.post("/v1/models/refresh", headers=headers) for headers in sent]
            assert [answer.status_code for answer in refreshed] == [403, 200]
            assert (await gateway.http.post("/v1/models/refresh")).status_code == 401


async def test_what_an_upstream_says_of_its_trouble_is_for_operators():
    """It may name accounts and addresses."""
    async with ScriptedUpstream() as upstream:
        upstream.always("models", Fails(500, {"error": {"message": "account 7 is in arrears"}}))
        async with serving(config({"own": followed(upstream.url)}, "  both: own/x\n", KEYS)) as gateway:

            async def failed() -> object:
                return (await provider(gateway, "own", BOSS))["discovery"]["error"]

            await until(failed)
            assert "arrears" in (await provider(gateway, "own", BOSS))["discovery"]["error"]
            assert (await provider(gateway, "own", SMALL))["discovery"]["error"] is None


# ── Anthropic's clients ──────────────────────────────────────────────────────────────────────────────────────────


async def test_anthropics_clients_get_anthropics_list_page_by_page():
    """Who sends `anthropic-version` reads no other; Claude Code fills its menu from it."""
    version = {"anthropic-version": "2023-06-01"}
    async with serving(SEVERAL) as gateway:
        everything = await get(gateway, "/v1/models", **version)
        names = [model["id"] for model in everything["data"]]
        assert names == ["fast-4o", "gpt-4o", "my/gpt-4o-mini", "zeta", "echo/echo"]
        assert (everything["has_more"], everything["first_id"], everything["last_id"]) == (False, names[0], names[-1])
        first = everything["data"][0]
        assert (first["type"], first["display_name"], first["created_at"]) == (
            "model",
            "fast-4o",
            "1970-01-01T00:00:00Z",
        )
        page = await get(gateway, "/v1/models?limit=2", **version)
        walked = [model["id"] for model in page["data"]]
        while page["has_more"]:
            page = await get(gateway, f"/v1/models?limit=2&after_id={page['last_id']}", **version)
            walked += [model["id"] for model in page["data"]]
        assert walked == names
        back = await get(gateway, "/v1/models?limit=2&before_id=zeta", **version)
        assert ([model["id"] for model in back["data"]], back["has_more"]) == (names[1:3], True)
        assert (await get(gateway, "/v1/models/my/gpt-4o-mini", **version))["type"] == "model"
        unknown = await gateway.http.get("/v1/models/none", headers=version)
        assert (unknown.status_code, unknown.json()["type"]) == (404, "error")
        assert unknown.json()["error"]["type"] == "not_found_error"
        lost = await gateway.http.get("/v1/models?after_id=none", headers=version)
        assert lost.status_code == 400


async def test_a_model_that_is_off_is_off_though_a_pattern_would_have_its_name():
    """Not asked, not listed, not fallen back to: its words would go to a provider that nobody named for it."""
    async with ScriptedUpstream() as upstream:
        rows = {"up": f"kind: openai, base_url: {upstream.url}", "openai": 'api_key: ""'}
        models = '  x: openai/y\n  "*": up/*\n  mock: {deployments: [up/m], fallbacks: [x]}\n'
        async with serving(config(rows, models)) as gateway:
            for name in ("x", "openai/gpt-4o"):
                refused = await gateway.ask(model=name)
                assert refused.status_code == 404
                assert "it is off, because provider openai is off" in refused.json()["error"]["message"]
                assert (await gateway.http.get(f"/v1/models/{name}")).status_code == 404
            assert [model["id"] for model in (await get(gateway, "/v1/models"))["data"]] == ["mock"]
            upstream.will(Fails(500), Fails(500), Fails(500))
            assert (await gateway.ask()).status_code == 502
            assert {request.json["model"] for request in upstream.requests} == {"m"}
