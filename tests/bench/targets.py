"""Who is measured: the router, and whoever else stands on this machine to be compared with it.

Each is given one core, one worker and the same two backends; each passes everything through with as little of its own
work as it can be told to do, except the router, which runs as it does for its users.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.bench import machine
from tests.processes import DidNotStart, Process, free_port, router_command

MODEL = "bench-model"
START_LIMIT_S = 90.0
BENCH_KEY = "sk-bench-loopback-only"
ORDER = ("direct", "nginx", "vllm-router", "sglang-router", "litellm", "compiled", "router")
COMPILED = Path(__file__).parents[2] / "build" / "compiled"

NGINX = """daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
worker_rlimit_nofile 60000; events {{ worker_connections 20000; }}
http {{
  access_log off; client_max_body_size 100m; client_body_buffer_size 1m; keepalive_requests 1000000000;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  upstream backends {{ least_conn; {servers} keepalive 4096; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://backends; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 600s;
    }}
  }}
}}
"""

LITELLM = """litellm_settings: {{telemetry: false, num_retries: 0, request_timeout: 600}}
router_settings: {{routing_strategy: simple-shuffle}}
model_list:
{models}"""


@dataclass(slots=True)
class Target:
    """One proxy under test, or nobody (`direct`) in its place."""

    name: str
    port: int
    admin_port: int = 0
    folder: Path = Path()
    process: Process | None = None
    started_in_s: float = 0.0
    idle_mb: float = 0.0
    version: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def header(self) -> str:
        """Return a header that this target wants in every call."""
        return f"Authorization: Bearer {BENCH_KEY}"

    def cpu_s(self) -> float:
        return machine.cpu_s(self.process.pid) if self.process else 0.0

    def memory_mb(self) -> float:
        return machine.memory_mb(self.process.pid) if self.process else 0.0

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()


@dataclass(frozen=True, slots=True)
class Place:
    """Where targets find what they need: backends, a folder for files, the folder of installed peers, a core."""

    backends: Sequence[int]
    folder: Path
    peers: Path
    core: int = field(default_factory=lambda: machine.cores()[0])

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.backends]


def present(place: Place) -> tuple[str, ...]:
    """Return who can be measured here, in the order of the table."""
    found = (
        {"direct", "router"}
        | ({"compiled"} if any(COMPILED.glob("*.so")) else set())
        | ({"nginx"} if shutil.which("nginx") else set())
    )
    found |= {name for name in ("vllm-router", "sglang-router", "litellm") if peer(place, name).exists()}
    return tuple(name for name in ORDER if name in found)


def start(name: str, place: Place) -> Target:
    """Start one target on the core that is measured and wait until a call through it is answered."""
    if name == "direct":
        return Target(name, place.backends[0])
    target = Target(name, free_port(), folder=place.folder)
    return launched(target, COMMANDS[name](target, place), place)


def start_router(place: Place, fleet: str, name: str = "router", command: Sequence[str] = ()) -> Target:
    """Start the router with a fleet file: the backends of the place, and `fleet` as the rest of it.

    `command` starts it another way than users do.
    """
    target = Target(name, free_port(), free_port(), place.folder / name)
    target.folder.mkdir(exist_ok=True)
    write_fleet(target, place, fleet)
    ports = ["--port", str(target.port), "--admin-port", str(target.admin_port)]
    started = [*(command or [router_command()]), "serve", "--config", str(target.folder / "fleet.yaml"), *ports]
    return launched(target, started, place)


def write_fleet(target: Target, place: Place, fleet: str) -> None:
    """Write the fleet file of a router that was started with one."""
    backends = "".join(f"  - {url}\n" for url in place.urls)
    (target.folder / "fleet.yaml").write_text(f"backends:\n{backends}{fleet}")


def launched(target: Target, command: list[str], place: Place) -> Target:
    """Start a target's process and wait until it serves."""
    name = target.name
    environ = {"PATH": "/usr/sbin:/usr/local/bin:/usr/bin:/bin", "HOME": str(place.folder)}
    environ |= {"ROUTER_STATE_DIR": str(target.folder / "state")} | ENVIRON.get(name, {})
    if name == "compiled":
        environ |= {"ROUTER_STATE_DIR": str(target.folder / "state-compiled"), "PYTHONPATH": str(COMPILED)}
    began = time.monotonic()
    command = ["taskset", "-c", str(place.core), *command]
    target.process = Process(command, place.folder / f"{name}.log", environ)
    try:
        target.process.wait_until(lambda: serves(target), START_LIMIT_S, every_s=0.01)
    except DidNotStart:
        target.stop()
        raise
    target.started_in_s = time.monotonic() - began
    return target


