"""Alert rules and the dashboard ask only for what the router shows, and the rules fire when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from router.metrics import FAMILIES
from router.metrics.core import Metrics
from router.metrics.snapshot import Names, Snapshot

DEPLOY = Path(__file__).parents[1] / "deploy"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None,
    reason="promtool is not installed: alert rules are NOT tested here (Debian: apt install prometheus)",
)
QUERY_FUNCTION = re.compile(r"label_values\((?P<expr>[^,]+), \w+\)")
SELECTOR = re.compile(r"\b(?P<name>(?:router|process)_\w+)(?:\{(?P<matchers>[^}]*)\})?")
MATCHED = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
GROUPED = re.compile(r"\b(?:by|on|group_left|without|ignoring)\s*\(([^)]*)\)")
FROM_SCRAPE = {"instance", "job", "le"}


def of_the_process() -> set[str]:
    text = Metrics(Names(), Snapshot, lambda: 0.0).render().decode()
    return {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE process_")}


SAMPLES = {name: family for family in FAMILIES.values() for name in family.sample_names}


def strings_under(key: str, value: Any) -> Iterator[str]:
    """Every string that stands under this key, however deep."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == key and isinstance(inner, str):
                yield inner
            else:
                yield from strings_under(key, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings_under(key, inner)


def of_the_dashboard() -> list[str]:
    board = json.loads((DEPLOY / "grafana.json").read_text())
    return list(strings_under("expr", board)) + [
        found["expr"] for query in strings_under("query", board) if (found := QUERY_FUNCTION.fullmatch(query))
    ]


def of_the_rules() -> list[str]:
    return list(strings_under("expr", yaml.safe_load((DEPLOY / "alerts.yml").read_text())))


@pytest.mark.parametrize("expression", [*of_the_rules(), *of_the_dashboard()])
def test_a_query_uses_only_metrics_and_labels_that_exist(expression: str) -> None:
    selectors = list(SELECTOR.finditer(expression))
    assert selectors, "asks for nothing of ours"
    labels: set[str] = set(FROM_SCRAPE)
    for selector in selectors:
        name = selector["name"]
        assert name in SAMPLES or name in of_the_process(), name
        if name in SAMPLES:
            labels |= set(SAMPLES[name].labels)
            matched = set(MATCHED.findall(selector["matchers"] or ""))
            assert matched <= set(SAMPLES[name].labels), f"{name} has no {matched}"
    grouped = {label.strip() for group in GROUPED.findall(expression) for label in group.split(",") if label.strip()}
    assert grouped <= labels


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family.kind == "histogram"])
def test_every_histogram_is_on_the_dashboard(family: str) -> None:
    assert any(f"{family}_bucket" in expression for expression in of_the_dashboard())


def test_the_panels_do_not_overlap_and_have_titles_of_their_own() -> None:
    panels = json.loads((DEPLOY / "grafana.json").read_text())["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["title"] for panel in panels}) == len({panel["id"] for panel in panels}) == len(panels)


def promtool(*arguments: str | Path, text: str | None = None) -> None:
    """Run it; what it complains of is the failure."""
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], check=False, capture_output=True, text=True, input=text)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_the_rules_fire_when_they_should_and_only_then() -> None:
    promtool("test", "rules", DEPLOY / "alerts_test.yml")


@needs_promtool
def test_prometheus_understands_every_query_of_the_dashboard(tmp_path: Path) -> None:
    queries = [
        query.replace("$__rate_interval", "5m").replace("$backend", ".*").replace("$model", ".*")
        for query in of_the_dashboard()
    ]
    rules = [{"record": f"query:{n}", "expr": query} for n, query in enumerate(queries)]
    path = tmp_path / "dashboard.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", path)


@needs_promtool
def test_promtool_finds_nothing_to_say_about_a_scrape() -> None:
    promtool("check", "metrics", text=Metrics(Names(), Snapshot, lambda: 0.0).render().decode())
