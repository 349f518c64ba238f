"""Questions to the history file, each on a connection of its own: for the admin side (in a thread) and the CLI."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from router.errors import ConfigFault
from router.history import schema
from router.history.rows import Row

R = TypeVar("R", bound=Row)


class HistoryUnreadable(ConfigFault):
    """The history file cannot be read: not there, corrupt, or of another version."""

    default_status = 503
    default_code = "history_unreadable"


class Reader:
    """Reads rows; blocks for as long as the disk takes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def rows(self, kind: type[R], *, since: float | None = None, newest: int | None = None, **equal: str) -> list[R]:
        """Rows of one kind, oldest first.

        Args:
            kind: the row class.
            since: only those at or after this Unix time.
            newest: only that many, the newest ones.
            equal: columns and what they must be: `backend="spark-1"`.

        Raises:
            HistoryUnreadable: with what the file said.
            KeyError: no such column.
        """
        question, given = schema.select(kind, since, newest, **equal)
        try:
            with closing(sqlite3.connect(f"file:{quote(str(self._path))}?mode=ro", uri=True)) as db:
                return [schema.row(kind, cells) for cells in db.execute(question, given)]
        except (sqlite3.Error, ValueError) as error:
            raise HistoryUnreadable(f"{self._path.name} cannot be read: {error}") from error
