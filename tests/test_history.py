"""What survives: restarts, crashes, corrupt files and full disks."""

from __future__ import annotations

import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.errors import FailureKind, Phase
from router.events import (
    Attempt,
    BuildChanged,
    CallEnded,
    CanaryEnded,
    HealthChanged,
    IntentChanged,
    Notice,
    Outcome,
    QualityChanged,
    Reloaded,
)
from router.history import (
    Baseline,
    Build,
    GradeChange,
    History,
    HistoryUnreadable,
    Hour,
    Incident,
    Load,
    Mark,
    OperatorIntent,
    Reader,
    Row,
    SpeedState,
    Verdict,
    build_id,
)
from router.history.schema import COLUMNS, KEEP_S, MIGRATIONS, TABLES, VERSION

NOW = 1_700_000_000.0
HOUR = NOW // 3600 * 3600
BUILD = Build("abc", "spark-1", "nvidia/x", "marlin", "0.32", "fp", "--a", "host-1", "img", NOW - 50, NOW, 600.0)
LOAD = Load("spark-1", "abc", NOW, 640.0)
CALL = CallEnded(
    request_id="r-1",
    at=NOW,
    route="/v1/chat/completions",
    model="smol",
    asked="smol",
    stream=True,
    outcome=Outcome.OK,
    status=200,
    code="",
    attempts=(Attempt("spark-1", "marlin", "soonest", duration_s=2.2, ttft_s=0.2),),
    duration_s=2.3,
    queued_s=0.0,
    ttft_s=0.3,
    prompt_tokens=50,
    completion_tokens=101,
    cached_tokens=None,
    bytes_in=1,
    bytes_out=1,
)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}

Opener = Callable[..., History]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "history.db"


@pytest.fixture
def notices() -> list[Notice]:
    return []


@pytest.fixture
def opened(path: Path, notices: list[Notice]) -> Iterator[Opener]:
    histories: list[History] = []

    def opener(where: Path = path, **options: typing.Any) -> History:
        histories.append(History(where, notices.append, lambda: NOW, **options))
        return histories[-1]

    yield opener
    for history in histories:
        history.close()


def test_what_is_kept_is_there_after_a_restart(opened: Opener) -> None:
    first = opened()
    first.keep(BUILD)
    first.keep(LOAD)
    first.on_event(IntentChanged("spark-1", "active", "draining", "swap"))
    first.close()
    second = opened()
    assert second.rows_now(Build) == [BUILD]
    assert second.rows_now(Load, backend="spark-1") == [LOAD]
    assert second.rows_now(OperatorIntent) == [OperatorIntent("spark-1", "draining", "swap", NOW)]


@pytest.mark.realtime
async def test_the_admin_side_reads_beside_the_loop(opened: Opener) -> None:
    history = opened()
    history.keep(LOAD)
    assert history.settle()
    assert await history.rows(Load, since=NOW) == [LOAD]
    assert await history.rows(Load, since=NOW + 1) == []


def test_calls_are_summed_by_the_hour_across_flushes_and_restarts(opened: Opener) -> None:
    first = opened()
    first.keep(BUILD)
    first.on_event(CALL)
    first.settle()
    first.on_event(CALL)
    first.on_event(replace(CALL, attempts=(Attempt("spark-1", "marlin", "", 1.0, failure=FailureKind.RESET),)))
    first.on_event(replace(CALL, attempts=()))
    first.close()
    second = opened()
    second.on_event(replace(CALL, cached_tokens=7))
    second.settle()
    hours = {row.build: row for row in second.rows_now(Hour)}
    assert hours["abc"] == Hour("spark-1", "smol", "abc", HOUR, 3, 1, 150, 303, 0, 0.4, 2, hours["abc"].tpot_s_sum, 2)
    assert hours["abc"].tpot_s_sum == pytest.approx(0.04)
    assert hours["unknown"].cached_tokens == 7


