"""What clients see while real engines are stopped, killed and replaced and the fleet file changes under streams.

The tests run in this order and each leaves the stage usable for the next: the noisy server is replaced by a clean one
once, and the last test kills its engine.
"""

import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from tests.real.conftest import MODEL, Stage, write_fleet
from tests.real.servers import RealRouter, VllmOptions

CONTINUED = 'router_continuations_total{result="ok"}'
STORY = {"role": "user", "content": "Write a very long story about the sea."}
LIMIT_S = 300.0  # for what never comes: a hang is found after 30 s of silence, and two slow cores finish it elsewhere
LONG = 500  # tokens, 15 s and more for four at once: no such answer is over before its engine is stopped


@dataclass(slots=True)
class Told:
    """What one client was told by one stream."""

    text: str = ""
    finish_reasons: list[str] = field(default_factory=list)
    error: str = ""
    backend: str = ""
    longest_silence_s: float = 0.0


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def story(url: str, tokens: int, backend: str | None = None, number: int = 0, told: Told | None = None) -> Told:
    """Stream one greedy answer of exactly `tokens` tokens through OpenAI's SDK; `told` can be read meanwhile."""
    headers = {"x-router-backend": backend} if backend else {}
    told = Told() if told is None else told
    prompt = [{**STORY, "content": f"{STORY['content']} Part {number}."}]
    ask = {"model": MODEL, "messages": prompt, "max_tokens": tokens, "temperature": 0, "stream": True}
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=LIMIT_S) as sdk:
        try:
            answer = sdk.chat.completions.with_raw_response.create(
                **ask, extra_body={"ignore_eos": True}, extra_headers=headers
            )
            told.backend = answer.headers.get("x-router-backend", "")
            heard = time.monotonic()
            for chunk in answer.parse():
                told.longest_silence_s = max(told.longest_silence_s, time.monotonic() - heard)
                heard = time.monotonic()
                for choice in chunk.choices:
                    told.text += choice.delta.content or ""
                    told.finish_reasons += [choice.finish_reason] if choice.finish_reason else []
        except Exception as error:  # the SDK raises what the stream says; which class differs by version
            told.error = f"{type(error).__name__}: {error}"
    return told


@dataclass(slots=True)
class Streams:
    """Stories under way through the router."""

    told: list[Told]
    futures: list[Future[Told]]

    def on(self, backend: str) -> list[Told]:
        """Those in the middle of their answer there."""
        return [one for one in self.told if one.backend == backend and one.text and not one.finish_reasons]

    def ends(self) -> list[Told]:
        """Wait for the end of all."""
        return [future.result() for future in self.futures]


def streams(pool: ThreadPoolExecutor, router: RealRouter, count: int, tokens: int) -> Streams:
    """Begin so many, and return when each has said something."""
    told = [Told() for _ in range(count)]
    futures = [pool.submit(story, router.url, tokens, None, number, one) for number, one in enumerate(told)]
    begun = Streams(told, futures)
    assert until(lambda: all(one.text or one.error for one in told)), f"not all began: {told}"
    return begun


