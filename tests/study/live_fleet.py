"""A described fleet as processes on loopback: one `router sim` a backend, one `router serve` in front of them."""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import yaml

from router.sim.described import DescribedFleet
from router.sim.profiles import PROFILES
from tests.bench import machine
from tests.processes import DidNotStart, Process, free_port, router_command

START_LIMIT_S = 60.0


def as_processes_have_it(fleet: DescribedFleet) -> DescribedFleet:
    """The fleet with the plain profiles: `router sim` takes a profile by its name, without a file's changes to it."""
    return replace(fleet, backends=tuple(replace(one, profile=PROFILES[one.profile.name]) for one in fleet.backends))


def config(fleet: DescribedFleet, ports: Mapping[str, int], policy: str) -> dict[str, Any]:
    """The fleet file of the router."""
    backends = [
        {"name": one.name, "url": f"http://127.0.0.1:{ports[one.name]}", "host": one.host} for one in fleet.backends
    ]
    # Without canaries: they would take one backend after another for the first half minute, under some policies only.
    return {"backends": backends, "routing": {"policy": policy}, "quality": {"canary": False}}


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU seconds so far: of the router, of the busiest simulated server, of this process, of the whole machine."""

    at: float
    router: float
    sims: tuple[float, ...]
    load: float
    machine: float


@dataclass(frozen=True, slots=True)
class Use:
    """Shares of one core (router, busiest simulated server, load generator) and of the machine with all its cores."""

    router: float
    sim: float
    load: float
    machine: float

    @property
    def is_too_much(self) -> bool:
        """Whether this machine, not the simulated Sparks, may have set the pace."""
        return max(self.router, self.sim, self.load, self.machine) > 0.6

    def __str__(self) -> str:
        shares = (f"router {self.router:.0%}", f"busiest simulated server {self.sim:.0%}", f"load {self.load:.0%}")
        return f"{', '.join(shares)} of a core; the machine, with all that others do on it, {self.machine:.0%}"


def use(before: Cpu, after: Cpu, cores: int) -> Use:
    """What was used between two looks."""
    seconds = after.at - before.at
    sims = max(b - a for a, b in zip(before.sims, after.sims, strict=True))
    router, load = after.router - before.router, after.load - before.load
    return Use(router / seconds, sims / seconds, load / seconds, (after.machine - before.machine) / seconds / cores)


class LiveFleet:
    """The processes of one fleet under one policy. As a context: started and healthy within, ended by pid after."""

    def __init__(self, fleet: DescribedFleet, policy: str, seed: int, folder: Path) -> None:
        self.fleet, self.policy, self.seed = fleet, policy, seed
        self.folder = folder
        self.url = ""
        self._token = secrets.token_hex(16)
        self._sims: list[Process] = []
        self._router: Process | None = None

    async def __aenter__(self) -> LiveFleet:
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    def cpu(self) -> Cpu:
        """Look at everybody's CPU time."""
        assert self._router is not None
        sims = tuple(machine.cpu_s(one.pid) for one in self._sims)
        return Cpu(time.monotonic(), machine.cpu_s(self._router.pid), sims, time.process_time(), machine.busy_s())

    async def _start(self) -> None:
        self.folder.mkdir(parents=True)
        # Own TMPDIR: hosts of that name are shared by these processes alone, and nothing is left behind.
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "TMPDIR": str(self.folder)}
        environ |= {"ROUTER_STATE_DIR": str(self.folder / "state"), "ROUTER_ADMIN_TOKEN": self._token}
        ports: dict[str, int] = {}
        for number, one in enumerate(self.fleet.backends):
            ports[one.name] = free_port()
            words = ["sim", "--port", ports[one.name], "--model", one.model, "--profile", one.profile.name]
            words += ["--host-name", one.host, "--seed", self.seed * 101 + number]
            command = [router_command(), *map(str, words)]
            self._sims.append(Process(command, self.folder / f"{one.name}.log", environ))
            await _until(self._sims[-1], f"http://127.0.0.1:{ports[one.name]}/health")
        file = self.folder / "fleet.yaml"
        file.write_text(yaml.safe_dump(config(self.fleet, ports, self.policy)), encoding="utf-8")
        port, admin = free_port(), free_port()
        words = ["serve", "--config", file, "--host", "127.0.0.1", "--port", port, "--admin-port", admin]
        self._router = Process([router_command(), *map(str, words)], self.folder / "router.log", environ)
        await _until(self._router, f"http://127.0.0.1:{admin}/api/status", self._is_healthy, self._token)
        self.url = f"http://127.0.0.1:{port}"

    def _is_healthy(self, answer: httpx.Response) -> bool:
        backends = answer.json()["backends"]
        return len(backends) == len(self.fleet.backends) and all(one["health"] == "healthy" for one in backends)

    async def _stop(self) -> None:
        running = [*self._sims, *([self._router] if self._router else [])]
        await asyncio.gather(*(asyncio.to_thread(one.stop) for one in running))


async def _until(
    process: Process, url: str, is_ready: Callable[[httpx.Response], bool] = lambda _: True, token: str = ""
) -> None:
    """Wait until a GET is answered with 200 and `is_ready` of the answer; raise DidNotStart where that never comes."""
    began = time.monotonic()
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(headers=headers, timeout=5.0, trust_env=False) as client:
        while time.monotonic() - began < START_LIMIT_S and process.is_running:
            try:
                answer = await client.get(url)
                if answer.status_code == 200 and is_ready(answer):
                    return
            except httpx.TransportError:
                pass  # it does not listen yet
            await asyncio.sleep(0.2)
    raise DidNotStart(f"{url} was not ready within {START_LIMIT_S:.0f} s\n{process.tail()}")


def workplace() -> tempfile.TemporaryDirectory[str]:
    """A folder for logs, state and shared hosts of one run."""
    return tempfile.TemporaryDirectory(prefix="router-study-", ignore_cleanup_errors=True)
