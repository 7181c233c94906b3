"""The clients that are installed beside the gateway anyway, as all of them are run by `python3 run.py clients`."""

import pytest

from tests.clients.asking import ask, problems
from tests.clients.features import FEATURES
from tests.clients.rig import KEY, rig
from tests.clients.roster import CLIENTS

pytestmark = pytest.mark.timeout(300)  # a client waits ten seconds for upstreams that are busy, and machines are too
LIGHT = [client for client in CLIENTS if client.environment == "own"]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with rig(tmp_path_factory.mktemp("gateway")) as served:
        yield served


@pytest.mark.parametrize("client", LIGHT, ids=lambda client: client.id)
def test_a_client_has_every_feature_with_every_upstream(served, client):
    """Official clients, unmodified, whichever dialect answers; none leaves this machine, and upstreams see only us."""
    answers = ask(served, client)
    found = {feature.name: problems(client, answers, feature.name) for feature in FEATURES}
    assert {name: problem for name, problem in found.items() if problem} == {}
    assert served.strayed == []
    said = [name + value for asked in served.upstream.requests for name, value in asked.headers.items()]
    assert said and not [line for line in said if line.startswith("x-stainless") or KEY in line]
