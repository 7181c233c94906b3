"""Counts what Python does: the calls of functions in our own package, which are the same on every machine."""

import sys
import threading
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import gateway

HERE = str(Path(gateway.__file__).parent)
INLINED = ("<listcomp>", "<dictcomp>", "<setcomp>")
"""A function of its own until Python 3.11, and no more since."""


class Calls:
    """How often each function of ours was entered, resumed coroutines and generators included."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """All of them."""
        return self.of.total()

    def most(self, n: int = 12) -> str:
        """The functions that were entered most, a line each."""
        return "\n".join(f"{count:8} {name}" for name, count in self.of.most_common(n))


@contextmanager
def counting() -> Generator[Calls, None, None]:
    """Count calls until the block ends, in this thread and in those that begin within it."""
    calls = Calls()

    def seen(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and (name := name_of(frame)) is not None:
            calls.of[name] += 1

    threading.setprofile(seen)
    sys.setprofile(seen)
    try:
        yield calls
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def name_of(frame: FrameType) -> str | None:
    """Return the name of a function of ours; `None`: it is another's."""
    code = frame.f_code
    if code.co_name in INLINED or not code.co_filename.startswith(HERE):
        return None
    return f"{code.co_filename.removeprefix(HERE)}:{code.co_qualname}"


def calls_of(work: Callable[[], object]) -> Calls:
    """Count the calls of `work`."""
    with counting() as calls:
        work()
    return calls
