"""Asks a client everything, through a rig, and says what came of each feature."""

import sys
import threading
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.clients.environments import NODE, place
from tests.clients.features import FEATURES, wrong
from tests.clients.rig import KEY, PROGRAMS, Rig
from tests.clients.roster import Client

Told = Mapping[str, Any]
Answers = Mapping[str, Mapping[str, Told]]
"""By feature and upstream."""

_installing = threading.Lock()


def ask(rig: Rig, client: Client) -> Answers:
    """Ask a client about every feature. What is asked twice in the same words is asked once.

    Raises:
        NotInstalled: it could not be installed.
    """
    with _installing:
        folder = place(client.environment)
        command = _command(client, folder)
    asked = [
        (feature.name, upstream, feature.question(upstream, client.id, KEY))
        for feature in FEATURES
        for upstream in feature.upstreams
    ]
    once = {(said["ask"], said["model"], said["key"]): said for _, _, said in asked}
    told = dict(zip(once, rig.ask(command, [*once.values()], folder), strict=True))
    answers: dict[str, dict[str, Told]] = defaultdict(dict)
    for feature, upstream, said in asked:
        answers[feature][upstream] = told[said["ask"], said["model"], said["key"]]
    return answers


def _command(client: Client, folder: Path) -> list[str]:
    program = PROGRAMS / client.program
    if program.suffix == ".mjs":
        return [str(NODE), str(_beside_its_packages(program, folder))]
    python = sys.executable if client.environment.startswith("node.") else str(folder / "bin" / "python")
    return [python, str(program)]


def _beside_its_packages(program: Path, folder: Path) -> Path:
    """Copy the Node programs to where Node finds what they import, and return the copy of one."""
    for source in PROGRAMS.glob("*.mjs"):
        copy = folder / source.name
        if not copy.exists() or copy.read_text() != source.read_text():  # another may be running it
            copy.write_text(source.read_text())
    return folder / program.name


def problems(client: Client, answers: Answers, feature: str) -> str:
    """Return what is wrong with a client's feature, upstream by upstream; empty: it is as the roster says."""
    (asked,) = (one for one in FEATURES if one.name == feature)
    told = answers[feature]
    if feature in client.without:
        return "" if all("missing" in one for one in told.values()) else "it has this after all: mend the roster"
    expected = client.raises.get(feature, "")
    found = {upstream: wrong(asked, one, expected, shows_wait=client.shows_wait) for upstream, one in told.items()}
    return "\n".join(f"{upstream}: {problem}" for upstream, problem in found.items() if problem)
