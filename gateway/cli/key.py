"""`gateway key`: a virtual key."""

import hashlib
import json
import secrets

import click


@click.command()
@click.argument("name", default="team-a")
def key(name: str) -> None:
    """Make a virtual key called NAME (team-a). It is shown once; the configuration gets its hash."""
    secret = f"gw-{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(secret.encode()).hexdigest()
    click.echo(f"{secret}\n\nGive it to its user, and this to gateway.yaml:\n")
    click.echo(f"keys:\n  - {{name: {json.dumps(name)}, key: sha256:{digest}}}\n")
    click.echo("It is asked for once `- use: auth` is in the chain; limits of a key need `- use: limits` behind it.")
