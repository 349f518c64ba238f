"""`router top` in pieces: the line of blocks, the newest value, the whole screen."""

import io

import httpx
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from router.cli.top import latest, screen, sparkline
from tests.admin.conftest import AdminWorld, world

__all__ = ["world"]


@given(st.lists(st.none() | st.floats(0, 1e6), max_size=40))
def test_a_line_has_one_block_for_each_value_and_blanks_where_nothing_is_known(values: list[float | None]) -> None:
    line = sparkline(values)
    assert len(line) == len(values)
    assert [block == " " for block in line] == [value is None for value in values]


def test_the_highest_value_has_the_highest_block() -> None:
    assert sparkline([0.0, 50.0, 100.0]) == "▁▄█"


def test_the_step_that_is_still_filling_is_passed_over() -> None:
    assert latest([1.0, 2.0, None]) == 2.0
    assert latest([1.0, *[None] * 6]) is None


async def test_the_screen_shows_what_the_router_says(world: AdminWorld) -> None:
    async with await world.admin("marlin", "cutlass") as admin:
        text = shown(await admin.get("/api/status"), await admin.get("/api/history"))
        assert "marlin" in text
        assert "2 calls" not in text
        await admin.post("/api/backends/cutlass/intent", json={"intent": "draining"})
        assert "draining" in shown(await admin.get("/api/status"), await admin.get("/api/history"))


def shown(status: httpx.Response, history: httpx.Response) -> str:
    console = Console(file=io.StringIO(), width=160)
    with console.capture() as text:
        console.print(screen(status.json(), history.json()))
    return text.get()
