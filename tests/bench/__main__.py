"""`make bench`: what the router adds to a call, a first token and a chunk, beside whoever else is installed here.

    python -m tests.bench [--rounds 3] [--targets direct,nginx,router] [--without ladder,extras]

Everybody runs at once and is measured in turn, so that two samples to be compared stand a second apart. The measured
process has one core, the backends and the load another. CPU time is the process tree's own and holds on a busy machine
(± 10 %); latencies and jitter do not: a `~` behind the table says that others used the machine meanwhile.
"""

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench import extras, machine, measure, targets
from tests.bench.measure import Bench, Load, Sample
from tests.bench.rows import ROWS, Line, Results, Verdict, lines
from tests.processes import DidNotStart, Process, answers, free_ports

ROOT = Path(__file__).parents[2] / ".bench"
HERE = Path(__file__).parent
BACKENDS = 64
ONCE = ("sglang-router", "litellm")  # measured in the first round only
DISTURBED_CORES = 0.3

LOADS: Mapping[str, Load] = {
    "plain": measure.PLAIN,
    "alone": measure.ALONE,
    "ttft": measure.FIRST_TOKEN,
    "paced256": measure.paced(256),
    "fast": measure.FAST,
    "long": measure.LONG_PROMPT,
}


def main() -> int:
    asked = arguments()
    console = Console(width=max(Console().width, 150))
    core, other_core = machine.cores()
    os.sched_setaffinity(0, {other_core})
    folder = ROOT / "run"
    folder.mkdir(parents=True, exist_ok=True)
    first = free_ports(BACKENDS)
    command = [str(measure.build(HERE / "fake_backend.c", ROOT)), str(first), str(BACKENDS), targets.MODEL]
    backends = Process(command, folder / "backends.log", os.environ)
    bench = Bench(measure.build(HERE / "load.c", ROOT), backends.pid, first, other_core)
    try:
        backends.wait_until(lambda: answers(f"http://127.0.0.1:{first}/health"), 10, every_s=0.02)
        places = [
            targets.Place(range(first, first + count), folder, ROOT / "peers", core) for count in (2, 8, BACKENDS)
        ]
        began = time.monotonic()
        results = measured(bench, places, asked, console)
    finally:
        backends.stop()
    report = lines(results)
    console.print(table(report, results))
    facts = {**machine.description(), "seconds": round(time.monotonic() - began), "rounds": asked.rounds}
    console.print(" · ".join(f"{name} {value}" for name, value in facts.items()), style="dim")
    console.print(f"measured process on core {core}, load and backends on core {other_core}", style="dim")
    if results.disturbed:
        console.print("~ others used this machine meanwhile: trust the CPU columns and the ratios, not the latencies")
    keep(report, facts, results)
    return 1 if asked.strict and any(verdict.word == "MISSED" for line in report for verdict in line.verdicts) else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--targets", default="", help="names, separated by commas; default: whoever is installed")
    parser.add_argument("--without", default="", help="leave out: ladder, extras")
    parser.add_argument("--strict", action="store_true", help="exit with 1 where a promise is missed")
    return parser.parse_args()


