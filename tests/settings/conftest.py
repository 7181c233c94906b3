import pytest
import yaml

from gateway.settings import document, plugins

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


@pytest.fixture(params=["libyaml", "pure Python"])
def both_loaders(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML's two parsers: which one there is depends on the platform's wheel."""
    loader = document.quick(yaml.SafeLoader) if request.param == "pure Python" else document._LOADER
    monkeypatch.setattr(document, "_LOADER", loader)
