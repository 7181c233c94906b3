"""The table itself, the same promises on both databases."""

import asyncio
import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from gateway.store.calls import CallTable
from gateway.store.recorder import Record, Unusable
from gateway.store.schema import CALLS
from tests.postgres import database
from tests.store.rows import a_record, rows_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "database.md").read_text()


@pytest.fixture
async def table(url):
    table = CallTable(url)
    await table.open()
    yield table
    await table.close()


async def test_a_row_written_twice_is_there_once(table, url):
    """After a write that failed in its middle nobody knows what was written, so all of it is written again."""
    await table.insert([a_record("a"), a_record("b")])
    assert await table.insert([a_record("b"), a_record("c")]) == 0
    assert [row["id"] for row in await rows_of(url)] == ["a", "b", "c"]


async def test_a_row_that_cannot_be_written_does_not_hold_up_the_others(table, url):
    """Nor is it tried for ever."""
    assert await table.insert([a_record("a"), a_record("b", model=None), a_record("c", attempts=10**30)]) == 2
    assert [row["id"] for row in await rows_of(url)] == ["a"]


async def test_what_is_missing_is_made_once_and_then_kept(table, url):
    """Each start finds its tables as the last one left them."""
    await table.insert([a_record("a")])
    again = CallTable(url)
    await again.open()
    await again.close()
    assert len(await rows_of(url)) == 1
    assert await rows_of(url, "SELECT version FROM schema_version") == [{"version": 2}]


async def test_tables_of_a_newer_gateway_are_refused(table, url):
    """Someone went back to an older version; it cannot know what the newer one expects of its rows."""
    await rows_of(url, "UPDATE schema_version SET version = 3 RETURNING version")
    with pytest.raises(Unusable, match="version 3, and this gateway knows 2; start the newer gateway"):
        await CallTable(url).open()


async def test_a_table_of_somebody_else_is_refused(url):
    """`calls` is a name that others use too."""
    create = "CREATE TABLE calls (number integer)"
    await rows_of(url, create)
    with pytest.raises(Unusable, match="give the gateway a database of its own"):
        await CallTable(url).open()


async def test_many_may_make_the_tables_at_the_same_time(url):
    """Machines that start together, on a database that is empty."""
    tables = [CallTable(url) for _ in range(8)]
    await asyncio.gather(*(table.open() for table in tables))
    for table in tables:
        await table.close()
    assert await rows_of(url, "SELECT count(*) AS n FROM schema_version") == [{"n": 1}]


async def test_four_processes_write_to_one_database(url):
    """Also at once to one that is empty."""
    command = [sys.executable, "-m", "tests.store.hammer", url]
    workers = [subprocess.Popen([*command, f"w{n}", "300"], cwd=ROOT, stderr=subprocess.PIPE) for n in range(4)]
    said = [await asyncio.to_thread(worker.communicate, timeout=60) for worker in workers]
    assert [error for _, error in said] == [b""] * 4
    assert (await rows_of(url, "SELECT count(*) AS n, count(DISTINCT id) AS d FROM calls")) == [{"n": 1200, "d": 1200}]


async def test_others_read_while_we_write(tmp_path):
    """SQLite's usual journal would lock them out."""
    table = CallTable(f"sqlite:///{tmp_path}/calls.db")
    await table.open()
    assert await rows_of(f"sqlite:///{tmp_path}/calls.db", "PRAGMA journal_mode") == [{"journal_mode": "wal"}]
    await table.close()


