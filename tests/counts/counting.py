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
        if event == "call" and frame.f_code.co_filename.startswith(HERE):
            calls.of[f"{frame.f_code.co_filename.removeprefix(HERE)}:{frame.f_code.co_qualname}"] += 1

    threading.setprofile(seen)
    sys.setprofile(seen)
    try:
        yield calls
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def calls_of(work: Callable[[], object]) -> Calls:
    """Count the calls of `work`."""
    with counting() as calls:
        work()
    return calls
