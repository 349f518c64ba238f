"""What is written of what happens, and that writing never holds anybody up."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import FailureKind, Phase
from router.events import (
    Attempt,
    AttemptFailed,
    BackendLoading,
    CallEnded,
    Event,
    HealthChanged,
    KernelObserved,
    Notice,
    Outcome,
    QualityChanged,
    Reloaded,
    Scraped,
)
from router.logs import LogFormat, Logs, ThreadSink

AT = 1_700_000_000.25
CALL = CallEnded(
    request_id="r-1",
    at=AT,
    route="/v1/chat/completions",
    model="smol",
    asked="smol-alias",
    stream=True,
    outcome=Outcome.OK,
    status=200,
    code="",
    attempts=(Attempt("spark-1", "marlin", "soonest", duration_s=2.2, ttft_s=0.2),),
    duration_s=2.30004,
    queued_s=0.1,
    ttft_s=0.3,
    prompt_tokens=50,
    completion_tokens=101,
    cached_tokens=None,
    bytes_in=100,
    bytes_out=2000,
    client="10.0.0.7",
)
BROKE = Attempt("spark-2", "b12x", "first", 1.0, 0.2, failure=FailureKind.RESET, phase=Phase.COMMITTED, detail="gone")


@dataclass
class ListSink:
    """Keeps what it was given."""

    written: list[bytes] = field(default_factory=list)
    dropped: int = 0
    closed: bool = False

    def write(self, data: bytes, lines: int) -> None:
        assert data.count(b"\n") >= lines
        self.written.append(data)

    def reopen(self) -> None: ...

    def close(self, timeout_s: float) -> None:
        self.closed = True

    @property
    def lines(self) -> list[str]:
        return b"".join(self.written).decode().split("\n")[:-1]


@pytest.fixture
def sink() -> ListSink:
    return ListSink()


@pytest.fixture
def logs(sink: ListSink) -> Logs:
    return Logs(sink, lambda: AT)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def written(events: list[Event], form: LogFormat = LogFormat.JSON) -> list[str]:
    sink = ListSink()
    logs = Logs(sink, lambda: AT, form)
    for event in events:
        logs.on_event(event)
    logs.close()
    return sink.lines


def test_a_call_is_one_json_line_with_its_decision_times_and_tokens() -> None:
    (line,) = written([CALL])
    said = json.loads(line)
    assert said["time"] == "2023-11-14T22:13:20.250Z"
    assert (said["event"], said["status"], said["outcome"]) == ("call", 200, "ok")
    assert (said["backend"], said["kernel"], said["reason"]) == ("spark-1", "marlin", "soonest")
    assert (said["duration_s"], said["ttft_s"], said["completion_tokens"]) == (2.3, 0.3, 101)
    assert said["cached_tokens"] is None
    assert "attempts" not in said


def test_a_call_of_several_attempts_lists_each() -> None:
    (line,) = written([replace(CALL, attempts=(BROKE, replace(CALL.attempts[0], resumed_at=40)))])
    first, second = json.loads(line)["attempts"]
    assert (first["failure"], first["phase"], first["detail"]) == ("reset", "committed", "gone")
    assert second["resumed_at"] == 40


def test_a_shed_call_has_no_backend() -> None:
    (line,) = written([replace(CALL, attempts=(), outcome=Outcome.SHED, status=503, code="overloaded")])
    assert json.loads(line)["backend"] is None


def test_changes_of_state_are_lines_and_looks_are_not() -> None:
    lines = written(
        [
            HealthChanged("spark-1", "healthy", "ejected", "refused"),
            Scraped("spark-1", 1.0, 0.0, 0.1, None, None),
            AttemptFailed("r", "spark-1", "smol", FailureKind.RESET, Phase.SENT, True, True, ""),
            QualityChanged("spark-1", "smol", "good", "flagged", "canary", ("text 4: 0.9 nats",)),
            Reloaded(4, ok=False, reason="line 7"),
            Notice("history", "disk full", alarm=True),
        ]
    )
    said = [json.loads(line) for line in lines]
    assert [(s["event"], s["level"]) for s in said] == [
        ("health", "warning"),
        ("quality", "warning"),
        ("reload", "error"),
        ("notice", "error"),
    ]
    assert said[1]["evidence"] == ["text 4: 0.9 nats"]


def test_what_is_seen_again_and_again_is_said_once() -> None:
    kernel = KernelObserved("spark-1", "marlin", "b12x", False, "log")
    loading = BackendLoading("spark-1", 10.0, 600.0)
    up = HealthChanged("spark-1", "starting", "healthy", "")
    events: list[Event] = [
        kernel,
        loading,
        kernel,
        replace(loading, since_s=20.0),
        up,
        loading,
        Reloaded(2, True, removed=("spark-1",)),
        kernel,
    ]
    assert [json.loads(line)["event"] for line in written(events)] == [
        "kernel",
        "loading",
        "health",
        "loading",
        "reload",
        "kernel",
    ]


def test_a_terminal_gets_a_short_line_a_call() -> None:
    (line,) = written([replace(CALL, attempts=(BROKE, *CALL.attempts))], LogFormat.TEXT)
    assert line[8:] == " 200 ok smol-alias spark-2(reset)->spark-1 2.30s ttft 0.300s 50+101tok r-1"
    (line,) = written([HealthChanged("spark-1", "healthy", "ejected", "no token for 30 s")], LogFormat.TEXT)
    assert line[8:] == ' WARNING health backend=spark-1 old=healthy new=ejected reason="no token for 30 s"'


@given(st.text(alphabet=st.characters(), max_size=300), st.sampled_from(LogFormat))
def test_whatever_a_client_sends_stays_within_its_one_line(asked: str, form: LogFormat) -> None:
    lines = written([replace(CALL, asked=asked, request_id=asked)], form)
    assert len(lines) == 1
    if form is LogFormat.JSON:
        assert json.loads(lines[0])["asked"] == asked[:200]
    else:
        assert lines[0].isprintable()


def test_lone_surrogates_do_not_cost_the_line() -> None:
    (line,) = written([replace(CALL, asked="\ud800")])
    assert json.loads(line)["asked"] == "\ud800"


def test_a_flush_is_one_write_of_a_bounded_batch(logs: Logs, sink: ListSink) -> None:
    for _ in range(5):
        logs.on_event(CALL)
    assert logs.flush(most=3)
    assert not logs.flush(most=3)
    assert not logs.flush(most=3)
    assert [data.count(b"\n") for data in sink.written] == [3, 2]


def test_past_the_bound_lines_are_dropped_counted_and_spoken_of_later() -> None:
    sink = ListSink()
    logs = Logs(sink, lambda: AT, most_pending=2)
    for _ in range(5):
        logs.on_event(CALL)
    assert logs.dropped == 3
    while logs.flush():
        pass
    logs.flush()
    assert json.loads(sink.lines[-1])["message"] == "3 log lines were dropped"
    assert len(sink.lines) == 3


def test_an_entry_that_cannot_be_written_costs_only_itself(logs: Logs, sink: ListSink) -> None:
    logs.on_event(replace(CALL, attempts=(object(),)))  # type: ignore[arg-type]
    logs.on_event(CALL)
    logs.flush()
    assert len(sink.lines) == 1
    assert logs.dropped == 1


async def test_the_loop_flushes_by_itself(logs: Logs, sink: ListSink) -> None:
    task = asyncio.create_task(logs.run(0.25))
    for _ in range(1000):
        logs.on_event(CALL)
    await asyncio.sleep(0.3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(sink.lines) == 1000
    assert len(sink.written) > 1


def test_the_standard_librarys_log_comes_here_too(logs: Logs, sink: ListSink) -> None:
    logger = logging.Logger("uvicorn")
    undo = logs.bridge(logging.INFO, logger)
    logger.debug("not this")
    logger.warning("port %d is taken", 8080)
    logger.info("wrong %d", "format")
    try:
        raise ValueError("boom")
    except ValueError:
        logger.exception("failed")
    undo()
    logger.warning("nor this")
    logs.flush()
    said = [json.loads(line) for line in sink.lines]
    assert [s["message"] for s in said[:2]] == ["port 8080 is taken", "wrong %d"]
    assert said[0]["logger"] == "uvicorn"
    assert said[0]["level"] == "warning"
    assert "ValueError: boom" in said[2]["message"]


def test_a_traceback_at_a_terminal_keeps_its_lines() -> None:
    sink = ListSink()
    logs = Logs(sink, lambda: AT, LogFormat.TEXT)
    logger = logging.Logger("asyncio")
    undo = logs.bridge(logging.INFO, logger)
    logger.error("failed\nat \x1b[31mline 3")
    undo()
    logs.close()
    assert [line[8:] if n == 0 else line for n, line in enumerate(sink.lines)] == [
        " ERROR asyncio: failed",
        r"    at \x1b[31mline 3",
    ]


def test_lines_of_many_threads_all_arrive(logs: Logs, sink: ListSink) -> None:
    logger = logging.Logger("many")
    undo = logs.bridge(logging.INFO, logger)

    def chatter() -> None:
        for _ in range(200):
            logger.info("hello")

    threads = [threading.Thread(target=chatter) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        logs.flush()
    undo()
    logs.close()
    assert len(sink.lines) == 800


def test_a_sink_writes_whole_lines_to_its_descriptor(pipe: tuple[int, int]) -> None:
    read, write = pipe
    sink = ThreadSink(write)
    sink.write(b"one\ntwo\n", 2)
    sink.close(10.0)
    assert os.read(read, 100) == b"one\ntwo\n"
    assert sink.dropped == 0


def test_a_blocked_sink_drops_and_counts_and_never_holds_the_caller(pipe: tuple[int, int]) -> None:
    read, write = pipe
    sink = ThreadSink(write, largest_backlog=300_000)
    line = b"x" * 999 + b"\n"
    for _ in range(1_000):
        sink.write(line, 1)
    assert 600 <= sink.dropped <= 700
    received = 0
    while received < (1_000 - sink.dropped) * 1_000:
        received += len(os.read(read, 65_536))
    sink.close(10.0)
    assert received == (1_000 - sink.dropped) * 1_000


def test_a_non_blocking_descriptor_is_waited_for(pipe: tuple[int, int]) -> None:
    read, write = pipe
    os.set_blocking(write, False)
    sink = ThreadSink(write)
    sink.write(b"y" * 199_999 + b"\n", 1)
    received = 0
    while received < 200_000:
        received += len(os.read(read, 65_536))
    sink.close(10.0)
    assert sink.dropped == 0


def test_a_reader_that_is_gone_costs_lines_not_the_router() -> None:
    read, write = os.pipe()
    os.close(read)
    sink = ThreadSink(write)
    sink.write(b"lost\n", 1)
    sink.close(10.0)
    os.close(write)
    assert sink.dropped == 1


def test_after_a_rotation_lines_go_to_the_new_file(tmp_path: Path) -> None:
    path, old = tmp_path / "router.log", tmp_path / "router.log.1"
    sink = ThreadSink(path)
    sink.write(b"before\n", 1)
    logs = Logs(sink, lambda: AT)
    path.rename(old)
    logs.reopen()
    sink.write(b"after\n", 1)
    logs.close(10.0)
    assert old.read_bytes() == b"before\n"
    assert path.read_bytes() == b"after\n"
    assert path.stat().st_mode & 0o007 == 0


def test_a_rotation_into_nowhere_keeps_the_old_file(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    path, moved = folder / "router.log", tmp_path / "moved"
    sink = ThreadSink(path)
    folder.rename(moved)
    sink.reopen()
    sink.write(b"still here\n", 1)
    sink.close(10.0)
    assert (moved / "router.log").read_bytes() == b"still here\n"


def test_a_file_that_cannot_be_opened_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        ThreadSink(tmp_path / "nowhere" / "router.log")


def test_after_closing_lines_are_counted_as_lost(pipe: tuple[int, int]) -> None:
    sink = ThreadSink(pipe[1])
    sink.close(10.0)
    sink.write(b"late\n", 1)
    assert sink.dropped == 1
