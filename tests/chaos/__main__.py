"""A seeded schedule of faults under load; a checker that knows for every call what its client saw.

    python -m tests.chaos --faults 500 --seed 1

Real processes on loopback: three `router sim`, a fault proxy in front of each, one `router serve`. Exit code 1 when a
call ended in a way that must never be, or when something is left behind at the end; the seed replays the schedule.
"""

import argparse
import asyncio
import math
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.check import LEFT, NEVER, OK, VISIBLE, Tally, call
from tests.chaos.proxy import Fault, FaultProxy

MODEL = "chaos-model"
TCP_FAULTS = ("refuse", "reset", "cut", "stall", "blackhole", "slow")
SIM_FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 429, "retry_after_s": 1},
    {"kind": "busy"},
    {"kind": "cut"},
    {"kind": "error_event"},
    {"kind": "half_json"},
    {"kind": "bad_chunk"},
    {"kind": "truncate"},
    {"kind": "missing_done"},
)
LIMIT_S = 180.0  # for what never comes, however slow the machine
ROUTER = [sys.executable, "-m", "router"]


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def spawn(args: list[str], log: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a process of ours with its output in a file."""
    return subprocess.Popen(
        [*ROUTER, *args], stdout=log.open("wb"), stderr=subprocess.STDOUT, env={**os.environ, **env}
    )


async def until(check: Any, what: str) -> None:
    """Wait until `check()` holds."""
    deadline = time.monotonic() + LIMIT_S
    while not await check():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not happen within {LIMIT_S:g} s")
        await asyncio.sleep(0.1)


class Chaos:
    """One run."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.random = random.Random(options.seed)
        self.tally = Tally()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.proxies: list[FaultProxy] = []
        self.sims: list[int] = []
        self.port, self.admin_port = free_port(), free_port()
        self.done = False
        self.set_faults = 0
        self.samples: list[tuple[float, float, int]] = []  # seconds, RSS in MB, open files

    async def start(self) -> None:
        """Backends, proxies, router; return when everybody is healthy."""
        env = {"ROUTER_STATE_DIR": str(self.folder / "state"), "ROUTER_ADMIN_TOKEN": "chaos"}
        for number in range(3):
            port = free_port()
            self.sims.append(port)
            args = ["sim", "--port", str(port), "--model", MODEL, "--profile", "fast", "--seed", str(number)]
            self.processes.append(spawn(args, self.folder / f"sim{number}.log", env))
            self.proxies.append(proxy := FaultProxy(port))
            await proxy.start()
        config = self.folder / "fleet.yaml"
        backends = "".join(
            f"  - name: b{n}\n    url: http://127.0.0.1:{p.port}\n    host: h{n}\n" for n, p in enumerate(self.proxies)
        )
        config.write_text(
            f"backends:\n{backends}"
            "timeouts: {first_byte_s: 120, inter_chunk_s: 5, connect_s: 1, queue_s: 20}\n"
            "health: {interval_s: 1, probe_timeout_s: 1, hang_s: 5, stalled_streams_s: 5, ejection_s: 1,"
            " ejection_max_s: 4, ramp_s: 1}\n"
            "retry: {share: 1.0, burst: 100}\n"
        )
        args = ["serve", "--config", str(config), "--host", "127.0.0.1", "--port", str(self.port)]
        args += ["--admin-port", str(self.admin_port), "--log-format", "json"]
        self.processes.append(spawn(args, self.folder / "router.log", env))
        self.admin = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.admin_port}", headers={"authorization": "Bearer chaos"}, timeout=LIMIT_S
        )
        await until(self._healthy, "a healthy fleet")

    async def _status(self) -> dict[str, Any]:
        document: dict[str, Any] = (await self.admin.get("/api/status")).json()
        return document

    async def _healthy(self) -> bool:
        try:
            backends = (await self._status())["backends"]
        except (httpx.TransportError, KeyError, ValueError):
            return False
        return len(backends) == 3 and all(one["health"] == "healthy" for one in backends)

    async def client(self, number: int) -> None:
        """Call after call until the faults are over."""
        dice = random.Random(self.options.seed * 1000 + number)
        url = f"http://127.0.0.1:{self.port}"
        async with httpx.AsyncClient(base_url=url, timeout=None, trust_env=False) as client:
            while not self.done:
                leave = dice.randrange(30) if dice.random() < 0.1 else None
                stream = dice.random() < 0.8
                verdict, detail = await call(client, MODEL, dice.randrange(5, 60), stream=stream, leave_after=leave)
                self.tally.add(verdict, detail)

    async def faults(self) -> None:
        """The schedule: one backend at a time is broken, sometimes two, never all three for long."""
        until = time.monotonic() + self.options.minutes * 60
        while time.monotonic() < until if self.options.minutes else self.set_faults < self.options.faults:
            for victim in self.random.sample(range(3), self.random.choice((1, 1, 2))):
                await self._break(victim)
                self.set_faults += 1
            await asyncio.sleep(self.random.uniform(0.05, 0.4))
            for number in range(3):
                await self._mend(number)
            await asyncio.sleep(self.random.uniform(0.0, 0.3))
        self.done = True

    async def _break(self, victim: int) -> None:
        if self.random.random() < 0.6:
            kind = self.random.choice(TCP_FAULTS)
            await self.proxies[victim].set(Fault(kind, self.random.randrange(20_000)))
            return
        document = {**self.random.choice(SIM_FAULTS), "after": self.random.randrange(40)}
        await self._order("POST", victim, document)

    async def _mend(self, number: int) -> None:
        await self.proxies[number].set(Fault())
        await self._order("DELETE", number, None)

    async def _order(self, method: str, number: int, document: Any) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=LIMIT_S) as client:
            url = f"http://127.0.0.1:{self.sims[number]}/sim/fault"
            answer = await client.request(method, url, json=document)
            if answer.status_code >= 300:
                raise SystemExit(f"the simulated backend refused {document}: {answer.status_code} {answer.text}")

    async def watch(self) -> None:
        """Note memory and open files of the router every ten seconds."""
        pid = self.processes[-1].pid
        began = time.monotonic()
        while not self.done:
            self.samples.append((time.monotonic() - began, rss_mb(pid), len(os.listdir(f"/proc/{pid}/fd"))))
            await asyncio.sleep(10)

    async def loop_lag_p99_s(self) -> float:
        """The bucket that 99 % of the router's looks at its own lateness fall into."""
        page = (await self.admin.get("/metrics")).text
        buckets = re.findall(r'router_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)', page)
        total = float(buckets[-1][1]) if buckets else 0.0
        return next((float(le) for le, count in buckets if total and float(count) >= 0.99 * total), math.inf)

    async def at_rest(self) -> list[str]:
        """What is left behind when nothing goes on any more."""
        problems: list[str] = []

        async def quiet() -> bool:
            status = await self._status()
            return not status["calls_open"] and not any(one["in_flight"] for one in status["backends"])

        await until(quiet, "rest: every gauge at 0")
        status = await self._status()
        if status["queued"]:
            problems.append(f"{status['queued']} calls still queued")
        log = (self.folder / "router.log").read_text(errors="replace")
        if "failed inside the router" in log or "Traceback" in log:
            problems.append("the router's log holds an error of its own")
        if self.processes[-1].poll() is not None:
            problems.append("the router is gone")
        return problems

    async def stop(self) -> None:
        """End everything that was started, by pid."""
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                await asyncio.to_thread(process.wait, LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
        for proxy in self.proxies:
            await proxy.stop()


async def run(options: argparse.Namespace) -> int:
    """The whole run; the exit code."""
    with tempfile.TemporaryDirectory(prefix="router-chaos-") as name:
        chaos = Chaos(options, Path(name))
        started = time.monotonic()
        try:
            await chaos.start()
            rss = rss_mb(chaos.processes[-1].pid)
            clients = [asyncio.ensure_future(chaos.client(number)) for number in range(options.clients)]
            watching = asyncio.ensure_future(chaos.watch())
            await chaos.faults()
            await asyncio.gather(*clients, watching)
            problems = await chaos.at_rest()
            lag = await chaos.loop_lag_p99_s()
            grown = rss_mb(chaos.processes[-1].pid) - rss
            fds = len(os.listdir(f"/proc/{chaos.processes[-1].pid}/fd"))
        except BaseException:
            print((Path(name) / "router.log").read_text(errors="replace")[-3000:], file=sys.stderr)
            raise
        finally:
            await chaos.stop()
        report(chaos, problems, time.monotonic() - started, grown, fds)
        print(f"  loop lag p99 ≤ {lag * 1000:g} ms{slope(chaos.samples)}")
        print("1 passed, 0 failed" if not chaos.tally.never and not problems else "0 passed, 1 failed")
        if chaos.tally.never or problems:
            keep = Path(tempfile.gettempdir()) / f"router-chaos-{options.seed}.log"
            keep.write_bytes((Path(name) / "router.log").read_bytes())
            print(f"replay: python -m tests.chaos --seed {options.seed} --faults {options.faults}; log: {keep}")
            return 1
        return 0


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def report(chaos: Chaos, problems: list[str], seconds: float, grown: float, fds: int) -> None:
    """What happened, in words."""
    counts = chaos.tally.counts
    print(f"{sum(counts.values())} calls, {chaos.set_faults} faults in {seconds:.0f} s (seed {chaos.options.seed})")
    for name in (OK, VISIBLE, LEFT, *NEVER):
        print(f"  {name:26} {counts[name]}")
    print(f"  router: RSS {grown:+.1f} MB, {fds} open files at the end")
    for name, detail in chaos.tally.examples.items():
        print(f"NEVER: {name}: {detail}")
    for problem in problems:
        print(f"LEFT BEHIND: {problem}")


def slope(samples: list[tuple[float, float, int]]) -> str:
    """How memory went over the second half of a long run, in MB per hour (least squares)."""
    later = samples[len(samples) // 2 :]
    if len(later) < 6:
        return ""
    fit = statistics.linear_regression([at for at, _, _ in later], [rss for _, rss, _ in later])
    return f", RSS {fit.slope * 3600:+.1f} MB/h over the second half, {later[0][2]} → {later[-1][2]} open files"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=0.0, help="break things for so long, instead of --faults")
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    sys.exit(asyncio.run(run(parser.parse_args())))