def until(true: Callable[[], bool], limit_s: float = LIMIT_S) -> bool:
    """Wait for something; say whether it came."""
    deadline = time.monotonic() + limit_s
    while not (came := true()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return came


def streams_on(pool: ThreadPoolExecutor, router: RealRouter, backend: str) -> tuple[Streams, list[Told]]:
    """Begin four long streams, and again until at least one of them is on this backend; return those apart."""
    assert until(lambda: is_healthy(router, backend)), f"{backend} never came back"
    deadline = time.monotonic() + LIMIT_S
    while True:
        begun = streams(pool, router, 4, LONG)
        if there := begun.on(backend):
            return begun, there
        assert time.monotonic() < deadline, f"no stream ever went to {backend}: {begun.told}"
        begun.ends()


def is_healthy(router: RealRouter, backend: str) -> bool:
    """Ask the backend something small first: on probation it has to show that it answers."""
    story(router.url, 4, backend)
    shown = router.command("status", backend, "--json")
    return shown.returncode == 0 and json.loads(shown.stdout)["health"] == "healthy"


def common_prefix(one: str, other: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def metric(router: RealRouter, name: str) -> float:
    lines = httpx.get(f"{router.url}/metrics", timeout=LIMIT_S).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def test_streams_go_on_through_reloads(
    stage: Stage, router: RealRouter, fleet_file: Path, clients: ThreadPoolExecutor, note: Callable[[str], None]
) -> None:
    running = streams(clients, router, 4, LONG)
    under_way: list[int] = []
    for second in (False, True, False, True):
        write_fleet(fleet_file, stage, second=second)
        done = router.command("reload")
        assert done.returncode == 0, done.stderr
        under_way.append(sum(not one.finish_reasons for one in running.told))
    note(f"four reloads: {under_way} of 4 streams were under way after each")
    assert under_way[0], "every stream was over before the first reload"
    assert [(one.error, one.finish_reasons) for one in running.ends()] == [("", ["length"])] * 4


def test_a_bad_fleet_file_changes_nothing(stage: Stage, router: RealRouter, fleet_file: Path) -> None:
    fleet_file.write_text("backends: [{url: 7}]\n")
    done = router.command("reload")
    write_fleet(fleet_file, stage)
    assert done.returncode != 0
    assert "url" in done.stdout + done.stderr
    assert not story(router.url, 4).error


def test_a_clean_server_takes_the_place_of_the_noisy_one(stage: Stage, router: RealRouter, fleet_file: Path) -> None:
    """The one replacement: float32 of the same weights, another rounding but nothing wrong with it."""
    stage.replace(VllmOptions(stage.installed.good, dtype="float32", cores=stage.other.options.cores))
    write_fleet(fleet_file, stage)
    assert router.command("reload").returncode == 0
    assert until(lambda: not story(router.url, 4, "other").error), "nothing was ever answered there"


def test_a_hanging_engine_is_found_out_and_its_streams_end_elsewhere(
    stage: Stage, router: RealRouter, clients: ThreadPoolExecutor, note: Callable[[str], None]
) -> None:
    """SIGSTOP: the API server still says 200 to /health while no token comes."""
    continued = metric(router, CONTINUED)
    running, stopped = streams_on(clients, router, "other")
    stage.other.signal_engine(signal.SIGSTOP)
    try:
        told = running.ends()
    finally:
        stage.other.signal_engine(signal.SIGCONT)
    longest = max(one.longest_silence_s for one in stopped)
    note(f"a stopped engine: its {len(stopped)} streams went on elsewhere after {longest:.0f} s of silence")
    assert [(one.error, one.finish_reasons) for one in told] == [("", ["length"])] * 4
    assert metric(router, CONTINUED) - continued >= len(stopped), "they were finished by the engine that was stopped"


def test_a_killed_engine_costs_no_client_its_answer(
    stage: Stage, router: RealRouter, clients: ThreadPoolExecutor, note: Callable[[str], None]
) -> None:
    """The last test: kill -9 of the engine under four greedy streams, compared with an undisturbed run."""
    continued = metric(router, CONTINUED)
    undisturbed = [story(stage.good.url, LONG, None, number) for number in range(4)]
    running, killed = streams_on(clients, router, "other")
    stage.other.signal_engine(signal.SIGKILL)
    told = running.ends()
    for number, (one, calm) in enumerate(zip(told, undisturbed, strict=True)):
        same = common_prefix(one.text, calm.text)
        note(
            f"kill -9 of an engine: stream {number}, begun on {one.backend}, {len(one.text)} characters, "
            f"the first {same} as undisturbed, longest silence {one.longest_silence_s:.2f} s {one.error}"
        )
        assert (one.error, one.finish_reasons) == ("", ["length"])
    assert metric(router, CONTINUED) - continued >= len(killed), "they were finished by the engine that was killed"
    assert not story(router.url, 8).error, "the router goes on with the other server"


def test_nothing_is_in_flight_at_the_end(router: RealRouter) -> None:
    assert until(lambda: metric(router, "router_in_flight") == 0)