def test_events_leave_incidents_verdicts_flags_and_marks(opened: Opener) -> None:
    history = opened()
    history.keep(BUILD)
    history.on_event(HealthChanged("spark-1", "healthy", "suspect", "slow"))
    history.on_event(HealthChanged("spark-1", "suspect", "ejected", "refused"))
    history.on_event(BuildChanged("spark-1", "old", "new", restarted_only=False))
    history.on_event(QualityChanged("spark-1", "smol", "suspect", "flagged", "canary", ("text 4: 0.9",)))
    history.on_event(CanaryEnded("spark-1", "smol", "quick", "bad", 0.9, 20, 30.0))
    history.on_event(Reloaded(4, True, added=("spark-2",)))
    history.on_event(Reloaded(4, False, reason="line 3"))
    history.settle()
    assert [(row.kind, row.build) for row in history.rows_now(Incident)] == [("ejected", "abc"), ("build", "new")]
    (flag,) = history.rows_now(GradeChange)
    assert (flag.new, flag.evidence) == ("flagged", ("text 4: 0.9",))
    assert [row.score for row in history.rows_now(Verdict, model="smol")] == [0.9]
    assert [row.kind for row in history.rows_now(Mark)] == ["build", "flag", "reload"]
    assert history.rows_now(Mark, newest=1)[0].text == "generation 4: added spark-2"


def test_a_newer_state_of_what_has_a_key_replaces_the_older(opened: Opener) -> None:
    history = opened()
    history.keep(SpeedState("spark-1", "smol", "abc", NOW, {"a": 0.1}))
    history.keep(SpeedState("spark-1", "smol", "abc", NOW + 9, {"a": 0.2}))
    history.keep(BUILD)
    history.keep(replace(BUILD, first_seen=NOW + 5, last_seen=NOW + 5, load_s=None))
    history.settle()
    assert [row.state for row in history.rows_now(SpeedState)] == [{"a": 0.2}]
    (build,) = history.rows_now(Build)
    assert (build.first_seen, build.last_seen, build.load_s) == (NOW - 50, NOW + 5, 600.0)
    assert history.build_of("spark-1") == "abc"


def test_a_build_is_its_backend_checkpoint_kernels_version_fingerprint_and_flags() -> None:
    same = ("spark-1", "nvidia/x", "marlin", "0.32", "fp", "--a --b")
    others = [(*same[:n], "changed", *same[n + 1 :]) for n in range(6)]
    assert build_id(*same) == build_id(*same)
    assert len({build_id(*parts) for parts in (same, *others)}) == 7


def test_what_is_older_than_anybody_asks_is_deleted_at_the_start(opened: Opener) -> None:
    first = opened()
    first.keep(replace(LOAD, at=NOW - KEEP_S - 1))
    first.keep(replace(BUILD, last_seen=NOW - KEEP_S - 1))
    first.close()
    second = opened()
    second.settle()
    assert second.rows_now(Load) == []
    assert len(second.rows_now(Build)) == 1


def test_a_corrupt_file_is_set_aside_and_a_new_one_begins(opened: Opener, path: Path, notices: list[Notice]) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database" * 1000)
    history = opened()
    history.keep(LOAD)
    history.settle()
    assert history.ok
    assert history.rows_now(Load) == [LOAD]
    (kept,) = path.parent.glob("history.db.corrupt-*")
    assert kept.read_bytes().startswith(b"this is no database")
    assert [notice.alarm for notice in notices] == [True]
    assert kept.name in notices[0].message


def test_damage_inside_the_file_is_found_at_the_start(opened: Opener, path: Path, notices: list[Notice]) -> None:
    first = opened()
    for n in range(2_000):
        first.keep(replace(LOAD, at=NOW + n))
    first.close()
    with path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * 4096 * 8)
    second = opened()
    second.keep(LOAD)
    second.settle()
    assert second.rows_now(Load) == [LOAD]
    assert "corrupt" in notices[0].message


def test_a_file_that_is_deleted_under_the_router_begins_anew(opened: Opener, path: Path) -> None:
    history = opened()
    history.keep(LOAD)
    history.settle()
    for file in path.parent.iterdir():
        file.unlink()
    history.keep(replace(LOAD, at=NOW + 1))
    history.settle()
    assert history.rows_now(Load) == [replace(LOAD, at=NOW + 1)]


def test_a_disk_that_corrupts_again_and_again_is_not_filled_with_files_set_aside(
    opened: Opener, path: Path, notices: list[Notice]
) -> None:
    history = opened()
    for _ in range(3):
        history.settle()
        for file in path.parent.glob("history.db*"):
            if "corrupt" not in file.name:
                file.unlink()
        path.write_bytes(b"no database" * 1000)
        history.keep(LOAD)
    history.settle()
    assert len(list(path.parent.glob("history.db.corrupt-*"))) == 1
    assert not history.ok
    assert "corrupt again" in notices[-1].message


