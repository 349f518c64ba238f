"""How one thing is measured: a load on one target for some seconds, and what that cost the target's processes."""

import json
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.bench import machine
from tests.bench.targets import MODEL, Target

TOLD_LIMIT_S = 3.0  # how long a backend may go on generating for nobody before we stop looking


@dataclass(frozen=True, slots=True)
class Load:
    """What load.c is to do."""

    connections: int
    seconds: float
    warm_s: float = 0.3
    ramp_s: float = 0.0
    body_bytes: int = 1000
    stream: bool = False
    tokens: int = 16
    pace_ms: int = 0

    def words(self) -> list[str]:
        spread = [self.connections, self.seconds, self.warm_s, self.ramp_s]
        return [str(word) for word in (*spread, self.body_bytes, int(self.stream), self.tokens, self.pace_ms)]


PLAIN = Load(64, 2.0)
ALONE = Load(1, 1.5)
FIRST_TOKEN = Load(1, 1.5, stream=True, tokens=16)
FAST = Load(64, 2.5, warm_s=0.5, stream=True, tokens=256)
CALM = Load(8, 2.5, warm_s=0.5, stream=True, tokens=256, pace_ms=2)  # so few that each answer may be looked at
LONG_PROMPT = Load(1, 1.5, body_bytes=65_536)


def paced(connections: int, seconds: float = 3.0) -> Load:
    """Return so many streams of 20 tokens a second, none of which ends while it is measured."""
    return Load(connections, seconds, warm_s=0.5, ramp_s=1.0, stream=True, tokens=100_000, pace_ms=50)


@dataclass(frozen=True, slots=True)
class Sample:
    """What one load on one target gave. Latencies in µs, `cpu_s` of the target within `seconds`."""

    seconds: float
    calls: int
    events: int
    errors: int
    cpu_s: float
    others_cores: float  # CPU that nobody of us used, in cores: above 0.3 the sample is disturbed
    memory_mb: float
    told_s: float  # from hanging up until the backends had stopped
    quantiles: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def cpu_us_per_call(self) -> float:
        return self.cpu_s / self.calls * 1e6 if self.calls else float("nan")

    @property
    def cpu_s_per_100k_events(self) -> float:
        return self.cpu_s / self.events * 1e5 if self.events else float("nan")

    def us(self, what: str, quantile: str = "p50") -> float:
        """Return one quantile in µs: of `latency`, `ttft`, `delay` or `jitter`."""
        return self.quantiles.get(what, {}).get(quantile, float("nan"))

    def is_smooth(self, streams: int) -> bool:
        """Say whether all streams got their 20 tokens a second, p99 within 10 ms of when they were sent."""
        kept_up = self.events >= 0.97 * streams * 20 * self.seconds
        return kept_up and not self.errors and self.us("jitter", "p99") < 10_000


@dataclass(frozen=True, slots=True)
class Bench:
    """The instruments: the load generator, the fake backends' process and their first port."""

    load: Path
    backends_pid: int
    backend_port: int
    core: int

    def run(self, target: Target, load: Load) -> Sample:
        """Put one load on one target."""
        words = [str(target.port), MODEL, *load.words(), target.header]
        command = ["taskset", "-c", str(self.core), str(self.load), *words]
        popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert popen.stdin is not None
        assert popen.stdout is not None
        with popen:
            self._expect(popen, "begin")
            before = self._usage(target, popen.pid)
            self._expect(popen, "end")
            after = self._usage(target, popen.pid)
            memory_mb = target.memory_mb()
            popen.stdin.write("\n")
            popen.stdin.flush()
            told = json.loads(popen.stdout.readline())
        spent = {name: after[name] - before[name] for name in after}
        others = spent["machine"] - spent["target"] - spent["load"] - spent["backends"]
        return Sample(
            seconds=told["seconds"],
            calls=told["calls"],
            events=told["events"],
            errors=sum(told[kind] for kind in ("wrong_status", "broken", "refused", "incomplete")),
            cpu_s=spent["target"],
            others_cores=max(others, 0.0) / spent["clock"],
            memory_mb=memory_mb,
            told_s=self._told_s(told["hung_up_ns"]) if load.stream else 0.0,
            quantiles={name: told[name] for name in ("latency", "ttft", "delay", "jitter") if name in told},
        )

    def _expect(self, popen: subprocess.Popen[str], word: str) -> None:
        assert popen.stdout is not None
        line = popen.stdout.readline()
        if not line.startswith(word):
            raise RuntimeError(f"the load generator said {line!r} where '{word}' was due")

    def _usage(self, target: Target, load_pid: int) -> dict[str, float]:
        return {
            "clock": time.monotonic(),
            "target": target.cpu_s(),
            "load": machine.cpu_s(load_pid),
            "backends": machine.cpu_s(self.backends_pid),
            "machine": machine.busy_s(),
        }

    def _told_s(self, hung_up_ns: int) -> float:
        """Return how long after the hang-up the backends saw the last client leave; the limit where they did not."""
        until = time.monotonic() + TOLD_LIMIT_S
        while time.monotonic() < until:
            state = self.state()
            if not state["running"]:
                return max(int(state["last_left_ns"]) - hung_up_ns, 0) / 1e9
            time.sleep(0.02)
        return TOLD_LIMIT_S

    def state(self) -> dict[str, Any]:
        """Return what the fake backends say of themselves."""
        return dict(httpx.get(f"http://127.0.0.1:{self.backend_port}/bench/state", timeout=5).json())

    def settle(self, target: Target, limit_s: float = 5.0) -> None:
        """Wait until a target has dealt with the last load: its CPU time stands nearly still."""
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            before = target.cpu_s()
            time.sleep(0.1)
            if target.cpu_s() - before < 0.005:
                return


def build(source: Path, folder: Path) -> Path:
    """Compile one of the C files here, unless that was done since it changed."""
    binary = folder / source.stem
    if not binary.exists() or os.path.getmtime(binary) < os.path.getmtime(source):
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["gcc", "-O2", "-Wall", "-o", str(binary), str(source)], check=True)
    return binary
