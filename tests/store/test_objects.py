"""What is kept for clients: the same promises in memory and in both databases."""

import asyncio
import contextlib
import sqlite3

import pytest

from gateway.core.errors import Unavailable
from gateway.core.resources import Stored
from gateway.store import database
from gateway.store import objects as sql
from gateway.store.calls import CallTable
from gateway.store.memory import EVICTED, OVERHEAD, MemoryObjects
from gateway.store.objects import SqlObjects
from gateway.store.schema import OBJECTS
from gateway.store.sweeping import keep_sweeping
from tests import postgres
from tests.standins import MORNING_S, StillClock
from tests.store.rows import a_record, rows_of

DAY_S = 86_400.0


@pytest.fixture
def clock():
    return StillClock()


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def objects(request, clock, tmp_path):
    """What keeps, of each kind."""
    if request.param == "memory":
        yield MemoryObjects(clock)
        return
    async with contextlib.AsyncExitStack() as stack:
        url = f"sqlite:///{tmp_path}/kept.db"
        if request.param == "postgresql":
            url = await stack.enter_async_context(postgres.database(request.getfixturevalue("postgres_server")))
        kept = SqlObjects(url, clock)
        yield kept
        await kept.close()


def thing(id, owner="ann", *, data=b"data", at_s=MORNING_S, days=30.0, kind="response", **more):
    return Stored(id, kind=kind, owner=owner, data=data, at_s=at_s, expires_s=at_s + days * DAY_S, **more)


async def test_what_is_kept_is_found_as_it_was(objects):
    """Every field, and any bytes."""
    kept = thing("a", data=bytes(range(256)), provider="openai", deployment="openai/gpt-4o")
    await objects.put(kept)
    assert await objects.get("response", "ann", ["a", "b"]) == {"a": kept}
    later = thing("a", data=b"later", at_s=MORNING_S + 1)
    await objects.put(later)
    assert await objects.get("response", "ann", ["a"]) == {"a": later}


async def test_each_owner_has_their_own(objects):
    """The same id is another thing, and whatever one does changes nothing for the other."""
    mine, theirs, file = thing("a"), thing("a", "bob", data=b"theirs"), thing("a", kind="file", data=b"file")
    for one in (mine, theirs, file):
        await objects.put(one)
    assert await objects.get("response", "bob", ["a"]) == {"a": theirs}
    assert not await objects.delete("response", "carol", "a")
    assert not await objects.update(thing("a", "carol"), b"changed")
    assert await objects.newest("response", "carol", limit=10) == []
    assert await objects.delete("response", "bob", "a")
    assert await objects.get("response", "ann", ["a"]) == {"a": mine}
    assert await objects.get("file", "ann", ["a"]) == {"a": file}


@pytest.mark.parametrize(
    "owners", [("x" * 300 + "1", "x" * 300 + "2"), ("a\0", "a"), ("a\ud800", "a\ud801"), ("", " ")]
)
async def test_owners_whose_names_a_database_cannot_take_are_still_apart(objects, owners):
    """The subject of a token is whatever its issuer writes there."""
    for owner in owners:
        await objects.put(thing("a", owner, data=repr(owner).encode()))
    for owner in owners:
        found = (await objects.get("response", owner, ["a"]))["a"]
        assert (found.owner, found.data) == (owner, repr(owner).encode())


@pytest.mark.parametrize("id", ["", "a\0", "\ud800", "x" * 100_000, "'; DROP TABLE objects; --"])
async def test_ids_that_nothing_can_have_are_not_found(objects, id):
    """Clients write them into URLs."""
    assert await objects.get("response", "ann", [id]) == {}
    assert not await objects.delete("response", "ann", id)
    await objects.put(thing("a"))
    assert list(await objects.get("response", "ann", ["a"])) == ["a"]


async def test_of_several_who_change_a_thing_one_does(objects):
    """And what was deleted meanwhile does not come back."""
    await objects.put(thing("a", data=b"queued"))
    done = await asyncio.gather(*(objects.update(thing("a", data=b"queued"), b"done %d" % n) for n in range(5)))
    assert sorted(done) == [False] * 4 + [True]
    found = (await objects.get("response", "ann", ["a"]))["a"]
    await objects.delete("response", "ann", "a")
    assert not await objects.update(found, b"back")
    assert await objects.get("response", "ann", ["a"]) == {}


