"""`router bench`: which backend is faster at what, measured so that the answer holds."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from router.bench import outcome as running
from router.bench.client import HttpTarget, http_client
from router.bench.found import Found
from router.bench.page import page
from router.bench.plan import CONCURRENCY, QUICK_SHAPES, SHAPES, Plan, Siblings, conditions_of
from router.bench.result import Result, document, judge
from router.bench.runner import Runner
from router.bench.text import markdown, method, tables
from router.cli.ask import Admin, AdminUrl, fail
from router.cli.benchlook import NOT_USABLE, look
from router.cli.status import duration

DONE, INCOMPLETE = 0, 1
ROUNDS, QUICK_ROUNDS, QUICK_CONCURRENCY = 5, 3, (1, 4)
_LIMIT_TIMES, _LEAST_LIMIT_S = 3.0, 600.0  # of the estimate, where --max-minutes is not given


class Beside(StrEnum):
    """What siblings on the same host do meanwhile."""

    IDLE = "idle"
    BUSY = "busy"
    BOTH = "both"


def bench(
    what: Annotated[
        list[str] | None, typer.Argument(metavar="[BACKEND|URL]...", help="Whom. [default: all of the router]")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The served model. [default: the one that all serve]")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Minutes: 3 rounds, 1 and 4 streams, two shapes.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Begin without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do and cost.")] = False,
    repeats: Annotated[int | None, typer.Option(min=3, max=50, help="Rounds. [default: 5, quick 3]")] = None,
    concurrency: Annotated[
        str | None, typer.Option(help="Streams at once, up to 16. [default: 1,2,4,8,16, quick 1,4]")
    ] = None,
    siblings: Annotated[Beside, typer.Option(help="What others on the same host do meanwhile.")] = Beside.BOTH,
    force: Annotated[bool, typer.Option("--force", help="Measure beside real traffic, and keep it, marked.")] = False,
    max_minutes: Annotated[
        float | None, typer.Option(min=0.1, help="Stop then, keep what there is. [default: 3 × the estimate]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, every measurement included.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, to paste in a forum.")] = False,
    html: Annotated[Path | None, typer.Option(dir_okay=False, help="Also write one HTML page with plots.")] = None,
    no_store: Annotated[bool, typer.Option("--no-store", help="Do not tell the router what was measured.")] = False,
    api_key: Annotated[
        str | None, typer.Option(envvar="ROUTER_BENCH_API_KEY", help="Key that the backends ask for.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of order and prompts; again, it meets its own in caches. [default: drawn]")
    ] = None,
    admin: AdminUrl = None,
) -> None:
    """Compare backends: prefill and decode apart, short and long, 1 to 16 streams, siblings idle and busy.

    A winner is named only where the difference stands. Ctrl-C keeps what was measured. What backends of the router
    were measured at is where its own estimates begin from then on; bare URLs need no router, and nothing is kept.

    Exit code: 0 done, 1 incomplete (a backend died, Ctrl-C), 2 nothing to measure, 3 no router answers.

    Examples:

        router bench --quick

        router bench spark-1-marlin spark-1-cutlass --html bench.html --yes

        router bench http://spark-1:8000 http://spark-1:8001 --markdown --yes > bench.md
    """
    console = Console(stderr=as_json or as_markdown, highlight=False)
    levels = _levels(concurrency, QUICK_CONCURRENCY if quick else CONCURRENCY)
    router, found = look(list(what or []), model, api_key, admin)
    shapes, rounds = (QUICK_SHAPES, QUICK_ROUNDS) if quick else (SHAPES, ROUNDS)
    beside = tuple(Siblings) if siblings is Beside.BOTH else (Siblings(siblings.value),)
    conditions = conditions_of(shapes, levels, beside, lambda c: any(one.cannot(c) is None for one in found.subjects))
    drawn = secrets.randbelow(1 << 31) if seed is None else seed
    plan = Plan(found.subjects, conditions, repeats or rounds, drawn)
    _announce(console, plan, found)
    if dry_run:
        return
    if not conditions:
        fail("no condition fits these backends: " + escape("; ".join(plan.left_out())), NOT_USABLE)
    if not (yes or quick) and not typer.confirm("Begin?", default=True, err=True):
        raise typer.Exit(INCOMPLETE)
    most_s = 60 * max_minutes if max_minutes else max(_LEAST_LIMIT_S, _LIMIT_TIMES * plan.seconds())
    at, began = time.time(), time.monotonic()
    outcome = asyncio.run(_run(console, plan, found, running.Rules(force=force, most_s=most_s), api_key))
    result = judge(plan, outcome, found.qualities, at, time.monotonic() - began, found.notes, found.lost)
    _show(console, result, as_json=as_json, as_markdown=as_markdown, html=html)
    if router is not None and not no_store:
        _store(console, router, result, outcome)
    raise typer.Exit(INCOMPLETE if result.stopped else DONE)


def _levels(given: str | None, default: Sequence[int]) -> tuple[int, ...]:
    if given is None:
        return tuple(default)
    try:
        levels = sorted({int(part) for part in given.split(",")})
    except ValueError:
        levels = []
    if not levels or levels[0] < 1 or levels[-1] > max(CONCURRENCY):
        fail(f"--concurrency is numbers from 1 to {max(CONCURRENCY)}, like 1,4,16; not {given}", NOT_USABLE)
    return tuple(levels)


def _announce(console: Console, plan: Plan, found: Found) -> None:
    """What is about to happen, and what it costs."""
    for one in plan.subjects:
        console.print(escape(f"{one.title}: {one.model} at {one.url}" + (f", build {one.build}" if one.build else "")))
    for name, why in found.lost.items():
        console.print(f"[yellow]{escape(name)} is not measured: {escape(why)}[/]")
    for note in (*found.notes, *plan.left_out()):
        console.print(f"[bright_black]{escape(note)}[/]", soft_wrap=True)
    console.print(
        f"{len(plan.conditions)} conditions × {plan.repeats} rounds × {len(plan.subjects)} backends after a warm-up: "
        f"{plan.calls():,} calls, about {duration(plan.seconds())} of full load on their hosts"
    )


# --- measuring ---


async def _run(
    console: Console, plan: Plan, found: Found, rules: running.Rules, api_key: str | None
) -> running.Outcome:
    """The bench, with a bar; Ctrl-C and SIGTERM end it and keep what there is."""
    loop = asyncio.get_running_loop()
    columns = (BarColumn(), TextColumn("{task.fields[left]:>12}"), TextColumn("{task.description}"))
    async with AsyncExitStack() as stack:
        targets = {}
        for one in (*found.subjects, *found.beside):
            client = await stack.enter_async_context(http_client(one.url, api_key))
            targets[one.name] = HttpTarget(one.name, one.model, client, loop.time)
        bar = stack.enter_context(Progress(*columns, console=console, transient=True, disable=not console.is_terminal))
        task = bar.add_task("", total=1.0, left="")

        said = 0

        def told(progress: running.Progress) -> None:
            nonlocal said
            if not console.is_terminal and progress.round != said:  # a log gets a line a round instead of a bar
                said = progress.round
                console.print(f"round {said} of {plan.repeats}, {duration(progress.left_s)} left")
            done_s = loop.time() - began
            share = done_s / (done_s + progress.left_s) if progress.left_s else 1.0
            bar.update(
                task, completed=share, left=f"{duration(progress.left_s)} left", description=escape(progress.now)
            )

        began = loop.time()
        runner = Runner(plan, targets, rules, told)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, runner.stop, "interrupted")
        try:
            outcome = await runner.run()
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
        for target in targets.values():
            for note in target.notes:
                outcome.note(note)
    return outcome


# --- showing ---


def _show(console: Console, result: Result, *, as_json: bool, as_markdown: bool, html: Path | None) -> None:
    if as_json:
        typer.echo(json.dumps(document(result), indent=2))
    elif as_markdown:
        typer.echo(markdown(result), nl=False)
    else:
        _print(console, result)
    if html is not None:
        html.write_text(page(result), encoding="utf-8")
        console.print(f"written: {escape(str(html))}")


def _print(console: Console, result: Result) -> None:
    if result.stopped:
        console.print(f"[yellow bold]incomplete: {escape(result.stopped)}[/]", soft_wrap=True)
    for one in result.verdict:
        console.print(f"[bold]•[/] {escape(one)}", soft_wrap=True)
    for table in tables(result):
        shown = Table(title=table.title, title_justify="left", box=None, pad_edge=False, header_style="bold")
        for number, head in enumerate(table.heads):
            shown.add_column(escape(head), justify="right" if number else "left", overflow="fold")
        for row in table.rows:
            shown.add_row(*map(escape, row))
        console.print()
        console.print(shown)
    console.print()
    for note in result.notes:
        console.print(f"[bright_black]{escape(note)}[/]", soft_wrap=True)
    console.print(f"[bright_black]{escape(method(result))}[/]", soft_wrap=True)


def _store(console: Console, router: Admin, result: Result, outcome: running.Outcome) -> None:
    """Tell the router; what of it is in force from now on."""
    # A build gets its whole name when its first answer shows a fingerprint; the same process is the same build.
    now = {one["name"]: one["build"] for one in router.get("/api/status")["backends"]}
    builds = {
        one.name: now.get(one.name, "") if one.name in outcome.processes else one.build for one in result.subjects
    }
    results: list[dict[str, Any]] = [
        {"backend": one.name, "model": one.model, "build": builds[one.name], **result.priors[one.name].to_json()}
        for one in result.subjects
        if one.name in result.priors and one.name not in outcome.gone
    ]
    if not results:
        console.print("too little was measured for the router's estimates to begin with")
        return
    for one in router.post("/api/bench", {"results": results})["results"]:
        if one["in_force"]:
            kept = "kept with its build" if one["kept"] else f"until the router restarts ({one['reason']})"
            console.print(f"{escape(one['backend'])}: the router's estimate begins from this bench, {escape(kept)}")
        else:
            console.print(f"[yellow]{escape(one['backend'])}: not taken by the router: {escape(one['reason'])}[/]")
