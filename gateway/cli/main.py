"""The command `gateway`."""

import hashlib
import json
import secrets
import sys
from pathlib import Path

import click

from gateway import __version__
from gateway.cli.explain import explain
from gateway.cli.serve import open_config, serve, worker
from gateway.settings.complaints import ConfigError
from gateway.settings.jsonschema import schema as json_schema
from gateway.settings.live import Live
from gateway.settings.process import Process
from gateway.settings.reference import markdown

KEPT = {
    "nothing": " Responses are not kept.",
    "memory": " Responses are kept in memory, by each worker for itself; set `database:` to keep them for all.",
    "database": "",
}
"""What `check` says, by where responses are kept."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gateway")
def main() -> None:
    """An LLM gateway: OpenAI clients point their base URL at it, gateway.yaml decides the rest."""


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Find every mistake in a configuration FILE, without starting anything."""
    try:
        gateway = Live(open_config(file), Process()).gateway
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    routes = len(list(gateway.routes))
    click.echo(f"{file} is right: {routes} models, {len(gateway.resources.keys)} keys.{KEPT[gateway.kept_in]}")
    for name, reason in gateway.providers_off.items():
        click.echo(f"  provider {name} is off: {reason}")


@main.command()
@click.option("--markdown", "as_page", is_flag=True, help="As the page docs/configuration.md.")
def schema(as_page: bool) -> None:
    """Print the JSON schema of gateway.yaml, for editors."""
    click.echo(markdown() if as_page else json.dumps(json_schema(), indent=2, ensure_ascii=False), nl=not as_page)


@main.command()
@click.argument("name", default="team-a")
def key(name: str) -> None:
    """Make a virtual key called NAME (team-a). It is shown once; the configuration gets its hash."""
    secret = f"gw-{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(secret.encode()).hexdigest()
    click.echo(f"{secret}\n\nGive it to its user, and this to gateway.yaml:\n")
    click.echo(f"keys:\n  - {{name: {json.dumps(name)}, key: sha256:{digest}}}\n")
    click.echo("It is asked for once `- use: auth` is in the chain; limits of a key need `- use: limits` behind it.")


main.add_command(serve)
main.add_command(worker)
main.add_command(explain)
