"""The stage of `make real`: two real vLLM servers of one model, one of them damaged, and the router in front.

`good` serves SmolLM2-135M in bf16, `noisy` the same name with 5 % noise on every matrix. They start one after the other
and are shared by all tests. `clean` replaces the noisy one at its address, once. Where a real vLLM cannot run, every
test skips with the reason.
"""

import os
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from anthropic import Anthropic
from openai import OpenAI

from tests.processes import free_port
from tests.real.install import CannotRun, Installed, install
from tests.real.servers import RealRouter, RealVllm, VllmOptions

ROOT = Path(__file__).parents[2] / ".real"
MODEL = "smollm2-135m"
CALL_LIMIT_S = 300.0  # for an answer that never comes; the slowest so far took 17 s
TARGETS = ("direct", "router")


@dataclass(slots=True)
class Stage:
    """The two addresses of the stage and who serves there now."""

    installed: Installed
    good: RealVllm
    other: RealVllm  # noisy at first, clean after `replace`

    @property
    def servers(self) -> tuple[RealVllm, RealVllm]:
        return self.good, self.other

    def replace(self, options: VllmOptions) -> None:
        """End the second server and start another one at its address."""
        self.other.stop()
        self.other = RealVllm(self.installed, options, self.other.port, ROOT)
        self.other.start()
        warm_up(self.other)


NOTES = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[NOTES] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what was measured on the way: it is a result too."""
    for note in config.stash[NOTES]:
        terminalreporter.write_line(note)


@pytest.fixture(scope="session")
def note(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Keep a sentence for the end of the run."""
    return pytestconfig.stash[NOTES].append


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs a real vLLM."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.real)


@pytest.fixture(scope="session")
def installed() -> Installed:
    try:
        return install(ROOT)
    except CannotRun as reason:
        pytest.skip(f"NO REAL VLLM WAS TESTED: {reason}")


@pytest.fixture(scope="session")
def stage(installed: Installed, note: Callable[[str], None]) -> Iterator[Stage]:
    """Start both servers, strictly one after the other."""
    mine, theirs = core_lists()
    good = RealVllm(installed, VllmOptions(installed.good, cores=mine), free_port(), ROOT)
    noisy = RealVllm(installed, VllmOptions(installed.noisy, cores=theirs), free_port(), ROOT)
    stage = Stage(installed, good, noisy)
    try:
        for server in stage.servers:
            server.start()
            warm_up(server)
            note(f"real vLLM, {server.options.model.name} weights: {server.started_in_s:.0f} s to start")
        yield stage
    finally:
        for server in stage.servers:
            server.stop()


@pytest.fixture(scope="session")
def fleet_file(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fleet file with both servers; tests that reload write another one in its place."""
    file = tmp_path_factory.mktemp("fleet") / "fleet.yaml"
    write_fleet(file, stage)
    return file


@pytest.fixture(scope="session")
def router(stage: Stage, fleet_file: Path) -> Iterator[RealRouter]:
    """The router in front of both servers, as its users start it."""
    one = RealRouter(["--config", str(fleet_file)], ROOT, fleet_file.parent / "state")
    try:
        one.start()
        yield one
    finally:
        one.stop()


@pytest.fixture(params=TARGETS)
def url(request: pytest.FixtureRequest, stage: Stage) -> str:
    """Whom the client talks to: a vLLM itself (is the test right?), or the router (is the product right?)."""
    if request.param == "direct":
        return stage.good.url
    router: RealRouter = request.getfixturevalue("router")
    return router.url


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    """OpenAI's own SDK, without retries of its own."""
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=CALL_LIMIT_S) as sdk:
        yield sdk


@pytest.fixture
def claude(url: str) -> Iterator[Anthropic]:
    """Anthropic's own SDK."""
    with Anthropic(base_url=url, api_key="none", max_retries=0, timeout=CALL_LIMIT_S) as sdk:
        yield sdk


def write_fleet(file: Path, stage: Stage, *, second: bool = True) -> None:
    """Write a fleet of both servers, or of the good one alone."""
    entries = f"""\
        - {{name: good, url: "{stage.good.url}", host: one, log: "file:{stage.good.log}"}}
        """
    if second:
        entries += f"""- {{name: other, url: "{stage.other.url}", host: two, log: "file:{stage.other.log}"}}
        """
    # No canaries: their own calls would count as running where a test looks for an idle engine, and a batch of two
    # rounds otherwise than one alone, so that greedy answers need not be the same. Probes may take long: an API server
    # that shares two slow cores with two spinning engines was seen to need 12 s for an answer.
    settings = "quality: {canary: false}\nhealth: {probe_timeout_s: 60}\n"
    file.write_text("backends:\n" + textwrap.indent(textwrap.dedent(entries), "  ") + settings)


def warm_up(server: RealVllm) -> None:
    """Pay for what only the first call of its kind costs: logprobs compile a kernel (17 s), grammars load (7 s)."""
    ask = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    for more in ({"logprobs": True, "top_logprobs": 5}, {"response_format": {"type": "json_object"}}):
        httpx.post(f"{server.url}/v1/chat/completions", json={**ask, **more}, timeout=CALL_LIMIT_S).raise_for_status()


def core_lists() -> tuple[str, str]:
    """Share this machine's cores between two engines whose threads spin."""
    cores = sorted(os.sched_getaffinity(0))
    half = max(len(cores) // 2, 1)
    mine, theirs = cores[:half], cores[half:] or cores
    return ",".join(map(str, mine)), ",".join(map(str, theirs))
