"""Speed checks and the fixed workload in virtual time: what they find, and what they never disturb."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.config import FleetConfig
from router.events import Notice
from router.history.rows import BenchDay, Build
from router.loops.command import Output
from router.policy.facts import Grade
from tests.exchange.conftest import World
from tests.fakes import MODEL, FakeBackend

CALM: dict[str, Any] = {"quality": {"canary": False}}
OVERHEAD_S, PREFILL_TOK_S, TPOT_S, MORE_S = 0.2, 2000.0, 0.02, 0.005  # a token takes TPOT_S + MORE_S for each stream


class Paced(FakeBackend):
    """A server that answers completions at a known speed."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.asked: list[dict[str, Any]] = []
        self.arrived_one = asyncio.Event()
        self.streams = 0
        self.broken_off = 0
        self.status = 200
        self.is_terse = False  # says three words and no numbers, as some servers do

    def control(self, request: httpx.Request) -> httpx.Response:
        if request.url.path != "/v1/completions":
            return super().control(request)
        body = json.loads(request.content)
        self.asked.append(body)
        self.arrived_one.set()
        if self.status != 200:
            return httpx.Response(self.status, json={"error": {"message": "this model does not support generation"}})
        return httpx.Response(200, stream=Words(self, body))


class Words(httpx.AsyncByteStream):
    def __init__(self, server: Paced, body: dict[str, Any]) -> None:
        self.server, self.body = server, body
        self.is_whole = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        is_terse = self.server.is_terse
        prompt, answer = len(self.body["prompt"].split()), 3 if is_terse else self.body["max_tokens"]
        await asyncio.sleep(OVERHEAD_S + prompt / PREFILL_TOK_S)
        self.server.streams += 1
        try:
            for number in range(1, answer + 1):
                usage = {"prompt_tokens": prompt, "completion_tokens": number, "total_tokens": prompt + number}
                event = {"choices": [{"index": 0, "text": "w"}], **({} if is_terse else {"usage": usage})}
                yield b"data: " + json.dumps(event).encode() + b"\n\n"
                await asyncio.sleep(TPOT_S + MORE_S * self.server.streams)
            yield b"data: [DONE]\n\n"
            self.is_whole = True
        finally:
            self.server.streams -= 1

    async def aclose(self) -> None:
        self.server.broken_off += not self.is_whole


class IdleWorld(World):
    def paced(self, name: str) -> Paced:
        self.backends[name] = one = Paced(name, self.network)
        return one

    async def open(self, folder: Path | None = None, **settings: Any) -> None:
        """Start, with every build known and proved."""
        options: dict[str, Any] = {} if folder is None else {"history_file": folder / "history.db"}
        await self.start(self.config(**{**CALM, **settings}), **options)
        for name in self.backends:
            self.prove(name)

    def prove(self, name: str) -> None:
        self.app.fleet.backends[name].build = f"build of {name}"
        self.app.fleet.set_grade(name, MODEL, Grade.GOOD, "right")

    async def asked(self, server: Paced, times: int) -> None:
        """Wait until a server was asked so often."""
        async with asyncio.timeout(600):
            while len(server.asked) < times:
                server.arrived_one.clear()
                await server.arrived_one.wait()
        await asyncio.sleep(0.05)

    async def days(self) -> list[BenchDay]:
        assert self.app.history is not None
        await asyncio.to_thread(self.app.history.settle)
        return await self.app.history.rows(BenchDay)


@pytest.fixture
def world(runner: asyncio.Runner) -> Iterator[IdleWorld]:
    world = IdleWorld(runner.get_loop())
    yield world
    runner.run(world.stop())


async def test_a_proved_build_is_measured_once_a_day_and_the_figures_are_true(world: IdleWorld, tmp_path: Path) -> None:
    one = world.paced("one")
    await world.open(tmp_path, health={"interval_s": 60})
    await asyncio.sleep(290)
    assert one.asked == [], "its machine is not idle for long enough"
    await asyncio.sleep(120)
    (row,) = await world.days()
    assert (row.backend, row.model, row.build, row.workload) == ("one", MODEL, "build of one", "fixed workload 1")
    assert row.figures["decode_c1_tok_s"] == pytest.approx(1 / (TPOT_S + MORE_S), rel=0.02)
    assert row.figures["decode_c4_tok_s"] == pytest.approx(4 / (TPOT_S + 4 * MORE_S), rel=0.05)
    assert row.figures["prefill_tok_s"] == pytest.approx(PREFILL_TOK_S, rel=0.02)
    assert any("40.0 tok/s at one stream" in notice.message for notice in world.of(Notice))
    calls = len(one.asked)
    assert calls == 3 + 3 + 2 + 8
    assert len({body["prompt"][:24] for body in one.asked}) == calls, "no prompt is in a prefix cache"
    await asyncio.sleep(1200)
    assert len(one.asked) == calls
    await asyncio.sleep(86_400)
    assert [day.day for day in await world.days()] == [
        row.day,
        *sorted({d.day for d in await world.days()} - {row.day}),
    ]
    assert len(await world.days()) == 2


