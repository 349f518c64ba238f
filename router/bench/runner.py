"""Carries a plan out: waits for idle, warms up, measures in order, notices strangers, bears with backends that die."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from math import inf
from typing import Any

from router.bench.measured import Figures, Measurement, Stream, figures
from router.bench.outcome import CallFailed, Load, Outcome, Progress, Rules, Target, strangers
from router.bench.pacing import Pacing
from router.bench.plan import WARM_UP_TOKENS, WARM_UPS, Condition, Plan, Shape, Siblings, Step, Subject
from router.bench.prompts import FIRST_GUESS, prompt, words_of

TRIES = 3  # of a measurement that somebody disturbed
MOST_WARM_UPS = 4  # of one shape
WARM = 0.8  # of the time before: a warm-up that is faster than that found something still to compile
FAILURES = 3  # of one backend, then it is let alone
LEAST_LIMIT_S = 60.0
TIMES_EXPECTED = 10.0  # a measurement that takes so many times what it should is given up
PAUSE_S = 2.0  # before a backend that failed is looked at again
SETTLE_S = 1.5  # for a sibling to get past its prefill
BACKGROUND_TOKENS = 512  # of one answer of a sibling that is kept busy
BACKGROUND_LIMIT_S = 600.0
LOOK_AGAIN_S = 0.2  # a server counts a call as running for a moment after its last token


class Stop(Exception):
    """Nothing more can be measured; says why."""


class SiblingFailed(Exception):
    """A backend that should be busy beside the one that is measured is not."""


class Runner:
    """One bench.

    Args:
        targets: everybody who may be asked, by name: the subjects and their siblings.
        told: called whenever there is progress.
    """

    def __init__(
        self,
        plan: Plan,
        targets: Mapping[str, Target],
        rules: Rules | None = None,
        told: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self.plan = plan
        self.outcome = Outcome()
        self._targets = targets
        self._rules = rules or Rules()
        self._told = told
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()
        self._pacing = Pacing()
        self._words: dict[tuple[str, str], float] = {}  # tokens per word, by model and prompt: a short one is digits
        self._failures: dict[str, int] = {}
        self._refused: dict[str, int] = {}  # the fewest streams at which a backend failed
        self._answered: set[str] = set()
        self._unfit: set[tuple[str, Shape]] = set()  # shapes that a backend that answers others does not take
        self._work: asyncio.Task[None] | None = None
        self._said = ""

    async def run(self) -> Outcome:
        """Measure all of the plan, or as much as can be; never raises for a backend's sake."""
        self._began = self._clock()
        self._work = asyncio.ensure_future(self._all())
        try:
            await self._work
        except Stop as why:
            self.outcome.stopped = str(why)
        except asyncio.CancelledError:
            if not self._said:
                raise
            self.outcome.stopped = self._said
        if not self.outcome.stopped and self.outcome.gone:
            self.outcome.stopped = "not every backend lasted: " + ", ".join(self.outcome.gone)
        return self.outcome

    def stop(self, why: str) -> None:
        """End now: what is in flight is hung up on, what was measured is kept."""
        self._said = why
        if self._work is not None:
            self._work.cancel()

    async def _all(self) -> None:
        left = [*self.plan.warm_ups(), *self.plan.rounds()]
        steps = len(left)
        while left:
            step = left[0]
            now = f"round {step.round} of {self.plan.repeats}: {step.subject.name}, {step.condition}"
            self._tell(left, steps, now if step.round else f"warming up {step.subject.name}, {step.condition}")
            await self._one(step)
            del left[0]
            if left and (step.round == 0 or step.round != left[0].round):
                left = self._fitting(left)
        self._tell([], steps, "done")

    def _fitting(self, left: list[Step]) -> list[Step]:
        """Without what the time will not do for."""
        left, dropped = self._pacing.fitting(self._lasting(left), self._rules.most_s - (self._clock() - self._began))
        for one in dropped:
            self.outcome.note(f"{one} is left out: it is slower than believed, and {self._limit} would not do")
        return left

    @property
    def _limit(self) -> str:
        return f"the limit of {self._rules.most_s / 60:.0f} minutes (--max-minutes)"

    def _lasting(self, steps: list[Step]) -> list[Step]:
        return [step for step in steps if step.subject.name not in self.outcome.gone]

    def _tell(self, left: list[Step], steps: int, now: str) -> None:
        number = left[0].round if left else self.plan.repeats
        self._told(Progress(number, steps - len(left), steps, self._pacing.seconds(self._lasting(left)), now))

    async def _one(self, step: Step) -> None:
        """One step, however it ends: kept, tried again, or given up."""
        name, streams = step.subject.name, step.condition.concurrency
        if name in self.outcome.gone or streams >= self._refused.get(name, 1 << 30):
            return
        if (name, step.condition.shape) in self._unfit:
            return
        before, tries = inf, TRIES if step.round else MOST_WARM_UPS
        for attempt in range(tries):
            if self._clock() - self._began > self._rules.most_s:
                raise Stop(f"{self._limit} was reached")
            await self._wait_for_idle(step)
            seed = f"{self.plan.seed}/{name}/{step.round}/{step.condition}/{attempt}"
            began = self._clock()
            try:
                found, foreign = await self._measure(step, seed)
            except CallFailed as fault:
                if not await self._bear(step, fault, began):
                    return
                continue
            except SiblingFailed as fault:
                self.outcome.note(f"{name}, {step.condition}: not measured, {fault}")
                return
            self._answered.add(name)
            self._pacing.learn(step, self._clock() - began)
            if step.round == 0:
                if attempt + 1 >= WARM_UPS and found.prefill_s > WARM * before:
                    return
                before = found.prefill_s
            elif self._keep(step, found, foreign, began):
                return
        if step.round and name not in self.outcome.gone:
            self.outcome.note(f"{name}, {step.condition}, round {step.round}: not one measurement was undisturbed")

    def _keep(self, step: Step, found: Figures, foreign: float, began: float) -> bool:
        """Note a measurement; whether it counts."""
        kept, at = not foreign or self._rules.force, began - self._began
        self.outcome.measurements.append(
            Measurement(step.round, step.condition, step.subject.name, at, found, foreign=foreign, kept=kept)
        )
        return kept

    async def _bear(self, step: Step, fault: CallFailed, began: float) -> bool:
        """A measurement failed: whether to try it again."""
        name, streams, shape = step.subject.name, step.condition.concurrency, step.condition.shape
        self.outcome.measurements.append(
            Measurement(step.round, step.condition, name, began - self._began, None, str(fault), kept=False)
        )
        if fault.is_refusal and name in self._answered:
            self._unfit |= {(name, one.shape) for one in self.plan.conditions if one.shape.prompt == shape.prompt}
            self.outcome.note(f"{name} does not take a {shape.prompt} prompt, which is left out for it: {fault}")
            return False
        if fault.is_refusal:
            self._give_up(name, f"it does not take the call: {fault}")
            return False
        if name in self.outcome.gone:
            return False
        self._failures[name] = self._failures.get(name, 0) + 1
        if fault.is_busy:
            self._refused[name] = min(streams, self._refused.get(name, streams))
            self.outcome.note(f"{name} is full at {streams} streams ({fault}): not asked with so many again")
            if streams == 1:
                self._give_up(name, f"it takes not even one call: {fault}")
            return False
        await asyncio.sleep(PAUSE_S)
        if not await self._targets[name].is_alive():
            self._give_up(name, f"it stopped answering at {step.condition}: {fault}")
            return False
        if streams > 1:
            # Whatever brought it to this is not done to it again.
            self._refused[name] = min(streams, self._refused.get(name, streams))
            self.outcome.note(f"{name} failed at {streams} streams ({fault}): not asked with so many again")
            return False
        if self._failures[name] >= FAILURES:
            self._give_up(name, f"it failed {FAILURES} times: {fault}")
            return False
        return True

    def _give_up(self, name: str, why: str) -> None:
        self.outcome.gone[name] = why

    async def _measure(self, step: Step, seed: str) -> tuple[Figures, float]:
        """All streams of one condition at once. Raises CallFailed where one of them does."""
        subject, condition = step.subject, step.condition
        target, shape = self._targets[subject.name], condition.shape
        ratio = self._words.get((subject.model, shape.prompt), FIRST_GUESS)
        prompts = [prompt(f"{seed}/{n}", shape.prompt_tokens, ratio) for n in range(condition.concurrency)]
        tokens = shape.answer_tokens if step.round else WARM_UP_TOKENS
        limit_s = max(LEAST_LIMIT_S, TIMES_EXPECTED * self._pacing.expected(step))
        watched = [subject.name] if condition.siblings is Siblings.BUSY else [subject.name, *subject.siblings]
        async with self._busy_siblings(subject, condition, seed):
            before = await self._loads(watched)
            streams = await _together([target.call(one, tokens, limit_s) for one in prompts])
            after = await self._loads(watched)
            if any(one.active for one in after.values()):
                await asyncio.sleep(LOOK_AGAIN_S)
                after = await self._loads(watched)
        if streams[0].prompt_tokens:
            self._words[subject.model, shape.prompt] = streams[0].prompt_tokens / words_of(prompts[0])
        self._is_same(subject.name, after[subject.name])
        own = {subject.name: (len(streams), sum(one.tokens for one in streams))}
        foreign = sum(strangers(before[one], after[one], *own.get(one, (0, 0))) for one in watched)
        return figures(streams), foreign

    def _is_same(self, name: str, load: Load) -> None:
        """Raises CallFailed where it is another process than when the bench began: perhaps another build."""
        if load.started is not None and load.started != self.outcome.processes.setdefault(name, load.started):
            self._give_up(name, "it was started anew in between, perhaps as another build")
            raise CallFailed("it was started anew")

    async def _loads(self, names: list[str]) -> dict[str, Load]:
        found = await asyncio.gather(*(self._targets[one].load() for one in names))
        return dict(zip(names, found, strict=True))

    @asynccontextmanager
    async def _busy_siblings(self, subject: Subject, condition: Condition, seed: str) -> AsyncIterator[None]:
        """One stream on every sibling meanwhile; hung up on at the end.

        Raises:
            SiblingFailed: one of them does not answer, so that nothing was measured beside it.
        """
        if condition.siblings is Siblings.IDLE:
            yield
            return
        tasks = [asyncio.ensure_future(self._keep_busy(name, f"{seed}/{name}")) for name in subject.siblings]
        try:
            await asyncio.sleep(SETTLE_S)  # their prompts are short: they decode by then
            yield
            if ended := [task for task in tasks if task.done()]:
                raise SiblingFailed(str(ended[0].exception()))
        finally:
            await _ended(tasks)

    async def _keep_busy(self, name: str, seed: str) -> None:
        number = 0
        while True:
            number += 1
            text = prompt(f"{seed}/{number}", 128)
            try:
                await self._targets[name].call(text, BACKGROUND_TOKENS, BACKGROUND_LIMIT_S)
            except CallFailed as fault:
                raise SiblingFailed(f"{name}, which should be busy, does not answer: {fault}") from fault

    async def _wait_for_idle(self, step: Step) -> None:
        """Until nobody is served there or beside it.

        Raises:
            Stop: that did not come within the time allowed.
        """
        if self._rules.force:
            return
        names = [step.subject.name, *step.subject.siblings]
        until, pause = self._clock() + self._rules.idle_wait_s, 0.2
        while busy := [name for name, load in (await self._loads(names)).items() if load.active]:
            if self._clock() > until:
                raise Stop(
                    f"{', '.join(busy)} served calls for {self._rules.idle_wait_s:.0f} s on end; "
                    "bench when it is idle, or measure beside real traffic with --force"
                )
            await asyncio.sleep(pause)
            pause = min(2.0, 1.5 * pause)


async def _together(calls: list[Coroutine[Any, Any, Stream]]) -> list[Stream]:
    """All of them, or none: the first that fails hangs up on the others."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await _ended(tasks)


async def _ended(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
