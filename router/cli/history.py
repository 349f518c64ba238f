"""`router history` and `router compare`: builds over time, from the router's own history file. No router need run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from router import builds
from router import compare as comparing
from router.bench.fixed import DECODE, DECODE_FOUR, PREFILL
from router.builds import FIXED, TRAFFIC, TTFT, BuildSummary
from router.cli.ask import AsJson, fail
from router.errors import ConfigFault
from router.history.reader import HistoryUnreadable, Reader
from router.history.rows import BenchDay, Build, Hour, Incident, Load, Verdict
from router.settings import read_settings

HistoryFile = Annotated[Path | None, typer.Option("--file", help="History file. [default: the router's own]")]
_MARKS = {builds.BENCH: "ᵇ", TRAFFIC: "ᵗ"}  # what a figure came from, where not from the fixed workload


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
    console = Console()
    if not rows:
        console.print(
            f"{escape(str(file or read_settings().history_file))} holds nothing of {escape(model)} yet: "
            "a build is kept when it was checked, measured or called"
        )
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("BUILD", no_wrap=True)
    table.add_column("WHAT")
    for name in ("C=1", "C=4", "PREFILL", "LOAD", "CALLS", "DOWN"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("QUALITY", no_wrap=True)
    for one in rows:
        table.add_row(one.build.id[:6], escape(_what(one)), *map(escape, _figures(one)))
    console.print(table)
    console.print(
        "tok/s at one and at four streams and of prefill, measured while idle (ᵇ by router bench, ᵗ in traffic); "
        "LOAD until ready; DOWN without being asked to",
        style="dim",
    )
    for line in _slow(rows):
        console.print(escape(line), style="yellow")


def compare(
    first: Annotated[str, typer.Argument(help="A build, by the beginning of its id (see `router history`).")],
    second: Annotated[str, typer.Argument(help="The build to set beside it.")],
    model: Annotated[str | None, typer.Option(help="Only this model. [default: the one both served]")] = None,
    file: HistoryFile = None,
    as_json: AsJson = False,
) -> None:
    """Set two builds side by side that never need to have run together.

    Between days of one build figures differ by about 7 % on a Spark; a winner is named only beyond that.

    Example:

        router compare 4f2a91 c07b33
    """
    a, b = _pair(summaries(file, model), first, second)
    problem = comparing.not_comparable(a, b)
    verdicts = [] if problem is not None else comparing.compare(a, b)
    remarks = comparing.remarks(a, b, verdicts)
    if as_json:
        document = {
            "first": asdict(a),
            "second": asdict(b),
            "not_comparable": problem,
            "figures": [asdict(one) for one in verdicts],
            "remarks": remarks,
        }
        typer.echo(json.dumps(document, indent=2))
        return
    console = Console()
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, left, right in zip(_ROWS, _cells(a), _cells(b), strict=True):
        if (left, right) != (_NONE, _NONE):
            table.add_row(name, escape(left), escape(right))
    console.print(table)
    for line in remarks:
        console.print(escape(line), style="dim")
    if problem is not None:
        console.print(escape(problem), style="yellow")
        return
    for one in verdicts:
        console.print(escape(one.words))
    if not verdicts:
        console.print(
            "nothing was measured of both alike yet: the router measures a proved build once a day, when its machine "
            "was idle for `speed.idle_s`"
        )


def summaries(file: Path | None, model: str | None) -> list[BuildSummary]:
    """Every kept build that served a model, oldest first."""
    try:
        reader = Reader(file or read_settings().history_file)
        # Of all models: whether a machine was slow on a day shows by everything that was measured there.
        rows = builds.Rows(
            builds=sorted(reader.rows(Build), key=lambda one: one.first_seen),
            hours=reader.rows(Hour),
            benches=reader.rows(BenchDay),
            incidents=reader.rows(Incident),
            verdicts=reader.rows(Verdict),
            loads=reader.rows(Load),
        )
    except (HistoryUnreadable, ConfigFault) as fault:
        fail(fault.message, 1)
    return builds.summaries(rows, model)


def _pair(rows: Sequence[BuildSummary], first: str, second: str) -> tuple[BuildSummary, BuildSummary]:
    """Two builds by the beginnings of their ids; of several models the one that both served."""
    ids = [_build(rows, beginning) for beginning in (first, second)]
    found = [[one for one in rows if one.build.id == wanted] for wanted in ids]
    common = [(a, b) for a in found[0] for b in found[1] if a.model == b.model]
    if len(common) > 1:
        names = ", ".join(a.model for a, _ in common)
        fail(f"both served several models; name one with --model: {names}", 2)
    return common[0] if common else (found[0][0], found[1][0])


def _build(rows: Sequence[BuildSummary], beginning: str) -> str:
    found = {one.build.id for one in rows if one.build.id.startswith(beginning)}
    if len(found) != 1:
        _no_such(rows, beginning, found)
    return found.pop()


def _no_such(rows: Sequence[BuildSummary], beginning: str, found: set[str]) -> NoReturn:
    known = {one.build.id: f"  {one.build.id[:8]}  {_what(one)}" for one in rows if not found or one.build.id in found}
    problem = "several builds begin" if found else "no build begins"
    told = f"{problem} with {beginning}. Type as much of one of these ids as tells it from the others:"
    fail("\n".join([told, *(known.values() or ["  none is kept yet"])]), 2)


_NONE = "–"
_ROWS = (
    "build",
    "model",
    "backend",
    "host",
    "kernels",
    "version",
    "image",
    "flags",
    "seen",
    "one stream",
    "four streams",
    "prefill",
    "traffic",
    "first token",
    "GPU",
    "load",
    "calls",
    "down",
    "quality",
)


def _cells(one: BuildSummary) -> tuple[str, ...]:
    build, traffic = one.build, one.figures.get(TRAFFIC, {})
    gpu = [
        f"{value:.0f} {unit}"
        for value, unit in ((one.gpu.clock_mhz, "MHz"), (one.gpu.temperature_c, "°C"), (one.gpu.power_w, "W"))
        if value is not None
    ]
    decode, ttft = traffic.get(DECODE), traffic.get(TTFT)
    return (
        build.id[:8],
        one.model,
        build.backend,
        build.host or _NONE,
        build.kernels,
        build.version or _NONE,
        build.image or _NONE,
        build.flags or _NONE,
        f"{_day(build.first_seen)} – {_day(build.last_seen)}",
        *(_measured(one, name, spread=True) for name in (DECODE, DECODE_FOUR, PREFILL)),
        f"{decode.value:.1f} ± {decode.spread:.1f} tok/s a stream" if decode else _NONE,
        f"{ttft.value:.2f} s in traffic" if ttft else _NONE,
        ", ".join(gpu) or _NONE,
        _load(one),
        f"{one.calls:,} in {one.hours} h, {one.failed} failed" if one.calls else _NONE,
        f"{one.outages}× unasked, {one.restarts} restarts" if one.outages or one.restarts else _NONE,
        one.quality or _NONE,
    )


def _figures(one: BuildSummary) -> tuple[str, ...]:
    return (
        *(_measured(one, name) for name in (DECODE, DECODE_FOUR, PREFILL)),
        _load(one),
        f"{one.calls:,}/{one.hours}h",
        str(one.outages),
        one.quality or _NONE,
    )


def _measured(one: BuildSummary, name: str, *, spread: bool = False) -> str:
    """A figure with where it came from; traffic says nothing of four streams and of prefill."""
    found = one.figure(name)
    if found is None:
        return _NONE
    source, figure = found
    if not spread:
        return f"{figure.value:,.0f}{_MARKS.get(source, '')}"
    days = f"{figure.days} day{'s' if figure.days > 1 else ''}"
    by = "idle" if source == FIXED else source
    return f"{figure.value:,.1f} ± {figure.spread:,.1f} tok/s ({by}, {days})"


def _what(one: BuildSummary) -> str:
    build = one.build
    parts = [build.backend, build.kernels, build.version, build.host if build.host != build.backend else ""]
    first, last = _day(build.first_seen), _day(build.last_seen)
    return " · ".join([*filter(None, parts), first if first == last else f"{first} – {last}"])


def _load(one: BuildSummary) -> str:
    if one.load_s is None:
        return _NONE
    return f"{one.load_s / 60:.0f} min" if one.load_s >= 90 else f"{one.load_s:.0f} s"


def _slow(rows: Sequence[BuildSummary]) -> list[str]:
    found = {(day, one.build.host, why) for one in rows for day, why in one.slow_days.items()}
    return [f"{day} is left out on {host}: {why}" for day, host, why in sorted(found)]


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
