"""The log: listens to events and to the standard library's loggers, and writes lines in batches off a call's path."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from router.events import BackendLoading, CallEnded, Event, HealthChanged, KernelObserved, Reloaded
from router.logs.lines import LOGGED, RENDER, Entry, LogFormat, Record
from router.logs.sink import Sink

MOST_PENDING = 20_000  # lines between two flushes
BATCH = 256  # lines formatted before the loop gets a turn: about 1.5 ms
FLUSH_INTERVAL_S = 0.25


class Logs:
    """Collects lines as events come by and hands them to a sink in batches.

    Args:
        sink: takes whole lines and never blocks.
        now: Unix time in seconds.
        form: how a line looks.
        most_pending: lines kept between two flushes; more are dropped and counted.
    """

    def __init__(
        self,
        sink: Sink,
        now: Callable[[], float],
        form: LogFormat = LogFormat.JSON,
        most_pending: int = MOST_PENDING,
    ) -> None:
        self._sink = sink
        self._now = now
        self._render = RENDER[form]
        self._most_pending = most_pending
        self._pending: deque[tuple[float, Entry]] = deque()  # append and popleft are atomic: other threads log too
        self._dropped = 0
        self._told = 0  # of the dropped lines, those that a line has spoken of
        self._said: dict[tuple[type, str], object] = {}  # what was logged last of what is seen again and again

    @property
    def dropped(self) -> int:
        """Lines lost so far, for whatever reason."""
        return self._dropped + self._sink.dropped

    def on_event(self, event: Event) -> None:
        """Listen to the bus: keep the event for the next flush."""
        kind = type(event)
        if kind is CallEnded or (kind in LOGGED and not self._known(event)):
            self._keep(self._now(), event)

    def flush(self, most: int = BATCH) -> bool:
        """Format up to `most` lines and hand them on in one piece; True where more are waiting."""
        pending, render = self._pending, self._render
        self._tell_dropped()
        lines: list[bytes] = []
        while pending and len(lines) < most:
            at, entry = pending.popleft()
            try:
                lines.append(render(at, entry))
            except Exception:  # a line that cannot be written must not cost the others
                self._dropped += 1
        if lines:
            self._sink.write(b"".join(lines), len(lines))
        return bool(pending)

    async def run(self, interval_s: float = FLUSH_INTERVAL_S) -> None:
        """Flush for ever, giving the loop a turn between batches."""
        while True:
            await asyncio.sleep(interval_s)
            while self.flush():  # noqa: ASYNC110  nothing is waited for: the loop gets its turn between batches
                await asyncio.sleep(0)

    def reopen(self) -> None:
        """The file was rotated: go on in a new one."""
        self._sink.reopen()

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what is left and end the sink; blocks for at most `timeout_s`."""
        while self.flush(BATCH * 16):
            pass
        self._sink.close(timeout_s)

    def bridge(self, level: int = logging.INFO, logger: logging.Logger | None = None) -> Callable[[], None]:
        """Send the standard library's log (uvicorn, asyncio, warnings) here too; the returned function ends it."""
        target = logger or logging.getLogger()
        handler = _Bridge(self._from_stdlib)
        before = target.level
        target.addHandler(handler)
        target.setLevel(level)

        def undo() -> None:
            target.removeHandler(handler)
            target.setLevel(before)

        return undo

    def _from_stdlib(self, at: float, level: str, logger: str, message: str) -> None:
        self._keep(at, Record(level, "log", message, logger))

    def _keep(self, at: float, entry: Entry) -> None:
        if len(self._pending) >= self._most_pending:
            self._dropped += 1
        else:
            self._pending.append((at, entry))

    def _known(self, event: Event) -> bool:
        """Whether this was the last thing said of its backend: a probe sees the same again and again."""
        if isinstance(event, HealthChanged):
            self._said.pop((BackendLoading, event.backend), None)
        if isinstance(event, Reloaded):
            for backend in event.removed:
                self._said.pop((BackendLoading, backend), None)
                self._said.pop((KernelObserved, backend), None)
        if isinstance(event, BackendLoading):
            return self._same((BackendLoading, event.backend), True)
        if isinstance(event, KernelObserved):
            return self._same((KernelObserved, event.backend), (event.declared, event.observed))
        return False

    def _same(self, key: tuple[type, str], value: object) -> bool:
        if self._said.get(key) == value:
            return True
        self._said[key] = value
        return False

    def _tell_dropped(self) -> None:
        lost = self.dropped - self._told
        if lost and len(self._pending) < self._most_pending:
            self._told += lost
            self._pending.append((self._now(), Record("warning", "lines_dropped", f"{lost} log lines were dropped")))


class _Bridge(logging.Handler):
    """Turns the standard library's records into lines, from any thread."""

    def __init__(self, keep: Callable[[float, str, str, str], None]) -> None:
        super().__init__()
        self._keep = keep

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._keep(record.created, record.levelname.lower(), record.name, self.format(record))
        except Exception:  # a bad format string in somebody's log call
            self._keep(record.created, record.levelname.lower(), record.name, str(record.msg))
