"""`router sim`: a simulated vLLM server, for trying the router and its config without a GPU."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from router.sim.state import Build


def sim(
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    model: Annotated[
        str | None, typer.Option("--model", "--name", help="Served name. [default: the profile's]")
    ] = None,
    profile: Annotated[str, typer.Option(help="How it behaves: marlin, vllm-cutlass, b12x, fast …")] = "marlin",
    seed: Annotated[int, typer.Option(help="Seed of everything drawn.")] = 0,
    host_name: Annotated[str | None, typer.Option(help="The Spark it shares with others of that name.")] = None,
    api_key: Annotated[str | None, typer.Option(help="Key that /v1 asks for.")] = None,
    load_s: Annotated[float, typer.Option(help="Seconds of loading: connections are refused meanwhile.")] = 0.0,
    log: Annotated[Path | None, typer.Option(help="File for its log. [default: standard output]")] = None,
    kernel: Annotated[str | None, typer.Option(help="Kernel that it runs. [default: the profile's]")] = None,
    declared: Annotated[str | None, typer.Option(help="Kernel that its launch arguments name, true or not.")] = None,
    max_model_len: Annotated[int | None, typer.Option(help="Longest context in tokens.")] = None,
    damage: Annotated[float, typer.Option(help="Damage to its weights, in logits: 0 none, 1 a bad layer.")] = 0.0,
) -> None:
    """Simulate one vLLM server: its batching, its speed on a DGX Spark, its HTTP API, its metrics, its log.

    Faults are made while it runs: POST /sim/fault with {"kind": "hang"}, DELETE /sim/fault; GET /sim/state shows it.

    Examples:

        router sim --port 8000 --model nano --profile marlin --host-name spark-1

        router sim --port 8001 --model nano --profile fast --declared flashinfer_cutlass --log /tmp/sim.log
    """
    try:
        build = _build(model, profile, kernel, declared, max_model_len)
    except ValueError as fault:
        typer.secho(str(fault), fg="red", err=True)
        raise typer.Exit(2) from None
    build = replace(build, seed=seed, api_key=api_key, damage={"damage": damage} if damage else {})
    try:
        with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
            asyncio.run(_serve(build, host, port, host_name, load_s, log))
    except OSError as fault:
        typer.echo(f"cannot serve at {host}:{port}: {fault.strerror}; choose another with --port or --host", err=True)
        raise typer.Exit(1) from None


def _build(
    model: str | None, profile: str, kernel: str | None, declared: str | None, max_model_len: int | None
) -> Build:
    """The build that the options describe. Raises ValueError with the names that exist."""
    from router.sim.profiles import PROFILES
    from router.sim.startlog import kernel_named
    from router.sim.state import Build

    if profile not in PROFILES:
        raise ValueError(f"no profile {profile}; there are {', '.join(PROFILES)}")
    found = PROFILES[profile]
    if kernel is not None:
        moe, linear, scheme = kernel_named(kernel)
        found = replace(found, moe_kernel=moe, linear_kernel=linear, scheme=scheme)
    if max_model_len is not None:
        found = replace(found, max_model_len=max_model_len)
    return Build(model or found.checkpoint, found, declared)


async def _serve(build: Build, host: str, port: int, host_name: str | None, load_s: float, log: Path | None) -> None:
    """Load, listen, and serve until SIGTERM or Ctrl-C."""
    from router.sim.server import Listener
    from router.sim.sharedhost import SharedHost
    from router.sim.startlog import log_writer, start_lines
    from router.sim.state import Sim

    shared = SharedHost(host_name) if host_name else None
    running = Sim(build, time.time, shared)
    listener = Listener(running, host, port)
    write = log_writer(log, typer.echo)

    def announce() -> None:
        write(start_lines(running.build, listener.port, datetime.now()))

    serving: asyncio.Task[None] | None = asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, lambda: serving.cancel() if serving else None)
    try:
        await asyncio.sleep(load_s)
        announce()
        await listener.serve(restarted=announce)
    finally:
        if shared is not None:
            shared.close()
