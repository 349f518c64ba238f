"""What the docs and examples promise, held against the code: settings, metrics, codes, commands, links, code blocks."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

from router.config import BackendConfig, FleetConfig, ModelConfig
from router.fleetfile import load, parse
from router.metrics.families import FAMILIES
from router.policy.retry import failure_table
from router.settings import Settings
from router.sim.described import read_fleet
from tests.docs.errorcodes import error_codes
from tests.docs.generate import commands

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FLEETS = [*sorted((ROOT / "config").glob("*.yaml")), *sorted((ROOT / "deploy" / "fleet").rglob("*.yaml"))]
DESCRIBED = sorted((ROOT / "config" / "fleets").glob("*.yaml"))  # for `router simulate`
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
# Names of package indexes that a mirror would leave in a file, and homes of whoever wrote it.
NOT_OURS = re.compile("/wo" r"rk/|/home/[a-z]+/|index-" r"url|artifact" r"ory|PIP_IN" r"DEX", re.IGNORECASE)
VARIABLES = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def docs() -> str:
    return "\n".join(page.read_text("utf-8") for page in PAGES)


def blocks(*languages: str) -> list[tuple[str, str]]:
    """Every fenced block of these languages, with its page."""
    return [
        (page.name, text)
        for page in PAGES
        for language, text in BLOCK.findall(page.read_text("utf-8"))
        if language in languages
    ]


@pytest.mark.parametrize("path", FLEETS, ids=named)
def test_every_example_fleet_file_loads(path: Path) -> None:
    environ = dict.fromkeys(VARIABLES.findall(path.read_text("utf-8")), "a-secret")
    assert load(path, environ).backends


@pytest.mark.parametrize("path", DESCRIBED, ids=named)
def test_every_described_fleet_loads(path: Path) -> None:
    assert read_fleet(path).backends


def test_every_setting_stands_in_the_docs() -> None:
    text = docs()
    sections: dict[str, type[BaseModel]] = {"": FleetConfig, "backends[].": BackendConfig, "models.NAME.": ModelConfig}
    missing = [
        f"{path}{name}"
        for path, model in sections.items()
        for name in model.model_fields
        if f"`{path}{name}`" not in text
    ]
    missing += [name for name in Settings.model_fields if f"`ROUTER_{name.upper()}`" not in text]
    assert missing == []


def test_every_metric_error_code_failure_and_command_stands_in_the_docs() -> None:
    text = docs()
    wanted = [f"`{name}`" for name in FAMILIES]
    wanted += [f"`{one.code}`" for one in error_codes()]
    wanted += [f"`{kind}`" for kind, _, _ in failure_table()]
    wanted += [f"### `router {name}`" for name, _ in commands()]
    assert [one for one in wanted if one not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    broken = []
    for link in LINK.findall(BLOCK.sub("", text)):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        target, _, anchor = link.partition("#")
        file = page.parent / target if target else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(link)
    assert broken == []


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    heads = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def command_lines() -> list[tuple[str, str]]:
    """Every `router …` line of a shell block, continued lines joined, comments and pipes cut off."""
    found = []
    for page, text in blocks("bash", "sh", "console"):
        for line in text.replace("\\\n", " ").splitlines():
            line = line.removeprefix("$ ").strip()
            if line.startswith("router ") and "…" not in line:
                found.append((page, re.split(r"\s[|&>;#]", line)[0]))
    return found


@pytest.mark.parametrize(("page", "line"), command_lines(), ids=lambda one: str(one)[:60])
def test_every_command_in_the_docs_is_one(page: str, line: str) -> None:
    words = shlex.split(line)[1:]
    known = dict(commands())
    if words[0].startswith("-"):
        return
    name = " ".join(words[:2]) if " ".join(words[:2]) in known else words[0]
    assert name in known, f"{page}: there is no router {name}"
    given = words[len(name.split()) :]
    if "--help" not in given:
        try:
            known[name].make_context(name, given)  # parses; runs nothing
        except click.exceptions.Exit:
            pass


def test_every_fleet_file_in_the_docs_loads() -> None:
    fleets = [(page, text) for page, text in blocks("yaml", "yml") if re.match(r"(#.*\n)*(backends:|- http)", text)]
    assert fleets
    for page, text in fleets:
        parse(text, page, dict.fromkeys(VARIABLES.findall(text), "a-secret"))


def test_every_test_that_the_docs_name_exists() -> None:
    tests = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named_tests = set(re.findall(r"`(test_[a-z0-9_]{12,})`", docs()))
    assert sorted(name for name in named_tests if f"def {name}(" not in tests) == []


def test_no_tracked_file_names_the_machine_it_was_written_on() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: which files are tracked is not known")
    found = []
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file() and path != Path(__file__) and path.stat().st_size < 2**20:
            text = path.read_bytes().decode("utf-8", "replace")
            found += [f"{name}: {match[0]}" for match in NOT_OURS.finditer(text)]
    assert found == []
