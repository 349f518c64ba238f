"""`router simulate`: replay a trace against a described fleet, with the router's own policies, in simulated time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from router.policy.choose import POLICIES
from router.sim.described import DescribedFleet, read_fleet
from router.sim.oracle import oracle
from router.sim.replay import Ended, Replay
from router.sim.report import COLUMNS, Summary, document, page, row, summarise
from router.sim.trace import Arrival, at_rate, read, slice_of, synthetic, with_models

T = TypeVar("T")
ORACLE = "oracle"


def simulate(
    fleet: Annotated[Path, typer.Argument(help="A described fleet, as in config/fleets/*.yaml.")],
    trace: Annotated[Path | None, typer.Option(help="CSV or JSONL with the columns of the public traces.")] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(POLICIES)} or {ORACLE}; all by default.")
    ] = None,
    calls: Annotated[int, typer.Option(min=20, help="How many calls, from a place drawn by the seed.")] = 500,
    rate: Annotated[float, typer.Option(min=1e-6, help="Mean calls per second; the trace is scaled to it.")] = 0.3,
    poisson: Annotated[bool, typer.Option(help="Draw the gaps anew instead of scaling the trace's.")] = False,
    longest_prompt: Annotated[int, typer.Option(help="Leave out prompts longer than this (tokens).")] = 32_000,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    host_factor: Annotated[float, typer.Option(help="Scale what is believed of siblings' cost.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write one HTML page with plots.")] = None,
) -> None:
    """Replay a trace against a described fleet: goodput, TTFT, TPOT, end to end, and who got what.

    Exit code: 0 done, 1 the page could not be written, 2 fleet, trace, policy or page cannot be used.

    Examples:

        router simulate config/fleets/two-sparks-two-kernels.yaml

        router simulate config/fleets/one-spark-three-kernels.yaml --policy predictive --html report.html
    """
    console = Console(stderr=as_json, highlight=False)
    names = policy or [*POLICIES, ORACLE]
    try:
        described = _read(fleet, read_fleet)
        unknown = [name for name in names if name not in POLICIES and name != ORACLE]
        if unknown:
            raise ValueError(f"no such policy: {', '.join(unknown)} (there is {', '.join([*POLICIES, ORACLE])})")
        if html is not None and not html.parent.is_dir():
            raise ValueError(f"{html}: no such directory to write to")
        arrivals = _arrivals(trace, described, calls, rate, poisson, longest_prompt, seed)
    except ValueError as fault:
        console.print(f"[red]{escape(str(fault))}[/]")
        raise typer.Exit(2) from fault
    started = time.perf_counter()
    runs, summaries, simulated = _run_all(console, described, arrivals, names, seed, host_factor)
    took, promise = time.perf_counter() - started, described.promise
    about = (
        f"{len(arrivals)} calls of {trace.name if trace else 'a synthetic trace'} at {rate:g} a second against "
        f"{described.name}; promised: TPOT {1000 * promise.tpot_s:.0f} ms, TTFT {promise.ttft_s:g} s "
        f"+ {promise.ttft_s_per_1k_prompt:g} s per 1,000 prompt tokens. "
        f"{simulated:.0f} s simulated in {took:.1f} s."
    )
    if as_json:
        typer.echo(json.dumps({"about": about, **document(summaries)}, indent=2))
    else:
        _print(console, about, summaries)
    if html is not None:
        _write(console, html, page(f"Simulated: {described.name}", about, summaries, runs))


def _read(path: Path, reader: Callable[[Path], T]) -> T:
    """Read a file; what is wrong with it is said behind its name.

    Raises:
        ValueError: it cannot be read or used.
    """
    try:
        return reader(path)
    except OSError as fault:
        raise ValueError(f"{path}: {fault.strerror or fault}") from fault
    except UnicodeDecodeError as fault:
        raise ValueError(f"{path}: not UTF-8 text") from fault
    except ValueError as fault:
        said = str(fault)
        raise ValueError(said if said.startswith(str(path)) else f"{path}: {said}") from fault


def _write(console: Console, path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as fault:
        console.print(f"[red]{escape(f'{path}: {fault.strerror or fault}')}[/]")
        raise typer.Exit(1) from fault
    console.print(f"written: {path}")


def _arrivals(
    trace: Path | None,
    fleet: DescribedFleet,
    calls: int,
    rate: float,
    poisson: bool,
    longest_prompt: int,
    seed: int,
) -> list[Arrival]:
    known = _read(trace, read) if trace is not None else synthetic(calls, seed)
    chosen = slice_of(known, calls, seed, longest_prompt)
    return with_models(at_rate(chosen, rate, seed if poisson else None), dict(fleet.traffic), seed)


def _run_all(
    console: Console, fleet: DescribedFleet, arrivals: Sequence[Arrival], names: Sequence[str], seed: int, factor: float
) -> tuple[dict[str, Sequence[Ended]], list[Summary], float]:
    runs: dict[str, Sequence[Ended]] = {}
    summaries, simulated = [], 0.0
    columns = (TextColumn("{task.description:16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        for name in names:
            task = progress.add_task(name, total=len(arrivals))
            replay = Replay(
                fleet,
                arrivals,
                "predictive" if name == ORACLE else name,
                seed=seed,
                oracle=oracle if name == ORACLE else None,
                host_factor=factor,
            )
            for done in replay.run():
                progress.update(task, completed=done)
            simulated += replay.now
            runs[name] = replay.ended
            summaries.append(summarise(name, replay.ended, replay.refused, fleet.promise))
    return runs, summaries, simulated


def _print(console: Console, about: str, summaries: Sequence[Summary]) -> None:
    console.print(escape(about))
    table = Table(box=None, pad_edge=False)
    for name in COLUMNS[:-1]:
        table.add_column(name, justify="left" if name == "policy" else "right", no_wrap=True)
    for one in summaries:
        table.add_row(*[escape(cell) for cell in row(one)[:-1]])
    console.print(table)
    for one in summaries:
        console.print(f"{one.policy:16} {escape(row(one)[-1])}")
