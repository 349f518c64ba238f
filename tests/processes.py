"""Real processes for tests and measurements: started with a log of their own, waited for, ended by process id."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import httpx

STOP_LIMIT_S = 20.0


class DidNotStart(Exception):
    """A process ended, or was not ready in time; carries the end of its log."""


class Process:
    """One process with its own log file, in a session of its own, ended by process id."""

    def __init__(self, command: list[str], log: Path, environ: Mapping[str, str]) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        with log.open("wb") as sink:
            self._popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=dict(environ), start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        return self._popen.poll() is None

    def wait_until(self, ready: Callable[[], bool], limit_s: float, every_s: float = 0.25) -> float:
        """Return the seconds until `ready`; raise DidNotStart with the log's end where that never comes."""
        began = time.monotonic()
        while time.monotonic() - began < limit_s:
            if not self.is_running:
                raise DidNotStart(f"ended with {self._popen.returncode}\n{self.tail()}")
            if ready():
                return time.monotonic() - began
            time.sleep(every_s)
        raise DidNotStart(f"not ready within {limit_s:.0f} s\n{self.tail()}")

    def tail(self, count: int = 2500) -> str:
        """Return the end of the log."""
        return self.log.read_text(errors="replace")[-count:]

    def stop(self) -> None:
        """Ask it to end; after `STOP_LIMIT_S` end it and every process it started, each by its id."""
        family = [self.pid, *descendants(self.pid)]
        if self.is_running:
            self._popen.terminate()
        try:
            self._popen.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        kill(family[1:])


def router_command() -> str:
    """Return the `router` of this environment."""
    return str(Path(sys.executable).with_name("router"))


def answers(url: str) -> bool:
    """Say whether a GET is answered with 200."""
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_ports(count: int) -> int:
    """Return the first of `count` ports in a row that nobody listens on now."""
    for first in range(21_000, 32_000, count):
        with contextlib.ExitStack() as probes, contextlib.suppress(OSError):
            for port in range(first, first + count):
                probe = probes.enter_context(socket.socket())
                probe.bind(("127.0.0.1", port))
            return first
    raise RuntimeError(f"no {count} free ports in a row")


def descendants(pid: int) -> list[int]:
    """Return all processes that this one started, directly or not, from /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (parent := parent_of(entry)) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        young = children.get(todo.pop(), [])
        found += young
        todo += young
    return found


def parent_of(entry: Path) -> int | None:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return None


def cmdline(pid: int) -> str:
    """Return a process' command line or the name it gave itself; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def kill(pids: Iterable[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