async def test_the_newest_come_first_page_by_page(objects):
    """Also those of one moment, none twice and none left out."""
    for n in range(7):
        await objects.put(thing(f"r{n}", at_s=MORNING_S + n // 2))
    await objects.put(thing("theirs", "bob"))
    pages, after = [], ""
    while page := await objects.newest("response", "ann", limit=3, after=after):
        pages.append([one.id for one in page])
        after = page[-1].id
    assert pages == [["r6", "r5", "r4"], ["r3", "r2", "r1"], ["r0"]]
    assert await objects.newest("response", "ann", limit=3, after="none") == []


async def test_what_has_expired_is_not_found_and_then_deleted(objects, clock):
    """To the second for who asks, and for good with the next sweep."""
    await objects.put(thing("short", days=1))
    await objects.put(thing("long", days=30))
    clock.passed_s = DAY_S - 1
    assert len(await objects.get("response", "ann", ["short", "long"])) == 2
    assert await objects.sweep() == 0
    clock.passed_s = DAY_S
    assert list(await objects.get("response", "ann", ["short", "long"])) == ["long"]
    assert [one.id for one in await objects.newest("response", "ann", limit=9)] == ["long"]
    assert not await objects.delete("response", "ann", "short")
    await objects.put(thing("short", days=1))
    assert await objects.sweep() == 1
    clock.passed_s = 0.0
    assert list(await objects.get("response", "ann", ["short", "long"])) == ["long"], "it is not only hidden"


async def test_much_that_expires_at_once_is_deleted_in_pieces(url, clock, monkeypatch):
    """One statement over millions of rows would hold up those who write."""
    monkeypatch.setattr(sql, "SWEPT_AT_ONCE", 3)
    kept = SqlObjects(url, clock)
    for n in range(7):
        await kept.put(thing(f"r{n}", days=1))
    clock.passed_s = 2 * DAY_S
    assert await kept.sweep() == 7
    assert await rows_of(url, "SELECT id FROM objects") == []
    await kept.close()


async def test_sweeping_goes_on_when_the_database_is_gone_for_once():
    """A night without it is no reason to keep things for ever."""
    clock, swept = StillClock(), []

    class Objects:
        async def sweep(self):
            swept.append(clock.passed_s)
            if len(swept) == 1:
                raise Unavailable("gone")
            if len(swept) == 3:
                raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await keep_sweeping(Objects(), clock)
    assert swept == [60.0, 120.0, 180.0]


# ── Memory ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_memory_is_bounded_and_the_oldest_goes_first(clock):
    """In bytes and in number; what is lost before its time is counted."""
    before = EVICTED._value.get()
    kept = MemoryObjects(clock, most_bytes=3 * (OVERHEAD + 100), most_objects=10)
    for n in range(5):
        await kept.put(thing(f"r{n}", data=b"x" * 100))
    assert list(await kept.get("response", "ann", [f"r{n}" for n in range(5)])) == ["r2", "r3", "r4"]
    found = (await kept.get("response", "ann", ["r2"]))["r2"]
    await kept.update(found, b"x" * 200)
    assert list(await kept.get("response", "ann", ["r2", "r3", "r4"])) == ["r3", "r4"]
    await kept.put(thing("huge", data=b"x" * 10_000))
    assert await kept.get("response", "ann", ["huge", "r3", "r4"]) == {}
    assert EVICTED._value.get() - before == 6
    few = MemoryObjects(clock, most_objects=2)
    for n in range(5):
        await few.put(thing(f"r{n}"))
    assert list(await few.get("response", "ann", [f"r{n}" for n in range(5)])) == ["r3", "r4"]


@pytest.mark.parametrize("bounds", [{"most_objects": 6}, {"most_bytes": 6 * (OVERHEAD + 100)}])
async def test_who_keeps_much_in_memory_pushes_out_nothing_of_another(clock, bounds):
    """Neither responses nor whose a file is: else one tenant could make another lose them. Room left is for anybody."""
    kept = MemoryObjects(clock, **bounds)
    await kept.put(thing("mine", "bob", data=b"x" * 100), thing("file", "bob", kind="files", data=b"x" * 100))
    for n in range(20):
        await kept.put(thing(f"r{n}", data=b"x" * 100))
    assert await kept.get("response", "bob", ["mine"]) and await kept.get("files", "bob", ["file"])
    assert list(await kept.get("response", "ann", [f"r{n}" for n in range(20)])) == ["r16", "r17", "r18", "r19"]
    await kept.put(thing("r20", "carol", data=b"x" * 100))
    assert list(await kept.get("response", "ann", [f"r{n}" for n in range(20)])) == ["r17", "r18", "r19"]
    assert await kept.get("response", "carol", ["r20"])
    await kept.put(thing("huge", data=b"x" * 100_000))
    assert await kept.get("response", "bob", ["mine"]) and await kept.get("files", "bob", ["file"])


# ── Databases ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_database_of_version_1_is_brought_to_version_2(url):
    """By whichever of the two comes first; its calls stay, and a call can be recorded afterwards."""
    text = "timestamptz" if url.startswith("postgres") else "DATETIME"
    for statement in VERSION_1:
        await rows_of(url, statement.replace("DATETIME", text))
    await rows_of(url, "INSERT INTO schema_version VALUES (1)")
    old = "INSERT INTO calls VALUES ('old', '2026-01-01 00:00:00+00:00', {})"
    values = "'chat','a','','','m','m','p','p/m','finished',200,'',1,{no},'',1,2,0,0,0,{no},5,1.0,2.0,'stop','c'"
    await rows_of(url, old.format(values.format(no="false" if text == "timestamptz" else "0")))
    kept = SqlObjects(url, StillClock())
    await kept.put(thing("a"))
    assert "a" in await kept.get("response", "ann", ["a"])
    await kept.close()
    table = CallTable(url)
    await table.open()
    assert await table.insert([a_record("new")]) == 0
    await table.close()
    assert await rows_of(url, "SELECT version FROM schema_version") == [{"version": 2}]
    assert {row["id"] for row in await rows_of(url)} == {"old", "new"}


async def test_a_table_of_somebody_else_is_left_alone(url, caplog):
    """`objects` is a name that others use too."""
    for statement in (*VERSION_1, "CREATE TABLE objects (number integer)"):
        await rows_of(url, statement.replace("DATETIME", "timestamptz" if url.startswith("postgres") else "DATETIME"))
    await rows_of(url, "INSERT INTO schema_version VALUES (1)")
    kept = SqlObjects(url, StillClock())
    with pytest.raises(Unavailable):
        await kept.put(thing("a"))
    await kept.close()
    assert "table `objects` that is not ours" in caplog.text
    assert await rows_of(url, "SELECT version FROM schema_version") == [{"version": 1}]


async def test_who_leaves_in_the_middle_of_a_statement_cuts_nothing(url, clock):
    """The statement ends by itself; what comes behind it finds a connection that works."""
    kept = SqlObjects(url, clock)
    await kept.put(thing("first"))
    for n in range(20):
        writing = asyncio.ensure_future(kept.put(thing(f"r{n}")))
        await asyncio.sleep(0.0002 * (n % 5))
        writing.cancel()
        await asyncio.wait((writing,))
    await kept.put(thing("last"))
    assert set(await kept.get("response", "ann", ["first", "last"])) == {"first", "last"}
    await kept.close()


async def test_a_locked_file_is_not_waited_for_long_nor_asked_again_at_once(tmp_path, clock, monkeypatch, caplog):
    """One call finds out, and those behind it are told without waiting; then it is tried again."""
    monkeypatch.setattr(database, "BUSY_S", 30.0)
    kept = SqlObjects(f"sqlite:///{tmp_path}/kept.db", clock)
    await kept.put(thing("a"))
    monkeypatch.setattr(sql, "PATIENCE_S", 0.1)
    with contextlib.closing(sqlite3.connect(tmp_path / "kept.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        for _ in range(3):
            with pytest.raises(Unavailable) as caught:
                await kept.put(thing("b"))
            assert caught.value.retry_after_s and caught.value.retry_helps
        assert len(kept._running) == 1
    await asyncio.wait(kept._running)
    clock.passed_s = sql.PAUSE_S
    monkeypatch.setattr(sql, "PATIENCE_S", 30.0)
    await kept.put(thing("b"))
    assert [message.split(":")[0] for message in caplog.messages] == [
        "what clients want to be kept cannot be",
        "what clients want to be kept can be kept again",
    ]
    await kept.close()


async def test_what_hangs_is_little_and_one_at_a_time_finds_out(clock, monkeypatch):
    """However many calls come while the database accepts and says nothing: each that waits there holds its data."""
    monkeypatch.setattr(sql, "PATIENCE_S", 0.2)
    monkeypatch.setattr(sql, "MOST_RUNNING", 3)
    accepted = []
    server = await asyncio.start_server(lambda _, writer: accepted.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    kept = SqlObjects(f"postgresql://ann:secret@127.0.0.1:{port}/kept?sslmode=disable", clock)

    async def many(connects):
        told = await asyncio.gather(*(kept.put(thing(f"r{n}")) for n in range(10)), return_exceptions=True)
        assert all(isinstance(one, Unavailable) for one in told)
        while any(task.cancelling() for task in kept._running) or len(accepted) < connects:
            await asyncio.sleep(0.01)
        assert len(accepted) == connects
        return len(kept._running)

    assert await many(connects=1) == 3
    accepted[0].close()
    await asyncio.wait(kept._running)
    assert len(accepted) == 1, "who has given up does not connect"
    for _ in range(3):
        clock.passed_s += sql.PAUSE_S
        assert await many(connects=2) == 1
    accepted[1].close()
    await asyncio.wait(kept._running)
    clock.passed_s += sql.PAUSE_S
    assert await many(connects=3) == 1
    accepted[2].close()
    await kept.close()
    server.close()


async def test_what_was_called_not_kept_is_not_written_later(url, clock, monkeypatch):
    """Nobody waits for it any more when there is a connection at last."""
    kept = SqlObjects(url, clock)
    await kept.put(thing("a"))
    monkeypatch.setattr(sql, "PATIENCE_S", 0.1)
    async with contextlib.AsyncExitStack() as others:
        for _ in range(kept._database.engine.pool.size()):
            await others.enter_async_context(kept._database.engine.connect())
        with pytest.raises(Unavailable):
            await kept.put(thing("b"))
        assert kept._running
    while kept._running:
        await asyncio.sleep(0.01)
    monkeypatch.setattr(sql, "PATIENCE_S", 30.0)
    clock.passed_s = sql.PAUSE_S
    assert list(await kept.get("response", "ann", ["a", "b"])) == ["a"]
    await kept.close()


async def test_more_at_once_than_may_run_are_all_kept(url, clock, monkeypatch):
    """A burst is no outage: they wait for one another."""
    monkeypatch.setattr(sql, "MOST_RUNNING", 2)
    monkeypatch.setattr(sql, "PATIENCE_S", 20.0)
    kept = SqlObjects(url, clock)
    await asyncio.gather(*(kept.put(thing(f"r{n}")) for n in range(20)))
    assert len(await kept.get("response", "ann", [f"r{n}" for n in range(20)])) == 20
    await kept.close()


def test_the_table_holds_all_of_a_thing():
    """A field that it lacks would be lost without a word."""
    named = {"at": "at_s", "expires": "expires_s"}
    assert {named.get(name, name) for name in (column.name for column in OBJECTS.columns)} == set(
        Stored.__struct_fields__
    )


VERSION_1 = (
    "CREATE TABLE schema_version (version INTEGER NOT NULL, PRIMARY KEY (version))",
    'CREATE TABLE calls (id TEXT NOT NULL, "at" DATETIME NOT NULL, operation TEXT NOT NULL, principal TEXT NOT NULL, '
    '"user" TEXT NOT NULL, team TEXT NOT NULL, model TEXT NOT NULL, route TEXT NOT NULL, provider TEXT NOT NULL, '
    "deployment TEXT NOT NULL, outcome TEXT NOT NULL, status INTEGER NOT NULL, error TEXT NOT NULL, "
    "attempts INTEGER NOT NULL, stream BOOLEAN NOT NULL, cache TEXT NOT NULL, prompt_tokens BIGINT, "
    "completion_tokens BIGINT, cached_tokens BIGINT, cache_write_tokens BIGINT, reasoning_tokens BIGINT, "
    "usage_estimated BOOLEAN NOT NULL, cost_nusd BIGINT, first_chunk_ms DOUBLE PRECISION, "
    "total_ms DOUBLE PRECISION NOT NULL, finish_reason TEXT NOT NULL, config TEXT NOT NULL, PRIMARY KEY (id))",
    'CREATE INDEX calls_at ON calls ("at")',
    'CREATE INDEX calls_principal_at ON calls (principal, "at")',
)
"""What version 1 made, but for the name that PostgreSQL has for a moment."""
