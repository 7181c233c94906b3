"""The door by which middlewares and providers come in."""

import subprocess
import sys
from importlib import metadata

import pytest

from gateway.middleware.base import Options
from gateway.settings import plugins
from gateway.settings.plugins import Unusable
from tests.settings import fakes


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> list[metadata.EntryPoint]:
    """The entry points of installed packages, as a test wants them."""
    points: list[metadata.EntryPoint] = []

    def installed(*, group: str) -> metadata.EntryPoints:
        return metadata.EntryPoints(points).select(group=group)

    monkeypatch.setattr(plugins.metadata, "entry_points", installed)
    return points


def point(name: str, value: str, group: str = "gateway.middleware") -> metadata.EntryPoint:
    return metadata.EntryPoint(name, value, group)


def test_an_installed_package_s_middleware_goes_by_its_entry_point(packages: list[metadata.EntryPoint]):
    """Whoever writes gateway.yaml need not know in which module it is."""
    packages.append(point("picky", "tests.settings.fakes:Picky"))
    assert plugins.middleware("picky") == ("picky", fakes.Picky)


def test_an_installed_package_s_provider_goes_by_its_entry_point(packages: list[metadata.EntryPoint]):
    """The same door."""
    packages.append(point("parrot", "tests.settings.fakes:EchoOptions", "gateway.providers"))
    assert plugins.provider("parrot") == (fakes.EchoOptions, "")


def test_a_package_cannot_take_the_name_of_one_of_ours(packages: list[metadata.EntryPoint]):
    """To install something must not change what `auth` means."""
    packages.append(point("log", "tests.settings.fakes:Picky"))
    assert plugins.middleware("log")[1].__module__ == "gateway.middleware.log"


def test_a_misspelt_package_s_name_is_recognised(packages: list[metadata.EntryPoint]):
    """Others' names are as hard to spell as ours."""
    packages.append(point("guardian", "tests.settings.fakes:Picky"))
    with pytest.raises(Unusable) as caught:
        plugins.middleware("gaurdian")
    assert caught.value.cure == 'did you mean "guardian"?'


def test_two_packages_with_one_name_are_told_apart_by_their_place(packages: list[metadata.EntryPoint]):
    """Rather than by which of them was installed first."""
    packages += [point("guard", "a.b:C"), point("guard", "d.e:F")]
    with pytest.raises(Unusable) as caught:
        plugins.middleware("guard")
    assert caught.value.cure == "name the place: a.b:C or d.e:F"


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("no.such:Class", "ModuleNotFoundError: No module named 'no'"),
        ("tests.settings.broken_plugin:Class", "ZeroDivisionError: division by zero"),
        ("tests.settings.fakes:Nobody", 'has no "Nobody"'),
        ("tests.settings.fakes:OpenAIOptions", "is not a subclass of gateway.middleware.base.Options"),
        ("gateway.middleware.base:Options", "is not a subclass of gateway.middleware.base.Options"),
        ("tests.settings.fakes:vendor_names", "is not a subclass of gateway.middleware.base.Options"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_cause(place: str, problem: str):
    """It is someone else's code; its author needs to know."""
    with pytest.raises(Unusable, match=problem):
        plugins.middleware(place)


@pytest.mark.parametrize("name", plugins.MIDDLEWARES)
def test_ours_are_all_there_under_their_names(name: str):
    """The table is written by hand."""
    use, options = plugins.middleware(name)
    assert use == name
    assert issubclass(options, Options)
    assert plugins.middleware(plugins.MIDDLEWARES[name]) == (name, options)


@pytest.mark.parametrize("kind", plugins.PROVIDERS)
def test_our_providers_are_all_there_under_their_names(kind: str):
    """So is this one."""
    assert plugins.provider(kind)[0].__module__.startswith("gateway.providers.")


@pytest.mark.parametrize("vendor", ["groq", "mistral", "deepseek", "xai", "openrouter", "together", "localai", "vllm"])
def test_a_vendor_s_name_is_a_kind_that_speaks_openai_s_dialect(vendor: str):
    """A row of data, and no translator of its own."""
    assert plugins.provider(vendor) == (plugins.provider("openai")[0], vendor)


def test_only_what_is_configured_is_imported():
    """The start takes as long as what it uses: PyJWT, redis or prometheus-client cost tenths of a second."""
    program = """
import sys
from gateway.settings.load import load
load("providers: {echo: {}}\\nchain: [use: retry]", name="x", environment={})
print(*sorted(name for name in sys.modules if name.startswith(("gateway.middleware.", "gateway.providers.", "jwt"))))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    imported = set(ran.stdout.split())
    assert {"gateway.middleware.retry", "gateway.providers.echo"} <= imported
    assert not imported & {"gateway.middleware.auth", "gateway.middleware.cache", "gateway.providers.gemini", "jwt"}
