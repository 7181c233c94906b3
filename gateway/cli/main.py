"""The command `gateway`."""

import importlib

import click

from gateway import __version__

COMMANDS = ("serve", "check", "explain", "schema", "key")


class _Commands(click.Group):
    """Commands that are imported when they are asked for: a module of this folder each, which calls it the same."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return their names, in the order of `--help`."""
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the one of this name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"gateway.cli.{cmd_name}"), cmd_name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gateway")
def main() -> None:
    """An LLM gateway: OpenAI clients point their base URL at it, gateway.yaml decides the rest."""
