"""The one thread that writes the history file: never holds the loop, never raises, and says so when it cannot write."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue

from router.events import Notice
from router.history import schema
from router.history.rows import Row

MOST_WAITING = 10_000  # rows handed over and not yet written; then they are dropped
BATCH = 500  # rows of one transaction
RETRY_S = 60.0  # between attempts to write again after a failure
BUSY_S = 5.0  # how long another process may hold the file

_CORRUPT = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))
_BAD_ROW = (
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    ValueError,
    TypeError,
    OverflowError,
)

Notify = Callable[[Notice], None]


class Writer:
    """Takes rows from the loop and keeps them in batches.

    Args:
        path: of the SQLite file; its folder is made where missing.
        notify: told of trouble and of its end, *from the writing thread*.
        now: Unix time in seconds; called from both threads.
        retry_s: after a failure, rows are dropped and counted for that long before the file is tried again.
        pragmas: set on the connection besides our own, such as "max_page_count = 100".
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
        self._path = path
        self._notify = notify
        self._now = now
        self._most_waiting = most_waiting
        self._retry_s = retry_s
        self._pragmas = tuple(pragmas)
        self._db: sqlite3.Connection | None = None
        self._inode = 0  # of the file as it was opened
        self._trouble = ""  # what was said last
        self._retry_at = float("-inf")
        self._aside_at = float("-inf")  # when a corrupt file was set aside last
        self._handed = self._refused = 0  # counted by the loop
        self._done = self._lost = 0  # counted by the thread
        self._orders: SimpleQueue[Row | threading.Event | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="history-writer", daemon=True)
        self._thread.start()

    @property
    def ok(self) -> bool:
        """Whether rows are being kept."""
        return not self._trouble

    @property
    def dropped(self) -> int:
        """Rows lost: too many waiting, no file to write to, or a row that does not fit its table."""
        return self._refused + self._lost

    def put(self, row: Row) -> bool:
        """Hand a row over; False where it was dropped."""
        if self._handed - self._done >= self._most_waiting:
            self._refused += 1
            return False
        self._handed += 1
        self._orders.put(row)
        return True

    def settle(self, timeout_s: float) -> bool:
        """Wait until everything handed over so far was dealt with (blocks; not for the loop)."""
        reached = threading.Event()
        self._orders.put(reached)
        return reached.wait(timeout_s)

    def close(self, timeout_s: float) -> None:
        """Keep what was handed over, for at most `timeout_s`, and close the file."""
        self._orders.put(None)
        self._thread.join(timeout_s)

    # -- the thread

    def _work(self) -> None:
        self._open()
        more = True
        while more:
            batch, reached, more = self._next()
            if batch:
                self._keep(batch)
                self._done += len(batch)
            if reached is not None:
                reached.set()
        if self._db is not None:
            self._close()

    def _next(self) -> tuple[list[Row], threading.Event | None, bool]:
        """A batch of rows, who waits for it, and whether there will be more."""
        batch: list[Row] = []
        order = self._orders.get()
        while True:
            if order is None:
                return batch, None, False
            if isinstance(order, threading.Event):
                return batch, order, True
            batch.append(order)
            if len(batch) >= BATCH:
                return batch, None, True
            try:
                order = self._orders.get_nowait()
            except Empty:
                return batch, None, True

    def _keep(self, batch: list[Row]) -> None:
        if self._db is not None and self._inode_now() != self._inode:
            self._close()  # somebody moved or deleted the file: rows would go nowhere
        for _ in range(2):  # a file found corrupt is set aside; the batch then goes into the new one
            if self._db is None and not self._open():
                break
            assert self._db is not None
            try:
                bad = _insert(self._db, batch)
            except sqlite3.Error as error:
                self._failed(error)
            else:
                self._lost += bad
                return
        self._lost += len(batch)

    def _open(self) -> bool:
        """Open, check and migrate the file, where it is time to try."""
        if self._now() < self._retry_at:
            return False
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self._path, timeout=BUSY_S)
            self._prepare(self._db)
            self._inode = self._inode_now()
        except sqlite3.Error as error:
            return self._failed(error)
        except (OSError, schema.NewerFile) as error:
            return self._off(str(error))
        if self._trouble:
            self._trouble = ""
            self._say("history is written again", alarm=False)
        return True

    def _inode_now(self) -> int:
        try:
            return self._path.stat().st_ino
        except OSError:
            return -1

    def _prepare(self, db: sqlite3.Connection) -> None:
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", *self._pragmas):
            db.execute(f"PRAGMA {pragma}")
        if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise _Corrupt("quick_check found damage")
        schema.migrate(db)
        schema.expire(db, self._now())

    def _failed(self, error: sqlite3.Error) -> bool:
        """After an error of the file itself. True where a new file took its place."""
        self._close()
        code = getattr(error, "sqlite_errorcode", None) or 0
        if code & 0xFF in _CORRUPT or isinstance(error, _Corrupt):
            return self._set_aside(str(error))
        return self._off(str(error))

    def _set_aside(self, why: str) -> bool:
        """Rename a corrupt file, so that somebody can look at it, and start a new one."""
        now = self._now()
        if now - self._aside_at < self._retry_s:
            return self._off(f"corrupt again: {why}")  # the disk itself is bad; more new files would not help
        self._aside_at = now
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
        try:
            for end in ("", "-wal", "-shm"):
                old = self._path.with_name(self._path.name + end)
                if old.exists():
                    old.rename(self._path.with_name(f"{self._path.name}.corrupt-{stamp}{end}"))
        except OSError as error:
            return self._off(f"corrupt ({why}) and cannot be set aside: {error}")
        self._say(f"{self._path.name} was corrupt ({why}); kept as {self._path.name}.corrupt-{stamp}, a new one begins")
        return self._open()

    def _off(self, why: str) -> bool:
        """Go on without history for a while."""
        self._close()
        self._retry_at = self._now() + self._retry_s
        if why != self._trouble:  # the same trouble is said once
            self._trouble = why
            self._say(f"{self._path.name} cannot be written ({why}); going on without history")
        return False

    def _close(self) -> None:
        if self._db is not None:
            try:
                self._db.close()
            except sqlite3.Error:  # nothing left to save
                pass
            self._db = None

    def _say(self, message: str, alarm: bool = True) -> None:
        try:
            self._notify(Notice("history", message, alarm))
        except Exception:  # the loop is gone already; the thread must still end in order
            pass


class _Corrupt(sqlite3.DatabaseError):
    """Damage that a check found rather than a statement."""


def _insert(db: sqlite3.Connection, batch: list[Row]) -> int:
    """Keep a batch in one transaction; a row that does not fit is left out. How many were.

    Raises:
        sqlite3.Error: the file's own trouble; nothing of the batch was kept.
    """
    bad = 0
    try:
        for row in batch:
            try:
                db.execute(schema.INSERTS[type(row)], schema.values(row))
            except _BAD_ROW:
                bad += 1
        db.commit()
    except sqlite3.Error:
        db.rollback()
        raise
    return bad
