"""`router check`: every mistake in a fleet file at once, and whether its names resolve where this runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from router.config import FleetConfig
from router.errors import ConfigFault
from router.fleetfile import FleetFault, json_schema, load
from router.names import Name, Resolver, look_up, runs_in_container, system_resolver
from router.tls import check as check_certificates
from router.vllm.kernels import Kernel, kernel_of

FINE, MISTAKES, NOTHING_CHECKED = 0, 1, 2


def check(
    file: Annotated[Path | None, typer.Argument(envvar="ROUTER_CONFIG", help="Fleet file to check.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema for editors instead.")] = False,
    resolve: Annotated[bool, typer.Option(help="Also resolve each host name, here and now.")] = True,
) -> None:
    """Say everything that is wrong with a fleet file, by line, and which names do not resolve here.

    Exit code: 0 all is well, 1 something is to be mended, 2 nothing could be checked.

    Examples:

        router check config/fleet.yaml

        router check --schema > fleet.schema.json

        docker compose exec router router check /etc/router/fleet.yaml   # names as the container sees them
    """
    if schema:
        typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
        raise typer.Exit(FINE)
    if file is None:
        typer.echo("Which file? router check config/fleet.yaml", err=True)
        raise typer.Exit(NOTHING_CHECKED)
    resolver = system_resolver if resolve else None
    raise typer.Exit(checked(file, os.environ, resolver, runs_in_container(), Console()))


def checked(
    file: Path, environ: Mapping[str, str], resolver: Resolver | None, in_container: bool, console: Console
) -> int:
    """Check a file and print what was found.

    Args:
        file: the fleet file.
        environ: where `${NAME}` is looked up.
        resolver: how names are resolved; None leaves that out.
        in_container: whether this runs inside a container, which changes what names mean.
        console: where to print.

    Returns:
        The exit code.
    """
    if not file.is_file():
        console.print(f"[red]{escape(str(file))}: there is no such file[/]", soft_wrap=True)
        return NOTHING_CHECKED
    try:
        config = load(file, environ)
    except FleetFault as fault:
        show(fault, console)
        return MISTAKES
    console.print(f"[green]{escape(str(file))}[/]: {summary(config)}", soft_wrap=True)
    for line in hints(config, file.read_text("utf-8-sig")):
        console.print(f"[yellow]{escape(line)}[/]", soft_wrap=True)
    lost = [f"{path}: there is no file {name}" for path, name in named_files(config) if not Path(name).is_file()]
    if not lost:
        try:
            check_certificates(config)
        except ConfigFault as fault:
            lost = [fault.message]
    for line in lost:
        console.print(f"[red]{escape(line)}[/]", soft_wrap=True)
    if resolver is None:
        return MISTAKES if lost else FINE
    hosts = [host for one in config.backends for host in one.host]
    with console.status("resolving names"):
        names = look_up(hosts, resolver, in_container)
    console.print(table(names))
    for hint in dict.fromkeys(name.hint for name in names if name.hint):
        hosts = [name.host for name in names if name.hint == hint]
        advice = hint.replace("HOST", hosts[0]) if len(hosts) == 1 else hint
        # A name that resolves may still be meant: a container with the host's network finds the machine at localhost.
        style = "yellow" if all(name.addresses for name in names if name.hint == hint) else "red"
        console.print(f"[{style}]{escape(', '.join(hosts))}[/]: {escape(advice)}", soft_wrap=True)
    return MISTAKES if lost or not all(name.addresses for name in names) else FINE


def show(fault: FleetFault, console: Console) -> None:
    """Print each problem on a line of its own, with file and line as editors and terminals open them."""
    for problem in fault.problems:
        place = f"{fault.source}:{problem.line}"
        path = f" [bold]{escape(problem.path)}[/]" if problem.path else ""
        console.print(f"[red]{escape(place)}[/]{path}: {escape(problem.message)}", soft_wrap=True)
    count = len(fault.problems)
    console.print(f"{count} {'mistake' if count == 1 else 'mistakes'}; nothing was changed", soft_wrap=True)


def summary(config: FleetConfig) -> str:
    """Return what a config holds, in a few words."""
    hosts = {host for one in config.backends for host in one.host}
    counts = [(len(config.backends), "backend"), (len(hosts), "host"), (len(config.aliases), "alias")]
    said = [f"{count} {word if count == 1 else word + ('es' if word == 'alias' else 's')}" for count, word in counts]
    return ", ".join(said) + (", passive" if config.passive else "")


def hints(config: FleetConfig, text: str) -> Iterator[str]:
    """Yield what is allowed and yet hardly meant: kernels nobody knows, keys that stand in the file."""
    for i, one in enumerate(config.backends):
        if one.kernel is not None and kernel_of(one.kernel) is None:
            near = get_close_matches(one.kernel, list(Kernel), n=1)
            meant = f"did you mean {near[0]}?" if near else f"known are {', '.join(Kernel)}"
            yield f"backends[{i}].kernel: {one.kernel} is no NVFP4 kernel that is known, so it is not compared; {meant}"
        if one.api_key is not None and one.api_key.get_secret_value() in text:
            yield f"backends[{i}].api_key: stands in the file for all to read; put it into the environment: ${{NAME}}"
        if not one.tls_verify:
            yield f"backends[{i}].tls_verify: its certificate is not checked; tls_ca is the safe way to a private one"


def named_files(config: FleetConfig) -> Iterator[tuple[str, str]]:
    """Yield each file that a config names, with its path in the fleet file."""
    for i, one in enumerate(config.backends):
        if one.tls_ca is not None:
            yield f"backends[{i}].tls_ca", one.tls_ca
    given = {
        "access.tls_cert": config.access.tls_cert,
        "access.tls_key": config.access.tls_key,
        "quality.extra_probes": config.quality.extra_probes,
    }
    yield from ((path, name) for path, name in given.items() if name is not None)


def table(names: tuple[Name, ...]) -> Table:
    """Return the hosts and their addresses as a table."""
    shown = Table("host", "addresses", box=None, pad_edge=False)
    for name in names:
        shown.add_row(escape(name.host), escape(", ".join(name.addresses)) or "[red]none[/]")
    return shown
