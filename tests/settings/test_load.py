"""gateway.yaml as it should be, and the objects it becomes."""

import gc
from decimal import Decimal

import msgspec
import pytest

from gateway.core.secret import Secret
from gateway.settings import document, load, reader
from gateway.settings.complaints import ConfigError
from gateway.settings.load import Loaded
from gateway.settings.schema import DeploymentSettings, RouteSettings, Server
from tests.settings import fakes

pytestmark = pytest.mark.usefixtures("fakes")


def loaded(text: str, **environment: str) -> Loaded:
    return load.load(text, name="gateway.yaml", environment=environment)


@pytest.mark.usefixtures("both_loaders")
def test_a_variable_may_stand_where_yaml_has_braces_of_its_own():
    """`{key: ${KEY}}` is how everybody writes it, and YAML alone cannot read it."""
    text = """
    providers: {openai: {api_key: ${OPENAI}, base_url: "${HOST:-http://x}/v1"}, echo: {}}
    models: {fast: openai/${MODEL:-gpt}, slow: echo/echo}
    keys:
      - {name: a, key: ${TEAM_A_KEY}, models: [fast, ${OTHER:-slow}]}
    chain: [use: auth]
    """
    settings = loaded(text, OPENAI="sk-1", TEAM_A_KEY="k: {a}, [b] #c").settings
    assert settings.providers["openai"] == fakes.OpenAIOptions(
        kind="openai", api_key=Secret("sk-1"), base_url="http://x/v1"
    )
    assert settings.models["fast"].deployments == [DeploymentSettings(target="openai/gpt")]
    assert settings.keys[0].key.reveal() == "k: {a}, [b] #c"
    assert settings.keys[0].models == ["fast", "slow"]


@pytest.mark.usefixtures("both_loaders")
def test_a_mistake_after_a_variable_is_still_placed_right():
    """The braces are hidden from YAML one for one, the letters beyond ASCII too."""
    text = "providers: {openai: {api_key: ${A:-größe…}, bse_url: x}}\n"
    with pytest.raises(ConfigError) as caught:
        loaded(text)
    complaint = caught.value.complaints[-1]
    assert text[complaint.column - 1 :].startswith("bse_url")


def test_a_variable_of_digits_is_a_number_where_one_is_wanted_and_text_elsewhere():
    """A key that happens to be all digits is a key."""
    settings = loaded(
        "server: {port: ${PORT}}\n"
        "keys: [{name: a, key: ${KEY}, user: ${KEY}, admin: ${ADMIN}, limits: {concurrent: ${MANY:-8}}}]\n"
        "chain: [{use: auth}, {use: limits}, {use: retry, jitter: ${JITTER}}]",
        PORT="9000",
        KEY="0123",
        ADMIN="true",
        JITTER="1.5",
    ).settings
    assert settings.server.port == 9000
    assert (settings.keys[0].key.reveal(), settings.keys[0].user) == ("0123", "0123")
    assert (settings.keys[0].admin, settings.keys[0].limits.concurrent) == (True, 8)
    assert settings.chain[2] == fakes.RetryOptions(jitter=1.5)


@pytest.mark.parametrize(
    ("environment", "host"), [({}, "::1"), ({"HOST": ""}, "::1"), ({"HOST": "0.0.0.0"}, "0.0.0.0")]
)
def test_a_default_stands_in_for_a_variable_that_is_unset_or_empty(environment: dict[str, str], host: str):
    """As in a shell, and so in compose files."""
    assert loaded("server: {host: ${HOST:-::1}}", **environment).settings.server.host == host


def test_what_a_variable_holds_is_text_and_nothing_else():
    """Whoever sets a variable must not be able to write configuration, nor to read other variables."""
    text = "server: {host: ${HOST}}"
    assert loaded(text, HOST="a, port: 1} # ${X}").settings.server.host == "a, port: 1} # ${X}"


def test_a_comment_may_say_anything():
    """A variable in it need not be set."""
    assert loaded("server: {} # ${NOT_SET} and ${ this").settings.server == Server()


def test_short_forms_stand_for_the_long_ones():
    """Most routes have one deployment, most deployments only a target."""
    settings = loaded("""
    providers: {echo: {}}
    models:
      a: echo/a
      b: {deployments: [echo/a]}
      c: {deployments: [{target: echo/a}]}
    """).settings
    assert settings.models["a"] == settings.models["b"] == settings.models["c"]
    assert settings.models["a"] == RouteSettings(deployments=[DeploymentSettings(target="echo/a", weight=1)])


