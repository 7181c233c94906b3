"""The other commands: check, schema, explain, key, --version."""

import asyncio
import hashlib
import json
import re

import pytest
from click.testing import CliRunner

from gateway import __version__
from gateway.cli.main import main
from gateway.cli.startpage import start_page
from gateway.settings.live import Live
from gateway.settings.process import Process
from tests.kv.test_redis import store_of
from tests.serving import Text

TEAM = """
providers: {a: {kind: openai, base_url: "http://127.0.0.1:1/v1", api_key: secret-canary}, echo: {}}
models:
  fast: {deployments: [{target: a/m, price: {prompt: 1, completion: 2}}], fallbacks: [big, spare]}
  big: {deployments: [a/big]}
  spare: echo/echo
keys: [{name: team-a, key: key-canary-0123456789, models: [fast, spare], limits: {requests_per_minute: 5}}]
chain: [{use: auth}, {use: limits}, {use: cache}, {use: cost}, {use: retry}]
"""


@pytest.fixture
def run(tmp_path):
    file = tmp_path / "gateway.yaml"
    file.write_text(TEAM)

    def run(*arguments, stdin=None):
        return CliRunner().invoke(main, [str(file) if a == "FILE" else a for a in arguments], input=stdin)

    run.file = file
    return run


def test_check_says_what_is_right(run):
    """And what it counted, so that an empty file does not look fine."""
    done = run("check", "FILE")
    assert done.exit_code == 0 and "3 models, 1 key." in done.output


def test_check_finds_the_file_as_serve_does(run, tmp_path, monkeypatch):
    """One way to name it for both; without a name, the file in this folder, and else the one that comes with us."""
    assert run("check", "--config", "FILE").output == run("check", "FILE").output
    monkeypatch.chdir(tmp_path)
    assert run("check").output.startswith("gateway.yaml is right: 3 models")
    run.file.unlink()
    shipped = run("check").output
    assert "gateway.yaml is right" in shipped and "3 models" not in shipped
    both = run("check", "a.yaml", "--config", "b.yaml")
    assert both.exit_code == 2 and "FILE or --config, not both" in both.output


def test_check_says_why_a_provider_is_off(run):
    """The name alone sends its reader to look for the reason."""
    run.file.write_text(TEAM.replace("echo: {}}", "echo: {}, openai: {api_key: ''}}"))
    done = run("check", "FILE")
    assert done.exit_code == 0 and "\n  provider openai is off: its api_key is empty" in done.output


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("", "Responses are kept in memory, by each worker for itself; set `database:`"),
        ("responses: {keep: 0s}\n", "Responses are not kept."),
        ("database: sqlite:///gateway.db\n", "1 key.\n"),
    ],
)
def test_check_says_where_responses_are_kept(run, more, words):
    """A follow-up that only sometimes works is found out late; so is a promise that nothing is kept."""
    run.file.write_text(TEAM + more)
    assert words in run("check", "FILE").output


@pytest.mark.parametrize(
    ("workers", "more", "warns"),
    [
        (2, "", True),
        (1, "", False),
        (2, "database: sqlite:///gateway.db\n", False),
        (2, "responses: {keep: 0s}\n", False),
    ],
)
def test_the_start_page_warns_of_workers_that_do_not_share_responses(workers, more, warns):
    """Every second follow-up would fail, and nobody would know why."""
    page = start_page(Live(Text(TEAM + more), Process()).gateway, "gateway.yaml", ("127.0.0.1", 8000), workers)
    assert ("keeps responses by itself: set `database:`" in page) == warns


def test_check_finds_what_only_building_finds(run):
    """`auth` without any key is right by itself; it would lock everybody out."""
    run.file.write_text(re.sub("keys: .*\n", "", TEAM))
    done = run("check", "FILE")
    assert done.exit_code == 1 and "chain[0]" in done.output and "nobody" in done.output


