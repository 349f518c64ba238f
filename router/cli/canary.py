"""`router canary`: ask for a check, see what the last ones found, keep and carry baselines."""

from __future__ import annotations

import base64
import json
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from router.cli.ask import REFUSED, Admin, AdminUrl, AsJson, fail
from router.cli.status import GRADE_STYLES, duration

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(help="The backend's name, as `router status` shows it.")]
Model = Annotated[str | None, typer.Option(help="Only this model of it.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Only ask for it; it runs when the backend is idle.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what it would ask and cost.")]


@app.callback()
def _root() -> None:
    """Known questions, scored answers: is a backend still right?

    Examples:

        router canary show

        router canary run spark-1-cutlass
    """


@app.command()
def run(
    backend: Name,
    model: Model = None,
    full: Annotated[bool, typer.Option("--full", help="At most 10 minutes instead of one.")] = False,
    dry_run: DryRun = False,
    no_wait: NoWait = False,
    admin: AdminUrl = None,
) -> None:
    """Check a backend as soon as it is idle. A real call that comes in goes first.

    Exit code: 0 nothing was found, 1 it is flagged.

    Examples:

        router canary run spark-1-cutlass

        router canary run spark-1-cutlass --full --dry-run
    """
    _run(Admin(admin), backend, model, full=full, keep=False, dry_run=dry_run, wait=not no_wait)


@app.command()
def baseline(
    backend: Name,
    model: Model = None,
    quick: Annotated[bool, typer.Option("--quick", help="One minute instead of ten: fewer texts are kept.")] = False,
    dry_run: DryRun = False,
    no_wait: NoWait = False,
    admin: AdminUrl = None,
) -> None:
    """Vouch for a backend as it runs now: its answers become the proven baseline of its build.

    Example:

        router canary baseline spark-1-marlin
    """
    _run(Admin(admin), backend, model, full=not quick, keep=True, dry_run=dry_run, wait=not no_wait)


def _run(router: Admin, backend: str, model: str | None, *, full: bool, keep: bool, dry_run: bool, wait: bool) -> None:
    console = Console()
    document = {"backend": backend, "model": model, "size": "full" if full else "quick", "keep": keep}
    before = {one["model"]: one["checks"] for one in _subjects(router, backend)}
    for plan in router.post("/api/quality/run", {**document, "dry_run": True})["checks"]:
        kinds = ", ".join(f"{count} {family}" for family, count in plan["of"].items())
        cost = duration(plan["cost_s"])
        console.print(f"{backend} {escape(plan['model'])}: {plan['steps']} steps ({kinds}), about {cost}")
    if dry_run:
        return
    asked = [plan["model"] for plan in router.post("/api/quality/run", document)["checks"]]
    if wait:
        _follow(router, console, backend, asked, before)


def _follow(router: Admin, console: Console, backend: str, models: list[str], before: dict[str, int]) -> None:
    """Show progress until every check has ended, then what they found."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[now]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task(backend, total=1.0, now="")
        while True:
            document = router.get("/api/quality")
            mine = [s for s in document["backends"] if s["backend"] == backend and s["model"] in models]
            if all(s["checks"] > before.get(s["model"], 0) for s in mine):
                break
            running = document["running"]
            if running is not None and running["backend"] == backend:
                done = running["steps"] - running["left"]
                shown.update(task, total=running["steps"], completed=done, now=running["now"])
            else:
                waits = next((s["waits_for"] for s in mine if s["waits_for"]), "its turn")
                shown.update(task, now=f"waits for {waits}")
            time.sleep(0.5)
    for subject in mine:
        console.print(details(subject))
    if any(s["grade"] == "flagged" for s in mine):
        raise typer.Exit(1)


def _subjects(router: Admin, backend: str | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = router.get("/api/quality")["backends"]
    return [one for one in found if backend in (None, one["backend"])]


@app.command()
def show(
    backend: Annotated[str | None, typer.Argument(help="Only this backend, with its evidence.")] = None,
    as_json: AsJson = False,
    admin: AdminUrl = None,
) -> None:
    """Show what is thought of every backend's answers, and why.

    Examples:

        router canary show

        router canary show spark-1-cutlass --json
    """
    router = Admin(admin)
    found = _subjects(router, backend)
    if backend is not None and not found:
        fail(f"there is no backend {backend} that serves a model", REFUSED)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    console = Console()
    if backend is not None:
        for one in found:
            console.print(details(one))
        return
    console.print(overview(found))


def overview(subjects: list[dict[str, Any]]) -> Table:
    """One line a backend and model."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("BACKEND", "MODEL", "QUALITY", "CHECKED", "BASELINE", "NEXT", "WHY"):
        table.add_column(name, overflow="fold", no_wrap=name in ("BACKEND", "QUALITY", "BASELINE"))
    for one in subjects:
        kept = one["baseline"]
        table.add_row(
            escape(one["backend"]),
            escape(one["model"]),
            Text(one["grade"], style=GRADE_STYLES.get(one["grade"], "bright_black")),
            "never" if one["checked_ago_s"] is None else f"{duration(one['checked_ago_s'])} ago",
            "none" if kept is None else f"{kept['texts'] or kept['embeddings']} texts",
            _next(one),
            escape(one["reason"]),
        )
    return table


