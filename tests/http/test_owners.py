"""What one caller made under `/v1` is there for nobody else, though the account at the provider is one."""

import contextlib
import json
import sqlite3

import openai
import pytest

from tests.script import Events, Fails, ScriptedUpstream
from tests.serving import mock_config, serving

MINE, YOURS = "test-key-0123456789abcdef", "test-key-fedcba9876543210"
KEYS = f"keys: [{{name: team-a, key: {MINE}}}, {{name: team-b, key: {YOURS}}}]\n"
CHAIN = "chain: [{use: auth}, {use: limits}, {use: retry}]"
FORWARD = "forward: {files: mock, batches: mock, uploads: mock}\n"


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as upstream:
        yield upstream


@contextlib.asynccontextmanager
async def served(upstream, folder=None, forward=FORWARD, chain=CHAIN, keys=KEYS):
    database = f"database: sqlite:///{folder}/gateway.db\n" if folder else ""
    async with serving(mock_config(upstream.url, chain, forward + database + keys)) as gateway:
        yield gateway


def file(id, **more):
    return {"id": id, "object": "file", **more}


async def make(gateway, upstream, id="file-1", key=MINE):
    upstream.will(Fails(200, file(id)))
    return await gateway.openai(key=key).files.create(file=("a.jsonl", b"{}"), purpose="batch")


async def test_a_file_is_there_for_whoever_made_it_alone(upstream, tmp_path):
    """For others it is as if it were not; they are not told otherwise by the upstream, which is not asked."""
    async with served(upstream, tmp_path) as gateway:
        await make(gateway, upstream)
        upstream.will(Fails(200, file("file-1")), Fails(200, b"content", {"content-type": "application/octet-stream"}))
        mine, yours = gateway.openai(key=MINE).files, gateway.openai(key=YOURS).files
        assert (await mine.retrieve("file-1")).id == "file-1"
        assert (await mine.content("file-1")).content == b"content"
        asked = upstream.asked
        for ask in (yours.retrieve, yours.content, yours.delete):
            with pytest.raises(openai.NotFoundError, match="there is no file-1 among your files"):
                await ask("file-1")
        with pytest.raises(openai.NotFoundError, match="there is no file-2 among your files"):
            await mine.retrieve("file-2")
        assert upstream.asked == asked


async def test_it_is_known_after_a_restart(upstream, tmp_path):
    """In the database; without one it is this process's to know."""
    async with served(upstream, tmp_path) as gateway:
        await make(gateway, upstream)
    async with served(upstream, tmp_path) as gateway:
        upstream.will(Fails(200, file("file-1")))
        assert (await gateway.openai(key=MINE).files.retrieve("file-1")).id == "file-1"
    async with served(upstream) as gateway:
        await make(gateway, upstream, "file-9")
        with pytest.raises(openai.NotFoundError, match="database"):
            await gateway.openai(key=MINE).files.retrieve("file-1")


async def test_what_cannot_be_written_down_is_told(upstream, tmp_path, caplog):
    """To the client by a 503, to the operator with the id and whose it is: at the provider it is there."""
    async with served(upstream, tmp_path) as gateway:
        await make(gateway, upstream)
        with contextlib.closing(sqlite3.connect(tmp_path / "gateway.db")) as database:
            database.execute("BEGIN EXCLUSIVE")
            with pytest.raises(openai.InternalServerError) as error:
                await make(gateway, upstream, "file-2")
        assert error.value.status_code == 503
        assert "file-2" in caplog.text and "team-a" in caplog.text


async def test_what_cannot_be_read_is_nobodys(upstream, tmp_path, caplog):
    """And the log says so."""
    async with served(upstream, tmp_path) as gateway:
        upstream.will(Fails(200, {"id": 7}))
        await gateway.http.post("/v1/files", content=b"x", headers={"authorization": f"Bearer {MINE}"})
        assert "cannot be read from its answer" in caplog.text


async def test_what_was_deleted_is_nobodys(upstream, tmp_path):
    """Only once the upstream says so."""
    async with served(upstream, tmp_path) as gateway:
        await make(gateway, upstream)
        files = gateway.openai(key=MINE).files
        upstream.will(Fails(500), Fails(200, {"id": "file-1", "deleted": True}))
        with pytest.raises(openai.InternalServerError):
            await files.delete("file-1")
        assert (await files.delete("file-1")).deleted
        with pytest.raises(openai.NotFoundError):
            await files.retrieve("file-1")