def test_prices_are_exact():
    """Money is not a binary fraction."""
    text = "providers: {echo: }\nmodels: {a: {deployments: [{target: echo/a, price: {prompt: 0.0375, completion: 3}}]}}"
    price = loaded(text).settings.models["a"].deployments[0].price
    assert price is not None
    assert (price.prompt, price.completion, price.cached) == (Decimal("0.0375"), Decimal(3), None)


@pytest.mark.parametrize("said", ["2027-01-31", "2027-01-31T12:00:00Z", "2027-01-31 12:00:00+02:00", '"2027-01-31"'])
def test_a_key_expires_on_a_date_with_or_without_quotes(said: str):
    """YAML takes one without for a date of its own."""
    settings = loaded(f"keys: [{{name: a, key: k, expires: {said}}}]\nchain: [use: auth]").settings
    assert settings.keys[0].expires == said.strip('"')


def test_sections_whose_lines_are_all_comments_are_empty():
    """That is how one turns a section off for a moment."""
    settings = loaded("""
    server:
      # port: 9000
    providers:
      echo:
    models:
      # a: echo/a
    keys:
    #  - {name: a, key: b}
    chain:
    """).settings
    assert (settings.server, settings.models, settings.keys, settings.chain) == (Server(), {}, [], [])
    assert settings.providers == {"echo": fakes.EchoOptions(kind="echo")}


def test_anchors_and_merges_spare_repetition():
    """YAML's own means; a field that is written beside a merge wins."""
    settings = loaded("""
    providers: {echo: }
    models:
      a: &usual {deployments: &here [echo/a], timeouts: {total: 1m}}
      b: *usual
      c: {<<: *usual, timeouts: {total: 2m}}
      d: {deployments: *here}
    """).settings
    assert settings.models["a"] == settings.models["b"]
    assert settings.models["c"].deployments == settings.models["d"].deployments == settings.models["a"].deployments
    assert settings.models["c"].timeouts.total == 120


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("models: &m {a: *m}", "this alias contains itself"),
        ("server: " + "[" * 60 + "]" * 60, "this is nested more than 50 levels deep"),
    ],
)
def test_yaml_without_end_is_refused(text: str, problem: str):
    """Rather than to fill the memory."""
    with pytest.raises(ConfigError, match=problem):
        loaded(text)


def test_aliases_that_stand_for_billions_of_values_are_refused(monkeypatch: pytest.MonkeyPatch):
    """Nine lines of YAML can."""
    monkeypatch.setattr(document, "MOST_NODES", 5_000)
    lines = ["a: &a0 [1, 2, 3]", *(f"b{i}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]" for i in range(9))]
    with pytest.raises(ConfigError, match="too many values"):
        loaded("\n".join(lines))


def test_a_provider_s_kind_is_its_name_unless_it_says_otherwise():
    """A vendor that speaks OpenAI's dialect is that translator, and knows whose quirks to mind."""
    providers = loaded("""
    providers:
      openai: {api_key: a}
      groq: {api_key: b}
      fast: {kind: groq, api_key: c}
      mine: {kind: "tests.settings.fakes:EchoOptions"}
    """).settings.providers
    assert providers["openai"] == fakes.OpenAIOptions(kind="openai", api_key=Secret("a"))
    assert providers["groq"] == fakes.OpenAIOptions(kind="groq", vendor="groq", api_key=Secret("b"))
    assert providers["fast"] == fakes.OpenAIOptions(kind="groq", vendor="groq", api_key=Secret("c"))
    assert providers["mine"] == fakes.EchoOptions(kind="tests.settings.fakes:EchoOptions")


def test_a_provider_that_is_off_is_no_mistake():
    """The shipped file names every vendor; few people have a key for each."""
    settings = loaded("providers: {openai: {api_key: ${KEY:-}}}\nmodels: {a: openai/a}").settings
    assert settings.providers["openai"].off() == "its api_key is empty"


def test_a_third_party_s_middleware_comes_in_by_its_place():
    """Twenty lines of a team's own, with typed options."""
    found = loaded('chain: [{use: "tests.settings.fakes:Picky", low: 1, high: 2, words: [a]}, {use: log}]')
    assert found.settings.chain == [fakes.Picky(low=1, high=2, words=("a",)), fakes.LogOptions()]
    assert found.uses == ("tests.settings.fakes:Picky", "log")


def test_ours_is_called_by_its_name_even_where_its_place_is_written():
    """Others say in which order they stand to it by name."""
    assert loaded('chain: [{use: "tests.settings.fakes:LogOptions"}]').uses == ("log",)


def test_keys_may_be_for_a_middleware_we_do_not_know():
    """A team's own may ask for keys; only a chain all of ours surely does not without `auth`."""
    text = 'keys: [{name: a, key: b}]\nchain: [{use: "tests.settings.fakes:Picky", low: 1, high: 2}]'
    assert loaded(text).settings.keys[0].name == "a"


