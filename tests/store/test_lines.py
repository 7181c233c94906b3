"""The log's way out, through a real pipe, file or nothing at all."""

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest
from prometheus_client import REGISTRY

from gateway.store.lines import MOST_WAITING_BYTES, Lines

LINE = b'{"event":"call"}\n'


@contextmanager
def pipe() -> Iterator[tuple[int, TextIO]]:
    """A pipe: the descriptor that is read from, and the file that is written to."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as file:
        try:
            yield reading, file
        finally:
            os.close(reading)


def taken(reading: int, most: int = 10_000_000) -> bytes:
    """Return what has come and was not read."""
    os.set_blocking(reading, False)
    pieces: list[bytes] = []
    try:
        while piece := os.read(reading, most):
            pieces.append(piece)
            most -= len(piece)
    except BlockingIOError:
        pass
    return b"".join(pieces)


async def came(reading: int, what: bytes) -> None:
    """Wait until `what` has come, and nothing else."""
    said = b""
    async with asyncio.timeout(10):
        while len(said) < len(what):
            said += taken(reading)
            await asyncio.sleep(0.01)
    assert said == what


def lost() -> float:
    return REGISTRY.get_sample_value("gateway_log_lines_lost_total") or 0.0


async def test_a_line_comes_by_itself() -> None:
    """Whoever follows the log sees a call when it is over, whether or not another comes."""
    with pipe() as (reading, file):
        lines = Lines(file)
        for _ in range(2):
            lines.write(LINE)
            await came(reading, LINE)


async def test_what_waits_is_written_at_the_stop() -> None:
    """The last calls are the ones that are looked for; and what comes later still is not kept back."""
    with pipe() as (reading, file):
        lines = Lines(file)
        lines.write(LINE)
        await lines.close()
        assert taken(reading) == LINE
        lines.write(LINE)
        assert taken(reading) == LINE


async def test_a_reader_that_does_not_read_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """A pipe is full after 64 KB: to wait for its reader would be to let every call wait. What waits is bounded."""
    before, line = lost(), b"x" * 999 + b"\n"
    many = MOST_WAITING_BYTES // len(line)
    with pipe() as (reading, file):
        lines = Lines(file)
        for _ in range(many + 3):
            lines.write(line)
        lines.flush()
        assert lost() - before == 3
        told = [record.levelno for record in caplog.records]
        assert told == [logging.ERROR]
        await came(reading, line * many)  # in order, and whole
        lines.write(line)
        await came(reading, line)
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]
    assert "3 are missing" in caplog.text


async def test_lines_of_several_workers_come_whole() -> None:
    """They share one pipe, and each writes many lines at a time; even where the reader is slow."""
    with pipe() as (reading, file):
        workers = [Lines(file) for _ in range(2)]
        sent = [f"{name} {count:04} {'x' * (count * 7 % 900)}\n".encode() for count in range(500) for name in "ab"]
        for line in sent:
            workers[line[0] - ord("a")].write(line)
        said = b""
        async with asyncio.timeout(20):
            while len(said) < sum(map(len, sent)):
                said += taken(reading, 5_000)
                await asyncio.sleep(0.001)
    for name in b"ab":
        assert [line for line in said.splitlines(True) if line[0] == name] == [line for line in sent if line[0] == name]
    assert len(said.splitlines()) == len(sent)


async def test_a_stop_does_not_wait_for_a_reader_that_does_not_read(caplog: pytest.LogCaptureFixture) -> None:
    """It would wait for ever."""
    before = lost()
    with pipe() as (_, file):
        lines = Lines(file)
        for _ in range(200):
            lines.write(b"x" * 999 + b"\n")
        async with asyncio.timeout(10):
            await lines.close()
    assert lost() > before and "nobody took" in caplog.text


async def test_a_reader_that_is_gone_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """On standard error, where there may still be somebody; and calls go on."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as file:
        lines = Lines(file)
        for _ in range(3):
            lines.write(LINE)
            lines.flush()
        await lines.close()
    assert [record.message for record in caplog.records] == [
        "the log's lines cannot be written, and wait ([Errno 32] Broken pipe)",
        "at the stop, nobody took 3 lines of the log any more",
    ]


async def test_a_file_takes_a_line_of_any_length(tmp_path: Path) -> None:
    """`content` makes long ones."""
    with (tmp_path / "log").open("w") as file:
        lines = Lines(file)
        sent = [b"a\n", b"x" * 1_000_000 + b"\n", b"b\n"]
        for line in sent:
            lines.write(line)
        await lines.close()
    assert (tmp_path / "log").read_bytes() == b"".join(sent)
