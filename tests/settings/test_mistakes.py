"""What people get wrong in gateway.yaml, and what they are told: the place, the path, the cure."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.settings.complaints import ConfigError
from gateway.settings.load import Loaded, load

pytestmark = pytest.mark.usefixtures("fakes")

GOOD = """\
server: {host: 127.0.0.1, port: 8000}
redis: ${REDIS_URL:-}
providers:
  openai: {api_key: ${OPENAI_API_KEY}}
  local: {kind: openai, base_url: http://localhost:11434/v1}
  echo:
models:
  mini: openai/gpt-4o-mini
  fast:
    deployments: [{target: openai/gpt-4o-mini, weight: 3}, local/llama]
    order: weighted
    fallbacks: [mini]
    timeouts: {connect: 5s}
  "local/*": local/*
keys:
  - {name: team-a, key: ${TEAM_A_KEY}, models: [fast], limits: {concurrent: 8}}
  - {name: team-b, key: secret-of-team-b}
chain:
  - use: log
  - use: auth
  - use: limits
  - {use: cache, ttl: 1h}
  - {use: retry, attempts: 3}
"""
ENVIRONMENT = {"OPENAI_API_KEY": "sk-4711", "TEAM_A_KEY": "123456", "WORD": "soon", "NUMBER": "12"}

MISTAKES = [
    (
        "name: team-b",
        'name: "user:ann"',
        "17:12 keys[1].name: a key's name has no colon: `user:ann` is what the owner of a token is called; "
        "use another character",
    ),
    # ── names that nobody reads
    ("server:", "sever:", '1:1 sever: unknown option "sever"; did you mean "server"?'),
    ("port: 8000", "prot: 8000", '1:27 server.prot: unknown option "prot"; did you mean "port"?'),
    ("ttl: 1h", "tll: 1h", '22:18 chain[3].tll: unknown option "tll"; did you mean "ttl"?'),
    ("use: auth", "use: auht", '20:10 chain[1].use: unknown middleware "auht"; did you mean "auth"?'),
    ("use: log", "uses: log", '19:5 chain[0]: "use" is missing; did you mean it by "uses"?'),
    ("- use: log", "- log", '19:5 chain[0]: expected a mapping like {use: log}, got text; write "use: log"'),
    (
        "  echo:",
        "  mine:",
        '6:3 providers.mine: unknown kind of provider "mine"; there are openai, echo, groq, ollama, '
        "or give it a kind: {kind: openai, base_url: …}",
    ),
    (
        "kind: openai",
        "kind: opnai",
        '5:17 providers.local.kind: unknown kind of provider "opnai"; did you mean "openai"?',
    ),
    # ── values of another kind
    ("port: 8000", "port: abc", '1:33 server.port: expected a whole number from 0 to 65535, got "abc"'),
    ("port: 8000", "port: 80000", "1:33 server.port: expected a whole number from 0 to 65535, got 80000"),
    ("port: 8000", 'port: "8000"', '1:33 server.port: expected a whole number from 0 to 65535, got "8000"'),
    ("port: 8000", "port: ", "1:33 server.port: expected a whole number from 0 to 65535, got nothing"),
    ("ttl: 1h", "ttl: soon", '22:23 chain[3].ttl: expected a duration like 30s, got "soon"'),
    ("ttl: 1h", "ttl: 3600", "22:23 chain[3].ttl: expected a duration like 30s, got 3600"),
    ("port: 8000", "max_body: big", '1:37 server.max_body: expected a size like 32MB, got "big"'),
    ("attempts: 3", "attempts: 30", "23:28 chain[4].attempts: expected a whole number from 1 to 10, got 30"),
    ("attempts: 3", "eager: 1", "23:25 chain[4].eager: expected true or false, got 1"),
    ("attempts: 3", "jitter: much", '23:26 chain[4].jitter: expected a number, got "much"'),
    ("concurrent: 8", "concurrent: 0", "16:77 keys[0].limits.concurrent: expected a whole number of at least 1, got 0"),
    ("name: team-b", "name: 12", "17:12 keys[1].name: expected text, got a whole number; put it in quotes"),
    ("name: team-b", "name: no", "17:12 keys[1].name: expected text, got true or false; put it in quotes"),
    (
        "order: weighted",
        "order: wieghted",
        "11:12 models.fast.order: expected one of as_written, weighted, least_busy, fastest, cheapest, "
        'got "wieghted"; did you mean "weighted"?',
    ),
    ("[fast]", "fast", "16:48 keys[0].models: expected a list, got text"),
    ("{connect: 5s}", "5s", "13:15 models.fast.timeouts: expected a mapping, got text"),
    ("{name: team-b, key: secret-of-team-b}", "secret", "17:5 keys[1]: expected a mapping, got text"),
    ("[mini]", "[mini, [mini]]", "12:23 models.fast.fallbacks[1]: expected text, got a list"),
    (
        "weight: 3",
        "price: {prompt: -1, completion: 2}",
        "10:64 models.fast.deployments[0].price.prompt: expected dollars per million tokens like 0.15, got -1",
    ),
    (
        "key: secret-of-team-b",
        "key: x, expires: tomorrow",
        '17:37 keys[1].expires: expected a date like 2027-01-31 or 2027-01-31T12:00:00Z, got "tomorrow"',
    ),
    # ── what is missing, or here twice
    ("name: team-b, ", "", '17:5 keys[1]: "name" is missing'),
    ("name: team-b", "nmae: team-b", '17:6 keys[1].nmae: unknown option "nmae"; did you mean "name"?'),
    ("{target: openai/gpt-4o-mini, weight: 3}", "{weight: 3}", '10:19 models.fast.deployments[0]: "target" is missing'),
    (
        '  "local',
        '  mini: x\n  "local',
        '14:3 models.mini: "mini" is here a second time; the first is at line 8; keep one of them',
    ),
    # ── variables
    (
        "${TEAM_A_KEY}",
        "${TEAM_B_KEY}",
        "16:25 keys[0].key: the environment variable TEAM_B_KEY is not set; "
        "set it, or write ${TEAM_B_KEY:-} to leave it empty",
    ),
    ("ttl: 1h", "ttl: ${WORD}", "22:23 chain[3].ttl: expected a duration like 30s, which ${WORD} is not"),
    (
        "8000",
        '"${NUMBER}"',
        "1:33 server.port: expected a whole number from 0 to 65535, which ${NUMBER} is not",
    ),
    (
        "${REDIS_URL:-}",
        "${REDIS URL}",
        "2:8 redis: this is no variable; write ${NAME} or ${NAME:-default}",
    ),
    ("${REDIS_URL:-}", "${REDIS_URL", "2:8 redis: `${` is never closed; write ${NAME} or ${NAME:-default}"),
    ("  mini:", "  ${WORD}:", "8:3 models: a key cannot be a variable; write its name out"),
    # ── names that lead nowhere
    ("local/llama", "locl/llama", '10:60 models.fast.deployments[1]: unknown provider "locl"; did you mean "local"?'),
    (
        "local/llama",
        "groq/llama",
        '10:60 models.fast.deployments[1]: unknown provider "groq"; add "groq:" under `providers:`',
    ),
    (
        "local/llama",
        "llama",
        '10:60 models.fast.deployments[1]: expected provider/model, got "llama"; such as openai/gpt-4o-mini',
    ),
    (
        "local/llama",
        "local/",
        '10:60 models.fast.deployments[1]: expected provider/model, got "local/"; such as local/<',
    ),
    (
        "local/llama",
        "local/*",
        '10:60 models.fast.deployments[1]: the "*" stands for nothing, because "fast" has none; '
        'name the route "fast*", or name one model',
    ),
    (
        "local/llama",
        "openai/gpt-4o-mini",
        '10:60 models.fast.deployments[1]: "openai/gpt-4o-mini" is here a second time; '
        "keep one of them, with the weight of both",
    ),
    ('"local/*"', '"lo*l/*"', '14:13 models.lo*l/*: only the end of a model\'s name may be a "*", which "lo*l/*" has'),
    ("[mini]", "[mimi]", '12:17 models.fast.fallbacks[0]: unknown model "mimi"; did you mean "mini"?'),
    ("[mini]", '["local/*"]', '12:17 models.fast.fallbacks[0]: "local/*" is a pattern; a fallback is one model'),
    ("[mini]", "[fast]", "12:17 models.fast.fallbacks[0]: these fallbacks go in a circle: fast -> fast"),
    ("models: [fast]", "models: [fats]", '16:49 keys[0].models[0]: "fats" is no model here; did you mean "fast"?'),
    ("  echo:", '  "a/b": {kind: echo}', '6:10 providers.a/b: a provider\'s name cannot contain "/", "*" or spaces'),
    # ── what has no effect, or none that could be meant
    (
        "    deployments: [{target: openai/gpt-4o-mini, weight: 3}, local/llama]\n",
        "",
        "10:5 models.fast: nobody can answer for it; give it deployments: [provider/model]",
    ),
    (
        "{target: openai/gpt-4o-mini, weight: 3}, local/llama",
        "{target: openai/gpt-4o-mini, weight: 0}",
        "10:18 models.fast.deployments: every weight is 0, so none would be chosen; give at least one of them a weight",
    ),
    (
        "order: weighted",
        "order: as_written",
        "10:56 models.fast.deployments[0].weight: a weight has no effect in the order as_written; "
        "add `order: weighted` to the route",
    ),
    (
        "connect: 5s",
        "connect: 0s",
        "13:25 models.fast.timeouts.connect: with no time at all, every call would fail; leave it out, or say how long",
    ),
    (
        "weight: 3",
        "timeouts: {total: 1m}",
        "10:66 models.fast.deployments[0].timeouts.total: a deployment has no total of its own; "
        "write it under the route's own timeouts",
    ),
    ("  - use: auth\n", "", "16:3 keys: nobody asks for these keys; add `- use: auth` to the chain"),
    (
        "  - use: limits\n",
        "",
        "16:64 keys[0].limits: nobody keeps these limits; add `- use: limits` to the chain, after",
    ),
    # ── keys
    (
        "name: team-b",
        "name: team-a",
        '17:12 keys[1].name: another key is called "team-a" too (line 16); '
        "calls could not be told apart; give each its own",
    ),
    ("key: secret-of-team-b", "key: ${TEAM_A_KEY}", "17:25 keys[1].key: another key has the same secret (line 16)"),
    (
        "key: secret-of-team-b",
        "key: sha256:8d969eef6ecad3c29a3a629280e686cf0c3f5d5a86aff3ca12020c923adc6c92",
        "17:25 keys[1].key: another key has the same secret (line 16)",
    ),
    ("key: secret-of-team-b", "key: sha256:1234", "17:25 keys[1].key: expected 64 hexadecimal digits"),
    ("key: secret-of-team-b", "key: ${NOTHING:-}", "17:25 keys[1].key: the key is empty"),
    # ── the chain
    ("use: log", "use: auth", '20:5 chain[1]: "auth" is in the chain twice; keep one of them'),
    ("- use: log", '- use: "no.such.module:Class"', '19:10 chain[0].use: cannot import "no.such.module"'),
    (
        "- use: log",
        '- use: "tests.settings.fakes:PickyOptions"',
        '19:10 chain[0].use: "tests.settings.fakes" has no "PickyOptions"',
    ),
    (
        "- use: log",
        '- use: "tests.settings.fakes:NotOptions"',
        '19:10 chain[0].use: "tests.settings.fakes:NotOptions" is not a subclass of gateway.middleware.base.Options',
    ),
    (
        "- use: log",
        '- {use: "tests.settings.fakes:Picky", low: 3, high: 1}',
        "19:5 chain[0]: low must not be above high",
    ),
    (
        "- use: log",
        '- {use: "tests.settings.fakes:Picky", low: 1, high: 3, words: [a, b, c]}',
        "19:65 chain[0].words: expected a list of length <= 2",
    ),
    # ── stores
    ("${REDIS_URL:-}", "localhost:6379", "2:8 redis: expected an address like redis://host:6379/0, rediss://… or unix"),
    (
        "redis: ${REDIS_URL:-}",
        "database: gateway.db",
        "2:11 database: expected an address like sqlite:///gateway.db or",
    ),
    # ── YAML itself
    ("port: 8000", "port:8000", "1:27 server.port:8000: unknown option"),
    ("  mini: openai", "  mini:\topenai: x", "8:15: this is not YAML: a `key: value` cannot stand here"),
    (
        "  - use: log\n",
        "  - use: log\n   x: 1\n",
        "20:4: this is not YAML: this does not belong to the list of line 19: is it",
    ),
    ("[fast]", "[fast", "16:78: this is not YAML: the `[` of line 16 is not closed, or a comma is missing"),
    ("key: secret-of-team-b", "key: *secret", "17:25: this is not YAML: a value that starts with `*` stands for an"),
    ("key: secret-of-team-b", "key: @secret", "17:25: this is not YAML: a value cannot start with this character"),
    ("key: secret-of-team-b", "key: 'secret", "17:25: this is not YAML: the quote that opened here is never closed"),
    ("key: secret-of-team-b", "key: !secret x", "17:25 keys[1].key: tags that start with `!` mean nothing here"),
    ("key: secret-of-team-b", "key: \x02", "17:25: this is not YAML: the character U+0002 is not allowed"),
    ("redis: ${REDIS_URL:-}", "{{ redis }}: x", "2:1: a key must be text; put it in quotes, or is a `$` missing?"),
]


def complaints_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, name="gateway.yaml", environment=ENVIRONMENT)
    return str(caught.value).splitlines()


def test_what_the_mistakes_start_from_is_right():
    """Otherwise the table below would show nothing."""
    assert isinstance(load(GOOD, name="gateway.yaml", environment=ENVIRONMENT), Loaded)


@pytest.mark.parametrize(("old", "new", "complaint"), MISTAKES)
def test_a_mistake_is_told_once_with_its_place_and_its_cure(old: str, new: str, complaint: str):
    """One mistake, one line: nothing that merely follows from it."""
    assert GOOD.count(old) >= 1
    (told,) = complaints_of(GOOD.replace(old, new, 1))
    assert told.startswith(f"gateway.yaml:{complaint}")


def test_six_mistakes_are_told_together_in_the_order_of_the_file():
    """Otherwise it takes six starts to find them."""
    text = GOOD
    for old, new in [
        ("8000", "800000"),
        ("${OPENAI_API_KEY}", "${OPENAI_API_KY}"),
        ("weight: 3", "wieght: 3"),
        ("[mini]", "[mimi]"),
        ("concurrent: 8", "concurrent: many"),
        ("ttl: 1h", "ttl: 1"),
    ]:
        text = text.replace(old, new, 1)
    assert [line.split(": ")[0] for line in complaints_of(text)] == [
        "gateway.yaml:1:33 server.port",
        "gateway.yaml:4:21 providers.openai.api_key",
        "gateway.yaml:10:48 models.fast.deployments[0].wieght",
        "gateway.yaml:12:17 models.fast.fallbacks[0]",
        "gateway.yaml:16:77 keys[0].limits.concurrent",
        "gateway.yaml:22:23 chain[3].ttl",
    ]


@pytest.mark.parametrize(
    ("old", "new", "places"),
    [
        ("  openai: {api_key: ${OPENAI_API_KEY}}", "  openai: secret", ["4:11 providers.openai"]),
        ("  mini: openai/gpt-4o-mini", "  mini: 5", ["8:9 models.mini"]),
        ("  - use: auth", "  - use: auht", ["20:10 chain[1].use"]),
        ("  - use: limits", "  - use: 5", ["21:10 chain[2].use"]),
        (
            "{target: openai/gpt-4o-mini, weight: 3}",
            "{target: echo/a, weight: 0}, 5",
            ["10:48 models.fast.deployments[1]"],
        ),
        ("openai: {api_key: ${OPENAI_API_KEY}}", "${WORD}: {}", ["4:3 providers"]),
        (
            "name: team-a, key: ${TEAM_A_KEY}",
            "key: 5, limis: 6",
            ["16:5 keys[0]", "16:11 keys[0].key", "16:14 keys[0].limis"],
        ),
    ],
)
def test_what_follows_from_a_mistake_is_not_told(old: str, new: str, places: list[str]):
    """A route to a provider whose options are wrong is not a second mistake; nor is a key where `auth` is misspelt."""
    told = [line.removeprefix("gateway.yaml:").split(": ")[0] for line in complaints_of(GOOD.replace(old, new, 1))]
    assert told == places


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n"])
def test_an_empty_file_is_told_how_to_begin(text: str):
    """The first start of many."""
    (told,) = complaints_of(text)
    assert "empty" in told or "got nothing" in told


def test_a_list_where_the_sections_should_be_is_told_which_there_are():
    """The chain alone, say."""
    assert complaints_of("- use: log") == [
        "gateway.yaml:1:1: expected a mapping of server, database, redis, providers, models, "
        "forward, proxy, health, responses, keys, chain, "
        "got a list"
    ]


def test_a_longer_circle_of_fallbacks_is_shown_from_end_to_end_and_once():
    """Whoever wrote one of them looks at the others."""
    text = """
providers: {echo: }
models:
  a: {deployments: [echo/a], fallbacks: [b]}
  b: {deployments: [echo/b], fallbacks: [c, x/1]}
  c: {deployments: [echo/c], fallbacks: [a]}
  x/*: {deployments: [echo/x]}
"""
    (told,) = complaints_of(text)
    assert told == "gateway.yaml:6:42 models.c.fallbacks[0]: these fallbacks go in a circle: a -> b -> c -> a"


def test_a_wrong_order_of_the_chain_is_told_with_the_reason():
    """The reason is the middleware's own: it knows why."""
    text = GOOD.replace("  - use: log\n", "").replace("  - use: auth\n", "") + "  - use: auth\n"
    assert complaints_of(text) == [
        'gateway.yaml:19:5 chain[0]: "limits" must stand after "auth": '
        "limits are a key's, so it must be known whose call this is; move it down",
        'gateway.yaml:20:5 chain[1]: "cache" must stand after "auth": '
        "or anybody would be answered from it; move it down",
    ]


SECRETS = [
    ("api_key: ${OPENAI_API_KEY}", "api_key: 4711.0815"),
    ("api_key: ${OPENAI_API_KEY}", "api_key: [4711.0815]"),
    ("api_key: ${OPENAI_API_KEY}", "api_key: {4711.0815: x}"),
    ("{api_key: ${OPENAI_API_KEY}}", "4711.0815"),
    ("key: secret-of-team-b", "key: 4711.0815"),
    ("key: secret-of-team-b", "key: *4711.0815"),
    ("key: secret-of-team-b", "key: !4711.0815 x"),
    ("key: secret-of-team-b", "key: !4711!x x"),
    ("key: secret-of-team-b", "key: !4711.0815 [x]"),
    ("- use: auth", "- [4711.0815]"),
    ("key: secret-of-team-b", "key: sha256:4711.0815"),
    ("{name: team-b, key: secret-of-team-b}", "4711.0815"),
    ("${REDIS_URL:-}", "localhost/4711.0815"),
    ("redis: ${REDIS_URL:-}", "database: user:4711.0815@host"),
    ("- use: auth", "- {use: auth, jwt: 4711.0815}"),
    ("- use: auth", "- {use: auth, jwt: {secret: 4711.0815}}"),
    ("api_key: ${OPENAI_API_KEY}", "api_key: x, headers: {authorization: 4711.0815}"),
    ("api_key: ${OPENAI_API_KEY}", "api_key: ${MISSING:-4711.0815}, http: ${MISSING:-4711.0815}"),
    ("ttl: 1h", "ttl: ${MISSING:-4711.0815}"),
]


@pytest.mark.usefixtures("both_loaders")
@pytest.mark.parametrize(("old", "new"), SECRETS)
def test_what_may_be_a_secret_is_never_shown(old: str, new: str):
    """A complaint goes into logs, terminals, issues."""
    assert "4711" not in "".join(complaints_of(GOOD.replace(old, new, 1)))


def test_a_complaint_is_no_longer_than_a_line_though_the_value_is():
    """Someone may put a whole prompt where a word belongs."""
    (told,) = complaints_of(GOOD.replace("ttl: 1h", f"ttl: {'x' * 10_000}"))
    assert len(told) < 200


def test_one_cause_is_one_complaint_however_many_keys_it_concerns():
    """Ten thousand keys have limits, and the chain lacks one line."""
    text = GOOD.replace("  - use: limits\n", "").replace("secret-of-team-b", "b, limits: {concurrent: 1}")
    assert len(complaints_of(text)) == 1


def test_a_path_is_unambiguous_where_a_name_has_dots():
    """Models have."""
    (told,) = complaints_of(
        GOOD.replace("  mini: openai", '  "gpt-4.1 x": {deployments: [echo/x], odrer: x}\n  mini: openai')
    )
    assert told.startswith('gateway.yaml:8:40 models["gpt-4.1 x"].odrer: unknown option')


ODD = [
    5,
    -1.5,
    True,
    None,
    "",
    "*",
    "a/b",
    "${WORD}",
    "${NOT_SET}",
    [],
    {},
    [5, ["x"]],
    {"x": {"y": None}},
    {"use": []},
]


@pytest.mark.parametrize("odd", ODD, ids=json.dumps)
def test_whatever_stands_anywhere_is_taken_or_complained_of(odd: object):
    """Never a traceback: whoever reads it did not write the gateway."""
    good = load(GOOD, name="gateway.yaml", environment=ENVIRONMENT).root.value
    changed = [json.dumps(one) for one in with_one_changed(good, odd)]
    assert len(changed) > 50
    for text in changed:
        with contextlib.suppress(ConfigError):
            load(text, name="gateway.yaml", environment=ENVIRONMENT)


def with_one_changed(value: Any, odd: object) -> Iterator[Any]:
    """Yield `value` with one of the values in it, at any depth, replaced by `odd`."""
    yield odd
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from ({**value, name: other} for other in with_one_changed(inner, odd))
    if isinstance(value, list):
        for i, inner in enumerate(value):
            yield from ([*value[:i], other, *value[i + 1 :]] for other in with_one_changed(inner, odd))