async def test_a_list_has_nothing_of_others(upstream, tmp_path):
    """Neither in it nor in what says where it begins and ends; pages without anything of mine are passed over."""
    async with served(upstream, tmp_path) as gateway:
        for id, key in (("file-1", MINE), ("file-2", YOURS), ("file-3", MINE)):
            await make(gateway, upstream, id, key)
        pages = [
            {"object": "list", "data": [file("file-2"), file("file-x")], "has_more": True, "last_id": "file-x"},
            {"data": [file("file-2"), file("file-3"), file("file-0")], "has_more": True, "first_id": "file-2"},
            {"data": [file("file-1"), file("file-y")], "has_more": False, "last_id": "file-y"},
        ]
        upstream.will(*[Fails(200, page) for page in pages])
        seen = [one.id async for one in gateway.openai(key=MINE).files.list(limit=3, order="asc")]
        assert seen == ["file-3", "file-1"]
        queries = [asked.query for asked in upstream.requests[3:]]
        assert queries == ["limit=3&order=asc", "limit=3&order=asc&after=file-x", "limit=3&order=asc&after=file-3"]
        upstream.will(Fails(200, {"data": [file("file-2"), file("file-1")], "first_id": "file-2", "last_id": "file-2"}))
        answer = await gateway.http.get("/v1/files", headers={"authorization": f"Bearer {MINE}"})
        assert answer.json() == {"data": [file("file-1")], "first_id": "file-1", "last_id": "file-1"}
        assert "file-2" not in answer.text


async def test_a_list_that_goes_on_for_ever_ends(upstream, tmp_path):
    """A caller with nothing among a million files does not read them all."""
    async with served(upstream, tmp_path) as gateway:
        upstream.will(*[Fails(200, {"data": [file("file-x")], "has_more": True})] * 30)
        answer = await gateway.http.get("/v1/files", headers={"authorization": f"Bearer {MINE}"})
        assert answer.status_code == 503 and "limit" in answer.json()["error"]["message"]
        assert upstream.asked == 20


async def test_what_a_batch_made_is_the_batchs_owners(upstream, tmp_path):
    """Its files are made by the upstream, long after it was asked for."""
    async with served(upstream, tmp_path) as gateway:
        client = gateway.openai(key=MINE)
        batch = {"id": "batch_1", "object": "batch", "status": "in_progress"}
        done = {**batch, "status": "completed", "output_file_id": "file-out", "error_file_id": "file-err"}
        upstream.will(Fails(200, batch), Fails(200, done), Fails(200, b"{}\n"), Fails(200, b"{}\n"))
        made = await client.batches.create(
            input_file_id="file-1", endpoint="/v1/chat/completions", completion_window="24h"
        )
        with pytest.raises(openai.NotFoundError):
            await client.files.content("file-out")
        await client.batches.retrieve(made.id)
        for id in ("file-out", "file-err"):
            assert (await client.files.content(id)).content == b"{}\n"
            with pytest.raises(openai.NotFoundError):
                await gateway.openai(key=YOURS).files.content(id)
        with pytest.raises(openai.NotFoundError):
            await gateway.openai(key=YOURS).batches.cancel("batch_1")


async def test_the_file_of_an_upload_is_its_owners(upstream, tmp_path):
    """It comes to be with the upload's completion."""
    async with served(upstream, tmp_path) as gateway:
        uploads = gateway.openai(key=MINE).uploads
        whole = {"id": "upload_1", "file": file("file-7")}
        upstream.will(Fails(200, {"id": "upload_1"}), Fails(200, whole), Fails(200, file("file-7")))
        await uploads.create(bytes=1, filename="a", mime_type="a/b", purpose="batch")
        await uploads.complete("upload_1", part_ids=["part_1"])
        assert (await gateway.openai(key=MINE).files.retrieve("file-7")).id == "file-7"