@pytest.mark.parametrize(
    ("good", "bad", "words"),
    [
        ("http://127.0.0.1:1/v1", "127.0.0.1:1", "http://"),
        ("http://127.0.0.1:1/v1", "http://user:pass-canary@host/v1", "credentials"),
        ("api_key: secret-canary", 'api_key: secret-canary, headers: {host: "x"}', "transport's own"),
        ("api_key: secret-canary", 'api_key: secret-canary, headers: {x-a: "a\\nb: c"}', "line break"),
    ],
)
def test_check_finds_what_no_request_could_be_sent_with(run, good, bad, words):
    """At load, not as a 500 on every call."""
    run.file.write_text(TEAM.replace(good, bad))
    done = run("check", "FILE")
    assert done.exit_code == 1 and "providers.a" in done.output and words in done.output
    assert "canary" not in done.output


PROXIED = """
providers:
  far: {kind: openai, base_url: "https://far.example/v1", api_key: k}
  also: {kind: groq, api_key: k}
  near: {kind: ollama}
  led: {kind: openai, base_url: "https://led.example/v1", api_key: k, proxy: "http://127.0.0.1:9"}
  direct: {kind: openai, base_url: "https://direct.example/v1", api_key: k, proxy: none}
  inside: {kind: openai, base_url: "https://api.inside.example/v1", api_key: k}
  plain: {kind: openai, base_url: "http://plain.example/v1", api_key: k}
proxy: {search: {base_url: "https://search.example"}}
models: {fast: far/m}
chain: [{use: retry}]
"""


