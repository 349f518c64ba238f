"""`router status`: one screen of what there is, how fast it is, and whether it can be trusted."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from router.cli.ask import Admin, AdminUrl, AsJson

UNBOUNDED = 10_000  # columns: how wide the table would like to be

HEALTH_STYLES = {
    "healthy": "green",
    "suspect": "yellow",
    "probation": "yellow",
    "starting": "cyan",
    "ejected": "red",
    "off": "bright_black",
}
GRADE_STYLES = {"good": "green", "plausible": "green", "suspect": "yellow", "flagged": "red"}


def status(
    backend: Annotated[str | None, typer.Argument(help="Only this backend, with its evidence.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again every second until Ctrl-C.")] = False,
    as_json: AsJson = False,
    admin: AdminUrl = None,
) -> None:
    """Show every backend: health, kernel, quality, speed, load.

    Examples:

        router status

        router status spark-1-marlin

        router status --json | jq '.backends[].health'
    """
    router = Admin(admin)
    if as_json:
        document = router.get(f"/api/backends/{backend}") if backend else router.get("/api/status")
        typer.echo(json.dumps(document, indent=2))
        return
    console = Console()
    if backend is not None:
        console.print(details(router.get(f"/api/backends/{backend}")))
        return
    if not watch:
        console.print(screen(router.get("/api/status")))
        return
    with Live(screen(router.get("/api/status")), console=console, screen=False, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(1)
                live.update(screen(router.get("/api/status")), refresh=True)
        except KeyboardInterrupt:
            return


class Fleet:
    """The table of the fleet: a line for each backend and model where it fits, two where the terminal is narrow."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._backends = document["backends"]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The wide table, or the narrow one where the wide one would cut names and numbers."""
        wide = _wide(self._backends)
        needed = Measurement.get(console, options.update(width=UNBOUNDED), wide).maximum
        kernels = [Text("KERNEL"), *(kernel(one) for one in self._backends)]
        needed -= max(map(len, kernels)) - max(len(word) for text in kernels for word in text.plain.split())
        yield wide if needed <= options.max_width else _narrow(self._backends)


def screen(document: dict[str, Any]) -> RenderableType:
    """The whole fleet as one table, with a line for whatever wants attention."""
    parts: list[RenderableType] = [_headline(document), Fleet(document)]
    parts += [Text(line, style="red") for line in attention(document)]
    return Group(*parts)


def _rows(backends: list[dict[str, Any]]) -> Iterator[list[Text]]:
    for one in backends:
        for model in one["models"] or [None]:
            yield _row(one, model)