def test_a_folder_that_cannot_be_made_means_no_history_and_one_notice(
    opened: Opener, tmp_path: Path, notices: list[Notice]
) -> None:
    (tmp_path / "file").write_text("in the way")
    history = opened(tmp_path / "file" / "history.db", retry_s=0.0)
    for _ in range(3):
        history.keep(LOAD)
        history.settle()
    assert not history.ok
    assert history.dropped == 3
    assert history.rows_now(Load) == []
    assert len(notices) == 1
    assert "going on without history" in notices[0].message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere: a read-only folder cannot be shown")
def test_a_read_only_folder_means_no_history(opened: Opener, tmp_path: Path, notices: list[Notice]) -> None:
    folder = tmp_path / "sealed"
    folder.mkdir(mode=0o500)
    history = opened(folder / "history.db")
    history.keep(LOAD)
    history.settle()
    assert not history.ok
    assert len(notices) == 1


def test_a_read_only_file_means_no_history_and_stays_as_it_is(
    opened: Opener, path: Path, notices: list[Notice]
) -> None:
    first = opened()
    first.keep(LOAD)
    first.close()
    before = path.read_bytes()
    second = opened(pragmas=("query_only = ON",))  # what a read-only mount does to a statement
    second.keep(LOAD)
    second.settle()
    assert not second.ok
    assert path.read_bytes() == before
    assert second.rows_now(Load) == [LOAD]


def test_a_full_disk_loses_rows_not_the_file_and_writing_returns(path: Path) -> None:
    notices: list[Notice] = []
    clock = [NOW]
    history = History(path, notices.append, lambda: clock[0], pragmas=("max_page_count = 40",))
    kept = 0
    while not notices:
        history.keep(Baseline("smol", f"build-{kept}", NOW, b"x" * 4_000))
        history.settle()
        kept += 1
    assert 1 < kept < 40
    assert "full" in notices[0].message
    assert len(history.rows_now(Baseline)) == kept - 1
    history.keep(LOAD)
    history.settle()
    assert history.dropped == 2
    with closing(sqlite3.connect(path)) as db:
        db.execute("DELETE FROM baselines")
        db.commit()
    clock[0] += 61.0
    history.keep(LOAD)
    history.settle()
    assert history.ok
    assert history.rows_now(Load) == [LOAD]
    assert notices[-1] == Notice("history", "history is written again", alarm=False)
    history.close()


def test_rows_past_the_bound_are_dropped_and_counted(opened: Opener, path: Path) -> None:
    opened().settle()
    with closing(sqlite3.connect(path)) as blocker:
        blocker.execute("BEGIN EXCLUSIVE")  # the writer waits for this one
        history = opened(most_waiting=10)
        for _ in range(25):
            history.keep(LOAD)
        assert history.dropped == 15
        blocker.rollback()
    assert history.settle()
    assert len(history.rows_now(Load)) == 10


def test_a_row_that_does_not_fit_costs_only_itself(opened: Opener) -> None:
    history = opened()
    bad: list[typing.Any] = [
        Load("b", "x", NOW, typing.cast(float, "long")),
        Load("b", "x", NOW, typing.cast(float, None)),
        replace(LOAD, backend="\ud800"),
        SpeedState("b", "m", "x", NOW, {"a": float("nan")}),
        SpeedState("b", "m", "x", NOW, {"a": object()}),
        Verdict("b", "m", "x", NOW, "quick", "good", None, 2**70),
    ]
    for row in bad:
        history.keep(row)
    history.keep(LOAD)
    history.settle()
    assert history.ok
    assert history.dropped == len(bad)
    assert history.rows_now(Load) == [LOAD]


def test_a_file_of_a_later_router_is_left_alone(opened: Opener, path: Path, notices: list[Notice]) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    history = opened()
    history.keep(LOAD)
    history.settle()
    assert not history.ok
    assert f"version {VERSION + 1}" in notices[0].message
    assert list(path.parent.glob("*corrupt*")) == []


@pytest.mark.parametrize("version", range(1, VERSION))
def test_a_file_of_an_earlier_version_is_brought_forward_with_its_rows(
    opened: Opener, path: Path, version: int
) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        for step in MIGRATIONS[:version]:
            db.executescript(step)
        db.execute("INSERT INTO loads VALUES (?, ?, ?, ?)", dataclasses.astuple(LOAD))
        db.execute(f"PRAGMA user_version = {version}")
        db.commit()
    history = opened()
    history.keep(Mark(NOW, "reload", "", "generation 2"))
    history.settle()
    assert history.rows_now(Load) == [LOAD]
    assert len(history.rows_now(Mark)) == 1
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (VERSION,)


