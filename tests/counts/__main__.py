"""`python -m tests.counts [--write]`: print what a call takes, or write it down as what it may take."""

import argparse
import os

from tests.counts.table import FILE, accepted, beyond, measured, written
from tests.valkey import Valkey


def main() -> None:
    """Measure, without what the gateway logs of it, and print or write the table."""
    options = argparse.ArgumentParser(prog="python -m tests.counts", description=__doc__)
    options.add_argument("--write", action="store_true", help="accept it: tests hold every later change to it")
    asked = options.parse_args()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with Valkey() as valkey:
        now = {**measured(), **measured(valkey.url)}
    if asked.write:
        FILE.write_text(written(now))
    else:
        out.write(written(now))
    for line in beyond(now, accepted() if FILE.exists() else {}):
        out.write(f"# more than accepted: {line}\n")
    out.close()


if __name__ == "__main__":
    main()
