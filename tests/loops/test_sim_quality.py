"""The whole router before simulated vLLM servers, in virtual time: damage of every kind that they can act out."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.admin.views import status
from router.cli.status import attention, kernel
from router.config import BackendConfig
from router.events import KernelObserved, QualityChanged
from router.policy.facts import Grade
from router.quality.plan import Size
from router.sim.faults import Fault
from router.sim.profiles import PROFILES
from router.sim.server import create_app
from router.sim.startlog import start_lines
from router.sim.state import Build, Sim
from router.wire.client import Address
from tests.fakes import MODEL
from tests.loops.talker import CanaryWorld

PROFILE = replace(PROFILES["fast"], max_model_len=16_384)
HEALTHY = {Grade.PLAUSIBLE, Grade.GOOD}


class SimWorld(CanaryWorld):
    """A world whose backends are simulated vLLM servers, asked without sockets."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.sims: dict[str, Sim] = {}

    def sim(self, name: str, build: Build | None = None, **settings: Any) -> Sim:
        self.backend(name)
        self.settings[name] = {"scheme": "w4a16", **settings}
        self.sims[name] = Sim(build or Build(MODEL, PROFILE), lambda: 1.8e9 + self.loop.time())
        return self.sims[name]

    def _client(self, config: BackendConfig, address: Address) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(create_app(self.sims[config.name]))  # type: ignore[arg-type]
        return httpx.AsyncClient(base_url=f"http://{address}", transport=transport)


@pytest.fixture
def world(runner: asyncio.Runner) -> Iterator[SimWorld]:
    world = SimWorld(runner.get_loop())
    yield world
    for sim in world.sims.values():
        runner.run(sim.driver.stop())
    runner.run(world.stop())


async def checked_again(world: SimWorld, name: str, fault: Fault) -> None:
    """A first check that leaves a baseline; then the server comes back with something wrong, and is checked again."""
    await world.checked(name)
    assert world.grade(name) in HEALTHY
    world.sims[name].faults.set(fault)
    world.restart(name)
    await world.checked(name, 2)


async def test_a_healthy_server_knows_every_answer_and_stays_unflagged(world: SimWorld) -> None:
    world.sim("spark")
    await world.open()
    first = await world.checked("spark")
    assert "known answers: 7 of 7 right" in first.detail
    world.restart("spark")
    await world.checked("spark", 2)
    assert world.grade("spark") in HEALTHY
    assert not [one for one in world.of(QualityChanged) if one.new == "flagged"]


async def test_damage_in_decode_alone_is_caught_although_prefill_is_right(world: SimWorld) -> None:
    world.sim("spark")
    await world.open()
    await checked_again(world, "spark", Fault("decode_damage", amount=2.0))
    assert world.grade("spark") is Grade.FLAGGED
    (cause,) = [one for one in world.app.quality.subject("spark", MODEL).quality.evidence if one.kind == "damage"][:1]
    assert cause.family is not None
    assert cause.family.value in ("decode", "loaded")
    assert world.ended("spark")[-1].score == pytest.approx(0.0, abs=1e-6), "prefill says the same as before"


async def test_long_answers_that_degenerate_are_caught_although_short_ones_are_right(world: SimWorld) -> None:
    world.sim("spark")
    app = await world.open()
    app.quality.ask("spark", MODEL, Size.FULL)
    await checked_again(world, "spark", Fault("long_damage", amount=4.0, after=512))
    assert world.grade("spark") in HEALTHY, "nothing short shows it"
    app.quality.ask("spark", MODEL, Size.FULL)
    await world.checked("spark", 3)
    assert world.grade("spark") is Grade.SUSPECT
    assert "counted right to 51" in world.reason("spark")


async def test_a_server_that_forgot_everything_is_flagged_by_known_answers(world: SimWorld) -> None:
    world.sim("spark")
    await world.open()
    await checked_again(world, "spark", Fault("ignorant"))
    assert world.grade("spark") is Grade.FLAGGED
    assert "known answers" in world.reason("spark")


@pytest.mark.parametrize("kind", ["garbage", "nan"])
async def test_garbage_and_nan_are_flagged(world: SimWorld, kind: str) -> None:
    world.sim("spark")
    await world.open()
    await checked_again(world, "spark", Fault(kind))
    assert world.grade("spark") is Grade.FLAGGED


async def test_a_lying_label_is_caught_by_the_log(world: SimWorld, tmp_path: Path) -> None:
    build = Build(MODEL, PROFILES["marlin"], declared="flashinfer_cutlass")
    log = tmp_path / "vllm.log"
    log.write_text("\n".join(start_lines(build, 8000, datetime(2026, 11, 23))) + "\n")
    world.sim("spark", build, kernel="flashinfer_cutlass", log=f"file:{log}", scheme=None)
    await world.open()
    await world.until(lambda: any(one.matches is not None for one in world.of(KernelObserved)), within_s=30)
    seen = world.of(KernelObserved)[-1]
    assert (seen.declared, seen.observed, seen.matches) == ("flashinfer_cutlass", "marlin", False)
    document = status(world.app)
    shown = kernel(document["backends"][0])
    assert (shown.plain, shown.style) == ("flashinfer_cutlass → runs MARLIN", "bold red")
    (line,) = attention(document)
    assert line.startswith("spark: declared flashinfer_cutlass, runs MARLIN")
    metrics = world.app.metrics.render().decode()
    assert 'router_kernel_mismatch{backend="spark"' in metrics


async def test_a_label_that_nothing_confirms_is_never_shown_as_what_runs(world: SimWorld) -> None:
    world.sim("spark", kernel="flashinfer_cutlass")
    await world.open()
    await asyncio.sleep(30)
    (one,) = status(world.app)["backends"]
    assert (one["observed_kernel"], one["kernel_matches"]) == ("unknown", None)
    assert 'add the line "log: docker:CONTAINER"' in one["kernel_detail"]
    assert kernel(one).plain == "flashinfer_cutlass (declared)"