@pytest.mark.parametrize(
    ("said", "words"),
    [("socks5://ann:canary@p:1", "a SOCKS proxy is not supported"), ("http://ann:canary@p:port", "expected a proxy")],
)
def test_check_and_the_start_page_say_whom_the_environment_s_proxy_cannot_lead_to(run, monkeypatch, said, words):
    """Whom it should, and nobody else; with the cure, and without its password."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    run.file.write_text(PROXIED)
    assert "reached" not in run("check", "FILE").output
    monkeypatch.setenv("HTTPS_PROXY", said)
    monkeypatch.setenv("NO_PROXY", "inside.example")
    done = run("check", "FILE")
    page = start_page(Live(Text(PROXIED), Process()).gateway, "gateway.yaml", ("127.0.0.1", 8000), 1)
    for told in (done.output, page):
        (line,) = (line for line in told.splitlines() if "cannot be reached" in line)
        assert line.strip(" !").startswith(f"far, also, proxy/search cannot be reached: HTTPS_PROXY: {words}")
        assert line.endswith("NO_PROXY, or the provider's `proxy: none`, leads past it") and "canary" not in told
    assert done.exit_code == 0


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("base_url: 127.0.0.1:1", "begins with http://"),
        ('base_url: "http://a/v1?b"', "without ? and #"),
        ('headers: {host: "x"}', "transport's own"),
        ("proxy: ftp://p", "expected a proxy like"),
        ("ca: nowhere.pem", "No such file"),
        ("discover: 1ms", "at least 1s"),
    ],
)
def test_check_shows_which_option_is_wrong_where_only_its_use_shows_it(run, option, words):
    """A provider may have ten of them, over as many lines."""
    run.file.write_text(f"providers:\n  a:\n    kind: openai\n    api_key: k\n    {option}\n")
    done = run("check", "FILE")
    name, _, _ = option.partition(": ")
    assert done.exit_code == 1
    assert f":5:{len(name) + 7} providers.a.{name}: " in done.output and words in done.output


def test_check_of_no_file_is_a_sentence(run):
    """Not a stack trace."""
    done = run("check", "nowhere.yaml")
    assert done.exit_code == 1 and "nowhere.yaml: cannot be read: No such file" in done.output


def test_a_made_key_works_and_only_its_hash_is_written_down(run):
    """Paste the second half into the configuration, give the first to its user."""
    said = run("key", "mine").output
    secret = said.splitlines()[0]
    digest = re.search(r"sha256:([0-9a-f]{64})", said)[1]
    assert hashlib.sha256(secret.encode()).hexdigest() == digest and 'name: "mine"' in said


def test_schema_is_json(run):
    """What editors complete from."""
    schema = json.loads(run("schema").output)
    assert {"server", "redis", "providers", "models", "keys", "chain"} <= set(schema["properties"])


def test_the_version_is_one(run):
    """In one place."""
    assert __version__ in run("--version").output


def test_explain_tells_who_would_be_asked_and_who_not(run):
    """In order, with the price, the limits and the reason for each that is passed over."""
    body = {"model": "fast", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}
    said = json.loads(
        run("explain", "-", "--config", "FILE", "--key", "key-canary-0123456789", stdin=json.dumps(body)).output
    )
    assert [place["deployment"] for place in said["asked"]] == ["a/m", "echo/echo"]
    assert said["not_asked"] == [{"fallback": "big", "because": "team-a may not use it"}]
    assert said["asked"][0]["cost_usd_at_most"].startswith("0.0002")
    assert said["principal"] == "team-a" and "requests" in json.dumps(said["limits"]) and said["cache"]
    assert "canary" not in json.dumps(said)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "fast"), "no API key"),
        (("--model", "big", "--key", "key-canary-0123456789"), "may not"),
        (("--model", "fats", "--key", "key-canary-0123456789"), "fats"),
        (("-", "--key", "key-canary-0123456789"), "not JSON"),
    ],
)
def test_explain_tells_what_would_stop_a_call(run, arguments, words):
    """With the status that the client would get."""
    done = run("explain", *arguments, "--config", "FILE", stdin="{")
    said = json.loads(done.output)
    assert said["answer"] >= 400 and words in said["because"]


def explained(run, model="fast"):
    return json.loads(run("explain", "--model", model, "--config", "FILE", "--key", "key-canary-0123456789").output)


def test_explain_makes_no_database(run, tmp_path):
    """Who asks what would be done has done nothing."""
    run.file.write_text(f"{TEAM}\ndatabase: sqlite:///{tmp_path}/calls.db\n")
    assert explained(run)["asked"]
    assert [file.name for file in tmp_path.iterdir()] == ["gateway.yaml"]


def test_explain_tells_what_a_route_does_that_is_not_usual(run):
    """In the words of the configuration; of what is usual, nothing."""
    assert explained(run)["route"] == {"name": "fast", "order": "as_written"}
    said = "midstream: continue, client_leaves: finish, hedge: {percentile: 99.9}, context_fallbacks: [spare], "
    run.file.write_text(TEAM.replace("fast: {", f"fast: {{{said}"))
    assert explained(run)["route"] == {
        "name": "fast",
        "order": "as_written",
        "midstream": "continue",
        "client_leaves": "finish",
        "context_fallbacks": ["spare"],
        "hedge": {"percentile": 99.9, "share": 0.05},
    }


def test_explain_tells_who_rests_where_redis_knows(run, own_valkey):
    """This process itself has asked nobody. Where Redis is gone it says nothing, rather than that all is well."""

    async def rest():
        async with store_of(own_valkey.url) as store:
            await store.rests.rest("a/m", 60, 2)

    assert "rests_for_s" not in json.dumps(explained(run))
    asyncio.run(rest())
    run.file.write_text(f"{TEAM}\nredis: {own_valkey.url}\n")
    resting, well = explained(run)["asked"]
    assert (resting["deployment"], resting["rests_in_a_row"]) == ("a/m", 2) and 50 < resting["rests_for_s"] <= 60
    assert "rests_for_s" not in well
    own_valkey.stop()
    assert "rests_for_s" not in json.dumps(explained(run))


UNKNOWN = "not known here: the serving process alone knows; set `redis:`"


def test_explain_says_what_the_serving_process_alone_knows(run):
    """It is another process, which has counted nothing and asked nobody: "5 of 5 left" would be a guess."""
    said = explained(run)
    assert said["limits"] == {"key:team-a:requests": f"5 at most; how many are left is {UNKNOWN}"}
    assert said["cache"]["answer"] == UNKNOWN and said["cache"]["key"]
    assert said["resting"] == f"{UNKNOWN}, or see `/health`"


def test_explain_tells_what_redis_knows_and_when_it_is_gone(run, own_valkey):
    """Where all processes count together, how many are left is true here too."""
    run.file.write_text(f"{TEAM}\nredis: {own_valkey.url}\n")
    said = explained(run)
    assert said["limits"]["key:team-a:requests"].startswith("5 of 5 left")
    assert said["cache"]["answer"] == "not kept" and "resting" not in said
    own_valkey.stop()
    said = explained(run)
    gone = "not known here: Redis is gone"
    assert said["limits"] == {"key:team-a:requests": f"5 at most; how many are left is {gone}"}
    assert said["cache"]["answer"] == gone and said["resting"] == f"{gone}, or see `/health`"
