"""What leaves this folder: the wheel, the lock, and that nothing is fetched when it starts."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.serving import started

ROOT = Path(__file__).parent.parent

NO_NETWORK = """
import socket, sys

def refuse(self, address, *rest):
    host = address[0] if isinstance(address, tuple) else "unix"
    if host not in ("127.0.0.1", "::1", "unix"):
        print("NETWORK", address, file=sys.stderr, flush=True)
        raise OSError("there is no network")
    return connect(self, address, *rest)

def resolve(host, *rest, **more):
    if host not in ("127.0.0.1", "::1", "localhost", None):
        print("NETWORK", host, file=sys.stderr, flush=True)
        raise OSError("there is no network")
    return getaddrinfo(host, *rest, **more)

connect, getaddrinfo = socket.socket.connect, socket.getaddrinfo
socket.socket.connect, socket.getaddrinfo = refuse, resolve
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The package as `pip install .` would install it."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], check=True, cwd=ROOT)
    (file,) = folder.glob("*.whl")
    site = folder / "site"
    with zipfile.ZipFile(file) as archive:
        archive.extractall(site)
    return site


def test_the_wheel_holds_everything_that_a_start_needs(wheel):
    """Data files are what packages forget."""
    for name in (
        "gateway/shipped/gateway.yaml",
        "gateway/shipped/config/vendors.yaml",
        "gateway/shipped/config/prices.yaml",
        "gateway/kv/limits.lua",
        "gateway/http/ui/swagger-ui-bundle.js",
        "gateway/http/ui/redoc.standalone.js",
    ):
        assert (wheel / name).is_file(), name
    (metadata,) = wheel.glob("*.dist-info")
    assert "gateway = gateway.cli.main:main" in (metadata / "entry_points.txt").read_text()
    assert not list(wheel.rglob("*.pth"))


def test_the_wheel_serves_from_an_empty_folder_and_fetches_nothing(wheel, tmp_path):
    """With an account set up, too: prices, tokenizers and the like are the usual suspects."""
    (wheel / "sitecustomize.py").write_text(NO_NETWORK)
    environment = {"PYTHONPATH": str(wheel), "PYTHONSAFEPATH": "1", "OPENAI_API_KEY": "sk-test", "HOME": str(tmp_path)}
    with started(tmp_path, environment=environment) as gateway:
        gateway.until_ready()
        assert str(wheel) in gateway.said, "it was not the wheel that ran"
    assert "NETWORK" not in gateway.said


def test_the_lock_has_hashes_and_names_no_registry():
    """It must work with whichever mirror a machine is set up for."""
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    for requirement in re.findall(r"^[a-zA-Z][^\n]*==[^\n]*", lock, re.MULTILINE):
        assert requirement.rstrip().endswith("\\"), requirement


def test_the_lock_is_made_of_pyproject():
    """Every direct dependency is in it."""
    declared = re.findall(r'^    "([a-z0-9-]+)(?:\[\w+\])?>=', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert {name for name in declared if name not in locked} == set()
