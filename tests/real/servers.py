"""What `make real` starts: real vLLM servers, one after the other, and the router in front of them."""

import os
import signal
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.processes import Process, answers, cmdline, descendants, free_port, router_command
from tests.real.install import Installed

# A limit is for what never comes, not for what comes late: these only have to be far beyond the slowest machine.
START_LIMIT_S = 900.0  # seen: 46 to 98 s on two cores, most of it importing vllm in three processes
ROUTER_LIMIT_S = 180.0
SCRAPE_LIMIT_S = 120.0  # seen: 12 s, from an API server whose engine's threads spin on the same two cores
COMMAND_LIMIT_S = 300.0


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """What one server of the test is to serve, and how."""

    model: Path
    served_as: str = "smollm2-135m"
    dtype: str = "bfloat16"
    max_model_len: int = 8192  # as long as the model can: an answer of minutes, that cannot end under a test
    cores: str = "0-1"  # for the engine's threads, which spin: two servers on one core starve each other
    api_key: str | None = None


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

    def metrics(self, *names: str) -> list[float]:
        """Return, of one scrape, the sum of each of these metrics over all labels: `vllm:num_requests_running`."""
        lines = httpx.get(f"{self.url}/metrics", timeout=SCRAPE_LIMIT_S).text.splitlines()
        return [
            sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))
            for name in names
        ]

    def _command(self) -> list[str]:
        of = self.options
        command = [str(self._installed.vllm), "serve", str(of.model), "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--served-model-name", of.served_as, "--dtype", of.dtype, "--max-model-len", str(of.max_model_len)]
        command += ["--max-num-seqs", "16", "--enforce-eager", "--enable-prompt-tokens-details"]
        command += ["--max-num-batched-tokens", "512"]  # a long prompt takes steps: it can be seen and left meanwhile
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
        self._process.wait_until(lambda: answers(f"{self.url}/readyz"), ROUTER_LIMIT_S)

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
            [router_command(), *words],
            env=environ,
            capture_output=True,
            text=True,
            timeout=COMMAND_LIMIT_S,
            check=False,
        )
