"""The `router` command: every family of commands, wired together. A family's module is imported when it is used."""

from __future__ import annotations

import importlib
from typing import Any

import typer
from typer.core import TyperGroup

from router import __version__, is_compiled

# command: (module, function); imported when it is asked for, so that `router serve` starts in a blink.
COMMANDS = {
    "serve": ("router.cli.serve", "serve"),
    "check": ("router.cli.check", "check"),
    "sim": ("router.cli.sim", "sim"),
    "demo": ("router.cli.demo", "demo"),
    "reload": ("router.cli.orders", "reload"),
    "status": ("router.cli.status", "status"),
    "top": ("router.cli.top", "top"),
    "drain": ("router.cli.orders", "drain"),
    "resume": ("router.cli.orders", "resume"),
    "eject": ("router.cli.orders", "eject"),
    "readmit": ("router.cli.orders", "readmit"),
    "flag": ("router.cli.orders", "flag"),
    "clear": ("router.cli.orders", "clear"),
    "canary": ("router.cli.canary", "app"),
    "explain": ("router.cli.orders", "explain"),
    "history": ("router.cli.history", "history"),
    "compare": ("router.cli.history", "compare"),
    "bench": ("router.cli.bench", "bench"),
    "simulate": ("router.cli.simulate", "simulate"),
    "doctor": ("router.cli.doctor", "doctor"),
    "discover": ("router.cli.discover", "discover"),
    "recipe": ("router.cli.recipe", "recipe"),
}


class Lazy(TyperGroup):
    """A group that imports a command's module when the command is used or listed."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Every command, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, None where there is none."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        found: Any = getattr(importlib.import_module(place[0]), place[1])
        if isinstance(found, typer.Typer):
            group = typer.main.get_command(found)
            group.name = cmd_name
            return group
        one = typer.Typer(add_completion=False, rich_markup_mode=None)
        one.command(cmd_name)(found)
        command = typer.main.get_command(one)
        command.name = cmd_name
        return command


app = typer.Typer(cls=Lazy, no_args_is_help=True, rich_markup_mode=None)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"spark-router {__version__} ({'compiled' if is_compiled() else 'pure Python'})")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """One OpenAI-compatible URL in front of every vLLM server on one or more DGX Sparks.

    Examples:

        router serve --backend http://spark-1:8000 --backend http://spark-2:8001

        router demo

        router status
    """


def main() -> None:
    """Entry point of the `router` script."""
    app()
