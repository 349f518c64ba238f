"""What the operator may say: drain, resume, eject, readmit, flag, clear, reload; and ask: explain."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from router.cli.ask import REFUSED, Admin, AdminUrl, AsJson, fail

Name = Annotated[str, typer.Argument(help="The backend's name, as `router status` shows it.")]
Why = Annotated[str, typer.Option("--why", help="The reason, kept with the change.")]


def drain(
    backend: Name,
    why: Why = "",
    wait: Annotated[bool, typer.Option("--wait", help="Return when nothing is in flight there.")] = False,
    admin: AdminUrl = None,
) -> None:
    """Give a backend no new calls; what is in flight finishes, past the deadline it continues elsewhere.

    Example:

        router drain spark-1-marlin --why "new nightly" --wait
    """
    router = Admin(admin)
    one = router.post(f"/api/backends/{backend}/intent", {"intent": "draining", "why": why})
    console = Console()
    if wait:
        with console.status(f"{backend}: {one['in_flight']} in flight") as shown:
            while one["in_flight"]:
                time.sleep(0.5)
                one = router.get(f"/api/backends/{backend}")
                shown.update(f"{backend}: {one['in_flight']} in flight")
    console.print(f"{backend} is draining, {one['in_flight']} in flight; `router resume {backend}` takes it back")


def resume(backend: Name, why: Why = "", admin: AdminUrl = None) -> None:
    """Give a drained backend calls again.

    Example:

        router resume spark-1-marlin
    """
    Admin(admin).post(f"/api/backends/{backend}/intent", {"intent": "active", "why": why})
    Console().print(f"{backend} is active")


def eject(backend: Name, why: Why = "", admin: AdminUrl = None) -> None:
    """Treat a backend as down until its probes say otherwise.

    Example:

        router eject spark-1-marlin --why "hangs under load"
    """
    Admin(admin).post(f"/api/backends/{backend}/health", {"up": False, "why": why})
    Console().print(f"{backend} is ejected; probes bring it back, `router readmit {backend}` does so at once")


def readmit(backend: Name, why: Why = "", admin: AdminUrl = None) -> None:
    """Treat a backend as healthy now, without trial calls.

    Example:

        router readmit spark-1-marlin
    """
    Admin(admin).post(f"/api/backends/{backend}/health", {"up": True, "why": why})
    Console().print(f"{backend} is healthy")


def flag(
    backend: Name,
    why: Why = "",
    model: Annotated[str | None, typer.Option(help="Only this model of it.")] = None,
    admin: AdminUrl = None,
) -> None:
    """Say that a backend's answers are wrong: it gets no calls while another one can serve them.

    Example:

        router flag spark-1-cutlass --why "repeats itself on long answers"
    """
    Admin(admin).post(f"/api/backends/{backend}/grade", {"flagged": True, "why": why, "model": model})
    Console().print(f"{backend} is flagged; `router clear {backend}` lifts it")


def clear(
    backend: Name,
    why: Why = "",
    model: Annotated[str | None, typer.Option(help="Only this model of it.")] = None,
    admin: AdminUrl = None,
) -> None:
    """Lift a flag: the backend counts as not checked yet.

    Example:

        router clear spark-1-cutlass --why "fixed in the new nightly"
    """
    Admin(admin).post(f"/api/backends/{backend}/grade", {"flagged": False, "why": why, "model": model})
    Console().print(f"{backend} is no longer flagged")


def reload(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Even if a model is left without a backend.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return when every new backend serves.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds that --wait waits at most.")] = 1800.0,
    as_json: AsJson = False,
    admin: AdminUrl = None,
) -> None:
    """Read the fleet file again and put it in force while calls go on.

    Exit code: 0 applied (or shown), 1 refused; the old config then stays in force.

    Examples:

        router reload --dry-run

        router reload --wait
    """
    router = Admin(admin)
    result = router.post("/api/reload", {"dry_run": dry_run, "force": force}, accept=(409,))
    if "error" in result:
        Console(stderr=True).print(f"[red]{escape(result['error']['message'])}[/red]")
        raise typer.Exit(1)
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    else:
        _say(Console(), result)
    if result["reason"]:
        raise typer.Exit(1)
    if wait and result["applied"]:
        _wait_until_serving(router, timeout)


def _say(console: Console, result: dict[str, Any]) -> None:
    for line in result["diff"].splitlines():
        style = {"+": "green", "-": "red", "~": "yellow"}.get(line[:1], "")
        console.print(line, style=style, highlight=False)
    for name, answers in result["answers"].items():
        if not answers:
            console.print(f"{name} does not answer yet: it gets calls when it does", style="yellow")
    if result["swap"]:
        console.print(f"a swap: calls of {', '.join(result['lost'])} wait while the new backend loads", style="yellow")
    if result["reason"]:
        console.print(f"refused: {escape(result['reason'])}", style="red")
        console.print(f"generation {result['generation']} stays in force")
    elif result["applied"]:
        console.print(f"generation {result['generation']} is in force")


def _wait_until_serving(router: Admin, timeout_s: float) -> None:
    console = Console()
    until = time.monotonic() + timeout_s
    with console.status("waiting for the backends") as shown:
        while True:
            document = router.get("/api/status")
            waiting = [one for one in document["backends"] if one["intent"] == "active" and one["health"] != "healthy"]
            if not waiting:
                break
            if time.monotonic() > until:
                names = ", ".join(f"{one['name']} ({one['health']})" for one in waiting)
                console.print(f"not serving after {timeout_s:g} s: {names}", style="red")
                raise typer.Exit(1)
            shown.update("waiting for " + ", ".join(f"{one['name']} ({one['health']})" for one in waiting))
            time.sleep(1)
    console.print("every backend serves", style="green")


def explain(
    request_id: Annotated[str, typer.Argument(help="The call's x-request-id. [default: the newest call]")] = "",
    as_json: AsJson = False,
    admin: AdminUrl = None,
) -> None:
    """Say why a recent call went where it went: candidates, numbers, reasons.

    The id is in every answer's x-request-id header, in the log and on the dashboard.

    Example:

        router explain 7f3c9a52e1d04b68
    """
    router = Admin(admin)
    if not request_id:
        calls = router.get("/api/calls", limit=1)
        if not calls:
            fail("no call has ended yet", REFUSED)
        request_id = calls[-1]["request_id"]
    document = router.get(f"/api/explain/{request_id}")
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    console = Console()
    for number, decision in enumerate(document["decisions"], 1):
        call = decision["call"]
        console.print(
            f"[bold]attempt {number}[/bold] {escape(call['model'])}: about {call['prompt_tokens']:.0f} prompt and "
            f"{call['output_tokens']:.0f} output tokens, policy {decision['policy']}"
        )
        console.print(_candidates(decision["candidates"], decision["chosen"]))
        console.print(f"→ {escape(str(decision['chosen']))}: {escape(decision['reason'])}\n", style="green")
    ended = document["call"]
    if ended is not None:
        console.print(f"{ended['outcome']} {ended['status']} after {ended['duration_s']:.3f} s", highlight=False)
        if ended["ttft_s"] is not None and ended["predicted_ttft_s"] is not None:
            console.print(
                f"first token predicted after {ended['predicted_ttft_s']:.3f} s, came after {ended['ttft_s']:.3f} s; "
                f"end predicted after {ended['predicted_end_s']:.3f} s",
                highlight=False,
            )
        for attempt in ended["attempts"]:
            if attempt["failure"]:
                console.print(f"  {attempt['backend']}: {escape(attempt['detail'])}", style="yellow")


def _candidates(rows: list[dict[str, Any]], chosen: str | None) -> Table:
    """One column for each candidate: the terms are many, the candidates few, and a terminal is 80 columns wide."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for row in rows:
        mine = row.get("name") == chosen
        table.add_column(escape(str(row.get("name", "?"))), overflow="fold", style="bold" if mine else "")
    for term in dict.fromkeys(key for row in rows for key in row if key != "name"):
        table.add_row(term.replace("_", " "), *[_cell(row.get(term)) for row in rows])
    return table


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return escape(str(value))
