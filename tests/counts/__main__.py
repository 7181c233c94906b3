"""`python -m tests.counts [--write]`: print what a call takes, or write it down as what it may take."""

import os
import sys

from tests.counts.table import FILE, accepted, beyond, measured, written
from tests.valkey import Valkey


def main() -> None:
    """Measure, without what the gateway logs of it, and print or write the table."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with Valkey() as valkey:
        now = {**measured(), **measured(valkey.url)}
    if "--write" in sys.argv[1:]:
        FILE.write_text(written(now))
    else:
        out.write(written(now))
    for line in beyond(now, accepted() if FILE.exists() else {}):
        out.write(f"# more than accepted: {line}\n")
    out.close()


if __name__ == "__main__":
    main()