async def test_a_user_who_may_not_write_is_told_at_once(postgres_server):
    """Not with the first call. Of the calls, to insert is all that it needs once the tables are there."""
    role = f"r{uuid.uuid4().hex[:8]}"
    async with database(postgres_server) as url:
        owner = CallTable(url)
        await owner.open()
        await owner.close()
        await rows_of(url, f"CREATE USER {role} PASSWORD 'canary'")
        await rows_of(url, f"GRANT SELECT ON schema_version TO {role}")
        theirs = CallTable(re.sub("//.*@", f"//{role}:canary@", url))
        with pytest.raises(Unusable, match="permission denied for table calls") as caught:
            await theirs.open()
        assert "canary" not in str(caught.value)
        await rows_of(url, f"GRANT INSERT ON calls TO {role}")
        with pytest.raises(Unusable, match="permission denied for table objects"):
            await theirs.open()
        await rows_of(url, f"GRANT SELECT, INSERT, UPDATE, DELETE ON objects TO {role}")
        await theirs.open()
        assert await theirs.insert([a_record("a")]) == 0
        await theirs.close()
    await rows_of(postgres_server, f"DROP USER {role}")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgresql://gateway:canary@127.0.0.1:1/calls", r"127.0.0.1:1/calls: Connection refused; .*must run"),
        ("postgresql://gateway:canary@no-such-host.invalid/calls", "no-such-host.invalid/calls: "),
        ("postgresql://gateway:canary@127.0.0.1:1/calls?sslmode=sometimes", "`sslmode` parameter must be one of"),
        ("sqlite:////no/such/folder/calls.db", "unable to open database file; its folder must exist"),
    ],
)
async def test_what_is_wrong_is_told_without_the_password(url, why):
    """An error message ends in logs, terminals, issues."""
    with pytest.raises(Unusable, match=why) as caught:
        await CallTable(url).open()
    assert "canary" not in str(caught.value) and caught.value.__cause__ is None


async def test_a_file_that_is_no_database_is_told(tmp_path):
    """And left as it is."""
    file = tmp_path / "notes.txt"
    file.write_text("my diary\n" * 1_000)
    with pytest.raises(Unusable, match=r"notes.txt: file is not a database; .*and the file be a database"):
        await CallTable(f"sqlite:///{file}").open()
    assert file.read_text() == "my diary\n" * 1_000


async def test_a_wrong_password_is_told_without_it(postgres_server):
    """The commonest mistake of all."""
    url = re.sub(r":[^:@/]+@", ":canary@", postgres_server)
    with pytest.raises(Unusable, match="password authentication failed") as caught:
        await CallTable(url).open()
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:can/ary@localhost/calls",
        "postgresql://user:471/can@localhost/calls",
        "postgresql://user:can#ary@localhost/calls",
        "postgresql://user:can?ary@localhost/calls",
        "postgresql://user:canary@localhost:port/calls",
        "sqlite:///:memory:",
        "sqlite:///calls.db?mode=canary",
    ],
)
def test_a_url_that_is_none_is_not_quoted(url):
    """Half of a password with a `/` in it looks like a host."""
    with pytest.raises(ValueError, match="expected") as caught:
        CallTable(url)
    assert not re.search("can|ary|471", str(caught.value))


def test_the_table_holds_what_a_record_says():
    """A field that one of them lacks would be lost without a word."""
    assert tuple(CALLS.columns.keys()) == Record.__struct_fields__


def test_the_page_tells_of_every_column():
    """An operator has nothing else to go by."""
    told = set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in PAGE.splitlines() if line[:3] == "| `")))
    assert told == set(CALLS.columns.keys())


async def test_the_queries_of_the_page_can_be_asked(table, url):
    """Copied by people who have better things to do than to mend them."""
    await table.insert([a_record("a", cost_nusd=2_500_000_000), a_record("b", cost_nusd=None)])
    name = "SQLite" if url.startswith("sqlite") else "PostgreSQL"
    spent, tokens, errors = [
        (await rows_of(url, query))[0] for query in re.findall(rf"```sql\n-- {name}\n(.*?);\n```", PAGE, re.DOTALL)
    ]
    assert (float(spent["usd"]), spent["unknown"]) == (2.5, 1)
    assert tokens["route"] == "fast" and float(errors["error_rate"]) == 0
