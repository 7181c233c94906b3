"""`gateway check`: every mistake in a configuration, without starting anything."""

import sys
from pathlib import Path

import click

from gateway.cli.run import open_config
from gateway.cli.startpage import unreachable
from gateway.settings.complaints import ConfigError
from gateway.settings.live import Live
from gateway.settings.process import Process

KEPT = {
    "nothing": " Responses are not kept.",
    "memory": " Responses are kept in memory, by each worker for itself; set `database:` to keep them for all.",
    "database": "",
}
"""What is said, by where responses are kept."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--config", type=click.Path(path_type=Path), help="The same as FILE, as `serve` has it.")
def check(file: Path | None, config: Path | None) -> None:
    """Find every mistake in a configuration FILE, without starting anything. Default: the one that `serve` finds."""
    if file is not None and config is not None:
        raise click.UsageError("give FILE or --config, not both")
    source = open_config(file or config)
    try:
        gateway = Live(source, Process()).gateway
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    models, keys = _count(len(list(gateway.routes)), "model"), _count(len(gateway.resources.keys), "key")
    click.echo(f"{source.name} is right: {models}, {keys}.{KEPT[gateway.kept_in]}")
    for name, reason in gateway.providers_off.items():
        click.echo(f"  provider {name} is off: {reason}")
    for line in unreachable(gateway):
        click.echo(f"  {line}")


def _count(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"
