"""Every client, every feature: `python3 run.py clients`. They come from registries, so this is a run of its own."""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.clients.asking import Answers, ask, problems
from tests.clients.features import FEATURES, Feature
from tests.clients.page import PAGE, page
from tests.clients.rig import Rig, rig
from tests.clients.roster import CLIENTS, Client

pytestmark = pytest.mark.timeout(900)  # the first one waits for its client's installation, and for all its answers


@dataclass(frozen=True)
class Run:
    """All clients, asked four at a time: much of it is waiting, as upstreams that are busy tell them to."""

    rig: Rig
    answers: dict[str, "Future[Answers]"]


@pytest.fixture(scope="module")
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with rig(tmp_path_factory.mktemp("gateway")) as served, ThreadPoolExecutor(4) as pool:
        yield Run(served, {client.id: pool.submit(ask, served, client) for client in _wanted(request.session.items)})


def _wanted(tests: list[pytest.Item]) -> tuple[Client, ...]:
    """Return the clients that the tests are about: all, unless each is about one of them (`-k codex`)."""
    about = {item.callspec.params["client"] if hasattr(item, "callspec") else None for item in tests}
    return CLIENTS if None in about else tuple(client for client in CLIENTS if client in about)


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.id)
def test_a_client_has_a_feature_with_every_upstream(run, client, feature):
    """As its program tells, and as the roster says."""
    assert problems(client, run.answers[client.id].result(), feature.name) == ""


def test_no_client_leaves_this_machine(run):
    """What a test sends out, it sends to strangers."""
    for answers in run.answers.values():
        answers.result()
    assert run.rig.strayed == []


def test_what_claude_code_says_to_anthropic_arrives(run):
    """The features that it turns on by a header are Anthropic's to know, and without them it works less well."""
    run.answers["claude-code"].result()
    asked = [one for one in run.rig.upstream.requests if one.path == "/v1/messages" and "claude-code" in one.model]
    assert asked and all("claude-code-" in one.headers["anthropic-beta"] for one in asked)


def test_the_page_says_what_happened(run):
    """It is made from this very run."""
    told = {id: answers.result() for id, answers in run.answers.items()}

    def happened(client: Client, feature: Feature) -> str:
        answers = told[client.id][feature.name].values()
        if all("missing" in one for one in answers):
            return ""
        if feature.worked is None:
            return "` or `".join(sorted({one["raised"]["type"] for one in answers}))
        return "works" if not problems(client, told[client.id], feature.name) else "fails"

    written = page(happened)
    if os.environ.get("GATEWAY_WRITE_CLIENTS"):
        PAGE.write_text(written)
    assert PAGE.read_text() == written