def _next(one: dict[str, Any]) -> str:
    if one["waits_for"]:
        return f"waits for {one['waits_for']}" if one["due"] else one["waits_for"]
    return one["due"] or ""


def details(one: dict[str, Any]) -> Table:
    """One backend and model, with every piece of evidence that is kept."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("backend", escape(f"{one['backend']}  {one['model']}  build {one['build'] or 'unknown'}"))
    table.add_row("quality", Text(one["grade"], style=GRADE_STYLES.get(one["grade"], "bright_black")))
    table.add_row("why", escape(one["reason"]))
    for family, test in one["tests"].items():
        table.add_row(
            f"test {family}",
            f"{test['texts']} texts, evidence {test['e_value']:.3g} of {test['flags_at']:.0f} that flag, "
            f"mean excess {test['mean_excess']:.2g} of 1 allowed",
        )
    for found in one["evidence"]:
        at = datetime.fromtimestamp(found["at"]).strftime("%Y-%m-%d %H:%M")
        table.add_row(at, escape(f"{found['kind']}: {found['detail']}"))
    if one["not_asked"]:
        families = ", ".join(one["not_asked"])
        table.add_row("not asked", f"{families}: it died of that; `router canary allow {one['backend']}`")
    table.add_row("budget", f"{max(0.0, one['budget_left_s']):.0f} s left for checks")
    if _next(one):
        table.add_row("next", escape(_next(one)))
    return table


@app.command()
def allow(backend: Name, admin: AdminUrl = None) -> None:
    """Ask a backend again what it died of before.

    Example:

        router canary allow spark-1-cutlass
    """
    found = Admin(admin).post("/api/quality/allow", {"backend": backend})["allowed"]
    Console().print(f"{backend} is asked again: {', '.join(found)}" if found else f"{backend} was asked everything")


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="The served model.")],
    file: Annotated[Path, typer.Argument(help="Where to write it.", dir_okay=False)],
    build: Annotated[str | None, typer.Option(help="This build's; else the newest proven one.")] = None,
    admin: AdminUrl = None,
) -> None:
    """Write a baseline to a file, to carry it to another router.

    Example:

        router canary export nemotron-3-nano nemotron.baseline
    """
    query = {"model": model} if build is None else {"model": model, "build": build}
    found = Admin(admin).get("/api/quality/baseline", **query)
    file.write_bytes(base64.b64decode(found["data"]))
    Console().print(
        f"{file}: {found['texts']} texts of {escape(found['model'])}, build {found['build']}, {found['grade']}"
    )


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="What `router canary export` wrote.", exists=True, dir_okay=False)],
    admin: AdminUrl = None,
) -> None:
    """Take a baseline from a file: backends of its model and scheme are held against it.

    Example:

        router canary import nemotron.baseline
    """
    found = Admin(admin).post("/api/quality/baseline", {"data": base64.b64encode(file.read_bytes()).decode("ascii")})
    Console().print(f"{escape(found['model'])}: {found['texts']} texts, build {found['build']}, {found['grade']}")
