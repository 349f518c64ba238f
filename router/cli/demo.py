"""`router demo`: three simulated servers on two Sparks, the router in front of them, clients, and a live table."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

MODEL = "nemotron-3-nano"
READY_WITHIN_S = 60.0  # a busy machine starts five Python processes slowly
STOPS_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Server:
    """One simulated server: its name, the Spark it runs on, its profile, and the kernel it is believed to run."""

    name: str
    spark: str
    profile: str
    declared: str


SERVERS = (
    Server("spark-1-marlin", "spark-1", "marlin", "marlin"),
    Server("spark-1-cutlass", "spark-1", "vllm-cutlass", "cutlass"),
    Server("spark-2-flashinfer", "spark-2", "marlin", "flashinfer_cutlass"),  # its log will say MARLIN
)


def demo(
    once: Annotated[bool, typer.Option("--once", help="Print one table after --seconds and end.")] = False,
    seconds: Annotated[float, typer.Option(help="With --once: how long to let it run.")] = 10.0,
    people: Annotated[int, typer.Option(help="Clients that chat at once.")] = 6,
    port: Annotated[int, typer.Option(help="Port for clients; another one is taken if it is not free.")] = 8080,
    admin_port: Annotated[int, typer.Option(help="Port of the admin side, likewise.")] = 8081,
) -> None:
    """Try the router without a GPU: three simulated servers, one of which is not what it is believed to be.

    Ctrl-C ends everything that was started.

    Examples:

        router demo

        router demo --once --seconds 5
    """
    for number in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal leaves nothing behind either
        signal.signal(number, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="router-demo-"))
    try:
        with Stage(folder, free(port), free(admin_port)) as stage, contextlib.suppress(KeyboardInterrupt):
            asyncio.run(play(stage, people, seconds if once else None))
    except DidNotStart as fault:
        typer.secho(str(fault), fg="red", err=True)
        raise typer.Exit(3) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class DidNotStart(Exception):
    """A process of the demo ended, or was not ready in time; says which, with the end of its log."""


class Stage:
    """The processes of a demo; on leaving it ends each by its id."""

    def __init__(self, folder: Path, port: int, admin_port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self.admin_url = f"http://127.0.0.1:{admin_port}"
        self.token = secrets.token_urlsafe(16)
        self.folder = folder
        self._ports = (port, admin_port)
        self._sims = [free() for _ in SERVERS]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Stage:
        try:
            self._start_servers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in reversed(self._processes.values()):
            try:
                process.wait(STOPS_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @property
    def link(self) -> str:
        """The dashboard, logged in."""
        return f"{self.admin_url}/login?token={self.token}"

    def check(self) -> None:
        """Raises DidNotStart where a process has ended."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise DidNotStart(f"{name} ended with {process.returncode}\n{self._tail(name)}")

    def _start_servers(self) -> None:
        host = f"{os.getpid()}-"  # two demos at once are two pairs of Sparks
        for server, port in zip(SERVERS, self._sims, strict=True):
            log = self.folder / f"{server.name}.log"
            log.touch()
            self._run(
                server.name, "sim", "--port", str(port), "--model", MODEL, "--profile", server.profile, "--host-name",
                host + server.spark, "--declared", server.declared, "--log", str(log),
            )  # fmt: skip

    async def start_router(self) -> None:
        """Start the router when every server listens: a server that is not there yet is looked for only rarely."""
        async with httpx.AsyncClient(timeout=5.0, trust_env=False) as client:
            for port in self._sims:
                await self.until(functools.partial(client.get, f"http://127.0.0.1:{port}/health"))
        fleet = self.folder / "fleet.yaml"
        fleet.write_text(fleet_file(SERVERS, self._sims, self.folder), encoding="utf-8")
        port, admin_port = self._ports
        self._run(
            "router", "serve", "--config", str(fleet), "--host", "127.0.0.1", "--port", str(port), "--admin-port",
            str(admin_port), "--log-format", "text",
        )  # fmt: skip

    async def until(self, attempt: Callable[[], Awaitable[object]]) -> None:
        """Try until it works and says something true. Raises DidNotStart when that takes too long."""
        loop = asyncio.get_running_loop()
        limit = loop.time() + READY_WITHIN_S
        while loop.time() < limit:
            self.check()
            with contextlib.suppress(httpx.HTTPError, ValueError, KeyError):
                if await attempt():
                    return
            await asyncio.sleep(0.1)
        raise DidNotStart(f"not ready within {READY_WITHIN_S:.0f} s")

    def _run(self, name: str, *arguments: str) -> None:
        environ = {key: value for key, value in os.environ.items() if not key.startswith("ROUTER_")}
        environ |= {"ROUTER_STATE_DIR": str(self.folder), "ROUTER_ADMIN_TOKEN": self.token}
        with (self.folder / f"{name}.out").open("wb") as out:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "router", *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env=environ, start_new_session=True,
            )  # fmt: skip

    def _tail(self, name: str) -> str:
        return (self.folder / f"{name}.out").read_text(errors="replace")[-1500:]


