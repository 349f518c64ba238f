"""Where log lines go: a thread that may block on a full pipe or a slow disk, so that the router never does."""

from __future__ import annotations

import os
import select
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Final, Protocol

LARGEST_BACKLOG = 8 * 1024 * 1024  # bytes handed over and not yet written; then lines are dropped
_PATIENCE_S = 1.0  # between looks at a descriptor that somebody else made non-blocking


class Sink(Protocol):
    """Takes whole lines; never blocks, never raises, counts what it could not keep."""

    @property
    def dropped(self) -> int:
        """Lines lost so far."""

    def write(self, data: bytes, lines: int) -> None:
        """Take `lines` whole lines."""

    def reopen(self) -> None:
        """Open the file anew: it was renamed by a rotation."""

    def close(self, timeout_s: float) -> None:
        """Write what is left, for at most `timeout_s` seconds."""


class ThreadSink:
    """Writes to a descriptor or appends to a file, in a thread of its own.

    Each counter has one writing thread: `_handed` and `_refused` the caller's, `_written` and `_failed` the sink's.

    Raises:
        OSError: the file cannot be opened. Later failures only drop lines.
    """

    def __init__(self, target: int | Path, largest_backlog: int = LARGEST_BACKLOG) -> None:
        self._path = target if isinstance(target, Path) else None
        self._fd = _open(target) if isinstance(target, Path) else target
        self._largest_backlog = largest_backlog
        self._handed = self._refused = self._written = self._failed = 0
        self._torn = False  # the last write ended within a line
        self._closing = False
        self._orders: SimpleQueue[tuple[bytes, int] | _Order] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="log-writer", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines lost because the backlog was full or a write failed."""
        return self._refused + self._failed

    def write(self, data: bytes, lines: int) -> None:
        """Hand over whole lines, or drop them where too much is waiting already."""
        if self._closing or self._handed - self._written + len(data) > self._largest_backlog:
            self._refused += lines
            return
        self._handed += len(data)
        self._orders.put((data, lines))

    def reopen(self) -> None:
        """After what was handed over so far, go on in a fresh file of the same name. Without a file: nothing."""
        self._orders.put(_REOPEN)

    def close(self, timeout_s: float) -> None:
        """Write what was handed over; where that blocks longer than `timeout_s`, leave it."""
        self._closing = True
        self._orders.put(_STOP)
        self._thread.join(timeout_s)

    def _work(self) -> None:
        while True:
            order = self._orders.get()
            if order is _STOP:
                break
            if isinstance(order, _Order):
                self._open_anew()
                continue
            data, lines = order
            self._failed += 0 if self._write_whole(data) else lines
            self._written += len(data)
        if self._path is not None:
            os.close(self._fd)

    def _write_whole(self, data: bytes) -> bool:
        rest = memoryview(b"\n" + data if self._torn else data)
        whole = len(rest)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                if self._closing:
                    break
                select.select([], [self._fd], [], _PATIENCE_S)
            except OSError:  # disk full, reader gone: this batch is lost, the next may do
                break
        if len(rest) < whole:
            self._torn = bool(rest)
        return not rest

    def _open_anew(self) -> None:
        if self._path is None:
            return
        try:
            fd = _open(self._path)
        except OSError:  # the old file goes on: better under an old name than lost
            return
        os.close(self._fd)
        self._fd = fd
        self._torn = False


class _Order:
    """Something for the thread to do between writes."""

    __slots__ = ()


_REOPEN: Final = _Order()
_STOP: Final = _Order()


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