async def test_an_id_stays_with_the_provider_that_made_it(upstream, tmp_path):
    """Wherever new ones are made by then."""
    async with ScriptedUpstream() as other:
        providers = f"  other: {{kind: openai, base_url: {other.url}, api_key: s}}\n  echo: {{}}\n"
        for forward in ("forward: {files: mock}\n", "forward: {files: other}\n"):
            config = mock_config(upstream.url, CHAIN, forward + f"database: sqlite:///{tmp_path}/g.db\n" + KEYS)
            async with serving(config.replace("  echo: {}\n", providers)) as gateway:
                if "mock" in forward:
                    await make(gateway, upstream)
                    continue
                await make(gateway, other, "file-2")
                for place, id in ((upstream, "file-1"), (other, "file-2")):
                    place.will(Fails(200, file(id)))
                    assert (await gateway.openai(key=MINE).files.retrieve(id)).id == id
        assert [one.path for one in upstream.requests] == ["/v1/files", "/v1/files/file-1"]


async def test_a_list_that_is_not_called_json_is_shown_to_nobody(upstream, tmp_path):
    """It cannot be told whose it is."""
    async with served(upstream, tmp_path) as gateway:
        upstream.will(Fails(200, {"data": [file("file-x")]}, {"content-type": "text/plain"}), Fails(200, b"file-x"))
        for _ in range(2):
            answer = await gateway.http.get("/v1/files", headers={"authorization": f"Bearer {MINE}"})
            assert "file-x" not in answer.text


async def test_some_kinds_are_of_two_parts(upstream, tmp_path):
    """Also where all the rest is one provider's."""
    async with served(upstream, tmp_path, forward='forward: {"*": mock}\n') as gateway:
        upstream.will(Fails(200, {"id": "ftjob-1"}), Fails(200, {"id": "ftjob-1"}))
        jobs = gateway.openai(key=MINE).fine_tuning.jobs
        await jobs.create(model="m", training_file="file-1")
        assert (await jobs.retrieve("ftjob-1")).id == "ftjob-1"
        with pytest.raises(openai.NotFoundError, match="among your fine_tuning/jobs"):
            await gateway.openai(key=YOURS).fine_tuning.jobs.retrieve("ftjob-1")


@pytest.mark.parametrize("forward", ["forward: {messages/batches: claude}\n", 'forward: {"*": claude}\n'])
async def test_a_path_of_two_parts_is_of_one_kind(upstream, tmp_path, forward):
    """As it was named; and Anthropic's lists go on in their own way."""
    claude = f"providers:\n  claude: {{kind: anthropic, base_url: {upstream.origin}, api_key: s3cret}}\n"
    path = "/v1/messages/batches" if "batches" in forward else "/v1/batches"
    async with serving(f"{claude}{forward}{CHAIN}\n{KEYS}database: sqlite:///{tmp_path}/g.db\n") as gateway:
        mine = {"x-api-key": MINE, "anthropic-version": "2023-06-01"}
        pages = [{"data": [{"id": "b-2"}], "has_more": True}, {"data": [{"id": "b-1"}], "has_more": False}]
        upstream.will(Fails(200, {"id": "b-1"}), Fails(200, {"id": "b-1"}), *[Fails(200, page) for page in pages])
        assert (await gateway.http.post(path, json={}, headers=mine)).json() == {"id": "b-1"}
        assert (await gateway.http.get(f"{path}/b-1", headers=mine)).status_code == 200
        assert (await gateway.http.get(f"{path}/b-1/results", headers={"x-api-key": YOURS})).status_code == 404
        assert (await gateway.http.get(path, headers=mine)).json() == {"data": [{"id": "b-1"}], "has_more": False}
        assert upstream.requests[-1].query == "after_id=b-2"


async def test_where_nobody_is_asked_who_they_are_all_is_everybodys(upstream):
    """There is one caller then."""
    async with served(upstream, chain="chain: [{use: retry}]", keys="") as gateway:
        upstream.will(Fails(200, file("file-9")), Fails(200, {"data": [file("file-9")]}))
        assert (await gateway.openai().files.retrieve("file-9")).id == "file-9"
        assert [one.id async for one in gateway.openai().files.list()] == ["file-9"]


@pytest.mark.parametrize(
    "step", [Fails(400, {"error": {"message": "bad"}}), Fails(200, b"[1]"), Fails(200, {"data": 7}), Events(b"x\n\n")]
)
async def test_what_is_no_list_is_none(upstream, tmp_path, step):
    """An error comes as it is; of what cannot be read, nobody can say whose it is."""
    async with served(upstream, tmp_path) as gateway:
        upstream.will(step)
        answer = await gateway.http.get("/v1/files", headers={"authorization": f"Bearer {MINE}"})
        assert answer.status_code in (400, 502) and json.loads(answer.text)["error"]
