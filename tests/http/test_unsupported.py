"""Parameters that a model does not take: left out or refused by data, and learnt from the upstream's own error."""

import json
from typing import Any

from tests.script import Asked, Cut, Fails, ScriptedUpstream
from tests.serving import serving

EMBEDDED = Fails(200, {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}]})
CHAIN = "chain: [{use: retry, attempts: 3, first_wait: 10ms, longest_wait: 50ms}]"


def config(url: str, route: str = "", target: str = "own/model-1", chain: str = CHAIN) -> str:
    """One model, at a server that nothing is known of, or at whoever `target` names."""
    return (
        "providers:\n"
        f"  own: {{kind: openai, base_url: {url}}}\n"
        f"  openai: {{base_url: {url}, vendor: openai, api_key: sk}}\n"
        f"  anthropic: {{base_url: {url}, api_key: sk}}\n"
        f"models: {{mock: {{deployments: [{target}]{', ' + route if route else ''}}}}}\n"
        f"{chain}\n"
    )


def unsupported(name: str, instead: str = "", code: str = "unsupported_parameter") -> Fails:
    """OpenAI's words."""
    cure = f" Use '{instead}' instead." if instead else ""
    message = f"Unsupported parameter: '{name}' is not supported with this model.{cure}"
    error = {"message": message, "type": "invalid_request_error", "param": name, "code": code}
    return Fails(400, {"error": error})


def picky(*rejected: str):
    """An upstream that takes none of these, and says so of the first it meets."""

    def step(asked: Asked) -> Any:
        found = next((name for name in rejected if name in asked.json), None)
        return "Hello" if found is None else unsupported(found)

    return step


async def test_what_the_upstream_says_it_does_not_take_is_left_out_and_the_client_is_told():
    """The wish is lost and the answer is not; nobody has to read a model's small print first."""
    async with ScriptedUpstream() as upstream, serving(config(upstream.url)) as gateway:
        upstream.will(unsupported("temperature"))
        answer = await gateway.ask(temperature=0.5, seed=7)
        assert (answer.status_code, answer.headers["x-gateway-dropped"]) == (200, "temperature")
        assert answer.headers["x-gateway-attempts"] == "2"
        assert [("temperature" in asked.json, asked.json["seed"]) for asked in upstream.requests] == [
            (True, 7),
            (False, 7),
        ]


async def test_what_was_learnt_is_not_paid_for_again():
    """One call finds it out; a stream profits as well as a whole answer."""
    async with ScriptedUpstream() as upstream, serving(config(upstream.url)) as gateway:
        upstream.always("model-1", picky("temperature"))
        await gateway.ask(temperature=0.5)
        answer = await gateway.ask(temperature=0.5, stream=True)
        assert (answer.headers["x-gateway-attempts"], answer.headers["x-gateway-dropped"]) == ("1", "temperature")
        assert upstream.asked == 3
        unharmed = await gateway.ask()
        assert "x-gateway-dropped" not in unharmed.headers


async def test_what_was_learnt_outlives_a_reload_and_is_of_that_model_alone():
    """Another model of the same provider may take it."""
    text = "models: {mock: own/model-1, other: own/model-2}"
    async with ScriptedUpstream() as upstream, serving(config(upstream.url)) as gateway:
        upstream.always("model-1", picky("temperature"))
        await gateway.ask(temperature=0.5)
        gateway.config.text = gateway.config.text.replace("models: {mock: {deployments: [own/model-1]}}", text)
        await gateway.live.reload()
        again = await gateway.ask(temperature=0.5)
        other = await gateway.ask(temperature=0.5, model="other")
        assert again.headers["x-gateway-attempts"] == other.headers["x-gateway-attempts"] == "1"
        assert upstream.requests[-1].json["temperature"] == 0.5


async def test_several_are_left_out_as_far_as_the_budget_of_attempts_goes():
    """Upstreams name one at a time; each try counts, and what one call has learnt the next one has."""
    async with ScriptedUpstream() as upstream, serving(config(upstream.url)) as gateway:
        upstream.always("model-1", picky("temperature", "top_p", "seed"))
        first = await gateway.ask(temperature=0.5, top_p=0.5, seed=1)
        assert (first.status_code, first.json()["error"]["param"], upstream.asked) == (400, "seed", 3)
        second = await gateway.ask(temperature=0.5, top_p=0.5, seed=1)
        assert (second.status_code, second.headers["x-gateway-dropped"]) == (200, "seed, temperature, top_p")


