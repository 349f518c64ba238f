"""What clients see while real engines are stopped, killed and replaced and the fleet file changes under streams.

The tests run in this order and each leaves the stage usable for the next: the noisy server is replaced by a clean one
once, and the last test kills its engine.
"""

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

STORY = {"role": "user", "content": "Write a very long story about the sea."}
HANG_LIMIT_S = 90.0  # silence counts after 30 s at the earliest; then the call has to be finished elsewhere


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


def story(url: str, tokens: int, backend: str | None = None, number: int = 0) -> Told:
    """Stream one greedy answer of exactly `tokens` tokens through OpenAI's SDK."""
    told = Told()
    headers = {"x-router-backend": backend} if backend else {}
    prompt = [{**STORY, "content": f"{STORY['content']} Part {number}."}]
    ask = {"model": MODEL, "messages": prompt, "max_tokens": tokens, "temperature": 0, "stream": True}
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=HANG_LIMIT_S) as sdk:
        answer = sdk.chat.completions.with_raw_response.create(
            **ask, extra_body={"ignore_eos": True}, extra_headers=headers
        )
        told.backend = answer.headers.get("x-router-backend", "")
        heard = time.monotonic()
        try:
            for chunk in answer.parse():
                told.longest_silence_s = max(told.longest_silence_s, time.monotonic() - heard)
                heard = time.monotonic()
                for choice in chunk.choices:
                    told.text += choice.delta.content or ""
                    told.finish_reasons += [choice.finish_reason] if choice.finish_reason else []
        except Exception as error:  # the SDK raises what the stream says; which class differs by version
            told.error = f"{type(error).__name__}: {error}"
    return told


def streams(pool: ThreadPoolExecutor, router: RealRouter, count: int, tokens: int) -> list[Future[Told]]:
    return [pool.submit(story, router.url, tokens, None, number) for number in range(count)]


def common_prefix(one: str, other: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def in_flight(router: RealRouter) -> float:
    lines = httpx.get(f"{router.url}/metrics", timeout=10).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("router_in_flight"))


def test_streams_go_on_through_reloads(
    stage: Stage, router: RealRouter, fleet_file: Path, clients: ThreadPoolExecutor
) -> None:
    running = streams(clients, router, 4, 120)
    for second in (False, True, False, True):
        write_fleet(fleet_file, stage, second=second)
        done = router.command("reload")
        assert done.returncode == 0, done.stderr
        time.sleep(0.5)
    for told in (future.result() for future in running):
        assert (told.error, told.finish_reasons) == ("", ["length"])


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
    deadline = time.monotonic() + 60
    while story(router.url, 4, "other").error and time.monotonic() < deadline:
        time.sleep(1)
    assert not story(router.url, 4, "other").error


def test_a_hanging_engine_is_found_out_and_its_streams_end_elsewhere(
    stage: Stage, router: RealRouter, clients: ThreadPoolExecutor, note: Callable[[str], None]
) -> None:
    """SIGSTOP: the API server still says 200 to /health while no token comes."""
    running = streams(clients, router, 4, 200)
    time.sleep(2.0)
    stage.other.signal_engine(signal.SIGSTOP)
    try:
        told = [future.result() for future in running]
    finally:
        stage.other.signal_engine(signal.SIGCONT)
    longest = max(one.longest_silence_s for one in told)
    note(f"a stopped engine: its streams went on elsewhere after {longest:.0f} s of silence")
    assert longest > 20, "no stream was on the stopped engine"
    assert [(one.error, one.finish_reasons) for one in told] == [("", ["length"])] * 4


def test_a_killed_engine_costs_no_client_its_answer(
    stage: Stage, router: RealRouter, clients: ThreadPoolExecutor, note: Callable[[str], None]
) -> None:
    """The last test: kill -9 of the engine under four greedy streams, compared with an undisturbed run."""
    undisturbed = [story(stage.good.url, 100, None, number) for number in range(4)]
    running = [clients.submit(story, router.url, 100, None, number) for number in range(4)]
    time.sleep(1.5)
    stage.other.signal_engine(signal.SIGKILL)
    told = [future.result() for future in running]
    for number, (one, calm) in enumerate(zip(told, undisturbed, strict=True)):
        same = common_prefix(one.text, calm.text)
        note(
            f"kill -9 of an engine: stream {number}, begun on {one.backend}, {len(one.text)} characters, "
            f"the first {same} as undisturbed, longest silence {one.longest_silence_s:.2f} s {one.error}"
        )
        assert (one.error, one.finish_reasons) == ("", ["length"])
    assert not story(router.url, 8).error, "the router goes on with the other server"


def test_nothing_is_in_flight_at_the_end(router: RealRouter) -> None:
    deadline = time.monotonic() + 10
    while in_flight(router) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert in_flight(router) == 0
