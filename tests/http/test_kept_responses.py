"""Responses that are kept: given again, listed, deleted, for their owner alone; and what is not kept."""

import json

import openai
import pytest

from tests.kept import (
    CHAIN,
    KEYS,
    ann,
    config,
    create,
    kind,
    one_by_one,
    postgres_server,
    said_to,
    served,
    upstream,
    url,
)
from tests.script import Cut, Fails, Says, ScriptedUpstream, Stalls
from tests.serving import serving
from tests.store.rows import eventually, rows_of

__all__ = ["kind", "postgres_server", "served", "upstream", "url"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_response_is_given_again_as_it_was(kind, upstream, url, stream):
    """Word for word, from whichever upstream; none is asked for it."""
    upstream.will(*one_by_one("Hello there"))
    async with serving(config(kind, upstream, url)) as gateway:
        first = await create(ann(gateway), stream, input="Hi", metadata={"a": "b"})
        again = await ann(gateway).responses.retrieve(first.id)
        answer = await gateway.http.get(f"/v1/responses/{first.id}", headers={"authorization": "Bearer secret-ann"})
    assert again == first and again.output_text == "Hello there" and again.usage is not None
    assert upstream.asked == 1
    assert answer.headers["x-gateway-provider"] == "none" and answer.headers["x-gateway-cost"] == "0"


async def test_a_deleted_response_is_gone(kind, upstream, url):
    """From the database too, and from the upstream that keeps it itself; deleting it again finds nothing."""
    upstream.will(*one_by_one("a secret"), Fails(200, {"id": "x", "object": "response", "deleted": True}))
    async with serving(config(kind, upstream, url)) as gateway:
        client = ann(gateway)
        first = await create(client, False, input="Hi")
        await client.responses.delete(first.id)
        for ask in (client.responses.retrieve, client.responses.delete, client.responses.input_items.list):
            with pytest.raises(openai.NotFoundError):
                await ask(first.id)
        with pytest.raises(openai.BadRequestError) as caught:
            await create(client, False, input="Hi", previous_response_id=first.id)
        assert caught.value.code == "previous_response_not_found"
    if url:
        assert await rows_of(url, "SELECT * FROM objects") == []
    deleted = [asked for asked in upstream.requests if asked.method == "DELETE"]
    assert [asked.path for asked in deleted] == ([f"/openai/v1/responses/{first.id}"] if kind == "azure" else [])


async def test_what_the_upstream_did_not_delete_is_not_called_deleted(upstream):
    """It is still there, so that it can be deleted again; what it has forgotten already is no failure."""
    async with serving(config("azure", upstream)) as gateway:
        client = ann(gateway)
        first = await create(client, False, input="Hi")
        upstream.will(Fails(500))
        with pytest.raises(openai.InternalServerError):
            await client.responses.delete(first.id)
        assert (await client.responses.retrieve(first.id)).id == first.id
        upstream.will(Fails(404))
        await client.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(first.id)


async def test_a_conversation_with_a_hole_is_not_gone_on_with(served):
    """What was deleted must not be made up, nor silently left out."""
    gateway, upstream = served
    upstream.will(*one_by_one("one", "two"))
    client = ann(gateway)
    first = await create(client, False, input="Hi")
    second = await create(client, False, input="Hi", previous_response_id=first.id)
    upstream.will(*[Fails(404)] * (upstream.requests[0].path.endswith("/responses")))
    await client.responses.delete(first.id)
    with pytest.raises(openai.BadRequestError, match=first.id):
        await create(client, False, input="Hi", previous_response_id=second.id)
    assert (await client.responses.retrieve(second.id)).output_text == "two"


async def test_input_is_listed_in_pages(served):
    """All that the answer was made from, the last first unless asked otherwise; the SDK's iterator sees all."""
    gateway, upstream = served
    upstream.will(*one_by_one("one", "two"))
    client = ann(gateway)
    first = await create(client, False, input="a")
    items = [{"role": "user", "content": text} for text in "bcd"]
    second = await create(client, False, input=items, previous_response_id=first.id)

    def texts(listed):
        return [item.content[0].text for item in listed]

    newest = await client.responses.input_items.list(second.id)
    assert texts(newest.data) == ["d", "c", "b", "one", "a"] and not newest.has_more
    assert all(item.id and item.type == "message" for item in newest.data)
    assert len({item.id for item in newest.data}) == 5
    page = await client.responses.input_items.list(second.id, order="asc", limit=2)
    assert texts(page.data) == ["a", "one"] and page.has_more
    after = await client.responses.input_items.list(second.id, order="asc", limit=2, after=page.data[-1].id)
    assert texts(after.data) == ["b", "c"]
    every = [item async for item in client.responses.input_items.list(second.id, order="asc", limit=2)]
    assert texts(every) == ["a", "one", "b", "c", "d"]


@pytest.mark.parametrize(
    ("method", "path", "status", "param"),
    [
        ("GET", "?stream=true", 400, "stream"),
        ("GET", "?starting_after=3", 400, "starting_after"),
        ("GET", "?include[]=message.output_text.logprobs", 400, "include"),
        ("GET", "/input_items?limit=0", 400, "limit"),
        ("GET", "/input_items?limit=101", 400, "limit"),
        ("GET", "/input_items?limit=many", 400, "limit"),
        ("GET", "/input_items?order=up", 400, "order"),
        ("GET", "/input_items?after=msg_none", 400, "after"),
        ("POST", "/cancel", 400, "response_id"),
        ("PUT", "", 405, None),
        ("GET", "/cancel", 405, None),
        ("DELETE", "/input_items", 405, None),
        ("GET", "/nothing", 404, None),
    ],
)
async def test_what_cannot_be_had_is_refused_with_the_cure(upstream, method, path, status, param):
    """In OpenAI's error object, with the field that it is about."""
    async with serving(config("openai", upstream)) as gateway:
        first = await create(ann(gateway), False, input="Hi")
        headers = {"authorization": "Bearer secret-ann"}
        answer = await gateway.http.request(method, f"/v1/responses/{first.id}{path}", headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text


@pytest.mark.parametrize(
    ("fields", "param", "cure"),
    [
        ({"conversation": "conv_1"}, "conversation", "previous_response_id"),
        ({"background": True, "store": False}, "background", "leave `store` out"),
        ({"input": [1]}, "input[0]", "expected `object`"),
        ({"previous_response_id": 7}, "previous_response_id", "expected"),
        ({"previous_response_id": "resp_" + "x" * 10_000}, "previous_response_id", "not found"),
        ({"previous_response_id": "resp_\0"}, "previous_response_id", "not found"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_whoever_would_answer(served, fields, param, cure):
    """Before anyone is asked: an id that is not the caller's must not reach an upstream that may know it."""
    gateway, upstream = served
    with pytest.raises(openai.BadRequestError, match=cure) as caught:
        await create(ann(gateway), False, **{"input": "Hi", **fields})
    assert caught.value.param == param and upstream.asked == 0


# ── Whose it is ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_anothers_does_not_exist(kind, upstream, url):
    """Told in the same words as what never was; nothing is done to it, and no upstream hears of it."""
    async with serving(config(kind, upstream, url)) as gateway:
        mine = await create(ann(gateway), False, input="Hi")
        theirs = gateway.openai("secret-bob")
        for ask in (
            theirs.responses.retrieve,
            theirs.responses.delete,
            theirs.responses.cancel,
            theirs.responses.input_items.list,
            lambda id: create(theirs, False, input="What was said?", previous_response_id=id),
        ):
            told = []
            for id in (mine.id, mine.id[:-1] + "!"):
                with pytest.raises(openai.APIStatusError) as caught:
                    await ask(id)
                told.append((caught.value.status_code, caught.value.body["message"].replace(id, "")))
            assert told[0] == told[1]
            assert told[0][0] in (400, 404)
        assert upstream.asked == 1
        assert (await ann(gateway).responses.retrieve(mine.id)).output_text == "Hello"


async def test_the_same_id_of_two_owners_is_two_responses(upstream, url):
    """An upstream makes up its ids; should it give the same one twice, nobody sees or deletes the other's."""
    upstream.will("for Ann", "for Bob", Fails(404))
    async with serving(config("azure", upstream, url)) as gateway:
        mine = await create(ann(gateway), False, input="I am Ann")
        theirs = gateway.openai("secret-bob")
        assert (await create(theirs, False, input="I am Bob")).id == mine.id
        assert (await ann(gateway).responses.retrieve(mine.id)).output_text == "for Ann"
        await theirs.responses.delete(mine.id)
        assert (await ann(gateway).responses.retrieve(mine.id)).output_text == "for Ann"


async def test_nobody_without_a_key_is_told_anything(upstream):
    """These routes pass `auth` like all others."""
    async with serving(config("openai", upstream)) as gateway:
        mine = await create(ann(gateway), False, input="Hi")
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
            answer = await gateway.http.request(method, f"/v1/responses/{mine.id}{path}")
            assert answer.status_code == 401, answer.text


# ── What is not whole is not kept ────────────────────────────────────────────────────────────────────────────────


async def test_a_broken_answer_is_not_kept(served):
    """The client has its id from the first event; nothing goes by that name."""
    gateway, upstream = served
    upstream.will(Cut("one two three four five", after_events=5))
    id = ""
    with pytest.raises(openai.APIError):
        async for event in await ann(gateway).responses.create(model="m", input="Hi", stream=True):
            id = event.response.id if event.type == "response.created" else id
    assert id
    with pytest.raises(openai.NotFoundError):
        await ann(gateway).responses.retrieve(id)


async def test_what_was_joined_is_kept_as_the_client_saw_it(upstream):
    """A stream that another went on with is one answer, and the next turn knows all of it."""
    async with ScriptedUpstream() as second:
        route = "m: {deployments: [chat/c, other/o], midstream: continue}"
        providers = {
            name: {"kind": "openai", "api_key": "s", "base_url": place.url}
            for name, place in (("chat", upstream), ("other", second))
        }
        text = f"providers: {json.dumps(providers)}\nmodels: {{{route}}}\n{KEYS}{CHAIN}"
        upstream.will(Cut("one two three", after_events=3), "six")
        second.will("three four")
        async with serving(text) as gateway:
            first = await create(ann(gateway), True, input="Count.")
            again = await ann(gateway).responses.retrieve(first.id)
            assert again.output_text == first.output_text == "one two three four"
            await create(ann(gateway), True, input="On.", previous_response_id=first.id)
            assert said_to(upstream.requests[1]) == ["Count.", "one two three four", "On."]


@pytest.mark.parametrize("leaves", ["stop", "finish"])
async def test_what_a_client_left_is_kept_if_its_route_finishes_it(upstream, leaves):
    """Otherwise it was never whole."""
    text = config("openai", upstream).replace(
        "m: openai/some-model", f"m: {{deployments: [openai/some-model], client_leaves: {leaves}}}"
    )
    upstream.will(Stalls("one two", after_events=2)) if leaves == "stop" else upstream.will(Says("one " * 50))
    async with serving(text) as gateway:
        stream = await ann(gateway).responses.create(model="m", input="Hi", stream=True)
        async for event in stream:
            id = event.response.id
            break
        await stream.close()
        client = ann(gateway)

        async def is_kept():
            try:
                return (await client.responses.retrieve(id)).output_text == "one " * 50
            except openai.NotFoundError:
                return False

        if leaves == "finish":
            await eventually(is_kept)
        else:
            await eventually(lambda: upstream.gone)
            await gateway.settle()
            assert not await is_kept()


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_an_incomplete_answer_is_kept_as_what_it_is(served):
    """It ended, by the limit that the client set; it may be followed up."""
    gateway, upstream = served
    upstream.will(Says("Once upon", finish="length"))
    first = await create(ann(gateway), True, input="Hi", max_output_tokens=2)
    again = await ann(gateway).responses.retrieve(first.id)
    assert (again.status, again.incomplete_details.reason) == ("incomplete", "max_output_tokens")
