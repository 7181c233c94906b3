"""What is kept when processes end, databases are gone, or there is none."""

import json
import re

import httpx
import openai
import pytest

from gateway.store import objects
from tests.kept import (
    ann,
    config,
    create,
    kind,
    one_by_one,
    said_to,
    upstream,
)
from tests.postgres import own_postgres
from tests.serving import serving, started
from tests.store.rows import eventually

__all__ = ["kind", "own_postgres", "upstream"]


async def test_what_is_kept_outlives_the_process(kind, upstream, tmp_path):
    """Another worker, another machine or the next start goes on where the first left off."""
    upstream.will(*one_by_one("one", "two"))
    text = config(kind, upstream, f"sqlite:///{tmp_path}/gateway.db")
    async with serving(text) as gateway:
        first = await create(ann(gateway), True, input="Hi")
    async with serving(text) as one, serving(text) as other:
        second = await create(ann(one), True, input="And?", previous_response_id=first.id)
        assert (await ann(other).responses.retrieve(second.id)).output_text == "two"


def test_every_worker_knows_what_another_answered(tmp_path):
    """Right behind the answer's last event, whichever of them takes the call."""
    echo = "providers: {echo: {}}\nmodels: {echo: echo/echo}\nchain: [{use: retry}]\ndatabase: sqlite:///gateway.db\n"
    (tmp_path / "gateway.yaml").write_text(echo)
    with started(tmp_path, "--workers", "2") as gateway:
        gateway.until_ready(2)
        url, previous = f"{gateway.url}/v1/responses", None
        for n in range(12):  # each on a connection of its own
            said = {"model": "echo", "input": f"{n}", "previous_response_id": previous, "stream": True}
            answer = httpx.post(url, json=said, trust_env=False, timeout=60)
            (completed,) = re.findall(r"event: response.completed\ndata: (.*)\n", answer.text)
            previous = json.loads(completed)["response"]["id"]
        listed = httpx.get(f"{url}/{previous}/input_items?limit=100", trust_env=False, timeout=60).json()
        assert len(listed["data"]) == 23


async def test_without_a_database_a_follow_up_elsewhere_is_told_why(upstream):
    """The right answer cannot be given, and a wrong one must not be: the error says what to set."""
    text = config("openai", upstream)
    async with serving(text) as one, serving(text) as other:
        first = await create(ann(one), False, input="Hi")
        with pytest.raises(openai.BadRequestError, match="without `database:` each worker"):
            await create(ann(other), False, input="And?", previous_response_id=first.id)
        with pytest.raises(openai.NotFoundError, match="without `database:` each worker"):
            await ann(other).responses.retrieve(first.id)
    assert upstream.asked == 1


@pytest.mark.parametrize("how", ["stop", "freeze"])
async def test_while_the_database_is_gone_answers_are_given_and_say_that_they_are_not_kept(
    upstream, own_postgres, monkeypatch, how
):
    """Whole or streamed. What follows them is refused as unknown once it is back, never answered by guessing; while it
    is gone a follow-up may be tried again. What was kept before is still there."""
    upstream.will(*one_by_one("before", "during", "streamed", "after"))
    async with serving(config("openai", upstream, own_postgres.url("postgres"))) as gateway:
        client = ann(gateway)
        before = await create(client, False, input="1")
        monkeypatch.setattr(objects, "PATIENCE_S", 0.5)
        monkeypatch.setattr(objects, "PAUSE_S", 0.2)
        getattr(own_postgres, how)()
        raw = await client.responses.with_raw_response.create(model="m", input="2")
        during = raw.parse()
        assert during.output_text == "during" and raw.headers["x-gateway-kept"] == "no"
        headers = {"authorization": "Bearer secret-ann"}
        answer = await gateway.post("/v1/responses", {"model": "m", "input": "3", "stream": True}, headers)
        note, completed = (answer.text.find(said) for said in (": x-gateway-kept: no\n", "event: response.completed"))
        assert 0 < note < completed
        with pytest.raises(openai.InternalServerError) as caught:
            await create(client, False, input="4", previous_response_id=before.id)
        assert caught.value.status_code == 503 and caught.value.response.headers["retry-after"]
        own_postgres.start() if how == "stop" else own_postgres.thaw()

        async def is_back():
            try:
                return (await client.responses.retrieve(before.id)).output_text == "before"
            except openai.InternalServerError:
                return False

        monkeypatch.setattr(objects, "PATIENCE_S", 30.0)
        await eventually(is_back)
        if how == "stop":  # a frozen server may still take what nobody waited for
            with pytest.raises(openai.BadRequestError, match=during.id):
                await create(client, False, input="5", previous_response_id=during.id)
        after = await create(client, False, input="6", previous_response_id=before.id)
        assert after.output_text == "after" and said_to(upstream.requests[-1]) == ["1", "before", "6"]