def fleet_file(servers: tuple[Server, ...], ports: list[int], logs: Path) -> str:
    """A fleet file as one writes it for real servers: where they are, what they are believed to run, their logs."""
    lines = ["backends:"]
    for server, port in zip(servers, ports, strict=True):
        lines.append(
            f"  - {{name: {server.name}, url: 'http://127.0.0.1:{port}', host: {server.spark}, "
            f"kernel: {server.declared}, log: 'file:{logs / server.name}.log'}}"
        )
    return "\n".join(lines) + "\n"


def free(wanted: int = 0) -> int:
    """That port where it is free, else any free one."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", wanted))
        except OSError:
            return free() if wanted else 0
        return int(one.getsockname()[1])


async def play(stage: Stage, people: int, seconds: float | None) -> None:
    """Wait until everything is ready, send traffic, show the table: live, or once after some seconds."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    from router.cli.demotraffic import Tally, person
    from router.cli.status import screen

    console = Console()
    headers = {"authorization": f"Bearer {stage.token}"}
    async with httpx.AsyncClient(base_url=stage.admin_url, headers=headers, timeout=10.0, trust_env=False) as admin:
        await stage.start_router()
        await stage.until(lambda: all_usable(admin))
        console.print(welcome(stage), highlight=False, soft_wrap=True, markup=False)
        tally = Tally()
        with tasks(*(person(number, stage.url, MODEL, tally, 1) for number in range(people))):
            if seconds is not None:
                await asyncio.sleep(seconds)
                stage.check()
                console.print(screen((await admin.get("/api/status")).json()), Text(str(tally)))
                return
            with Live(console=console, auto_refresh=False) as live:
                async for document in looks(stage, admin):
                    live.update(Group(screen(document), Text(str(tally))), refresh=True)


async def all_usable(admin: httpx.AsyncClient) -> bool:
    """Has the router found every server?"""
    document = (await admin.get("/api/status")).json()
    return all(one["health"] == "healthy" for one in document["backends"])


async def looks(stage: Stage, admin: httpx.AsyncClient) -> AsyncIterator[dict[str, Any]]:
    """The router's state, every second."""
    while True:
        stage.check()
        with contextlib.suppress(httpx.HTTPError, ValueError):
            yield (await admin.get("/api/status")).json()
        await asyncio.sleep(1.0)


@contextlib.contextmanager
def tasks(*coroutines: Any) -> Iterator[None]:
    """Run coroutines beside the block, and end them with it."""
    running = [asyncio.ensure_future(one) for one in coroutines]
    try:
        yield
    finally:
        for one in running:
            one.cancel()


def welcome(stage: Stage) -> str:
    """Where everything is, and something to paste."""
    return (
        f"\nclients:    {stage.url}\ndashboard:  {stage.link}\n\n"
        "for router status, top, explain, history, bench, … in another terminal:\n"
        f"export ROUTER_ADMIN_URL={stage.admin_url} ROUTER_ADMIN_TOKEN={stage.token} \\\n"
        f"       ROUTER_STATE_DIR={stage.folder}\n\n"
        f"curl -N {stage.url}/chat/completions -H 'content-type: application/json' \\\n"
        f'  -d \'{{"model": "{MODEL}", "stream": true, "messages": [{{"role": "user", "content": "count to 20"}}]}}\'\n'
    )