def test_a_step_that_fails_leaves_the_file_as_it_was(opened: Opener, path: Path, notices: list[Notice]) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE incidents (somebody_elses TEXT)")
    history = opened()
    history.settle()
    assert not history.ok
    assert len(notices) == 1
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("incidents",)]


def test_the_tables_have_exactly_the_columns_of_their_rows(opened: Opener, path: Path) -> None:
    opened().settle()
    assert set(TABLES) == set(typing.get_args(Row))
    with closing(sqlite3.connect(path)) as db:
        for kind, table in TABLES.items():
            found = {column[1] for column in db.execute(f"PRAGMA table_info({table.name})")}
            assert found == set(COLUMNS[kind]), table.name


def test_the_command_line_hears_why_a_file_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(HistoryUnreadable, match="unable to open"):
        Reader(tmp_path / "nothing.db").rows(Load)
    (tmp_path / "bad.db").write_bytes(b"no database" * 1000)
    with pytest.raises(HistoryUnreadable, match="not a database"):
        Reader(tmp_path / "bad.db").rows(Load)
    with pytest.raises(KeyError, match="Load has no password"):
        Reader(tmp_path / "bad.db").rows(Load, password="x")


def test_a_listener_that_raises_does_not_stop_the_writer(tmp_path: Path) -> None:
    def gone(notice: Notice) -> None:
        raise RuntimeError("the loop is closed")

    path = tmp_path / "history.db"
    path.write_bytes(b"no database" * 1000)
    history = History(path, gone, lambda: NOW)
    history.keep(LOAD)
    history.close()
    assert Reader(path).rows(Load) == [LOAD]


WRITES_FOR_EVER = """
import sys
from pathlib import Path
from router.history import History, Load
history = History(Path(sys.argv[1]), lambda notice: print(notice, flush=True), lambda: 0.0)
n = 0
while True:
    for n in range(n, n + 200):
        history.keep(Load("spark-1", "abc", float(n), 1.0))
    n += 1
    history.settle()
    print(n, flush=True)
"""


def test_a_writer_killed_in_the_middle_leaves_a_whole_file(path: Path) -> None:
    command = [sys.executable, "-c", WRITES_FOR_EVER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as writer:
        assert writer.stdout is not None
        settled = 0
        while settled < 1_000:
            settled = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
    kept = [row.at for row in Reader(path).rows(Load)]
    assert kept == [float(n) for n in range(len(kept))]
    assert len(kept) >= settled
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
COUNT = st.integers(0, 2**62)
BY_FIELD: dict[str, st.SearchStrategy[typing.Any]] = {
    "str": TEXT,
    "float": NUMBER,
    "int": COUNT,
    "bytes": st.binary(max_size=50),
    "float | None": st.none() | NUMBER,
    "tuple[str, ...]": st.lists(TEXT, max_size=3).map(tuple),
    "Mapping[str, Any]": st.dictionaries(TEXT, NUMBER | TEXT | st.lists(NUMBER, max_size=3), max_size=3),
    "Mapping[str, float]": st.dictionaries(TEXT, NUMBER, max_size=3),
}
ANY_ROW = st.sampled_from(typing.get_args(Row)).flatmap(
    lambda kind: st.builds(kind, **{field.name: BY_FIELD[str(field.type)] for field in dataclasses.fields(kind)})
)


@given(row=ANY_ROW)
@settings(max_examples=60, deadline=None)
def test_any_row_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, row: Row) -> None:
    path = tmp_path_factory.mktemp("rows") / "history.db"
    history = History(path, lambda notice: None, lambda: 0.0)
    history.keep(row)
    history.close()
    assert history.dropped == 0
    assert Reader(path).rows(type(row)) == [row]


def test_a_resumed_and_a_failed_attempt_count_for_the_backend_that_ended_the_call(opened: Opener) -> None:
    history = opened()
    broke = Attempt("spark-2", "b12x", "", 1.0, 0.2, FailureKind.RESET, Phase.COMMITTED)
    history.on_event(replace(CALL, attempts=(broke, replace(CALL.attempts[0], resumed_at=9))))
    history.settle()
    (hour,) = history.rows_now(Hour)
    assert (hour.backend, hour.calls, hour.failed, hour.tpot_n) == ("spark-1", 1, 0, 0)