async def test_what_was_measured_today_is_not_measured_again_after_a_restart(world: IdleWorld, tmp_path: Path) -> None:
    one = world.paced("one")
    await world.open(tmp_path, speed={"check_after_s": 0})
    await asyncio.sleep(400)
    calls = len(one.asked)
    await world.days()
    await world.app.stop(0.0)
    await world.open(tmp_path, speed={"check_after_s": 0})
    await asyncio.sleep(900)
    assert len(one.asked) == calls > 0


async def test_a_call_on_the_machine_ends_it_at_once_and_the_rest_follows(world: IdleWorld, tmp_path: Path) -> None:
    one, other = world.paced("one"), world.paced("two")
    backends = tuple(one.model_copy(update={"host": ("spark",)}) for one in world.config().backends)
    await world.start(FleetConfig(backends=backends, **CALM), history_file=tmp_path / "history.db")
    world.prove("one")
    await world.asked(one, 5)
    answer = world.chat(headers={"x-router-backend": "two"})
    await asyncio.sleep(0.2)
    assert one.broken_off == 1, "within a fifth of a second, though another backend of the machine was called"
    before = len(one.asked)
    await asyncio.sleep(30)
    assert len(one.asked) == before
    (await other.call()).stream("done")
    await answer.whole()
    await asyncio.sleep(400)
    (row,) = await world.days()
    assert len(one.asked) == 16 + 1, "nothing is asked twice, but for what was broken off"
    assert set(row.figures) == {"decode_c1_tok_s", "decode_c4_tok_s", "prefill_tok_s"}


async def test_after_a_long_silence_a_tiny_call_keeps_the_speed_fresh(world: IdleWorld) -> None:
    one = world.paced("one")
    await world.open()
    await asyncio.sleep(1700)
    assert one.asked == [], "without a history there are no days to compare"
    await asyncio.sleep(150)
    (asked,) = one.asked
    assert asked["max_tokens"] == 32
    speed = world.app.fleet.backends["one"].serving[MODEL].speed
    assert speed.decode.samples == 1.0
    rate = speed.estimates(world.loop.time())["decode_rate"]
    assert (rate.source, rate.age_s is not None and rate.age_s < 200) == ("learned", True)
    for _ in range(9):
        await asyncio.sleep(1850)
    assert 9 <= len(one.asked) <= 11
    learned = speed.decode.predict(1.0)
    assert learned == pytest.approx(TPOT_S + MORE_S, rel=0.25)


async def test_a_check_that_teaches_nothing_is_a_check_all_the_same_and_keeps_nobody_waiting(world: IdleWorld) -> None:
    terse, other = world.paced("a"), world.paced("b")
    terse.is_terse = True
    await world.open()
    await asyncio.sleep(7300)
    assert len(terse.asked) in (3, 4)
    assert len(other.asked) in (3, 4)


@pytest.mark.parametrize(
    "why", ["passive", "switched off", "others use it", "asleep", "disabled", "flagged", "no build"]
)
async def test_nothing_is_asked_where_it_must_not_be(world: IdleWorld, tmp_path: Path, why: str) -> None:
    one = world.paced("one")
    settings: dict[str, Any] = {"speed": {"check_after_s": 0}}
    if why == "passive":
        settings["passive"] = True
    elif why == "switched off":
        settings["speed"]["fixed_workload"] = False
    elif why == "others use it":
        one.metrics = 'vllm:num_requests_running{model_name="x"} 2.0\nvllm:num_requests_waiting{model_name="x"} 0.0\n'
    elif why == "asleep":
        one.metrics = 'vllm:num_requests_running 0.0\nvllm:engine_sleep_state{engine="0",sleep_state="awake"} 0.0\n'
    await world.open(tmp_path, **settings)
    fleet = world.app.fleet
    if why == "disabled":
        fleet.set_intent("one", fleet.backends["one"].intent.__class__.DISABLED)
    elif why == "flagged":
        fleet.set_grade("one", MODEL, Grade.FLAGGED, "damage")
    elif why == "no build":
        fleet.backends["one"].build = ""
    await asyncio.sleep(3600)
    assert one.asked == []