async def test_what_changes_the_question_is_never_left_out():
    """Whoever asks for tools, a schema or a stop has to know that there are none."""
    async with ScriptedUpstream() as upstream, serving(config(upstream.url)) as gateway:
        asked: dict[str, Any] = {
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "response_format": {"type": "json_object"},
            "stop": ["x"],
            "logprobs": True,
            "service_tier": "flex",
            "reasoning_effort": "high",
        }
        for name, value in asked.items():
            upstream.will(unsupported(name))
            answer = await gateway.ask(**{name: value})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)
            assert "not supported with this model" in answer.json()["error"]["message"]  # the upstream's own words
        assert upstream.asked == len(asked)


async def test_a_limit_is_not_lost_but_said_by_the_name_that_the_model_knows():
    """Without it the answer could cost any amount."""
    async with ScriptedUpstream() as upstream, serving(config(upstream.url)) as gateway:
        upstream.will(unsupported("max_tokens", "max_completion_tokens"))
        answer = await gateway.ask(max_tokens=5)
        assert answer.status_code == 200
        assert "x-gateway-dropped" not in answer.headers
        last = upstream.requests[-1].json
        assert (last.get("max_tokens"), last["max_completion_tokens"]) == (None, 5)
        upstream.will(unsupported("max_completion_tokens"))
        refused = await gateway.ask(max_tokens=5)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "max_completion_tokens")
        assert upstream.asked == 3


async def test_one_attempt_is_one_attempt():
    """With a budget of one nothing is asked twice; but it is learnt."""
    chain = "chain: [{use: retry, attempts: 1}]"
    async with ScriptedUpstream() as upstream, serving(config(upstream.url, chain=chain)) as gateway:
        upstream.always("model-1", picky("temperature"))
        statuses = [(await gateway.ask(temperature=0.5)).status_code for _ in range(2)]
        assert (statuses, upstream.asked) == ([400, 200], 2)


async def test_a_route_may_refuse_instead_or_pass_everything_on():
    """Where an answer without the wish is worth less than none; and where the operator knows better."""
    for mode in ("refuse", "pass"):
        async with ScriptedUpstream() as upstream, serving(config(upstream.url, f"unsupported: {mode}")) as gateway:
            upstream.always("model-1", picky("temperature"))
            for _ in range(2):
                answer = await gateway.ask(temperature=0.5)
                assert (answer.status_code, answer.json()["error"]["param"]) == (400, "temperature")
            assert upstream.asked == 2


async def test_what_is_known_of_a_model_is_done_before_anybody_is_asked():
    """Rows of config/models.yaml: the first call is right."""
    async with ScriptedUpstream() as upstream, serving(config(upstream.url, target="openai/o3")) as gateway:
        answer = await gateway.ask(temperature=0.5, max_tokens=5, seed=1)
        assert (answer.headers["x-gateway-dropped"], answer.headers["x-gateway-attempts"]) == ("temperature", "1")
        sent = upstream.requests[0].json
        assert "temperature" not in sent and "max_tokens" not in sent
        assert (sent["max_completion_tokens"], sent["seed"]) == (5, 1)


async def test_what_is_known_of_a_model_is_refused_where_the_route_says_so():
    """Before anything is spent, by the name of the field."""
    text = lambda url, mode: config(url, f"unsupported: {mode}", "openai/o3")  # noqa: E731
    async with ScriptedUpstream() as upstream:
        async with serving(text(upstream.url, "refuse")) as gateway:
            error = (await gateway.ask(temperature=0.5)).json()["error"]
            assert (error["param"], error["code"], upstream.asked) == ("temperature", "unsupported_parameter", 0)
            assert (await gateway.ask(max_tokens=5)).status_code == 200  # said otherwise, nothing is lost
            silent = await gateway.ask(temperature=None)  # says nothing, so nothing is refused nor told of
            assert (silent.status_code, silent.headers.get("x-gateway-dropped")) == (200, None)
            assert "temperature" not in upstream.requests[-1].json
        async with serving(text(upstream.url, "pass")) as gateway:
            await gateway.ask(temperature=0.5)
            assert upstream.requests[-1].json["temperature"] == 0.5


