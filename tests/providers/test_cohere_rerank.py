"""Rerank at Cohere: what is asked, what comes back, and what is refused."""

import json

import pytest

from gateway.core.call import Passage
from gateway.core.errors import BadRequest, Unreachable
from gateway.core.secret import Secret
from gateway.providers.cohere import CohereOptions
from tests.providers.test_golden import attempt

RERANK = CohereOptions(api_key=Secret("sk-test"), base_url="https://co.example/v2/").build("co").beside_chat["rerank"]
ASKED = {"query": "What is the capital?", "documents": ["Carson City", {"text": "Washington", "page": 2}]}
RANKED = {
    "id": "r-1",
    "results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.25}],
    "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
}


def asking(**request):
    return attempt({**ASKED, **request}, "rerank-v3.5").but(operation="rerank", passage=Passage("POST", "/rerank"))


def read(answer, **request):
    return json.loads(RERANK.whole(asking(**request), json.dumps(answer).encode()).data)


def test_it_is_asked_in_its_own_words():
    """Texts alone, and its own fields as they came."""
    request = RERANK.request(asking(top_n=1, return_documents=True, max_tokens_per_doc=99, user="u"))
    assert request.url == "https://co.example/v2/rerank"
    assert request.headers["authorization"] == "Bearer sk-test"
    assert json.loads(request.body) == {
        "model": "rerank-v3.5",
        "query": "What is the capital?",
        "documents": ["Carson City", "Washington"],
        "top_n": 1,
        "max_tokens_per_doc": 99,
    }


def test_the_results_come_as_they_are_ranked():
    """With what Cohere charges for."""
    assert read(RANKED) == {**RANKED, "model": "house-model"}


def test_documents_come_back_to_whoever_wants_them():
    """As they were sent: Cohere does not return them."""
    said = read(RANKED, return_documents=True)
    assert [one["document"] for one in said["results"]] == [{"text": "Washington", "page": 2}, {"text": "Carson City"}]


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"documents": ["a", {"title": "b"}]}, "documents[1]"),
        ({"documents": [7]}, "documents[0]"),
        ({"documents": "a"}, "documents"),
        ({"query": 7}, "query"),
        ({"rank_fields": ["title"]}, "rank_fields"),
        ({"max_chunks_per_doc": 3}, "max_chunks_per_doc"),
        ({"stream": True}, "stream"),
    ],
)
def test_what_it_cannot_say_is_refused_by_name(wrong, param):
    """Ranked without it, the order would be another."""
    with pytest.raises(BadRequest) as refused:
        RERANK.request(asking(**wrong))
    assert refused.value.param == param


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"message": "no"},
        {"results": [{"index": 2, "relevance_score": 1}]},
        {"results": [{"index": -1, "relevance_score": 1}]},
    ],
)
def test_a_200_that_ranks_nothing_known_is_no_answer(answer):
    """An index is a promise about the client's own list."""
    with pytest.raises(Unreachable):
        read(answer)