def measured(bench: Bench, places: list[targets.Place], asked: argparse.Namespace, console: Console) -> Results:
    """Start everybody, measure them in turn, and once what is measured once."""
    two, eight, many = places
    wanted = asked.targets.split(",") if asked.targets else targets.present(two)
    running = started(wanted, two, console)
    alone: dict[str, dict[str, float]] = {row.key: {} for row in ROWS if row.figure is None}
    alone["idle_mb"] = {one.name: one.idle_mb for one in running if one.process}
    without = asked.without.split(",")
    try:
        rounds = [one_round(bench, running, number, console) for number in range(asked.rounds)]
        if "ladder" not in without:
            for one in running:
                if one.name not in ONCE:
                    alone["smooth"][one.name], wrong = extras.smooth_streams(bench, one)
                    console.print(f"{one.name}: {wrong or 'smooth all the way'}", style="dim")
    finally:
        for one in running:
            one.stop()
    if "extras" not in without and "router" in wanted:
        alone["start"]["router"] = extras.start_s(two)
        alone["metrics8"]["router"] = extras.scrape_ms(eight)
        alone["metrics64"]["router"] = extras.stop_during_scrapes_ms(bench, many)
        alone["busy_jitter"]["router"] = extras.busy_jitter_ms(bench, two, targets.start("direct", two))
        alone["sentinel"]["router"] = extras.sentinel_share(bench, two)
    samples = [sample for one in rounds for measurements in one.values() for sample in measurements.values()]
    disturbed = sum(sample.others_cores > DISTURBED_CORES for sample in samples) > len(samples) / 10
    errors = {
        name: errors for one in rounds for name, by in one.items() if (errors := sum(s.errors for s in by.values()))
    }
    if errors:
        console.print(f"calls that failed: {errors}", style="red")
    return Results(rounds, alone, disturbed)


def started(wanted: list[str] | tuple[str, ...], place: targets.Place, console: Console) -> list[targets.Target]:
    """Start everybody; who does not start is named and left out."""
    running = []
    for name in wanted:
        try:
            running.append(targets.start(name, place))
        except DidNotStart as reason:
            console.print(f"{name} is left out, it did not start: {str(reason)[-300:]}", style="red")
    time.sleep(2.0)
    for one in running:
        one.idle_mb = one.memory_mb()
    return running


def one_round(
    bench: Bench, running: list[targets.Target], number: int, console: Console
) -> dict[str, dict[str, Sample]]:
    """Measure each thing on everybody before the next thing is measured."""
    taken: dict[str, dict[str, Sample]] = {one.name: {} for one in running}
    for what, load in LOADS.items():
        order = [one for one in running if number == 0 or one.name not in ONCE]
        random.Random(f"{number} {what}").shuffle(order)
        for one in order:
            taken[one.name][what] = bench.run(one, load)
            bench.settle(one)
        console.print(f"round {number + 1}: {what}", style="dim")
    return {name: by for name, by in taken.items() if by}


def table(report: list[Line], results: Results) -> Table:
    """Set the lines side by side for a terminal."""
    names = [name for name in targets.ORDER if any(name in line.figures for line in report) and name != "direct"]
    grid = Table(title="What the router adds", title_justify="left", box=None, pad_edge=False)
    for heading in ("what", *names, "ratio or figure", "goal", "verdict"):
        grid.add_column(heading, justify="left" if heading in ("what", "goal", "verdict") else "right")
    for row, line in zip(ROWS, report, strict=True):
        cells = [f"{line.figures[name]:,.{row.digits}f}" if name in line.figures else "" for name in names]
        unit = f" [dim]{row.unit}[/]" if row.unit else ""
        for place, verdict in enumerate(line.verdicts):
            lead = [line.what + unit, *cells] if not place else [""] * (1 + len(cells))
            value = f"{verdict.value:,.2f}" if verdict.word != "not measured" else ""
            grid.add_row(*lead, value, verdict.goal.text(), coloured(verdict))
    return grid


def coloured(verdict: Verdict) -> str:
    colour = {"kept": "green", "MISSED": "red"}.get(verdict.word, "dim")
    return f"[{colour}]{verdict.word}[/]"


def keep(report: list[Line], facts: Mapping[str, object], results: Results) -> None:
    """Append this run to the history, one line of JSON."""
    rows = {
        line.key: {
            "figures": {name: round(value, 4) for name, value in line.figures.items()},
            "verdicts": [
                {"goal": verdict.goal.text(), "value": round(verdict.value, 4), "is": verdict.word}
                for verdict in line.verdicts
            ],
        }
        for line in report
    }
    entry = {"at": time.strftime("%FT%TZ", time.gmtime()), **facts, "disturbed": results.disturbed, "rows": rows}
    with (ROOT / "history.jsonl").open("a") as history:
        history.write(json.dumps(entry, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