@pytest.mark.parametrize(
    "entry", ["*", "fast", "f*", "openai/*", "openai/gpt-4o", "openai/gpt-*", "*/gpt-4o", "*-mini", "[a-f]*"]
)
def test_a_key_s_models_may_be_patterns_and_names_within_patterns(entry: str):
    """As they are matched when a call comes in."""
    text = f"""
    providers: {{openai: {{}}}}
    models: {{fast: openai/a, openai/*: openai/*, x/gpt-4o: openai/b}}
    keys: [{{name: a, key: b, models: ["{entry}"]}}]
    chain: [use: auth]
    """
    assert loaded(text).settings.keys[0].models == [entry]


@pytest.mark.parametrize("entry", ["slow", "g*", "openai", "anthropic/claude", "fast?"])
def test_a_key_s_models_must_open_something(entry: str):
    """Or its owner is refused everything, and nobody knows why."""
    text = f"""
    providers: {{openai: {{}}}}
    models: {{fast: openai/a, openai/*: openai/*}}
    keys: [{{name: a, key: b, models: ["{entry}"]}}]
    chain: [use: auth]
    """
    with pytest.raises(ConfigError, match="is no model here"):
        loaded(text)


def test_a_fallback_may_be_a_name_that_a_pattern_matches():
    """It is filled in when it is needed."""
    text = "providers: {echo: }\nmodels: {a: {deployments: [echo/a], fallbacks: [e/b]}, e/*: echo/*}"
    assert loaded(text).settings.models["a"].fallbacks == ["e/b"]


def test_fallbacks_that_fork_and_meet_again_are_looked_at_once():
    """Thirty forks in a row are a billion ways, and none of them is a circle."""
    lines = [f"  {x}{i}: {{deployments: [echo/a], fallbacks: [a{i + 1}, b{i + 1}]}}" for i in range(30) for x in "ab"]
    text = "\n".join(["providers: {echo: }", "models:", *lines, "  a30: echo/a", "  b30: echo/b"])
    assert len(loaded(text).settings.models) == 62


WHERE = """\
providers:
  echo:
models:
  fast:
    deployments:
      - {target: echo/a}
      - echo/b
chain:
  - use: log
  - use: retry
    attempts: 3
"""


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("chain", 1), "gateway.yaml:10:5 chain[1]"),
        (("chain", 1, "attempts"), "gateway.yaml:11:15 chain[1].attempts"),
        (("chain", 1, "patience"), "gateway.yaml:10:5 chain[1]"),
        (("chain", 7), "gateway.yaml:9:3 chain"),
        (("models", "fast", "deployments", 0, "target"), "gateway.yaml:6:18 models.fast.deployments[0].target"),
        (("models", "fast", "deployments", 1, "target"), "gateway.yaml:7:9 models.fast.deployments[1]"),
        (("server", "port"), "gateway.yaml:1:1"),
    ],
)
def test_what_turns_out_wrong_later_has_a_place_too(path: tuple[str | int, ...], place: str):
    """What a middleware's `build` refuses, say. What is left out is where it would stand."""
    found = loaded(WHERE)
    assert found.where(path) == place
    assert str(found.complaint(path, "no")) == f"{place}: no"


def big(keys: int, models: int, port: str) -> str:
    lines = ["providers: {echo: }", f"server: {{port: {port}}}", "chain: [{use: auth}, {use: limits}]", "models:"]
    lines += [f"  m{i}: {{deployments: [echo/a, {{target: echo/b}}], fallbacks: [last]}}" for i in range(models)]
    lines += ["  last: echo/c", "keys:"]
    lines += [f"  - {{name: k{i}, key: s{i}, models: [m0], limits: {{concurrent: 1}}}}" for i in range(keys)]
    return "\n".join(lines)


@pytest.mark.parametrize(("port", "most"), [("8000", 6), ("${PORT}", 20)])
def test_a_big_file_is_read_in_a_few_conversions(monkeypatch: pytest.MonkeyPatch, port: str, most: int):
    """One for each part that is right, however much is in it; only what is wrong, or a variable, is looked into."""
    conversions = 0

    def counting(*arguments: object, **options: object) -> object:
        nonlocal conversions
        conversions += 1
        return msgspec.convert(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(reader, "convert", counting)
    settings = loaded(big(500, 50, port), PORT="9000").settings
    assert (len(settings.keys), len(settings.models)) == (500, 51)
    assert conversions <= most


def test_the_garbage_collector_is_back_at_work_after_a_file_that_is_wrong():
    """It rests while a file is read."""
    with pytest.raises(ConfigError):
        loaded("sever: {}")
    assert gc.isenabled()