def serves(target: Target) -> bool:
    """Say whether a chat call through the target is answered."""
    ask = {"model": MODEL, "max_tokens": 4, "seed": 0, "stream": False, "messages": [{"role": "user", "content": "hi"}]}
    key, _, value = target.header.partition(": ")
    try:
        answer = httpx.post(f"{target.url}/v1/chat/completions", json=ask, headers={key: value}, timeout=5)
    except httpx.TransportError:
        return False
    return answer.status_code == 200


def peer(place: Place, name: str) -> Path:
    return place.peers / name / "bin" / name


def nginx(target: Target, place: Place) -> list[str]:
    servers = " ".join(f"server 127.0.0.1:{port};" for port in place.backends)
    config = place.folder / "nginx.conf"
    config.write_text(NGINX.format(folder=place.folder, servers=servers, port=target.port))
    return [shutil.which("nginx") or "nginx", "-c", str(config), "-p", str(place.folder)]


def vllm_router(target: Target, place: Place) -> list[str]:
    return [*rust_router(target, place, peer(place, "vllm-router"))]


def sglang_router(target: Target, place: Place) -> list[str]:
    python = peer(place, "sglang-router").with_name("python")
    return rust_router(target, place, python, "-m", "sglang_router.launch_router")


def rust_router(target: Target, place: Place, *command: object) -> list[str]:
    flags = ["--host", "127.0.0.1", "--port", str(target.port), "--worker-urls", *place.urls, "--policy", "round_robin"]
    flags += ["--prometheus-port", str(free_port()), "--log-level", "warn", "--max-concurrent-requests", "16384"]
    if "vllm-router" in str(command[0]):
        flags[flags.index("warn")] = "warning"
    return [*map(str, command), *flags]


def litellm(target: Target, place: Place) -> list[str]:
    one = "  - {{model_name: {0}, litellm_params: {{model: hosted_vllm/{0}, api_base: {1}/v1, api_key: none}}}}\n"
    config = place.folder / "litellm.yaml"
    config.write_text(LITELLM.format(models="".join(one.format(MODEL, url) for url in place.urls)))
    command = [str(peer(place, "litellm")), "--config", str(config), "--host", "127.0.0.1"]
    return [*command, "--port", str(target.port), "--num_workers", "1"]


def router(target: Target, place: Place) -> list[str]:
    """Our own, with everything on: log lines to a file, metrics, probes, scrapes, canaries, history."""
    backends = [word for url in place.urls for word in ("--backend", url)]
    target.admin_port = free_port()
    ports = ["--port", str(target.port), "--admin-port", str(target.admin_port)]
    return [router_command(), "serve", *backends, *ports]


COMMANDS = {
    "nginx": nginx,
    "vllm-router": vllm_router,
    "sglang-router": sglang_router,
    "litellm": litellm,
    "compiled": router,
    "router": router,
}
ENVIRON = {
    "router-timed": {"PYTHONPATH": str(Path(__file__).parents[2])},
    "litellm": {
        "LITELLM_MASTER_KEY": BENCH_KEY,
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MODE": "PRODUCTION",
        "NO_DOCS": "True",
    },
}
