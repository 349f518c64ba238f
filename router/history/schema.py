"""Tables, how the file grew from version to version, and rows to columns and back."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from router.history import rows

KEEP_S = 400 * 86_400.0  # how long what grows with time is kept: a year and a month
R = TypeVar("R", bound=rows.Row)

# Step n makes version n + 1 of version n. A step that was released is never changed; append another.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE builds (
        id TEXT PRIMARY KEY, backend TEXT NOT NULL, checkpoint TEXT NOT NULL, kernels TEXT NOT NULL,
        version TEXT NOT NULL, fingerprint TEXT NOT NULL, flags TEXT NOT NULL, host TEXT NOT NULL,
        image TEXT NOT NULL, first_seen REAL NOT NULL, last_seen REAL NOT NULL, load_s REAL) STRICT;
    CREATE TABLE speeds (
        backend TEXT NOT NULL, model TEXT NOT NULL, build TEXT NOT NULL, at REAL NOT NULL, state TEXT NOT NULL,
        PRIMARY KEY (backend, model, build)) STRICT;
    CREATE TABLE hours (
        backend TEXT NOT NULL, model TEXT NOT NULL, build TEXT NOT NULL, at REAL NOT NULL, calls INTEGER NOT NULL,
        failed INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
        cached_tokens INTEGER NOT NULL, ttft_s_sum REAL NOT NULL, ttft_n INTEGER NOT NULL, tpot_s_sum REAL NOT NULL,
        tpot_n INTEGER NOT NULL, PRIMARY KEY (backend, model, build, at)) STRICT;
    CREATE TABLE loads (backend TEXT NOT NULL, build TEXT NOT NULL, at REAL NOT NULL, seconds REAL NOT NULL) STRICT;
    CREATE TABLE incidents (
        backend TEXT NOT NULL, build TEXT NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL, detail TEXT NOT NULL) STRICT;
    CREATE TABLE intents (
        backend TEXT PRIMARY KEY, intent TEXT NOT NULL, reason TEXT NOT NULL, at REAL NOT NULL) STRICT;
    """,
    """
    CREATE TABLE baselines (
        model TEXT NOT NULL, build TEXT NOT NULL, at REAL NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY (model, build)) STRICT;
    CREATE TABLE verdicts (
        backend TEXT NOT NULL, model TEXT NOT NULL, build TEXT NOT NULL, at REAL NOT NULL, size TEXT NOT NULL,
        verdict TEXT NOT NULL, score REAL, texts INTEGER NOT NULL, detail TEXT NOT NULL) STRICT;
    CREATE TABLE grades (
        backend TEXT NOT NULL, model TEXT NOT NULL, build TEXT NOT NULL, at REAL NOT NULL, old TEXT NOT NULL,
        new TEXT NOT NULL, reason TEXT NOT NULL, evidence TEXT NOT NULL) STRICT;
    CREATE TABLE bench (
        backend TEXT NOT NULL, model TEXT NOT NULL, build TEXT NOT NULL, day TEXT NOT NULL, workload TEXT NOT NULL,
        at REAL NOT NULL, figures TEXT NOT NULL, gpu_clock_mhz REAL, gpu_temperature_c REAL, gpu_power_w REAL,
        PRIMARY KEY (model, build, day, workload)) STRICT;
    CREATE TABLE marks (at REAL NOT NULL, kind TEXT NOT NULL, backend TEXT NOT NULL, text TEXT NOT NULL) STRICT;
    CREATE INDEX loads_by_backend ON loads (backend, at);
    CREATE INDEX marks_by_time ON marks (at);
    """,
    """
    CREATE TABLE standings (
        backend TEXT NOT NULL, model TEXT NOT NULL, build TEXT NOT NULL, at REAL NOT NULL, state TEXT NOT NULL,
        PRIMARY KEY (backend, model)) STRICT;
    """,
)
VERSION = len(MIGRATIONS)


class NewerFile(Exception):
    """The file was written by a later router: it is left alone."""


@dataclass(frozen=True, slots=True)
class Table:
    """Where a row class is kept.

    `conflict` is what happens where a row of the same key exists; `time` orders rows and is what `since` asks of.
    """

    name: str
    conflict: str = ""
    time: str = "at"
    expires: bool = True


def _replace(key: str, *columns: str) -> str:
    return f"ON CONFLICT ({key}) DO UPDATE SET {', '.join(f'{c} = excluded.{c}' for c in columns)}"


