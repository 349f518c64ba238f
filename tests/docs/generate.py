"""Write the parts of the docs that the code knows best: `python -m tests.docs.generate` (make docs).

A test writes them anew and compares, so they cannot lag behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from inspect import getdoc
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import typer.core
from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined

from router import events, headers
from router.cli.main import COMMANDS, Lazy
from router.config import BackendConfig, FleetConfig, ModelConfig
from router.errors import FailureKind, Phase
from router.metrics.families import FAMILIES
from router.openai.routes import ALL_ROUTES
from router.policy.facts import Grade, Health, Intent
from router.policy.health import Evidence
from router.policy.retry import Verdict, failure_table
from router.settings import Settings
from tests.docs.errorcodes import error_codes

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NOTE = "<!-- Written by `make docs` from the code. Do not edit: a test compares. -->"


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    lines += [f"| {' | '.join(_cell(one) for one in row)} |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


# --- failures and health ---


def failures() -> str:
    """The failure table of `router/policy/retry.py`."""
    rows = [
        (
            f"`{kind}`",
            phase.value,
            "yes" if said.counts else "no",
            said.remedy.value,
            _status(kind, phase, said),
            meaning,
        )
        for kind, phase, said in failure_table()
        for meaning in (said.meaning,)
    ]
    return table(("Failure", "Phase", "Counts against health", "Tried next", "Else the client gets", "Meaning"), rows)


def _status(kind: FailureKind, phase: Phase, said: Verdict) -> str:
    if phase is Phase.COMMITTED:
        return f"an error event, code `{kind}`"
    return "the backend's own answer" if said.status is None else f"{said.status}, code `{kind}`"


def states() -> str:
    """Words for what is known of a backend."""
    rows = [
        ("health (what was seen)", _values(Health)),
        ("intent (what the operator said)", _values(Intent)),
        ("quality (what its answers showed)", _values(Grade)),
        ("evidence that moves health", _values(Evidence)),
        ("phases of an attempt", _values(Phase)),
    ]
    return table(("Field", "Values"), rows)


def _values(kind: Iterable[Any]) -> str:
    return ", ".join(f"`{one.value}`" for one in kind)


# --- settings ---


def fleet_settings() -> str:
    """Every field of the fleet file."""
    parts = [_section("backends[]", BackendConfig), _section("models.NAME", ModelConfig), _section("", FleetConfig)]
    for name, field in FleetConfig.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            parts.append(_section(name, field.annotation))
    return "\n\n".join(parts)


def _section(path: str, model: type[BaseModel]) -> str:
    rows = [
        (f"`{f'{path}.' if path else ''}{name}`", _default(field), unit_of(name), field.description)
        for name, field in model.model_fields.items()
    ]
    title = f"### `{path}`" if path else "### The file itself"
    return f"{title}\n\n{_first_line(model)}\n\n" + table(("Setting", "Default", "Unit", "Meaning"), rows)


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=False)
    if value is PydanticUndefined or value is None or value == () or value == "":
        return "–"
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def unit_of(name: str) -> str:
    """The unit that a setting's name ends in."""
    units = {"_per_s": "per second", "_bytes": "bytes", "_s": "seconds"}
    return next((unit for end, unit in units.items() if name.endswith(end)), "–")


def environment() -> str:
    """Every `ROUTER_*` variable."""
    rows = [
        (f"`ROUTER_{name.upper()}`", "–" if field.annotation is SecretStr else _default(field), field.description)
        for name, field in Settings.model_fields.items()
    ]
    rows.append(("`ROUTER_ADMIN_URL`", "`http://127.0.0.1:8081`", "Admin side that the commands ask."))
    return table(("Variable", "Default", "Meaning"), rows)


# --- outside ---


def header_words() -> str:
    """Headers that mean something to the router."""
    sessions = ", ".join(f"`{name.decode()}`" for name in headers._SESSION_HEADERS)
    told = ", ".join(sorted(f"`{name.decode()}`" for name in headers._ANSWER_OURS if name.startswith(b"x-r")))
    return table(
        ("Direction", "Headers", "Meaning"),
        [
            ("from clients", sessions, "A conversation's key; the first one that is there keeps it on its backend."),
            ("from clients", "`x-router-backend`", "Pins the call to the backend of that name."),
            ("from clients", "`x-request-id`", "Kept where it is 1 to 128 harmless characters, else made anew."),
            ("from clients", "`authorization`, `x-api-key`", "The client's key, see `access.client_keys`."),
            ("to clients", told, "Who answered, on which observed kernel, after how many attempts."),
            ("to clients", "`retry-after`", "Seconds, with 429 and 503 of the router."),
            (
                "to clients",
                f"`{headers.NO_BUFFER[0].decode()}`",
                "On event streams: proxies in front must not hold them.",
            ),
        ],
    )


