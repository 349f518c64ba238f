"""A history file that cannot be used costs nothing but history, and status, log line and metric say so."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.console import Console

from router.admin import views
from router.cli.status import screen
from router.events import Notice
from router.history import Baseline, History, Load, Reader
from router.history.schema import VERSION
from router.logs import LogFormat, Logs
from tests.exchange.conftest import World, world

__all__ = ["world"]

LOAD = Load("one", "abc", 1.0, 640.0)


@dataclass
class Lines:
    """A sink that keeps what it was given."""

    written: list[bytes] = field(default_factory=list)
    dropped: int = 0

    def write(self, data: bytes, lines: int) -> None:
        self.written.append(data)

    def reopen(self) -> None: ...

    def close(self, timeout_s: float) -> None: ...

    @property
    def text(self) -> str:
        return b"".join(self.written).decode()


def usable(path: Path) -> None:
    """A file as an earlier run left it; what SQLite says of it then comes from a pragma."""
    path.parent.mkdir()
    History(path, lambda notice: None, lambda: 0.0).close()


def newer_router(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")


def no_folder(path: Path) -> None:
    path.parent.write_text("a file where the folder should be: nobody can write there, root included")


# what is spoilt before the start, what the connection is told, and what the operator has to read
TROUBLES: dict[str, tuple[Callable[[Path], None], tuple[str, ...], str]] = {
    "a full disk": (usable, ("max_page_count = 1",), "database or disk is full"),
    "a read-only mount": (usable, ("query_only = ON",), "readonly database"),
    "no folder": (no_folder, (), "state"),
    "a file of a later router": (newer_router, (), f"version {VERSION + 1}"),
}


def seen(world: World) -> tuple[str, str, int]:
    """The status screen, the scrape's sample of it and the alarms that were raised."""
    console = Console(width=160)
    with console.capture() as captured:
        console.print(screen(views.status(world.app)))
    metrics = world.app.metrics.render().decode()
    (sample,) = [line for line in metrics.splitlines() if line.startswith("router_history_ok ")]
    return captured.get(), sample.split()[1], len([one for one in world.of(Notice) if one.alarm])


def delete(path: Path) -> None:
    for file in path.parent.glob("history.db*"):
        file.unlink()


async def settled(world: World) -> None:
    """What the writer did and said so far has reached the loop."""
    assert world.app.history is not None
    assert world.app.history.settle()
    await asyncio.sleep(1.0)


@pytest.mark.parametrize("name", TROUBLES)
async def test_the_router_serves_on_without_history_and_says_so(world: World, tmp_path: Path, name: str) -> None:
    spoil, pragmas, said = TROUBLES[name]
    path = tmp_path / "state" / "history.db"
    spoil(path)
    sink = Lines()
    world.backend("one").script = lambda call: call.chat("fine")
    logs = Logs(sink, world.loop.time, LogFormat.JSON)
    await world.start(logs=logs, history_file=path, pragmas=pragmas)
    assert world.app.history is not None
    world.app.history.keep(Baseline("smol", "abc", 1.0, b"x" * 100_000))
    await settled(world)
    answers = [await world.chat(stream=False).whole() for _ in range(3)]
    await settled(world)
    assert [answer.status for answer in answers] == [200] * 3
    screen_text, sample, alarms = seen(world)
    assert "no history: its file cannot be used" in screen_text
    assert sample == "0"
    assert alarms == 1  # said once, not once a row
    (line,) = [line for line in sink.text.splitlines() if "going on without history" in line]
    assert said in line
    assert '"error"' in line
    world.assert_idle()


async def test_a_corrupt_file_costs_what_was_in_it_and_no_call(world: World, tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    path.write_bytes(b"this is no database" * 1000)
    sink = Lines()
    world.backend("one").script = lambda call: call.chat("fine")
    await world.start(logs=Logs(sink, world.loop.time, LogFormat.JSON), history_file=path)
    assert world.app.history is not None
    world.app.history.keep(LOAD)
    await settled(world)
    assert (await world.chat(stream=False).whole()).status == 200
    assert "history.db.corrupt-" in sink.text
    screen_text, sample, alarms = seen(world)
    assert "no history" not in screen_text  # a new one has begun
    assert (sample, alarms) == ("1", 1)
    assert Reader(path).rows(Load) == [LOAD]


async def test_a_file_deleted_while_running_begins_anew_and_costs_no_call(world: World, tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    world.backend("one").script = lambda call: call.chat("fine")
    await world.start(history_file=path)
    assert world.app.history is not None
    world.app.history.keep(LOAD)
    await settled(world)
    delete(path)
    assert (await world.chat(stream=False).whole()).status == 200
    world.app.history.keep(LOAD)
    await settled(world)
    assert Reader(path).rows(Load) == [LOAD]
    assert seen(world)[1] == "1"
