"""Credentials that cannot be sent, or recognised, as they are written: found before a call meets them."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.cli.main import main
from gateway.settings.complaints import ConfigError
from gateway.settings.load import load

CANARY = "canary-0123456789"
FLAWS = {
    f"{CANARY}\n": "has a line break at its end",
    f"{CANARY}\r\n": "has a line break at its end",
    f"\n{CANARY}": "has a line break at its start",
    f"{CANARY}\n{CANARY}\n": "has a line break inside",
    f"{CANARY} ": "has a space at its end",
    f"\t{CANARY}": "has a space at its start",
    f'"{CANARY}"': "has a pair of quotes around it",
    f"“{CANARY}”": "has a pair of quotes around it",
    f"canary…{CANARY}": "has a character that headers cannot carry",
    f"canary\0{CANARY}": "has a character that headers cannot carry",
}


def complaints(settings: dict[str, Any], value: str) -> list[str]:
    """What is wrong where `${SECRET}` stands for `value`."""
    try:
        load(json.dumps(settings, indent=1), name="gateway.yaml", environment={"SECRET": value})
    except ConfigError as error:
        assert "canary" not in str(error)
        return [f"{one.path}: {one.problem}; {one.cure}" for one in error.complaints]
    return []


def provider(**options: str) -> dict[str, Any]:
    return {"providers": {"mine": options}}


PLACES = {
    "providers.mine.api_key": provider(kind="openai", api_key="${SECRET}"),
    "providers.mine.access_key_id": provider(kind="bedrock", access_key_id="${SECRET}"),
    "providers.mine.secret_access_key": provider(kind="bedrock", secret_access_key="${SECRET}"),
    "keys[0].key": {"keys": [{"name": "a", "key": "${SECRET}"}], "chain": [{"use": "auth"}]},
}


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize(("value", "problem"), FLAWS.items(), ids=FLAWS.values())
def test_a_credential_that_cannot_be_sent_is_told_at_its_option(path: str, value: str, problem: str):
    """A secret made with `echo` or an editor ends with a line break: each call would fail, or no key would match."""
    assert complaints(PLACES[path], value) == [f"{path}: {problem}; take it out of the secret"]


@pytest.mark.parametrize("kind", ["azure", "anthropic", "gemini", "cohere", "ollama", "vertex", "bedrock"])
def test_each_kind_of_provider_is_told(kind: str):
    """Whatever header its key is sent in."""
    said = complaints(provider(kind=kind, api_key="${SECRET}"), f"{CANARY}\n")
    assert said == ["providers.mine.api_key: has a line break at its end; take it out of the secret"]


@pytest.mark.parametrize("option", ["redis", "database"])
def test_an_address_with_a_line_break_is_told_so(option: str):
    """`expected an address like …` says nothing to whoever sees a right one."""
    said = complaints({option: "${SECRET}"}, "redis://canary\n")
    assert said == [f"{option}: has a line break at its end; take it out of the secret"]


@pytest.mark.parametrize("value", [CANARY, "", "a b", 'a"b', "sk-é", "~!#$%^&*()_+=:;,./?"])
def test_what_can_be_sent_is_taken(value: str):
    """Who issues a key chooses its characters."""
    assert complaints(PLACES["providers.mine.api_key"], value) == []


def test_a_credential_that_is_a_document_may_have_lines():
    """Google's is a file of JSON, and a file ends with a line break."""
    assert complaints(provider(kind="vertex", credentials="${SECRET}"), '{\n"type": "“"\n}\n') == []


def checked(folder: Path, settings: dict[str, Any], value: str) -> str:
    """What `gateway check` says of what is wrong."""
    file = folder / "gateway.yaml"
    file.write_text(json.dumps(settings))
    done = CliRunner().invoke(main, ["check", str(file)], env={"SECRET": value})
    assert done.exit_code == 1 and "canary" not in done.output
    return done.output


def test_check_tells_of_a_line_break(tmp_path: Path):
    """Before it is served: that is what the command is for."""
    said = checked(tmp_path, PLACES["providers.mine.api_key"], f"{CANARY}\n")
    assert said.endswith("providers.mine.api_key: has a line break at its end; take it out of the secret\n")


def test_a_header_of_a_provider_that_cannot_be_sent_is_told(tmp_path: Path):
    """Credentials are sent in these too."""
    settings = {"providers": {"mine": {"kind": "openai", "api_key": "k", "headers": {"x-token": "${SECRET}"}}}}
    said = checked(tmp_path, settings, f"{CANARY}\n")
    assert "providers.mine.headers: the value of the header x-token has a line break" in said
