import pytest

from gateway.settings import plugins

ROOMS = ("log", "auth", "limits", "cache", "retry")
FAKES = "tests.settings.fakes"


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put small stand-ins where ours are, so that these tests say something about settings alone."""
    rooms = {name: f"{FAKES}:{name.capitalize()}Options" for name in ROOMS}
    providers = {"openai": f"{FAKES}:OpenAIOptions", "echo": f"{FAKES}:EchoOptions"}
    monkeypatch.setattr(plugins, "MIDDLEWARES", rooms)
    monkeypatch.setattr(plugins, "PROVIDERS", providers)
    monkeypatch.setattr(plugins, "VENDORS", FAKES)
