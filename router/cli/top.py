"""`router top`: what every backend does right now, redrawn each second until q."""

from __future__ import annotations

import contextlib
import select
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from router.cli.ask import Admin, AdminUrl
from router.cli.status import HEALTH_STYLES, attention, kernel

BLOCKS = " ▁▂▃▄▅▆▇█"
SHOWN_STEPS = 24  # of five seconds: two minutes
WIDE_FROM = 136  # columns that every column of its own needs, with names of 18 letters

Seen = list[tuple[dict[str, Any], dict[str, list[float | None]]]]
"""What the router says of each backend, beside what it did in the last minutes."""


def top(
    every: Annotated[float, typer.Option("--every", min=0.2, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="One look, then end: for scripts and pictures.")] = False,
    admin: AdminUrl = None,
) -> None:
    """Watch tokens per second, TTFT, calls in flight, queue and KV use of every backend. Ends with q.

    Examples:

        router top

        router top --every 5

        router top --once
    """
    router = Admin(admin)
    console = Console()
    if once or not console.is_terminal:
        console.print(look(router))
        return
    live = Live(look(router), console=console, screen=True, auto_refresh=False)
    with contextlib.suppress(KeyboardInterrupt), keys() as pressed, live:
        while pressed(every) not in ("q", "Q", "\x1b"):
            live.update(look(router), refresh=True)


def look(router: Admin) -> RenderableType:
    """One screen from what the router says now."""
    status = router.get("/api/status")
    return screen(status, router.get("/api/history", since=max(0.0, status["now"] - SHOWN_STEPS * 5.0)))


def screen(status: dict[str, Any], history: dict[str, Any]) -> RenderableType:
    """The table, a headline and what wants attention."""
    rates = [latest(columns.get("tokens_per_s", [])) or 0.0 for _, columns in _beside(status, history)]
    head = Text(f"{sum(rates):.0f} tok/s", style="bold")
    head.append(f"   {status['calls_open']} calls open   {status['queued']} queued   q ends", style="not bold")
    return Group(head, Text(), Fleet(status, history), *[Text(line, style="red") for line in attention(status)])


class Fleet:
    """The table of the fleet: a line for each backend where there is room, two where the terminal is narrow."""

    def __init__(self, status: dict[str, Any], history: dict[str, Any]) -> None:
        self._seen = _beside(status, history)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The wide table, or the narrow one."""
        yield _wide(self._seen) if options.max_width >= WIDE_FROM else _narrow(self._seen)


def _beside(status: dict[str, Any], history: dict[str, Any]) -> Seen:
    return [(one, history["backends"].get(one["name"], {})) for one in status["backends"]]


def _narrow(seen: Seen) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("BACKEND\nHEALTH", "KERNEL"):
        table.add_column(heading, overflow="fold")
    for heading in ("TOK/S\nKV", "1 MIN", "TTFT\nTPOT", "IN FLIGHT\nWAITING"):
        table.add_column(heading, justify="left" if heading == "1 MIN" else "right", no_wrap=True)
    for one, columns in seen:
        name, health, runs, rate, line, ttft, tpot, in_flight, waiting = _cells(one, columns)
        table.add_row(
            Text("\n").join([name, health]),
            runs,
            Text("\n").join([rate, Text("–" if one["kv_usage"] is None else f"{one['kv_usage']:.0%}")]),
            line[-SHOWN_STEPS // 2 :],
            Text("\n").join([ttft, tpot]),
            Text("\n").join([in_flight, waiting]),
        )
    return table


def _wide(seen: Seen) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for name, right in (
        ("BACKEND", False),
        ("HEALTH", False),
        ("KERNEL", False),
        ("TOK/S", True),
        ("2 MIN", False),
        ("TTFT", True),
        ("TPOT", True),
        ("IN FLIGHT", True),
        ("WAITING", True),
        ("KV", False),
    ):
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "KERNEL")
    for one, columns in seen:
        usage = one["kv_usage"]
        kv = ProgressBar(total=1.0, completed=usage, width=10) if usage is not None else Text("–")
        table.add_row(*_cells(one, columns), kv)
    return table


def _cells(one: dict[str, Any], columns: dict[str, list[float | None]]) -> list[Text]:
    shown = one["intent"] if one["intent"] != "active" else one["health"]
    rates = columns.get("tokens_per_s", [])
    return [
        Text(one["name"]),
        Text(shown, style=HEALTH_STYLES.get(shown, "magenta")),
        kernel(one),
        Text(_number(latest(rates), "{:.0f}")),
        Text(sparkline(rates[-SHOWN_STEPS:]), style="cyan"),
        Text(_number(latest(columns.get("ttft_s", [])), "{:.0f} ms", 1000)),
        Text(_number(latest(columns.get("tpot_s", [])), "{:.1f} ms", 1000)),
        Text(str(one["in_flight"]), style="bold" if one["in_flight"] else "bright_black"),
        Text(_number(one["waiting"], "{:.0f}")),
    ]


def latest(values: list[float | None]) -> float | None:
    """The newest value of the last half minute that is known; the very last step is still filling."""
    return next((value for value in reversed(values[-6:]) if value is not None), None)


def sparkline(values: list[float | None]) -> str:
    """A line of blocks, each as high as its value beside the highest; blank where nothing is known."""
    most = max((value for value in values if value is not None), default=0.0) or 1.0
    return "".join(" " if value is None else BLOCKS[1 + min(7, int(value / most * 7.999))] for value in values)


def _number(value: float | None, form: str, scale: float = 1.0) -> str:
    return "–" if value is None else form.format(value * scale)


@contextlib.contextmanager
def keys() -> Iterator[Any]:
    """A function that waits so many seconds for a key and returns it, "" for none."""
    try:
        import termios
        import tty

        before = termios.tcgetattr(sys.stdin)
    except (ImportError, OSError, ValueError):  # no terminal to read keys from: only Ctrl-C ends

        def wait(seconds: float) -> str:
            time.sleep(seconds)
            return ""

        yield wait
        return

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        return sys.stdin.read(1) if ready else ""

    try:
        tty.setcbreak(sys.stdin)
        yield pressed
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
