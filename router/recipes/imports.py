"""Read other tools' files into a fleet file, and say of everything that was left out why it was.

LiteLLM: docs.litellm.ai/docs/proxy/configs. sparkrun: RECIPES.md of spark-arena/sparkrun. Keys never pass into the
fleet file: where one stands in the open, the report says which variable to put it into.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from router.configtypes import as_name, default_name, plain_url
from router.fleetfile import FleetFault, Problem
from router.recipes.yamltext import dump, with_comments
from router.yamlmarks import read


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A part of the file that has no place in a fleet: where it stood, and why."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


@dataclass(slots=True)
class Imported:
    """A fleet as it was read from another file, what was left out of it, and what is to be done by hand."""

    source: str
    raw: dict[str, Any] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    to_do: list[str] = field(default_factory=list)

    def leave(self, path: str, why: str) -> None:
        """Note that something was left out."""
        self.left_out.append(LeftOut(path, why))

    @property
    def text(self) -> str:
        """The fleet file."""
        return with_comments(dump(self.raw), [f"Taken from {self.source}."], {})


def opened(text: str, source: str, key: str) -> dict[str, Any]:
    """Return the top of a foreign file, which must have `key`.

    Raises:
        FleetFault: it is no YAML, or something else.
    """
    document = read(text)
    problems = [Problem(one.line, "", one.message) for one in document.mistakes]
    if not problems and not (isinstance(document.value, dict) and key in document.value):
        problems.append(Problem(1, "", f"there is no {key} in it: this is another kind of file"))
    if problems or not isinstance(document.value, dict):
        raise FleetFault(source, problems)
    return document.value


def secret(value: object, wanted_by: str, out: Imported) -> str | None:
    """Return a key as the fleet file refers to it, None for none or for one that stands for none."""
    if not isinstance(value, str) or value.strip().lower() in PLACEHOLDERS:
        return None
    if value.startswith("os.environ/"):
        return f"${{{value.removeprefix('os.environ/')}}}"
    if re.fullmatch(r"\$\{\w+\}", value):
        return value
    name = re.sub(r"\W+", "_", wanted_by).upper() + "_KEY"
    out.to_do.append(f"the key of {wanted_by} stood in the open: export it as {name}")
    return f"${{{name}}}"


PLACEHOLDERS = frozenset(
    {"", "none", "empty", "dummy", "fake", "fake-key", "not-needed", "no-key", "sk-no-key-required"}
)


def url_of(value: object) -> str | None:
    """Return an address as a fleet file has it, None where it cannot be one."""
    if not isinstance(value, str):
        return None
    if value.startswith("os.environ/"):
        return f"${{{value.removeprefix('os.environ/')}}}"
    try:
        return plain_url(value)
    except ValueError:
        return None


def named(backends: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give every backend a name that no other has."""
    taken: set[str] = set()
    for one in backends:
        base = as_name(str(one.pop("name", "") or default_name(one)))
        name, count = base, 1
        while name in taken:
            count += 1
            name = f"{base}-{count}"
        taken.add(name)
        one["name"] = name
    return [{"name": one.pop("name"), **one} for one in backends]


def rest(raw: Mapping[str, Any], path: str, reasons: Mapping[str, str], out: Imported, known: frozenset[str]) -> None:
    """Note every field that was not taken over."""
    for key in raw:
        if key not in known:
            where = f"{path}.{key}" if path else str(key)
            out.leave(where, reasons.get(str(key), "has no counterpart"))