def routes() -> str:
    """Every route that passes."""
    rows = [
        (
            f"`{route.name}`",
            ", ".join(route.methods),
            "yes" if route.streams else "no",
            "the router itself" if route.local else "a backend",
        )
        for route in ALL_ROUTES
    ]
    return table(("Path", "Methods", "Can stream", "Answered by"), rows)


def metrics() -> str:
    """Every metric family."""
    rows = [
        (f"`{one.name}`", one.kind, ", ".join(f"`{label}`" for label in one.labels) or "–", one.help)
        for one in FAMILIES.values()
    ]
    return table(("Metric", "Kind", "Labels", "Meaning"), rows)


def event_table() -> str:
    """Every event."""
    union: UnionType = events.Event
    rows = [
        (f"`{kind.__name__}`", _first_line(kind), ", ".join(f"`{one.name}`" for one in fields(kind)))
        for kind in get_args(union)
    ]
    return table(("Event", "Meaning", "Fields"), rows)


def _first_line(kind: type[Any]) -> str:
    return " ".join((getdoc(kind) or "").split("\n\n")[0].split())


# --- commands ---


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its words, those of groups as `canary run`."""
    group = Lazy(name="router")
    for name in COMMANDS:
        command = group.get_command(None, name)
        inner = command.commands if isinstance(command, typer.core.TyperGroup) else None
        if inner is None:
            yield name, command
        else:
            yield from ((f"{name} {sub}", one) for sub, one in inner.items())


def command_pages() -> str:
    """Every command with its options."""
    parts = []
    for name, command in commands():
        said = re.split(r"\n\s*\n", command.help or "")[0]
        rows = [
            (", ".join(f"`{option}`" for option in one.opts), getattr(one, "help", "") or "")
            for one in command.params
            if one.name != "help"
        ]
        options = f"\n\n{table(('Option', 'Meaning'), rows)}" if rows else ""
        parts.append(f"### `router {name}`\n\n{' '.join(said.split())}{options}")
    return "\n\n".join(parts)


# --- pages ---


def reference() -> str:
    """docs/reference.md."""
    parts = (
        ("Failures", "What a backend can do wrong, and what follows. See [failures](failures.md).", failures()),
        ("States", "Health, intent and quality are three questions.", states()),
        (
            "Fleet file",
            "Sizes take units: `64 KiB`. [config/fleet.yaml](../config/fleet.yaml) shows all.",
            fleet_settings(),
        ),
        ("Environment", "A flag of `router serve` wins over a variable.", environment()),
        ("Headers", "All others pass unchanged, hop-by-hop ones excepted.", header_words()),
        ("Routes", "Nothing else passes.", routes()),
        ("Metrics", "At `/metrics`, on both ports.", metrics()),
        ("Events", "What metrics, log lines, history and dashboard are fed with.", event_table()),
        ("Commands", "Each has `--help` with examples.", command_pages()),
    )
    body = "\n\n".join(f"## {title}\n\n{text}\n\n{content}" for title, text, content in parts)
    return f"# Reference\n\n{NOTE}\n\nError codes have [a page of their own](errors.md).\n\n{body}\n"


def errors() -> str:
    """docs/errors.md."""
    own = table(("Code", "Status", "Says"), [(f"`{one.code}`", one.status, one.meaning) for one in error_codes()])
    kinds = {kind: said.meaning for kind, _, said in failure_table()}
    theirs = table(("Code", "Meaning"), [(f"`{kind}`", meaning) for kind, meaning in kinds.items()])
    return (
        f"# Error codes\n\n{NOTE}\n\n"
        "Errors have the shape of the route that was asked: on OpenAI's routes "
        '`{"error": {"message", "type", "param", "code"}}`. `…` stands for a name or number.\n\n'
        f"## The router's own\n\n{own}\n\n"
        "## A backend's failure\n\nSent where no other backend could answer either. Status by phase: "
        f"[reference](reference.md#failures).\n\n{theirs}\n"
    )


PAGES = {"reference.md": reference, "errors.md": errors}


def main() -> None:
    """Write every page."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
