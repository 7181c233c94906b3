"""What is done when a client cannot be installed: no registry is needed to know."""

import subprocess

import pytest

from tests.clients import environments
from tests.clients.environments import NotInstalled, place


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry that hiccups as often as it is told, and what is told to wait."""
    hiccups, waits = [], []

    def install(folder, pins):
        if hiccups:
            raise subprocess.CalledProcessError(1, ["install", *pins], hiccups.pop())
        folder.mkdir(parents=True)

    monkeypatch.setattr(environments, "PLACE", tmp_path)
    monkeypatch.setattr(environments, "_python", install)
    monkeypatch.setattr(environments.time, "sleep", waits.append)
    return hiccups, waits


def test_a_registry_that_hiccups_is_asked_again(registry):
    """And what is installed is not installed again."""
    hiccups, waits = registry
    hiccups += ["503", "reset"]
    assert place("python.llm").is_dir()
    assert (hiccups, len(waits)) == ([], 2)
    hiccups.append("not asked")
    assert place("python.llm").is_dir() and hiccups


def test_a_client_that_cannot_be_installed_is_told_by_its_name(registry):
    """Silence would look like a client that works."""
    hiccups, _ = registry
    hiccups += ["no such version"] * 10
    with pytest.raises(NotInstalled, match=r"(?s)python\.llm cannot be installed.*no such version"):
        place("python.llm")
