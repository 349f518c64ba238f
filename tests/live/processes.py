"""Real processes on loopback: `router sim` and `router serve`, ended by pid."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

MODEL = "sim-model"
TOKEN = "live-test"
LIMIT_S = 120.0  # for what never comes, however slow the machine


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass
class Process:
    """One of ours, with its log."""

    popen: subprocess.Popen[bytes]
    log: Path
    port: int
    admin_port: int = 0
    secure: bool = False

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}" if self.secure else f"http://127.0.0.1:{self.port}"

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def admin(self, method: str, path: str, document: Any = None) -> httpx.Response:
        url = f"http://127.0.0.1:{self.admin_port}{path}"
        headers = {"authorization": f"Bearer {TOKEN}"}
        return httpx.request(method, url, json=document, headers=headers, timeout=LIMIT_S, trust_env=False)

    def end(self, how: signal.Signals = signal.SIGTERM, within_s: float = LIMIT_S) -> int:
        if self.popen.poll() is None:
            self.popen.send_signal(how)
        try:
            return self.popen.wait(within_s)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            return self.popen.wait(5)


def until(check: Any, within_s: float = LIMIT_S) -> None:
    deadline = time.monotonic() + within_s
    while not answers(check):
        assert time.monotonic() < deadline, f"{check} did not hold within {within_s} s"
        time.sleep(0.05)


def answers(check: Any) -> bool:
    try:
        return bool(check())
    except httpx.TransportError:
        return False


@contextmanager
def started(folder: Path, name: str, *args: str, port: int, admin_port: int = 0, **env: str) -> Iterator[Process]:
    log = folder / f"{name}.log"
    with log.open("wb") as out:
        popen = subprocess.Popen(
            [sys.executable, "-m", "router", *args], stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **env}
        )
    process = Process(popen, log, port, admin_port)
    try:
        yield process
    finally:
        process.end()


@contextmanager
def sim(folder: Path, name: str, *more: str, profile: str = "fast", port: int = 0) -> Iterator[Process]:
    port = port or free_port()
    args = ("sim", "--port", str(port), "--model", MODEL, "--profile", profile, *more)
    with started(folder, name, *args, port=port) as process:
        until(lambda: httpx.get(f"{process.url}/health", timeout=LIMIT_S, trust_env=False).status_code == 200)
        yield process


@contextmanager
def router(folder: Path, *args: str, verify: ssl.SSLContext | None = None) -> Iterator[Process]:
    port, admin_port = free_port(), free_port()
    serve = ("serve", "--host", "127.0.0.1", "--port", str(port), "--admin-port", str(admin_port), *args)
    env = {"ROUTER_STATE_DIR": str(folder / "state"), "ROUTER_ADMIN_TOKEN": TOKEN}
    with started(folder, "router", *serve, port=port, admin_port=admin_port, **env) as process:
        process.secure = verify is not None
        check: ssl.SSLContext | bool = verify or True
        url = f"{process.url}/readyz"
        until(lambda: httpx.get(url, timeout=LIMIT_S, trust_env=False, verify=check).status_code == 200)
        until(lambda: process.admin("GET", "/livez").status_code == 200)
        yield process
