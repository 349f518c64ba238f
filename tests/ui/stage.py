"""A whole router on loopback for the page to be looked at: simulated backends, a fleet file, light traffic."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.processes import Process, answers, free_port, router_command

TOKEN = "a-token-for-tests"
START_LIMIT_S = 180.0
PROMPTS = (
    "Write a haiku about unified memory.",
    "Explain in two sentences what a mixture of experts is. " * 12,
    "Summarise the following log and name the first error. " * 60,
)


@dataclass(frozen=True)
class Actor:
    """One simulated backend: what it is said to run, and what it runs."""

    name: str
    host: str
    profile: str
    model: str
    declared: str
    starts: bool = True


CAST = (
    Actor("spark-1-marlin", "spark-1", "marlin", "nemotron-3-nano-30b", "marlin"),
    Actor("spark-1-cutlass", "spark-1", "vllm-cutlass", "nemotron-3-nano-30b", "vllm_cutlass"),
    Actor("spark-2-flashinfer", "spark-2", "marlin", "nemotron-3-nano-30b", "flashinfer_cutlass"),
    Actor("spark-3-qwen", "spark-3", "qwen", "qwen3.6-35b", "marlin"),
    Actor("spark-4-super", "spark-4", "super-marlin", "nemotron-3-super-120b", "marlin", starts=False),
)


@dataclass
class Stage:
    """The processes, and where to reach them."""

    folder: Path
    cast: tuple[Actor, ...] = CAST
    ports: dict[str, int] = field(default_factory=dict)
    backends: dict[str, Process] = field(default_factory=dict)
    router: Process | None = None
    port: int = 0
    admin_port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def login(self) -> str:
        return f"{self.url}/login?token={TOKEN}"

    @property
    def fleet_file(self) -> Path:
        return self.folder / "fleet.yaml"

    def admin(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.url, headers={"authorization": f"Bearer {TOKEN}"}, trust_env=False, timeout=30
        )

    def write_fleet(self, extra: str = "", without: tuple[str, ...] = ()) -> None:
        lines = ["backends:"]
        for one in self.cast:
            if one.name not in without:
                lines += [
                    f"  - name: {one.name}",
                    f"    url: http://127.0.0.1:{self.ports[one.name]}",
                    f"    host: {one.host}",
                    f"    kernel: {one.declared}",
                    f"    log: file:{self.folder / one.name}.log",
                ]
        self.fleet_file.write_text("\n".join(lines) + "\n" + extra)

    def start(self) -> None:
        environ = {**os.environ, "ROUTER_ADMIN_TOKEN": TOKEN, "ROUTER_STATE_DIR": str(self.folder / "state")}
        for one in self.cast:
            self.ports[one.name] = port = free_port()
            if one.starts:
                command = [router_command(), "sim", "--port", str(port), "--model", one.model]
                command += ["--profile", one.profile]
                command += ["--log", str(self.folder / f"{one.name}.log")]
                self.backends[one.name] = Process(command, self.folder / f"{one.name}.out", environ)
        for name, process in self.backends.items():
            process.wait_until(lambda name=name: answers(f"http://127.0.0.1:{self.ports[name]}/health"), START_LIMIT_S)
        self.write_fleet()
        self.port, self.admin_port = free_port(), free_port()
        self.start_router()

    def start_router(self) -> None:
        environ = {**os.environ, "ROUTER_ADMIN_TOKEN": TOKEN, "ROUTER_STATE_DIR": str(self.folder / "state")}
        command = [router_command(), "serve", "--config", str(self.fleet_file), "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--admin-port", str(self.admin_port)]
        self.router = Process(command, self.folder / "router.out", environ)
        self.router.wait_until(lambda: answers(f"{self.url}/livez"), START_LIMIT_S)

    def stop(self) -> None:
        for process in (self.router, *self.backends.values()):
            if process is not None:
                process.stop()

    def chat(self, model: str, prompt: str, max_tokens: int) -> int:
        """One streamed call, read to its end; returns its status."""
        body = {
            "model": model,
            "stream": True,
            "max_tokens": max_tokens,
            "messages": [{"role": "user", "content": prompt}],
        }
        address = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        with httpx.stream("POST", address, json=body, timeout=180, trust_env=False) as answer:
            for _ in answer.iter_raw():
                pass
            return answer.status_code


@contextlib.contextmanager
def traffic(stage: Stage, clients: int = 3) -> Iterator[None]:
    """A few clients that ask one thing after the other until the block ends."""
    over = threading.Event()
    models = [one.model for one in stage.cast if one.starts]

    def ask(turn: int) -> None:
        while not over.is_set():
            with contextlib.suppress(httpx.HTTPError):
                stage.chat(models[turn % len(models)], PROMPTS[turn % len(PROMPTS)], 60 + 40 * (turn % 4))
            turn += 1
            over.wait(0.1)

    threads = [threading.Thread(target=ask, args=(turn,), daemon=True) for turn in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(60)


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    """A stage, from its first process to its last."""
    stage = Stage(folder)
    try:
        stage.start()
        yield stage
    finally:
        stage.stop()


def main() -> None:
    """Keep a stage up for a person to look at, until Ctrl-C: `python -m tests.ui.stage FOLDER`."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with staged(folder) as stage, traffic(stage):
        print(stage.login, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)


if __name__ == "__main__":
    main()
