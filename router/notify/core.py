"""Which events are worth a line, and when it is said: the same thing at most once an interval, a moment as one message.

Listens to the bus and sends from a task of its own, so that a slow receiver holds nobody up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from router import events
from router.notify.sender import NotSent, Sender
from router.policy.facts import Grade

COALESCE_S = 2.0  # what happens within this of each other is one message, and a blip shorter than it is none
MOST_WAITING = 100  # subjects; what comes on top is only counted
LONGEST_LINE = 300  # characters

_PROVED = (Grade.GOOD, Grade.PLAUSIBLE)
Subject = tuple[str, ...]
Compare = Callable[[str, str, str], Awaitable[str]]


@dataclass(slots=True)
class _Line:
    """Something to be said, not before a moment of the monotonic clock; `times` is how often it changed meanwhile."""

    text: str
    alarm: bool
    not_before: float
    times: int = 1


class Notifier:
    """Turns events into messages and sends them.

    Args:
        sender: where to.
        clock: monotonic seconds.
        usable: how many backends each model has now; asked when the fleet changed.
        min_interval_s: between two messages about the same thing.
        compare: sets a new build beside the old one in words ("+9 % decode, quality same"), given backend, old, new.
        tell: hears of messages that could not be sent.
    """

    def __init__(
        self,
        sender: Sender,
        clock: Callable[[], float],
        usable: Callable[[], Mapping[str, int]],
        *,
        min_interval_s: float = 60.0,
        compare: Compare | None = None,
        tell: Callable[[events.Notice], None] = lambda notice: None,
    ) -> None:
        self._sender = sender
        self._clock = clock
        self._usable = usable
        self._min_interval_s = min_interval_s
        self._compare = compare
        self._tell = tell
        self._waiting: dict[Subject, _Line] = {}
        self._said_at: dict[Subject, float] = {}
        self._more = 0  # lines beyond what may wait
        self._look_at: float | None = None  # when to count the backends of each model
        self._served: set[str] = set()  # models that had a backend when we looked last
        self._down: set[str] = set()  # models that lost their last one, and it was said
        self._last_cause = ""
        self._new_builds: dict[str, tuple[str, str]] = {}  # backend to (old, new), until a canary has judged it
        self._mismatches: dict[str, tuple[str, str]] = {}
        self._wake = asyncio.Event()
        self._handlers: dict[type, Callable[[Any], None]] = {
            events.QualityChanged: self._on_quality,
            events.KernelObserved: self._on_kernel,
            events.HealthChanged: self._on_health,
            events.IntentChanged: self._on_intent,
            events.Reloaded: self._on_reload,
            events.BuildChanged: self._on_build,
            events.CanaryEnded: self._on_canary,
            events.Notice: self._on_notice,
        }

    def on_event(self, event: events.Event) -> None:
        """Listen to the bus; nothing is sent here."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    async def run(self) -> None:
        """Send what is due, for ever."""
        self._look()
        while True:
            try:
                async with asyncio.timeout(self._due_in()):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            due = self._take_due()
            if due:
                await self._send(due)

    # -- what is said

    def _on_quality(self, event: events.QualityChanged) -> None:
        self._look_soon()
        about = ("quality", event.backend, event.model)
        if event.new == "flagged":
            self._say(about, f"{event.backend} is flagged for {event.model}: {event.reason}", alarm=True)
        elif event.old == "flagged":
            self._say(about, f"{event.backend} is no longer flagged for {event.model} ({event.new}): {event.reason}")
        self._proved(event.backend, event.new)

    def _on_kernel(self, event: events.KernelObserved) -> None:
        if event.matches is not False:
            if event.matches:
                self._mismatches.pop(event.backend, None)
            return
        seen = (event.declared, event.observed)
        if self._mismatches.get(event.backend) != seen:
            self._mismatches[event.backend] = seen
            text = f"{event.backend}: declared {event.declared}, runs {event.observed}"
            self._say(("kernel", event.backend), text, alarm=True)

    def _on_health(self, event: events.HealthChanged) -> None:
        self._cause(event.backend, event.new, event.reason)

    def _on_intent(self, event: events.IntentChanged) -> None:
        self._cause(event.backend, event.new, event.reason)

    def _on_reload(self, event: events.Reloaded) -> None:
        self._look_soon()
        for backend in event.removed:
            self._new_builds.pop(backend, None)
            self._mismatches.pop(backend, None)

    def _on_build(self, event: events.BuildChanged) -> None:
        if not event.restarted_only and not event.completed:
            self._new_builds[event.backend] = (event.old, event.new)

    def _on_canary(self, event: events.CanaryEnded) -> None:
        self._proved(event.backend, event.verdict)

    def _on_notice(self, event: events.Notice) -> None:
        if event.alarm and event.subject != "notify":
            self._say(("notice", event.subject), f"{event.subject}: {event.message}", alarm=True)

    def _proved(self, backend: str, grade: str) -> None:
        """A check or its grade says that the answers are right: if the build is new, it is ready."""
        if grade in _PROVED and backend in self._new_builds:
            old, new = self._new_builds.pop(backend)
            self._say(("build", backend, old, new), f"{backend}: new build ready, answers {grade}")

    def _cause(self, backend: str, state: str, reason: str) -> None:
        self._last_cause = f"{backend} is {state}: {reason}" if reason else f"{backend} is {state}"
        self._look_soon()

    def _look_soon(self) -> None:
        if self._look_at is None:
            self._look_at = self._clock() + COALESCE_S
            self._wake.set()

    def _look(self) -> None:
        """Which models lost their last backend, and which have one again. A model that never had one is no news."""
        usable = self._usable()
        for model, n in usable.items():
            if n == 0 and model in self._served:
                self._down.add(model)
                self._say(("model", model), f"no backend left for {model}: {self._last_cause}", alarm=True, wait=False)
            elif n > 0 and model in self._down:
                self._down.discard(model)
                self._say(("model", model), f"{model} is served again", wait=False)
        self._served = {model for model, n in usable.items() if n > 0}
        self._down &= usable.keys()

    # -- when it is said

    def _say(self, subject: Subject, text: str, alarm: bool = False, wait: bool = True) -> None:
        text = text.replace("\n", " ")[:LONGEST_LINE]
        line = self._waiting.get(subject)
        if line is not None:
            line.text, line.alarm, line.times = text, alarm, line.times + 1
            return
        if len(self._waiting) >= MOST_WAITING:
            self._more += 1
            return
        now = self._clock()
        again = self._said_at.get(subject, float("-inf")) + self._min_interval_s
        self._waiting[subject] = _Line(text, alarm, max(now + COALESCE_S if wait else now, again))
        self._wake.set()

    def _due_in(self) -> float | None:
        """Seconds until something is due; None while there is nothing."""
        moments = [line.not_before for line in self._waiting.values()]
        if self._look_at is not None:
            moments.append(self._look_at)
        return max(0.0, min(moments) - self._clock()) if moments else None

    def _take_due(self) -> dict[Subject, _Line]:
        now = self._clock()
        if self._look_at is not None and self._look_at <= now:
            self._look_at = None
            self._look()
        due = {subject: line for subject, line in self._waiting.items() if line.not_before <= now}
        for subject in due:
            del self._waiting[subject]
            self._said_at[subject] = now
        self._said_at = {s: at for s, at in self._said_at.items() if now - at < self._min_interval_s}
        return due

    # -- sending

    async def _send(self, due: Mapping[Subject, _Line]) -> None:
        lines = [await self._wording(subject, line) for subject, line in due.items()]
        if self._more:
            lines.append(f"and {self._more} more")
            self._more = 0
        alarm = any(line.alarm for line in due.values())
        try:
            await self._sender.send(lines, alarm)
        except NotSent as error:
            self._tell(events.Notice("notify", f"{len(lines)} lines were not sent: {error}"))

    async def _wording(self, subject: Subject, line: _Line) -> str:
        text = line.text
        if subject[0] == "build" and self._compare is not None:
            try:
                difference = await self._compare(*subject[1:])
            except Exception:  # no figures is no reason to stay silent
                difference = ""
            text = f"{text}: {difference}" if difference else text
        return f"{text} (changed {line.times} times)" if line.times > 1 else text
