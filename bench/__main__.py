"""The bench: `python -m bench`, see bench/README.md."""

import argparse
import contextlib
import resource
import tempfile
import time
from pathlib import Path

from bench import report, scenarios
from bench.machine import machine
from bench.tools import ROOT, say

DOCS = ROOT / "docs"
RESULTS = DOCS / "performance" / "results.json"


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write docs/performance.md; or print one table."""
    asked = parse(arguments)
    run = report.load_results(RESULTS) if asked.render else measured(quick=asked.quick)
    if asked.quick:
        print(report.summary(run))
        return
    if not asked.render:
        report.save_results(run, RESULTS)
    report.write(run, DOCS)
    say("written: docs/performance.md and docs/performance/")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Understand the command line."""
    options = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    form = options.add_mutually_exclusive_group()
    form.add_argument(
        "--quick", action="store_true", help="a minute, ours and nginx (and Envoy if it is there), one table"
    )
    form.add_argument(
        "--render", action="store_true", help="measure nothing; write the page anew from the last results"
    )
    return options.parse_args(arguments)


def measured(*, quick: bool) -> report.Run:
    """Start everything, measure, stop everything."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(65536, most), most))
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        place = Path(folder)
        place.chmod(0o755)  # nginx's workers may run as nobody
        bench = scenarios.Bench(place, stack, scenarios.QUICK if quick else scenarios.FULL)
        (scenarios.quick if quick else scenarios.everything)(bench)
        servers = {server.name: report.Peer(server.title, server.given) for server in (bench.direct, *bench.servers)}
    return report.Run(machine(), round((time.monotonic() - began_s) / 60, 1), servers, bench.samples)


if __name__ == "__main__":
    main()
