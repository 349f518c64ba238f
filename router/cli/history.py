"""`router history` and `router compare`: builds over time, from the router's own history file. No router need run."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from router import compare as comparing
from router.cli.ask import AsJson, fail
from router.errors import ConfigFault
from router.history.reader import HistoryUnreadable, Reader
from router.history.rows import Build, Hour, Incident, Verdict
from router.settings import read_settings

HistoryFile = Annotated[Path | None, typer.Option("--file", help="History file. [default: the router's own]")]


def history(
    model: Annotated[str, typer.Argument(help="A model, as /v1/models names it.")],
    file: HistoryFile = None,
    as_json: AsJson = False,
) -> None:
    """Show every build that served a model: when, how fast, how right, how often it fell over.

    Example:

        router history nvidia/Nemotron-3-Nano-30B-A3B-NVFP4
    """
    rows = summaries(file, model)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in rows], indent=2))
        return
    if not rows:
        Console().print(f"nothing is kept of {escape(model)} yet: a build is kept when it has served a call")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = (
        "BUILD",
        "BACKEND",
        "KERNELS",
        "VERSION",
        "SEEN",
        "HOURS",
        "CALLS",
        "TOK/S",
        "TTFT",
        "LOAD",
        "DOWN",
        "QUALITY",
    )
    for name in columns:
        table.add_column(
            name, justify="right" if name in ("HOURS", "CALLS", "TOK/S", "TTFT", "LOAD", "DOWN") else "left"
        )
    for one in rows:
        table.add_row(*map(escape, _cells(one)))
    Console().print(table)


def compare(
    first: Annotated[str, typer.Argument(help="A build, by the beginning of its id (see `router history`).")],
    second: Annotated[str, typer.Argument(help="The build to set beside it.")],
    model: Annotated[str | None, typer.Option(help="Only this model. [default: all they served]")] = None,
    file: HistoryFile = None,
    as_json: AsJson = False,
) -> None:
    """Set two builds side by side that never need to have run together.

    Between days of one build figures differ by about 7 % on a Spark; a winner is named only beyond that.

    Example:

        router compare 4f2a91 c07b33
    """
    rows = summaries(file, model)
    a, b = _pick(rows, first), _pick(rows, second)
    problem = comparing.not_comparable(a, b)
    verdicts = comparing.compare(a, b)
    if as_json:
        typer.echo(json.dumps({"not_comparable": problem, "figures": [asdict(one) for one in verdicts]}, indent=2))
        return
    console = Console()
    table = Table(box=None, show_header=False, pad_edge=False)
    cells = (_cells(a), _cells(b))
    for name, left, right in zip(
        (
            "build",
            "backend",
            "kernels",
            "version",
            "seen",
            "hours",
            "calls",
            "tok/s",
            "ttft",
            "load",
            "down",
            "quality",
        ),
        *cells,
        strict=True,
    ):
        table.add_row(name, escape(left), escape(right))
    console.print(table)
    if problem is not None:
        console.print(problem, style="yellow")
        return
    for one in verdicts:
        console.print(escape(one.words))
    if not verdicts:
        console.print("too little is kept of them to compare: each must have answered a few streams")


def summaries(file: Path | None, model: str | None) -> list[comparing.BuildSummary]:
    """Every kept build that served a model, oldest first."""
    try:
        reader = Reader(file or read_settings().history_file)
        only: dict[str, Any] = {"model": model} if model is not None else {}
        hours = reader.rows(Hour, **only)
        verdicts = reader.rows(Verdict, **only)
        incidents = reader.rows(Incident)
        served = {hour.build for hour in hours}
        builds = [one for one in reader.rows(Build) if one.id in served]
    except (HistoryUnreadable, ConfigFault) as fault:
        fail(fault.message, 1)
    return [comparing.summarize(one, hours, incidents, verdicts) for one in builds]


def _pick(rows: list[comparing.BuildSummary], beginning: str) -> comparing.BuildSummary:
    found = [one for one in rows if one.build.id.startswith(beginning)]
    if len(found) != 1:
        known = ", ".join(one.build.id[:8] for one in rows) or "none"
        fail(f"{'several builds begin' if found else 'no build begins'} with {beginning}; kept: {known}", 2)
    return found[0]


def _cells(one: comparing.BuildSummary) -> tuple[str, ...]:
    build = one.build
    seen = f"{_day(build.first_seen)} – {_day(build.last_seen)}"
    return (
        build.id[:8],
        build.backend,
        build.kernels,
        build.version or "–",
        seen,
        str(one.hours),
        str(one.calls),
        f"{one.decode.value:.1f} ± {one.decode.spread:.1f}" if one.decode else "–",
        f"{one.ttft.value:.2f} s" if one.ttft else "–",
        f"{build.load_s / 60:.0f} min" if build.load_s else "–",
        str(one.crashes),
        one.quality or "–",
    )


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
