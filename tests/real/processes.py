"""Start and end what `make real` needs: real vLLM servers, one after the other, and the router in front of them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.real.install import Installed

START_LIMIT_S = 240.0  # seen: 66 to 98 s on two cores, of which most is importing vllm in three processes
STOP_LIMIT_S = 20.0


class DidNotStart(Exception):
    """A process ended, or was not ready in time; carries the end of its log."""


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """What one server of the test is to serve, and how."""

    model: Path
    served_as: str = "smollm2-135m"
    dtype: str = "bfloat16"
    max_model_len: int = 2048
    cores: str = "0-1"  # for the engine's threads, which spin: two servers on one core starve each other
    api_key: str | None = None


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

    def wait_until(self, ready: Callable[[], bool], limit_s: float) -> float:
        """Return the seconds until `ready`; raise DidNotStart with the log's end where that never comes."""
        began = time.monotonic()
        while time.monotonic() - began < limit_s:
            if not self.is_running:
                raise DidNotStart(f"ended with {self._popen.returncode}\n{self.tail()}")
            if ready():
                return time.monotonic() - began
            time.sleep(0.25)
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


class RealVllm:
    """A real vLLM on CPU: `start` returns when it answers /health."""

    def __init__(self, installed: Installed, options: VllmOptions, port: int, root: Path) -> None:
        self.options = options
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.started_in_s = 0.0
        self._installed = installed
        self._root = root
        self._process: Process | None = None

    def start(self) -> None:
        """Start the server and wait for it. Two at once take longer than one after the other (171 s for 2 × 80)."""
        log = self._root / "logs" / f"vllm-{self.port}-{self.options.model.name}-{self.options.dtype}.log"
        self._process = Process(self._command(), log, self._environ())
        self.started_in_s = self._process.wait_until(lambda: answers(f"{self.url}/health"), START_LIMIT_S)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> Path:
        assert self._process is not None
        return self._process.log

    def engine_pid(self) -> int:
        """Return the process that computes: killed, it takes the API server along; stopped, it hangs behind it."""
        engines = [pid for pid in descendants(self.pid) if "EngineCore" in cmdline(pid)]
        assert engines, f"no EngineCore among {[cmdline(pid) for pid in descendants(self.pid)]}"
        return engines[0]

    def signal_engine(self, number: signal.Signals) -> None:
        os.kill(self.engine_pid(), number)

    def metric(self, name: str) -> float:
        """Return the sum of one of its own metrics over all labels: `vllm:num_requests_running`."""
        lines = httpx.get(f"{self.url}/metrics", timeout=10).text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + "{", name + " ")))

    def _command(self) -> list[str]:
        of = self.options
        command = [str(self._installed.vllm), "serve", str(of.model), "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--served-model-name", of.served_as, "--dtype", of.dtype, "--max-model-len", str(of.max_model_len)]
        command += ["--max-num-seqs", "16", "--enforce-eager", "--enable-prompt-tokens-details"]
        command += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
        return command + (["--api-key", of.api_key] if of.api_key else [])

    def _environ(self) -> dict[str, str]:
        cache = self._root / "cache"
        ours = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return {
            **ours,  # compiled modules are kept, else every start compiles all of torch and vllm anew
            "PATH": f"{self._installed.vllm.parent}:{os.environ['PATH']}",
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB: 46,592 tokens of this model
            "VLLM_CPU_OMP_THREADS_BIND": self.options.cores,
            "VLLM_CACHE_ROOT": str(cache / "vllm"),
            "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),  # kept: the first logprobs call compiles for 17 s
        }


class RealRouter:
    """The router as its users start it, `router serve`, from this checkout."""

    def __init__(self, arguments: Iterable[str], root: Path, state: Path) -> None:
        self.port, self.admin_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.admin_url = f"http://127.0.0.1:{self.admin_port}"
        ports = ["--port", str(self.port), "--admin-port", str(self.admin_port)]
        self.environ = {**os.environ, "ROUTER_STATE_DIR": str(state), "XDG_STATE_HOME": str(state)}
        self._command = [router_command(), "serve", *arguments, *ports]
        self._log = root / "logs" / f"router-{self.port}.log"
        self._process: Process | None = None

    def start(self) -> None:
        self._process = Process(self._command, self._log, self.environ)
        self._process.wait_until(lambda: answers(f"{self.url}/readyz"), 30)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()

    @property
    def process(self) -> Process:
        assert self._process is not None
        return self._process

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run another `router …` command against this one, as its operator would."""
        environ = {**self.environ, "ROUTER_ADMIN_URL": self.admin_url, "ROUTER_ADMIN_PORT": str(self.admin_port)}
        return subprocess.run(
            [router_command(), *words], env=environ, capture_output=True, text=True, timeout=120, check=False
        )


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
