"""`gateway schema`: what may stand in gateway.yaml."""

import json

import click

from gateway.settings.jsonschema import schema as json_schema
from gateway.settings.reference import markdown


@click.command()
@click.option("--markdown", "as_page", is_flag=True, help="As the page docs/configuration.md.")
def schema(as_page: bool) -> None:
    """Print the JSON schema of gateway.yaml, for editors."""
    click.echo(markdown() if as_page else json.dumps(json_schema(), indent=2, ensure_ascii=False), nl=not as_page)
