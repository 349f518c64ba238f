"""`router serve`: the only command that builds an app; every other one asks a running router."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Annotated

import typer

from router.errors import ConfigFault


def serve(
    backend: Annotated[
        list[str] | None, typer.Option("--backend", "-b", help="A server's URL; repeat it for each. Needs no file.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Fleet file (see config/fleet.yaml).")] = None,
    host: Annotated[str | None, typer.Option(help="Address for clients. [default: 0.0.0.0]")] = None,
    port: Annotated[int | None, typer.Option(help="Port for clients. [default: 8080]")] = None,
    admin_host: Annotated[str | None, typer.Option(help="Address of the admin side. [default: 127.0.0.1]")] = None,
    admin_port: Annotated[int | None, typer.Option(help="Port of the admin side. [default: 8081]")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Reload when the fleet file changes.")] = False,
    passive: Annotated[bool, typer.Option("--passive", help="Observe, never act.")] = False,
    log_format: Annotated[str, typer.Option(help="json or text. [default: text on a terminal, else json]")] = "auto",
) -> None:
    """Serve one OpenAI-compatible URL in front of every backend.

    Examples:

        router serve --backend http://spark-1:8000 --backend http://spark-2:8001

        router serve --config config/fleet.yaml --watch
    """
    from router.settings import read_settings, unknown_settings

    try:
        settings = read_settings(
            host=host,
            port=port,
            admin_host=admin_host,
            admin_port=admin_port,
            config=config,
            watch=watch or None,
            passive=passive or None,
        )
    except ConfigFault as fault:
        typer.secho(fault.message, fg="red", err=True)
        raise typer.Exit(2) from None
    for name in unknown_settings(os.environ):
        typer.secho(f"{name} is no setting of the router (typing mistake?); it does nothing", fg="yellow", err=True)
    try:
        import uvloop

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:  # pragma: not on Linux
        runner = asyncio.Runner()
    from router.run import Ended, run

    try:
        with runner:
            runner.run(run(settings, tuple(backend or ()), log_format))
    except Ended as ended:
        raise typer.Exit(ended.code) from None
    except ConfigFault as fault:
        typer.secho(fault.message, fg="red", err=True)
        raise typer.Exit(2) from None
    except OSError as exc:
        typer.secho(explain_bind(exc, settings.port, settings.admin_port), fg="red", err=True)
        raise typer.Exit(3) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def explain_bind(exc: OSError, port: int, admin_port: int) -> str:
    """Why a port could not be taken: who has it, and which flag changes it."""
    if exc.errno == errno.EADDRINUSE:
        taken, flag = (
            (port, "--port")
            if f"{port}" in str(exc) or str(admin_port) not in str(exc)
            else (
                admin_port,
                "--admin-port",
            )
        )
        owner = port_owner(taken)
        return f"port {taken} is taken{f' by {owner}' if owner else ''}; choose another with {flag}"
    if exc.errno in (errno.EACCES, errno.EPERM):
        return f"not allowed to listen on port {port}; choose one above 1023 with --port"
    return f"cannot start: {exc}"


def port_owner(port: int, proc: Path = Path("/proc")) -> str:
    """Name and pid of the process that listens on a TCP port here, "" where that cannot be seen (or not on Linux)."""
    inodes = set()
    for table in ("net/tcp", "net/tcp6"):
        try:
            lines = (proc / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for process in proc.glob("[0-9]*"):
        try:
            for fd in (process / "fd").iterdir():
                if os.readlink(fd) in inodes:
                    return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:
            continue
    return ""


__all__ = ["explain_bind", "port_owner", "serve"]
