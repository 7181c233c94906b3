"""`gateway serve`: what is said on the command line, and, before anything else is imported, where metrics are added up.

prometheus-client looks once, when it is imported, whether there are several processes. The supervisor imports for all
of them, so the folder must be there before it does.
"""

import contextlib
import importlib
import os
import signal
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from types import FrameType

import click


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="Default: ./gateway.yaml, else the one shipped.")
@click.option("--host", help="Overrides `server.host`.")
@click.option("--port", type=click.IntRange(0, 65535), help="Overrides `server.port`; 0 takes a free one.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes.")
@click.option("--watch", is_flag=True, help="Reload when the file changes.")
def serve(config: Path | None, host: str | None, port: int | None, workers: int, watch: bool) -> None:
    """Start the gateway."""
    if workers == 1:
        importlib.import_module("gateway.cli.run").alone(config, host, port, watch=watch)
    else:
        with _shared_folder() as folder:
            run = importlib.import_module("gateway.cli.run")
            sys.exit(run.supervised(config, host, port, workers=workers, watch=watch, folder=folder))


@contextlib.contextmanager
def _shared_folder() -> Generator[Path]:
    """Make a folder that only we can read, in which the processes of one gateway meet; metrics go into it.

    It goes however this ends; told to stop before the supervisor is there to hear it, we leave at once.
    """
    signal.signal(signal.SIGTERM, _leave)
    with tempfile.TemporaryDirectory(prefix="gateway-", ignore_cleanup_errors=True) as name:
        metrics = Path(name) / "metrics"
        metrics.mkdir()
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
        yield Path(name)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)
