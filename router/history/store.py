"""What survives a restart: listens to events, sums calls up by the hour, keeps rows, answers questions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from router import events
from router.history.reader import HistoryUnreadable, Reader
from router.history.rows import Build, GradeChange, Hour, Incident, Mark, OperatorIntent, Row, Verdict
from router.history.writer import MOST_WAITING, RETRY_S, Notify, Writer

HOUR_S = 3600
UNKNOWN_BUILD = "unknown"
MOST_SUMS = 4_096  # sums open between two flushes: backends × models, never reached by a real fleet
R = TypeVar("R", bound=Row)


@dataclass(slots=True)
class _Sum:
    """One hour's calls of a (backend, model, build), since the last flush."""

    calls: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    ttft_s_sum: float = 0.0
    ttft_n: int = 0
    tpot_s_sum: float = 0.0
    tpot_n: int = 0


class History:
    """The router's memory. No method raises for the file's sake, and none but `close` blocks.

    Args:
        path: of the SQLite file.
        notify: told when history stops or returns; called from the writing thread, so hand in something like
            `lambda notice: loop.call_soon_threadsafe(bus.emit, notice)`.
        now: Unix time in seconds.
        most_waiting: rows waiting to be written before more are dropped.
        retry_s: between attempts to write again after a failure.
        pragmas: for tests, such as "max_page_count = 20": a disk that is full.
    """

    def __init__(
        self,
        path: Path,
        notify: Notify,
        now: Callable[[], float],
        *,
        most_waiting: int = MOST_WAITING,
        retry_s: float = RETRY_S,
        pragmas: Sequence[str] = (),
    ) -> None:
        self._now = now
        self._writer = Writer(path, notify, now, most_waiting=most_waiting, retry_s=retry_s, pragmas=pragmas)
        self._reader = Reader(path)
        self._builds: dict[str, str] = {}  # backend to its build
        self._sums: dict[tuple[str, str, str, int], _Sum] = {}
        self._handlers: dict[type, Callable[[Any], None]] = {
            events.CallEnded: self._on_call,
            events.HealthChanged: self._on_health,
            events.IntentChanged: self._on_intent,
            events.QualityChanged: self._on_quality,
            events.BuildChanged: self._on_build,
            events.Reloaded: self._on_reload,
            events.CanaryEnded: self._on_canary,
        }

    @property
    def ok(self) -> bool:
        """Whether rows are being kept."""
        return self._writer.ok

    @property
    def dropped(self) -> int:
        """Rows lost so far."""
        return self._writer.dropped

    def build_of(self, backend: str) -> str:
        """The build that a backend was last kept with."""
        return self._builds.get(backend, UNKNOWN_BUILD)

    def on_event(self, event: events.Event) -> None:
        """Listen to the bus; a call's end costs a few additions."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def keep(self, row: Row) -> None:
        """Keep one row, or one newer state of what has a key (see `schema.TABLES`)."""
        if isinstance(row, Build):
            self._builds[row.backend] = row.id
        self._writer.put(row)

    def flush(self) -> None:
        """Hand the sums since the last flush to the writer; every ten seconds will do."""
        sums, self._sums = self._sums, {}
        for (backend, model, build, hour), s in sums.items():
            row = Hour(
                backend, model, build, float(hour * HOUR_S), s.calls, s.failed, s.prompt_tokens, s.completion_tokens,
                s.cached_tokens, s.ttft_s_sum, s.ttft_n, s.tpot_s_sum, s.tpot_n,
            )  # fmt: skip
            self._writer.put(row)

    async def rows(
        self, kind: type[R], *, since: float | None = None, newest: int | None = None, **equal: str
    ) -> list[R]:
        """Rows of one kind, oldest first, read in a thread; none where the file cannot be read. See `Reader.rows`."""
        return await asyncio.to_thread(lambda: self.rows_now(kind, since=since, newest=newest, **equal))

    def rows_now(
        self, kind: type[R], *, since: float | None = None, newest: int | None = None, **equal: str
    ) -> list[R]:
        """The same, blocking: for the moment before the loop starts."""
        try:
            return self._reader.rows(kind, since=since, newest=newest, **equal)
        except HistoryUnreadable:
            return []

    def settle(self, timeout_s: float = 5.0) -> bool:
        """Wait until everything kept so far is in the file (blocks); False where that took too long."""
        self.flush()
        return self._writer.settle(timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Keep what is open and close the file; blocks for at most `timeout_s`."""
        self.flush()
        self._writer.close(timeout_s)

    # -- events

    def _on_call(self, call: events.CallEnded) -> None:
        if not call.attempts:
            return
        last = call.attempts[-1]
        key = (last.backend, call.model, self.build_of(last.backend), int(call.at + call.duration_s) // HOUR_S)
        total = self._sums.get(key)
        if total is None:
            if len(self._sums) >= MOST_SUMS:
                return
            total = self._sums[key] = _Sum()
        total.calls += 1
        total.failed += last.failure is not None
        total.prompt_tokens += call.prompt_tokens or 0
        total.completion_tokens += call.completion_tokens or 0
        total.cached_tokens += call.cached_tokens or 0
        if last.ttft_s is not None:
            total.ttft_s_sum += last.ttft_s
            total.ttft_n += 1
            if call.outcome is events.Outcome.OK and len(call.attempts) == 1 and (call.completion_tokens or 0) > 1:
                total.tpot_s_sum += (last.duration_s - last.ttft_s) / ((call.completion_tokens or 0) - 1)
                total.tpot_n += 1

    def _on_health(self, event: events.HealthChanged) -> None:
        if event.new == "ejected":
            self.keep(Incident(event.backend, self.build_of(event.backend), self._now(), "ejected", event.reason))

    def _on_intent(self, event: events.IntentChanged) -> None:
        self.keep(OperatorIntent(event.backend, event.new, event.reason, self._now()))

    def _on_quality(self, event: events.QualityChanged) -> None:
        at, build = self._now(), self.build_of(event.backend)
        self.keep(
            GradeChange(event.backend, event.model, build, at, event.old, event.new, event.reason, event.evidence)
        )
        if "flagged" in (event.old, event.new):
            self.keep(Mark(at, "flag", event.backend, f"{event.model} {event.old} to {event.new}: {event.reason}"))

    def _on_build(self, event: events.BuildChanged) -> None:
        if event.completed:
            return
        at = self._now()
        kind = "restart" if event.restarted_only else "build"
        self.keep(Incident(event.backend, event.new, at, kind, "" if event.restarted_only else f"was {event.old}"))
        self.keep(Mark(at, kind, event.backend, event.new))

    def _on_reload(self, event: events.Reloaded) -> None:
        if event.ok:
            changes = (("added", event.added), ("removed", event.removed), ("changed", event.changed))
            text = "; ".join(f"{word} {', '.join(names)}" for word, names in changes if names)
            self.keep(Mark(self._now(), "reload", "", f"generation {event.generation}: {text or 'no backend changed'}"))

    def _on_canary(self, event: events.CanaryEnded) -> None:
        build = self.build_of(event.backend)
        self.keep(
            Verdict(
                event.backend, event.model, build, self._now(), event.size, event.verdict, event.score, event.texts,
                event.detail,
            )
        )  # fmt: skip