TABLES: Mapping[type, Table] = {
    rows.Build: Table(
        "builds",
        "ON CONFLICT (id) DO UPDATE SET last_seen = max(last_seen, excluded.last_seen), host = excluded.host, "
        "image = excluded.image, load_s = coalesce(excluded.load_s, load_s)",
        time="last_seen",
        expires=False,
    ),
    rows.SpeedState: Table("speeds", _replace("backend, model, build", "at", "state"), expires=False),
    rows.Hour: Table(
        "hours",
        "ON CONFLICT (backend, model, build, at) DO UPDATE SET "
        + ", ".join(f"{f.name} = {f.name} + excluded.{f.name}" for f in dataclasses.fields(rows.Hour)[4:]),
    ),
    rows.Load: Table("loads"),
    rows.Incident: Table("incidents"),
    rows.OperatorIntent: Table("intents", _replace("backend", "intent", "reason", "at"), expires=False),
    rows.Baseline: Table("baselines", _replace("model, build", "at", "data"), expires=False),
    rows.Verdict: Table("verdicts"),
    rows.GradeChange: Table("grades"),
    rows.Standing: Table("standings", _replace("backend, model", "build", "at", "state"), expires=False),
    rows.BenchDay: Table(
        "bench",
        _replace(
            "model, build, day, workload", "backend", "at", "figures",
            "gpu_clock_mhz", "gpu_temperature_c", "gpu_power_w",
        ),
        expires=False,
    ),
    rows.Mark: Table("marks"),
}  # fmt: skip

_FROM_TEXT: Mapping[str, Callable[[str], Any]] = {
    "state": json.loads,
    "figures": json.loads,
    "evidence": lambda text: tuple(json.loads(text)),
}


COLUMNS: Mapping[type, tuple[str, ...]] = {
    kind: tuple(field.name for field in dataclasses.fields(kind)) for kind in TABLES
}
INSERTS: Mapping[type, str] = {
    kind: f"INSERT INTO {table.name} ({', '.join(COLUMNS[kind])}) "
    f"VALUES ({', '.join('?' * len(COLUMNS[kind]))}) {table.conflict}"
    for kind, table in TABLES.items()
}


def values(row: rows.Row) -> tuple[Any, ...]:
    """A row as columns.

    Raises:
        TypeError, ValueError: something in it is no JSON.
    """
    cells = ((name, getattr(row, name)) for name in COLUMNS[type(row)])
    return tuple(json.dumps(value, allow_nan=False) if name in _FROM_TEXT else value for name, value in cells)


def row(kind: type[R], cells: tuple[Any, ...]) -> R:
    """Columns as a row."""
    named = {
        name: _FROM_TEXT[name](cell) if name in _FROM_TEXT else cell
        for name, cell in zip(COLUMNS[kind], cells, strict=True)
    }
    return kind(**named)


def select(kind: type, since: float | None, newest: int | None, **equal: str) -> tuple[str, list[Any]]:
    """The question for rows, oldest first, and its parameters. `equal` names columns.

    Raises:
        KeyError: no such column.
    """
    table, names = TABLES[kind], COLUMNS[kind]
    unknown = equal.keys() - set(names)
    if unknown:
        raise KeyError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")
    terms = ["1", *(f"{name} = ?" for name in equal)]
    given: list[Any] = list(equal.values())
    if since is not None:
        terms.append(f"{table.time} >= ?")
        given.append(since)
    limit = "" if newest is None else f" LIMIT {int(newest)}"
    chosen = f"SELECT {', '.join(names)}, rowid AS n FROM {table.name} WHERE {' AND '.join(terms)}"
    newest_first = f"{chosen} ORDER BY {table.time} DESC, n DESC{limit}"
    return f"SELECT {', '.join(names)} FROM ({newest_first}) ORDER BY {table.time}, n", given


def migrate(db: sqlite3.Connection) -> None:
    """Bring a file to the newest version, one whole step at a time.

    Raises:
        NewerFile: it comes from a later router.
        sqlite3.Error: as the file has it; the step that failed left nothing.
    """
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise NewerFile(f"it is of version {version}, this router knows {VERSION}")
    for step in range(version, VERSION):
        try:
            db.executescript(f"BEGIN IMMEDIATE; {MIGRATIONS[step]} PRAGMA user_version = {step + 1}; COMMIT;")
        except sqlite3.Error:
            if db.in_transaction:
                db.rollback()
            raise


def expire(db: sqlite3.Connection, now: float) -> None:
    """Delete what is too old to be asked for."""
    with db:
        for table in TABLES.values():
            if table.expires:
                db.execute(f"DELETE FROM {table.name} WHERE {table.time} < ?", (now - KEEP_S,))