def _narrow(backends: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("BACKEND\nMODEL", "HEALTH\nQUALITY", "KERNEL"):
        table.add_column(heading, overflow="fold")
    for heading in ("TOK/S\nPREFILL", "IN FLIGHT\nKV"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, model, health, observed, grade, speed, prefill, in_flight, kv in _rows(backends):
        table.add_row(
            Text("\n").join([name, model]),
            Text("\n").join([health, grade]),
            observed,
            Text("\n").join([speed, prefill]),
            Text("\n").join([in_flight, kv]),
        )
    return table


def _wide(backends: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (
        ("BACKEND", "left"),
        ("MODEL", "left"),
        ("HEALTH", "left"),
        ("KERNEL", "left"),
        ("QUALITY", "left"),
        ("TOK/S", "right"),
        ("PREFILL", "right"),
        ("IN FLIGHT", "right"),
        ("KV", "right"),
    ):
        table.add_column(name, justify="right" if justify == "right" else "left", no_wrap=name != "KERNEL")
    for row in _rows(backends):
        table.add_row(*row)
    return table


def _headline(document: dict[str, Any]) -> Text:
    uptime = document["now"] - document["started_at"]
    text = Text(f"spark-router {document['version']}", style="bold")
    text.append(
        f"  up {duration(uptime)}  generation {document['generation']}"
        f"  {document['calls_open']} calls open  {document['queued']} queued",
        style="not bold",
    )
    if document["passive"]:
        text.append("  PASSIVE: observes, never acts", style="yellow")
    if not document["history_ok"]:
        text.append("  no history: its file cannot be used", style="red")
    return text


def _row(one: dict[str, Any], model: dict[str, Any] | None) -> list[Text]:
    health = Text(one["health"], style=HEALTH_STYLES.get(one["health"], ""))
    if one["loading_for_s"] is not None:
        eta = one["loading_eta_s"]
        health.append(f" {one['loading_for_s'] / 60:.0f}" + (f"/{eta / 60:.0f} min" if eta else " min"))
    if one["intent"] != "active":
        health = Text(one["intent"], style="magenta")
    grade = model["grade"] if model else "unknown"
    speed = (model or {}).get("speed", {})
    return [
        Text(one["name"]),
        Text(model["model"] if model else "–"),
        health,
        kernel(one),
        Text(grade, style=GRADE_STYLES.get(grade, "bright_black")),
        Text(_learned(speed.get("decode_rate"), "{:.1f}")),
        Text(_learned(speed.get("prefill_rate"), "{:,.0f}")),
        Text(str(model["in_flight"] if model else one["in_flight"])),
        Text(f"{one['kv_usage']:.0%}" if one["kv_usage"] is not None else "–"),
    ]


def kernel(one: dict[str, Any]) -> Text:
    """Declared and observed: green where they agree, red where they do not, never one for the other."""
    declared, observed = one["declared_kernel"], one["observed_kernel"]
    if one["kernel_matches"] is False:
        return Text(f"{declared} → runs {observed.upper()}", style="bold red")
    if observed == "unknown":
        return Text(f"{declared} (declared)" if declared else "unknown", style="bright_black")
    return Text(observed, style="green" if one["kernel_matches"] else "")


def attention(document: dict[str, Any]) -> list[str]:
    """What a person should know, one line each, worst first."""
    lines = []
    for one in document["backends"]:
        if one["kernel_matches"] is False:
            lines.append(
                f"{one['name']}: declared {one['declared_kernel']}, runs {one['observed_kernel'].upper()} "
                f"({one['kernel_detail']})"
            )
        flagged = [model for model in one["models"] if model["grade"] == "flagged"]
        lines += [f"{one['name']}: {model['model']} is flagged: {model['grade_reason']}" for model in flagged]
        waiting = [model for model in one["models"] if model["gate"]]
        lines += [f"{one['name']}: {model['model']} gets no calls yet: {model['gate']}" for model in waiting]
        if one["health"] == "ejected":
            lines.append(f"{one['name']}: ejected {duration(one['health_for_s'])} ago: {one['health_reason']}")
    lines += [f"{model['model']}: nobody can serve it now" for model in document["models"] if not model["usable"]]
    return lines


def details(one: dict[str, Any]) -> RenderableType:
    """One backend, everything that is known of it."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key in (
        "name",
        "address",
        "hosts",
        "health",
        "health_reason",
        "intent",
        "version",
        "fingerprint",
        "build",
        "in_flight",
        "in_flight_cap",
        "spec_acceptance",
        "running",
        "waiting",
    ):
        value = one[key]
        table.add_row(key.replace("_", " "), escape(", ".join(value) if isinstance(value, list) else _said(value)))
    for gpu in one["gpus"]:
        table.add_row(f"gpu of {gpu['host']}", gpu_line(gpu))
    table.add_row("kernel", kernel(one))
    table.add_row("", escape(one["kernel_detail"]))
    for model in one["models"]:
        table.add_row("model", escape(model["model"]))
        table.add_row("quality", Text(model["grade"], style=GRADE_STYLES.get(model["grade"], "")))
        table.add_row("", escape(model["grade_reason"]))
        if model["gate"]:
            table.add_row("", escape(f"gets no calls yet: {model['gate']}"))
        for line in model["evidence"]:
            table.add_row("", escape(line))
        for name, estimate in model["speed"].items():
            table.add_row(name.replace("_", " "), escape(describe(estimate)))
        for name, one_of in model.get("calibration", {}).items():
            table.add_row(f"predicted {name}", calibrated(one_of))
        if model.get("outliers", {}).get("counts"):
            table.add_row("outliers", escape(outliers(model["outliers"])))
    return table


def gpu_line(gpu: dict[str, Any]) -> Text:
    """What was read of a GPU, red where its clock is held back; or why nothing was."""
    reading = gpu["reading"]
    if reading is None:
        return Text(gpu["detail"] or "not read", style="bright_black")
    units = (("clock_mhz", "MHz"), ("temperature_c", "°C"), ("power_w", "W"))
    text = Text(", ".join(f"{reading[key]:.0f} {unit}" for key, unit in units if reading[key] is not None))
    if reading["capped_by"]:
        text.append(f" (clock-capped: {', '.join(reading['capped_by'])})", style="red")
    return text


def _said(value: object) -> str:
    if isinstance(value, float):
        return figure(value)
    return "–" if value is None else str(value)


def describe(estimate: dict[str, Any]) -> str:
    """Value, spread, samples and age of an estimate, or that it is not learned."""
    if not estimate["samples"]:
        return f"{figure(estimate['value'])} (not learned: {estimate['source']})"
    age = f", {duration(estimate['age_s'])} old" if estimate["age_s"] is not None else ""
    count = f"{estimate['samples']:.0f} sample{'' if round(estimate['samples']) == 1 else 's'}"
    return f"{figure(estimate['value'])} ± {figure(estimate['spread'])} ({count}{age})"


def figure(value: float) -> str:
    """A number to read: three significant digits, whole from a hundred on, never with an exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if not value:
        return "0"
    digits = min(6, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}".rstrip("0").rstrip(".")


def calibrated(one: dict[str, float] | None) -> str:
    """How predictions compare with what came."""
    if one is None:
        return "not learned"
    answers = f"{one['samples']:.0f} answer{'' if round(one['samples']) == 1 else 's'}"
    return f"came after {one['bias']:.2f} times that, usually off by {one['error']:.0%} ({answers})"


def outliers(found: dict[str, Any]) -> str:
    """Samples that did not fit the learned speed, by kind, and the newest of them."""
    counts = ", ".join(f"{n} {kind}" for kind, n in sorted(found["counts"].items()))
    newest = found["last"][-1]
    times = newest["ratio"]
    how = f"{times:.2g} times as slow" if times >= 1.0 else f"{1.0 / times:.2g} times as fast"
    return f"{counts} (last: {newest['kind']}, {newest['what']} {how}, {duration(newest['ago_s'])} ago)"


def _learned(estimate: dict[str, Any] | None, form: str) -> str:
    if estimate is None:
        return "–"
    text = form.format(estimate["value"])
    return text if estimate["samples"] else f"({text})"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
