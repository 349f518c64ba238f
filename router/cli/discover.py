"""`router discover`: a fleet file from what runs, or what is new beside the one in use."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from router.config import FleetConfig
from router.configtypes import to_ports
from router.discover import write
from router.discover.findings import PORTS, Machine
from router.discover.look import Eyes, containers, getter, is_here, look
from router.fleetfile import FleetFault, parse

FOUND, NOTHING, BAD_INPUT = 0, 1, 2


def discover(
    hosts: Annotated[list[str], typer.Argument(help="Machines: names or addresses; user@host for ssh.")],
    ports: Annotated[str, typer.Option(help="Where to look. [default: 8000-8010 and other servers' defaults]")] = "",
    out: Annotated[Path | None, typer.Option(help="Write the fleet file here; without it, print it.")] = None,
    into: Annotated[Path | None, typer.Option(help="Compare with this fleet file and show what is new.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="With --into: add what is new to it.")] = False,
    force: Annotated[bool, typer.Option("--force", help="With --out: overwrite a file that is there.")] = False,
    docker: Annotated[bool, typer.Option(help="Ask docker, here or over ssh, for the containers' logs.")] = True,
    timeout_s: Annotated[float, typer.Option(help="Seconds to wait for a port.")] = 2.0,
) -> None:
    """Find the servers that run on these machines and write a fleet file, or add to one.

    Exit code: 0 found, 1 found nothing or the file is there already, 2 bad input.

    Examples:

        router discover spark-1 spark-2 --out fleet.yaml

        router discover localhost --ports 8000-8020

        router discover me@spark-2 --into fleet.yaml          # what is new, as a diff

        router discover me@spark-2 --into fleet.yaml --apply && router reload
    """
    said = Console(stderr=True)
    try:
        wanted = to_ports(ports) if ports else PORTS
        config = parse(into.read_text("utf-8-sig"), str(into), os.environ) if into is not None else None
    except (ValueError, OSError, FleetFault) as error:
        said.print(f"[red]{escape(str(error))}[/]", soft_wrap=True)
        raise typer.Exit(BAD_INPUT) from error
    if out is not None and out.exists() and not force:
        said.print(
            f"[red]{escape(str(out))} is there already: --force overwrites it, --into {escape(str(out))} adds to it[/]"
        )
        raise typer.Exit(NOTHING)
    machines = asyncio.run(_look(hosts, wanted or PORTS, docker, timeout_s, said))
    for line in dict.fromkeys(line for machine in machines for line in machine.missed):
        said.print(f"[yellow]{escape(line)}[/]", soft_wrap=True)
    found = sum(len(machine.servers) for machine in machines)
    said.print(f"{found} {'server' if found == 1 else 'servers'} found")
    if into is not None and config is not None:
        _compare(into, config, machines, apply, said)
    elif not found:
        raise typer.Exit(NOTHING)
    elif out is not None:
        out.write_text(write.fleet(machines), "utf-8")
        said.print(f"wrote {escape(str(out))}; router check {escape(str(out))} looks it over")
    else:
        typer.echo(write.fleet(machines), nl=False)


def _compare(into: Path, config: FleetConfig, machines: list[Machine], apply: bool, said: Console) -> None:
    for line in write.gone(config, machines):
        said.print(f"[yellow]{escape(line)}[/]", soft_wrap=True)
    old = into.read_text("utf-8-sig")
    try:
        new = write.added(old, config, machines)
        parse(new, str(into), os.environ | _keys(new))
    except (ValueError, FleetFault) as error:
        said.print(f"[red]{escape(str(into))}: {escape(str(error))}[/]", soft_wrap=True)
        raise typer.Exit(NOTHING) from error
    if new == old:
        said.print(f"{escape(str(into))} knows all of it")
        return
    typer.echo(write.difference(old, new, str(into)), nl=False)
    if apply:
        whole = into.with_name(f".{into.name}.new")
        whole.write_text(new, "utf-8")
        whole.replace(into)  # a router that watches the file never sees half of it
        said.print(f"added to {escape(str(into))}; router reload puts it in force")
    else:
        said.print("--apply adds it")


def _keys(text: str) -> dict[str, str]:
    """Keys that the operator is yet to export count as given while the new text is checked."""
    return {part.partition("}")[0]: "-" for part in text.split("${")[1:] if part.partition("}")[0] not in os.environ}


async def _look(
    hosts: list[str], ports: tuple[int, ...], docker: bool, timeout_s: float, said: Console
) -> list[Machine]:
    timeout = httpx.Timeout(timeout_s + 3.0, connect=timeout_s)
    async with httpx.AsyncClient(timeout=timeout, trust_env=False) as client:
        with Progress(console=said, transient=True) as progress:
            task = progress.add_task("looking", total=len(hosts) * len(ports))
            eyes = Eyes(getter(client), containers if docker else None, is_here)
            return await look(hosts, ports, eyes, lambda: progress.advance(task))
