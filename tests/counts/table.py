"""What a call may have the gateway do: measured, compared with `table.toml`, and written there anew."""

import math
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tests.counts.rig import KEY, Rig, rig
from tests.serving import mock_config

FILE = Path(__file__).with_name("table.toml")
SLACK = 0.1
"""How much more than the table says is still let pass: versions of Python and of libraries differ a little."""
CHUNKS = 20
CHAIN = (
    "chain: [{use: log}, {use: metrics}, {use: auth}, {use: limits}, {use: cache, ttl: 1h}, {use: cost}, {use: retry}]"
)
LIMITS = "{requests_per_minute: 1000000, tokens_per_minute: 1000000000, concurrent: 8}"
HEAD = """\
# What one call through the whole chain has the gateway do: a test fails when one of these grows by more than a tenth.
# After a change that is meant to be: `python -m tests.counts --write`, and say in the commit why it grew.
#
# calls: functions of ours that are entered, resumed coroutines included. callbacks, tasks: asked of the event loop.
# sent: system calls, to each neighbour; each one to Redis is a round trip. chunk: one more of a stream, come alone.
"""
Counts = Mapping[str, float]


def config(url: str, more: str = "") -> str:
    """The whole chain, with a key whose limits let everything pass."""
    return mock_config(url, CHAIN, f"keys: [{{name: counts, key: {KEY}, limits: {LIMITS}}}]\n{more}")


def measured(redis: str = "") -> dict[str, Counts]:
    """Return what each kind of call takes; with the URL of a Redis, of those that need one."""
    with rig(partial(config, more=f"redis: {redis}\n" if redis else "")) as gateway:
        counts = _calls(gateway)
    return {f"{kind} with redis": said for kind, said in counts.items() if kind != "chunk"} if redis else counts


def _calls(gateway: Rig) -> dict[str, Counts]:
    ask = gateway.neighbours
    short, long = (gateway.least(partial(ask.streamed, chunks)) for chunks in (CHUNKS, 2 * CHUNKS))
    return {
        "whole": gateway.least(ask.whole),
        "kept": gateway.least(partial(ask.whole, text="the same")),
        "streamed": short,
        "chunk": {name: (long[name] - short.get(name, 0)) / CHUNKS for name in long if long[name] != short.get(name)},
    }


def accepted() -> dict[str, Counts]:
    """Return the table."""
    return tomllib.loads(FILE.read_text())


def beyond(now: Mapping[str, Counts], was: Mapping[str, Counts]) -> list[str]:
    """Return a line for each count of `now` that is more than `was` allows; one that was never there may be none."""
    return [
        f"{kind}, {name}: {count:g}, and it was {was.get(kind, {}).get(name, 0):g}"
        for kind, counts in now.items()
        for name, count in counts.items()
        if count > most(name, was.get(kind, {}).get(name, 0))
    ]


def most(name: str, was: float) -> float:
    """Return how much a count may be: a tenth more, but of tasks and of what is sent no more at all."""
    return was if name == "tasks" or name.startswith("sent") else max(was + 1, math.floor(was * (1 + SLACK)))


def written(now: Mapping[str, Counts]) -> str:
    """Return the table as a file."""
    sections = (
        f'["{kind}"]\n' + "".join(f'"{name}" = {count:g}\n' for name, count in sorted(counts.items()))
        for kind, counts in now.items()
    )
    return HEAD + "".join(f"\n{section}" for section in sections)
