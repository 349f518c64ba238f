"""Keeps speeds fresh on idle backends, and takes the figures of the day: see `policy/idlework.py`.

One piece of work at a time over the whole fleet, never beside a canary, and never beside a call: the first call on any
machine of the backend ends what is being asked within a tenth of a second (hanging up makes a vLLM drop its work), and
what was measured until then is kept for the next idle moment.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from statistics import fmean
from typing import TYPE_CHECKING, Any

from router.backend import Backend
from router.bench.fixed import CHECK, DECODE, DECODE_FOUR, FIXED, PREFILL, Step, figures_of
from router.bench.measured import Stream
from router.bench.outcome import CallFailed
from router.bench.prompts import prompt
from router.events import Bus, Notice
from router.fleet import Fleet
from router.history import History
from router.history.rows import BenchDay
from router.policy.facts import Grade
from router.policy.idlework import IdleLimits, Stillness, Work, due
from router.policy.speed import SHORTEST_DECODE, SpeedModel
from router.quality.ledger import Ledger
from router.quality.subject import absence
from router.vllm.gpu import GpuReading

if TYPE_CHECKING:
    import httpx

    from router.bench.client import HttpTarget

log = logging.getLogger(__name__)

ROUND_S = 5.0  # between looks at who is due
LOOK_S = 0.1  # between looks at whether a call came in
AGAIN_S = 600.0  # after work that failed
KEPT_S = 3600.0  # what an interrupted workload brought is of another hour after that
CALL_S = 120.0  # one answer may take so long
MOST_S = {Work.CHECK: 10.0, Work.FIXED: 90.0}  # of its budget, before it begins
_PROVED = frozenset({Grade.GOOD, Grade.PLAUSIBLE})

Readings = Callable[[Sequence[str]], Awaitable[Sequence[GpuReading]]]
"""What the GPUs of these hosts say now; nothing of a host that does not tell."""


@dataclass(slots=True)
class Progress:
    """What was measured of one build on one day; goes on where it was interrupted."""

    build: str
    began: float
    bursts: dict[str, list[Sequence[Stream]]] = field(default_factory=dict)
    readings: Sequence[GpuReading] = ()


class IdleWork:
    """See the module.

    Args:
        client: an HTTP client for a backend's present address.
        ledger: whose budget of a backend's time is spent; it also knows whether somebody else asks.
        wall: Unix time.
        readings: asks the GPUs.
        history: where the figures of a day are kept; None for nowhere, and then the fixed workload is not taken.
    """

    def __init__(
        self,
        fleet: Fleet,
        bus: Bus,
        client: Callable[[Backend], httpx.AsyncClient],
        ledger: Ledger,
        wall: Callable[[], float],
        readings: Readings,
        history: History | None = None,
    ) -> None:
        self._fleet = fleet
        self._bus = bus
        self._client = client
        self._ledger = ledger
        self._wall = wall
        self._readings = readings
        self._history = history
        self._taken: set[tuple[str, str, str]] = set()  # model, build, day
        self._refused: set[tuple[str, str]] = set()  # model, build
        self._not_before: dict[str, float] = {}
        self._checked_at: dict[tuple[str, str], float] = {}  # backend, model: a check may teach nothing, and is one
        self._progress: dict[tuple[str, str], Progress] = {}
        self._counted: dict[str, tuple[float | None, float | None]] = {}
        self._used_at: dict[str, float] = {}  # machine: when one of its engines was last seen to work for anybody

    async def run(self) -> None:
        """Work wherever something is due, for ever."""
        if self._history is not None:
            rows = await self._history.rows(BenchDay, workload=Work.FIXED.value)
            self._taken = {(one.model, one.build, one.day) for one in rows}
        while True:
            await asyncio.sleep(ROUND_S)
            try:
                self._look_around()
                await self._round()
            except Exception:
                log.exception("work on an idle backend failed inside the router")

    def _look_around(self) -> None:
        """Whose engines worked: others than this router use them too, a `router bench` for one."""
        now = self._fleet.clock()
        for name, backend in self._fleet.backends.items():
            scrape = backend.scrape
            if scrape is None:
                continue
            counted = (scrape.prompt_tokens, scrape.generation_tokens)
            if self._counted.get(name, counted) != counted or scrape.running or scrape.waiting:
                self._used_at |= {host.name: now for host in backend.hosts}
            self._counted[name] = counted

    async def _round(self) -> None:
        if self._fleet.passive or self._ledger.is_taken:
            return
        for backend in tuple(self._fleet.backends.values()):
            for model in tuple(backend.serving):
                work = self._due(backend, model)
                if work is not None and self._ledger.allows(backend.name, MOST_S[work]):
                    async with self._ledger.turn():
                        await self._give_way(backend, model, work)
                    return

    def _due(self, backend: Backend, model: str) -> Work | None:
        now = self._fleet.clock()
        if not backend.build or now < self._not_before.get(backend.name, 0.0) or self._is_busy(backend, model):
            return None
        serving, speed = backend.serving[model], self._fleet.config.speed
        moments = (serving.speed.prefill.at, serving.speed.decode.at, self._checked_at.get((backend.name, model)))
        learned = [at for at in moments if at is not None]
        used = [max(host.active.at, self._used_at.get(host.name, 0.0)) for host in backend.hosts]
        since = max([*used, backend.health.since])
        one = Stillness(
            now - since,
            now - max(learned) if learned else None,
            serving.grade in _PROVED and not serving.gate,
            (model, backend.build, self._day()) in self._taken,
            (model, backend.build) in self._refused,
        )
        return due(
            one, IdleLimits(speed.check_after_s, speed.fixed_workload and self._history is not None, speed.idle_s)
        )

    def _is_busy(self, backend: Backend, model: str) -> bool:
        """Whether a call is on one of its machines, or it cannot be asked at all."""
        called = any(host.active.value for host in backend.hosts)
        return called or self._fleet.passive or absence(backend, model) is not None

    # --- working ---

    async def _give_way(self, backend: Backend, model: str, work: Work) -> None:
        """Work until it is done, or somebody else needs the machine or the turn."""
        build, task = backend.build, asyncio.ensure_future(self._work(backend, model, work))
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=LOOK_S)
                is_another = backend.build != build
                if not task.done() and (self._is_busy(backend, model) or self._ledger.is_wanted or is_another):
                    return
            task.result()
        except Exception as problem:
            self._not_before[backend.name] = self._fleet.clock() + AGAIN_S
            if not isinstance(problem, CallFailed):
                raise
            if problem.is_refusal:
                self._refused.add((model, build))
            log.info("%s did not finish its %s: %s", backend.name, work.value, problem)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _work(self, backend: Backend, model: str, work: Work) -> None:
        from router.bench.client import HttpTarget  # here: the data port binds before this is imported

        target = HttpTarget(backend.name, model, self._client(backend), self._fleet.clock)
        if work is Work.CHECK:
            for step in _that_fit(CHECK, backend.contexts.get(model)):
                await self._burst(backend, model, target, step)
            self._checked_at[backend.name, model] = self._fleet.clock()
            return
        progress = self._progress_of(backend, model)
        steps = _that_fit(FIXED, backend.contexts.get(model))
        for step in steps:
            bursts = progress.bursts.setdefault(step.name, [])
            while len(bursts) < step.times:
                if step is steps[-1] and len(bursts) == step.times - 1:
                    streams, progress.readings = await asyncio.gather(
                        self._burst(backend, model, target, step), self._readings([one.name for one in backend.hosts])
                    )
                else:
                    streams = await self._burst(backend, model, target, step)
                bursts.append(streams)
        self._keep(backend, model, progress)

    def _progress_of(self, backend: Backend, model: str) -> Progress:
        now, key = self._fleet.clock(), (backend.name, model)
        found = self._progress.get(key)
        if found is None or found.build != backend.build or now - found.began > KEPT_S:
            found = self._progress[key] = Progress(backend.build, now)
        return found

    async def _burst(self, backend: Backend, model: str, target: HttpTarget, step: Step) -> Sequence[Stream]:
        """Ask once, and learn from each answer as from any other."""
        seeds = [f"{model} {self._wall()} {step.name} {number}" for number in range(step.streams)]
        prompts = await asyncio.to_thread(lambda: [prompt(seed, step.prompt_tokens) for seed in seeds])
        with self._ledger.asking(backend.name):
            calls = [target.call(one, step.answer_tokens, CALL_S) for one in prompts]
            answers = await asyncio.gather(*calls, return_exceptions=True)
        for one in answers:
            if isinstance(one, BaseException):
                raise one
        streams = [one for one in answers if isinstance(one, Stream)]
        if model in backend.serving:
            self._learn(backend.serving[model].speed, streams)
        return streams

    def _learn(self, speed: SpeedModel, streams: Sequence[Stream]) -> None:
        """As from traffic; the first token only of a call that was alone, since calls at once wait for each other."""
        now = self._fleet.clock()
        for one in streams:
            tokens, seconds = one.tokens - one.marks[0][1], one.last - one.first
            if one.prompt_tokens is not None and len(streams) == 1:
                uncached = max(0.0, one.prompt_tokens - one.cached_tokens)
                speed.observe_first_token(now, one.first - one.sent, uncached)
            if tokens >= SHORTEST_DECODE and seconds > 0:
                speed.observe_decode(now, tokens, seconds, len(streams), 0)

    def _keep(self, backend: Backend, model: str, progress: Progress) -> None:
        figures, day = figures_of(progress.bursts), self._day()
        self._taken.add((model, backend.build, day))
        del self._progress[backend.name, model]
        if not figures or self._history is None:
            return
        row = BenchDay(backend.name, model, backend.build, day, Work.FIXED.value, self._wall(), figures)
        self._history.keep(replace(row, **_summary(progress.readings)))
        self._bus.emit(Notice(backend.name, f"measured while idle, {model}: {_words(figures)}"))

    def _day(self) -> str:
        return datetime.fromtimestamp(self._wall(), UTC).date().isoformat()


_NAMES = {
    DECODE: "{:.1f} tok/s at one stream",
    DECODE_FOUR: "{:.1f} at four",
    PREFILL: "prefill {:,.0f} tok/s",
}


def _words(figures: dict[str, float]) -> str:
    return ", ".join(words.format(figures[name]) for name, words in _NAMES.items() if name in figures)


def _that_fit(steps: Iterable[Step], context: int | None) -> list[Step]:
    return [step for step in steps if context is None or step.context <= context]


def _summary(readings: Sequence[GpuReading]) -> dict[str, Any]:
    """Clock, temperature and power of a backend's machines: the slowest, the hottest, their mean."""
    clocks = [one.clock_mhz for one in readings if one.clock_mhz is not None]
    degrees = [one.temperature_c for one in readings if one.temperature_c is not None]
    watts = [one.power_w for one in readings if one.power_w is not None]
    return {
        "gpu_clock_mhz": min(clocks, default=None),
        "gpu_temperature_c": max(degrees, default=None),
        "gpu_power_w": fmean(watts) if watts else None,
    }