async def test_a_claude_that_takes_no_sampling_is_not_sent_any_on_either_surface():
    """Messages go on as they came, but for what is known to be rejected; an older model gets it all."""
    for model, dropped in (("claude-opus-5", "temperature"), ("claude-opus-4-1", None)):
        async with (
            ScriptedUpstream() as upstream,
            serving(config(upstream.origin, target=f"anthropic/{model}")) as gateway,
        ):
            chat = await gateway.ask(temperature=0.5)
            body = {"model": "mock", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
            messages = await gateway.post("/v1/messages", {**body, "temperature": 0.5})
            for answer, asked in zip((chat, messages), upstream.requests, strict=True):
                assert answer.headers.get("x-gateway-dropped") == dropped
                assert ("temperature" in asked.json) == (dropped is None)


async def test_anthropics_words_are_understood():
    """In prose, without a code."""
    error = {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "top_k: Extra inputs are not permitted"},
    }
    async with (
        ScriptedUpstream() as upstream,
        serving(config(upstream.origin, target="anthropic/claude-opus-4-1")) as gateway,
    ):
        upstream.will(Fails(400, error))
        body = {"model": "mock", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], "top_k": 3}
        answer = await gateway.post("/v1/messages", body)
        assert (answer.status_code, answer.headers["x-gateway-dropped"]) == (200, "top_k")
        assert json.loads(upstream.requests[-1].body).get("top_k") is None


async def test_a_deployment_may_say_for_itself_what_it_rejects():
    """A server of one's own, that no row speaks of; a wish is dropped, and a demand refused."""
    target = "{target: own/model-1, rejects: [seed, stop]}"
    async with ScriptedUpstream() as upstream, serving(config(upstream.url, target=target)) as gateway:
        assert (await gateway.ask(seed=1)).headers["x-gateway-dropped"] == "seed"
        error = (await gateway.ask(stop=["x"])).json()["error"]
        assert (error["param"], upstream.asked) == ("stop", 1)


async def test_a_drop_is_of_the_deployment_that_answered():
    """Another one may have taken it: then nothing was dropped."""
    target = "{target: own/model-1, rejects: [seed]}, own/model-2"
    async with ScriptedUpstream() as upstream, serving(config(upstream.url, target=target)) as gateway:
        upstream.always("model-1", Fails(500))
        answer = await gateway.ask(seed=1)
        assert answer.status_code == 200
        assert "x-gateway-dropped" not in answer.headers
        assert ["seed" in asked.json for asked in upstream.requests] == [False, True]


async def test_a_drop_is_not_told_of_an_answer_that_nobody_saw():
    """It broke before anything of it was shown; who answers in its place took everything."""
    target = "{target: own/model-1, rejects: [seed]}, own/model-2"
    async with ScriptedUpstream() as upstream, serving(config(upstream.url, "midstream: buffer", target)) as gateway:
        upstream.always("model-1", Cut("one two", after_events=2))
        answer = await gateway.ask(seed=1, stream=True)
        assert "Hello" in answer.text
        assert "x-gateway-dropped" not in answer.headers


async def test_a_call_that_we_refuse_does_not_keep_others_from_trying_what_has_rested():
    """Of those who would try it one may: not one who never asks."""
    health = "health: {failures: 1, rest: 100ms, longest_rest: 100ms}"
    text = config("URL", "unsupported: refuse", "{target: own/model-1, rejects: [seed]}", f"{CHAIN}\n{health}")
    async with ScriptedUpstream() as upstream, serving(text.replace("URL", upstream.url)) as gateway:
        upstream.always("model-1", Fails(500))
        while (await gateway.ask()).status_code != 503:
            pass
        upstream.always("model-1", "Hello")
        while (refused := await gateway.ask(seed=1)).status_code == 503:
            pass
        assert (refused.status_code, (await gateway.ask()).status_code) == (400, 200)


async def test_clients_of_other_surfaces_are_helped_alike():
    """What is translated on its way, and what goes on as it came: the wish is the client's own field."""
    async with ScriptedUpstream() as upstream, serving(config(upstream.url)) as gateway:
        for path, body in (
            ("/v1/responses", {"input": "Hi", "temperature": 0.5}),
            ("/v1/messages", {"max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], "top_p": 0.5}),
            ("/v1/embeddings", {"input": "Hi", "user": "ann"}),
        ):
            name = list(body)[-1]
            upstream.will(unsupported(name), "Hello" if path != "/v1/embeddings" else EMBEDDED)
            answer = await gateway.post(path, {"model": "mock", **body})
            assert (answer.status_code, answer.headers["x-gateway-dropped"]) == (200, name), path
            assert name not in upstream.requests[-1].json
