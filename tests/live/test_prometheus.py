"""Every panel and every alert rule, asked of a real Prometheus that scraped a router under traffic."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.live.processes import LIMIT_S, MODEL, Process, free_port, router, sim, until

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = shutil.which("prometheus")
pytestmark = [
    pytest.mark.live,
    pytest.mark.slow,
    pytest.mark.skipif(
        PROMETHEUS is None,
        reason="prometheus is not installed: no panel was asked of a real one (Debian: apt install prometheus)",
    ),
]
GONE = "http://127.0.0.1:9"  # nobody listens on discard: a backend that is down from the start
# What a healthy fleet has nothing to say about, by panel: an empty answer is the right one there.
MAY_BE_EMPTY = {
    "Kernel is not what was declared": "both backends declare none",
    "Flagged": "nobody is flagged",
    "Retries and continuations": "nothing failed beneath a call",
    "Attempts that failed": "nothing failed beneath a call",
    "Actual over predicted": "predictions come once a speed is learned",
    "Canary score (nats per text)": "scores come with the first check, minutes after the start",
    "Share of time spent on canaries": "likewise",
    "Canaries and suspicions": "likewise",
    "GPU clock": "no machine here need have one",
    "GPU temperature": "likewise",
    "GPU power": "likewise",
    "GPU clock held back": "likewise",
    "Samples that did not fit the learned speed": "all of them fitted",
}


class Asked:
    """A Prometheus that runs."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str, **query: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", params=query, timeout=LIMIT_S, trust_env=False)

    def result(self, expression: str) -> list[Any]:
        answer = self.get("/api/v1/query", query=expression)
        assert answer.status_code == 200, f"{expression}: {answer.text}"
        found: list[Any] = answer.json()["data"]["result"]
        return found


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Asked]:
    """Start one with our rules; it scrapes this address every second."""
    shutil.copy(DEPLOY / "alerts.yml", folder)
    document = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    document["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    document["scrape_configs"] = [{"job_name": "router", "static_configs": [{"targets": [target]}]}]
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump(document))
    port = free_port()
    options = (f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}")
    assert PROMETHEUS is not None
    with (folder / "prometheus.log").open("wb") as log:
        popen = subprocess.Popen(
            [PROMETHEUS, *options, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=subprocess.STDOUT
        )
    process = Process(popen, folder / "prometheus.log", port)
    asked = Asked(port)
    try:
        until(lambda: asked.get("/-/ready").status_code == 200)
        yield asked
    finally:
        process.end()


def panels() -> list[tuple[str, str]]:
    """Each query of the dashboard with its panel's title, its variables filled in."""
    board = json.loads((DEPLOY / "grafana.json").read_text())
    filled = {"$__rate_interval": "1m", "$backend": ".*", "$model": ".*"}
    found = []
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for name, value in filled.items():
                expression = expression.replace(name, value)
            found.append((panel["title"], expression))
    return found


def call(url: str) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "count to 20"}], "stream": True, "max_tokens": 60}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=LIMIT_S, trust_env=False)
    assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """Two servers that live and one that does not, calls in two scrapes at least."""
    folder = tmp_path_factory.mktemp("prometheus")
    with (
        sim(folder, "a") as a,
        sim(folder, "b") as b,
        router(folder, "--backend", a.url, "--backend", b.url, "--backend", GONE) as r,
        prometheus(folder, f"127.0.0.1:{r.port}") as found,
    ):
        until(lambda: found.result("up == 1"))

        def calls_grow() -> bool:
            call(r.url)
            both = "count(rate(router_ttft_seconds_count[1m]) > 0) == 2"  # of each backend, seen twice at least
            return bool(found.result(both) and found.result("changes(router_loop_lag_seconds_count[1m]) > 1"))

        until(calls_grow)
        yield found


@pytest.mark.parametrize(("title", "expression"), panels())
def test_a_panel_shows_something(asked: Asked, title: str, expression: str) -> None:
    found = asked.result(expression)
    assert found or title in MAY_BE_EMPTY, f"{title} is empty: {expression}"
    if "histogram_quantile" in expression and title not in MAY_BE_EMPTY:
        assert any(series["value"][1] != "NaN" for series in found), f"{title} has no number: {expression}"


def test_what_may_be_empty_names_panels_that_exist() -> None:
    assert set(MAY_BE_EMPTY) <= {title for title, _ in panels()}


def test_every_rule_is_evaluated_without_an_error(asked: Asked) -> None:
    def rules() -> list[dict[str, Any]]:
        groups = asked.get("/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    until(lambda: all(rule["health"] != "unknown" for rule in rules()))
    written = [
        rule["alert"]
        for group in yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
        for rule in group["rules"]
    ]
    assert [rule["name"] for rule in rules()] == written
    assert {rule["name"]: rule.get("lastError") for rule in rules() if rule["health"] != "ok"} == {}


def test_what_was_never_there_alarms_nobody(asked: Asked) -> None:
    assert len(asked.result("router_backend_up == 0")) == 1
    alarmed = {alert["labels"]["alertname"] for alert in asked.get("/api/v1/alerts").json()["data"]["alerts"]}
    assert not {"RouterDown", "RouterNoBackendForModel", "RouterBackendDown", "RouterQualityFlagged"} & alarmed
