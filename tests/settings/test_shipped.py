"""The files that come with the gateway: its own gateway.yaml, the examples, the schema that editors read."""

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.core.shipped import shipped
from gateway.settings.complaints import ConfigError
from gateway.settings.jsonschema import schema
from gateway.settings.load import Loaded, load
from gateway.settings.reference import markdown

EXAMPLES = sorted(shipped("config/examples").glob("*.yaml"))
FILES = [shipped("gateway.yaml"), *EXAMPLES]


def loaded(file: Path, environment: dict[str, str]) -> Loaded:
    return load(file.read_text(), name=file.name, environment=environment)


def variables(text: str) -> dict[str, str]:
    """All that `text` needs."""
    found = re.findall(r"\$\{(\w+)\}", "\n".join(line.partition(" #")[0] for line in text.splitlines()))
    return {name: f"redis://{name}" if "REDIS" in name else f"value-of-{name}" for name in found}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_shipped_file_is_right(file: Path):
    """People start from them."""
    assert loaded(file, variables(file.read_text())).settings.models


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_shipped_file_is_plain_yaml_that_fits_the_schema(file: Path):
    """So that no editor underlines it."""
    assert list(mistakes(yaml.safe_load(file.read_text()), schema(), schema())) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_shipped_file_holds_a_key(file: Path):
    """Whoever copied it would let in everybody who knows the key, or guesses what its digest is of."""
    keys = yaml.safe_load(file.read_text()).get("keys", [])
    assert all(re.fullmatch(r"\$\{\w+\}", key["key"]) for key in keys)


def test_without_any_variable_the_echo_is_on_and_all_else_is_off():
    """A fresh clone on a machine without accounts."""
    providers = loaded(shipped("gateway.yaml"), {}).settings.providers
    assert [name for name, options in providers.items() if not options.off()] == ["echo"]


def test_each_usual_variable_turns_its_provider_on():
    """Whoever has one of them set needs to write nothing."""
    text = shipped("gateway.yaml").read_text()
    for variable, name in [
        ("OPENAI_API_KEY", "openai"),
        ("GROQ_API_KEY", "groq"),
        ("GEMINI_API_KEY", "gemini"),
        ("AWS_BEARER_TOKEN_BEDROCK", "bedrock"),
    ]:
        settings = load(text, name="gateway.yaml", environment={variable: "sk"}).settings
        assert not settings.providers[name].off()
        assert f"{name}/*" in settings.models


def test_what_the_comments_say_to_turn_on_can_be_turned_on():
    """A comment is a promise too."""
    text = shipped("gateway.yaml").read_text()
    for line in ("keys:", "  - name: team-a", "    key: ", "    models: [echo", "    limits: {req"):
        assert f"\n# {line}" in text
        text = text.replace(f"\n# {line}", f"\n{line}")
    text = re.sub(r"^  # (- |  order|  timeouts|  deployments|fast:|local:|ollama:)", r"  \1", text, flags=re.MULTILINE)
    found = load(text, name="gateway.yaml", environment={"TEAM_A_KEY": "sk"})
    assert found.uses == ("log", "metrics", "auth", "limits", "cache", "cost", "retry")
    assert {"fast", "local", "ollama"} <= {*found.settings.models, *found.settings.providers}


def test_the_committed_schema_is_the_one_that_the_types_make():
    """`gateway schema > config/schema.json` makes it so."""
    committed = json.loads(shipped("config/schema.json").read_text())
    assert committed == json.loads(json.dumps(schema()))


def test_everything_one_can_write_is_described():
    """The description is what an editor shows, and the documentation."""
    undescribed = [
        f"{name}.{field}"
        for name, definition in {"Settings": schema(), **schema()["definitions"]}.items()
        for field, found in definition.get("properties", {}).items()
        if "description" not in found and "const" not in found
    ]
    assert undescribed == []


def test_the_example_of_a_database_can_be_pasted():
    """It is the first thing that is done with it."""
    page = (Path(__file__).parents[2] / "docs" / "database.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    text = f"{shipped('gateway.yaml').read_text()}\n{example}"
    assert load(text, name="gateway.yaml", environment={}).settings.database


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("port: 8000", "prot: 8000"),
        ("port: 8000", "port: 80000"),
        ("drain: 2m", "drain: 120"),
        ("order: weighted", "order: wieghted"),
        ("- use: log", "- use: logg"),
        ("ttl: 10m", "tll: 10m"),
        ("attempts: 4", "attempts: 400"),
        ("name: research", "nmae: research"),
        ("openai: {api_key", "openai: {apikey"),
        ("openai: {api_key", "mine: {api_key"),
        ("completion: 1.20", "completion: cheap"),
    ],
)
def test_an_editor_sees_the_mistakes_that_the_gateway_would(old: str, new: str):
    """Two judges, one law."""
    text = (shipped("config/examples") / "team.yaml").read_text()
    wrong = text.replace(old, new, 1)
    assert wrong != text
    assert list(mistakes(yaml.safe_load(wrong), schema(), schema()))
    with pytest.raises(ConfigError):
        load(wrong, name="team.yaml", environment=variables(text))


TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int}


def mistakes(value: Any, rule: dict[str, Any], root: dict[str, Any]) -> Any:
    """Yield what is wrong with `value`: the part of JSON Schema that ours uses."""
    if "$ref" in rule:
        yield from mistakes(value, root["definitions"][rule["$ref"].rpartition("/")[2]], root)
        return
    types = [rule["type"]] if isinstance(rule.get("type"), str) else rule.get("type", [])
    if types and not any(is_a(value, type_) for type_ in types):
        yield f"{value!r} is no {types}"
    if ("enum" in rule and value not in rule["enum"]) or ("const" in rule and value != rule["const"]):
        yield f"{value!r} is none of {rule}"
    if isinstance(value, str) and not re.search(rule.get("pattern", ""), value):
        yield f"{value!r} does not match {rule['pattern']}"
    if is_a(value, "number") and not rule.get("minimum", value) <= value <= rule.get("maximum", value):
        yield f"{value!r} is out of bounds"
    if "anyOf" in rule and all(list(mistakes(value, one, root)) for one in rule["anyOf"]):
        yield f"{value!r} is none of {rule['anyOf']}"
    for one in rule.get("allOf", []):
        yield from mistakes(value, one, root)
    if "not" in rule and not list(mistakes(value, rule["not"], root)):
        yield f"{value!r} is {rule['not']}"
    if "if" in rule and not list(mistakes(value, rule["if"], root)):
        yield from mistakes(value, rule["then"], root)
    if isinstance(value, list):
        for one in value:
            yield from mistakes(one, rule.get("items", {}), root)
    if isinstance(value, dict):
        yield from (f"{name} is missing" for name in rule.get("required", []) if name not in value)
        for name, one in value.items():
            inner = rule.get("properties", {}).get(name, rule.get("additionalProperties", True))
            if inner is False:
                yield f"{name} is unknown"
            elif inner is not True:
                yield from mistakes(one, inner, root)


def is_a(value: Any, type_: str) -> bool:
    if isinstance(value, date):  # in YAML 1.2, which editors speak, it is text
        return type_ == "string"
    if type_ == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, TYPES[type_]) and (type_ != "integer" or not isinstance(value, bool))


def test_the_reference_page_is_written_from_the_schema():
    """What the docs say of an option is what the option says of itself."""
    assert (shipped("gateway.yaml").parent / "docs/configuration.md").read_text() == markdown(), (
        "write it anew: gateway schema --markdown"
    )
