"""Simulated backends in virtual time with the noise of real boxes, asked as the bench asks real ones."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

from router.bench.measured import Stream
from router.bench.outcome import CallFailed, Load
from router.sim.driver import Driver, Running, tokens_of
from router.sim.engine import Engine
from router.sim.faults import Faults
from router.sim.host import Host
from router.sim.profiles import MARLIN, Profile

TOKENS_PER_WORD = 1.5  # and one a digit, as real tokenizers have it
QUICK = replace(MARLIN, first_touch=1.0)


class Weather:
    """How much longer everything takes at a moment: a slow walk and a slope that a box's backends share."""

    def __init__(self, seed: int, slope: float = 0.0, wander: float = 0.0) -> None:
        dice = random.Random(seed)
        self._slope = slope  # per second
        self._waves = [
            (wander * dice.gauss(0, 1) / math.sqrt(4), dice.uniform(20, 400), dice.uniform(0, 2 * math.pi))
            for _ in range(4)
        ]
        self._start: float | None = None

    def __call__(self, at: float) -> float:
        self._start = at if self._start is None else self._start
        waves = sum(height * math.sin(2 * math.pi * at / period + phase) for height, period, phase in self._waves)
        return math.exp(self._slope * (at - self._start) + waves)


CALM = Weather(0)


@dataclass(slots=True)
class Slow:
    factor: float


class Air:
    """What the driver takes for its faults: the weather, and what only this backend feels."""

    def __init__(self, weather: Weather, own: Callable[[], float]) -> None:
        self._weather, self._own = weather, own

    def get(self, kind: str) -> Slow | None:
        if kind != "slow":
            return None
        return Slow(self._weather(asyncio.get_running_loop().time()) * self._own())


class SimTarget:
    """One simulated engine under the bench's protocol. Noise: per call `latency_s`, per measurement `own`."""

    def __init__(
        self,
        profile: Profile = QUICK,
        *,
        seed: int = 0,
        host: Host | None = None,
        weather: Weather = CALM,
        own: float = 0.0,
        stall: float = 0.0,
        latency_s: float = 0.0,
    ) -> None:
        self._dice = random.Random(seed)
        self._own, self._stall, self._latency_s = own, stall, latency_s
        self._now = 1.0  # what only this backend feels, drawn for each call
        self.engine = Engine(profile, host or Host(), seed, key=f"engine-{seed}-{id(self)}")
        air = cast(Faults, Air(weather, lambda: self._now))
        self.driver = Driver(self.engine, air, lambda name, value: None)
        self.fails: Callable[[int], CallFailed | None] = lambda number: None
        self.alive = True
        self.calls = self.streams = self.most = 0
        self.prompts: list[str] = []
        self.finished = 0

    async def call(self, prompt: str, answer_tokens: int, limit_s: float) -> Stream:
        self.calls += 1
        self.prompts.append(prompt)
        fault = self.fails(self.calls)
        if fault is not None:
            raise fault
        self.streams += 1
        self.most = max(self.most, self.streams)
        try:
            return await self._call(f"call-{self.calls}", prompt, answer_tokens)
        finally:
            self.streams -= 1

    async def _call(self, name: str, prompt: str, answer_tokens: int) -> Stream:
        loop = asyncio.get_running_loop()
        sent = loop.time()
        if self.streams == 1:
            self._now = math.exp(self._dice.gauss(0, self._own)) * (1.3 if self._dice.random() < self._stall else 1.0)
        await asyncio.sleep(self._latency_s * math.exp(self._dice.gauss(0, 0.5)))
        tokens = round(sum(len(word) if word.isdigit() else TOKENS_PER_WORD for word in prompt.split()))
        queue: asyncio.Queue[tuple[int, int, bool]] = asyncio.Queue()
        running = Running(0, queue, loop.time(), tokens, answer_tokens, lambda new: False)
        self.driver.submit(name, running, (), True)
        marks: list[tuple[float, int]] = []
        try:
            async for _, new in tokens_of(queue, 1):
                marks.append((loop.time(), (marks[-1][1] if marks else 0) + new))
        finally:
            self.driver.abort(name)
        self.finished += 1
        return Stream(sent, tuple(marks), tokens)

    async def load(self) -> Load:
        active = float(self.engine.running + self.engine.waiting)
        return Load(active, float(self.finished), float(self.engine.counters.generation_tokens))

    async def is_alive(self) -> bool:
        return self.alive

    async def stop(self) -> None:
        await self.driver.stop()


async def stop(*targets: Any) -> None:
    for one in targets:
        await one.stop()