async def test_who_does_not_generate_is_asked_once(world: IdleWorld, tmp_path: Path) -> None:
    one = world.paced("one")
    one.status = 400
    await world.open(tmp_path)
    await asyncio.sleep(7200)
    assert len(one.asked) == 1
    assert await world.days() == []


async def test_who_fails_is_left_in_peace_for_a_while(world: IdleWorld, tmp_path: Path) -> None:
    one = world.paced("one")
    one.status = 500
    await world.open(tmp_path)
    await asyncio.sleep(1500)
    assert 2 <= len(one.asked) <= 3


async def test_a_check_of_the_answers_goes_first(world: IdleWorld, tmp_path: Path) -> None:
    one = world.paced("one")
    await world.open(tmp_path)
    await world.asked(one, 1)
    async with asyncio.timeout(0.5), world.app.quality.ledger.turn():
        broken, asked = one.broken_off, len(one.asked)
        assert broken == 1
    async with world.app.quality.ledger.turn():
        await asyncio.sleep(60)
        assert len(one.asked) == asked


async def test_the_gpus_clock_under_load_stands_beside_the_figures(world: IdleWorld, tmp_path: Path) -> None:
    one = world.paced("one")

    async def nvidia_smi(*words: str) -> Output:
        """Two seconds away, and cool while nothing runs there."""
        await asyncio.sleep(2)
        return Output(b"2405, 2000, 61, 38.5, 0x0\n" if one.streams else b"180, 2000, 35, 4.5, 0x1\n", "", 0)

    world.run = nvidia_smi
    (backend,) = world.config().backends
    hot = FleetConfig(backends=(backend.model_copy(update={"gpu": "ssh://one"}),), **CALM)
    await world.start(hot, history_file=tmp_path / "history.db")
    world.prove("one")
    await asyncio.sleep(500)
    (row,) = await world.days()
    assert (row.gpu_clock_mhz, row.gpu_temperature_c, row.gpu_power_w) == (2405.0, 61.0, 38.5)


async def test_what_a_short_context_has_no_room_for_is_left_out(world: IdleWorld, tmp_path: Path) -> None:
    one = world.paced("one")
    one.cards = {"max_model_len": 1024}
    await world.open(tmp_path)
    await asyncio.sleep(500)
    (row,) = await world.days()
    assert set(row.figures) == {"decode_c1_tok_s", "decode_c4_tok_s"}


async def test_who_was_used_by_others_in_between_is_not_idle(world: IdleWorld, tmp_path: Path) -> None:
    """A `router bench` asks past the router: between its calls nothing runs, but the engine's counters have moved."""
    one = world.paced("one")

    def say(tokens: int) -> None:
        one.metrics = f"vllm:num_requests_running 0.0\nvllm:generation_tokens_total {tokens}.0\n"

    say(0)
    await world.open(tmp_path)
    for minute in range(30):
        say(minute * 100)
        await asyncio.sleep(60)
    assert one.asked == []
    await asyncio.sleep(400)
    assert one.asked != []


async def test_a_builds_flags_are_kept_as_its_log_says_them(world: IdleWorld, tmp_path: Path) -> None:
    world.paced("one")
    args = "{'model': 'm', 'port': 1, 'linear_backend': 'marlin', 'api_key': 'x'}"
    (tmp_path / "vllm.log").write_text(f"INFO api_utils.py:286] non-default args: {args}\n")
    (backend,) = world.config().backends
    logged = backend.model_copy(update={"log": f"file:{tmp_path / 'vllm.log'}"})
    await world.start(FleetConfig(backends=(logged,), **CALM), history_file=tmp_path / "history.db")
    await asyncio.sleep(30)
    assert world.app.history is not None
    await asyncio.to_thread(world.app.history.settle)
    flags = {one.flags for one in await world.app.history.rows(Build)}
    assert flags == {"linear_backend=marlin"}
