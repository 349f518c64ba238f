"""Read a fleet file: every mistake at once, each with its line, its path and what was meant.

A text goes through four steps, and a mistake in one does not hide those of the next: YAML (`router/yamlmarks.py`),
secrets from the environment, the models of `router/config.py`, contradictions between parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from router.config import BackendConfig, Conflict, FleetConfig, Location, conflicts
from router.errors import ConfigFault
from router.mistakes import in_words, path_of
from router.yamlmarks import Document, below, read

VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|(\$))")  # ${NAME}, or $$ for a dollar
MOST_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake: line (from 1; 0 for what stands in no file), path as in `backends[0].url`, and what was meant."""

    line: int
    path: str
    message: str

    def __str__(self) -> str:
        place = ", ".join(part for part in (f"line {self.line}" if self.line else "", self.path) if part)
        return f"{place}: {self.message}" if place else self.message


class FleetFault(ConfigFault):
    """A fleet file that cannot be used; `problems` holds every mistake, by line.

    Args:
        source: the file's name, as the operator knows it.
        problems: what is wrong with it; not empty.
    """

    default_code = "bad_fleet_file"

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(sorted(set(problems)))
        count = "one mistake" if len(self.problems) == 1 else f"{len(self.problems)} mistakes"
        super().__init__("\n  ".join([f"{source}: {count}", *map(str, self.problems)]))


def load(path: Path | str, environ: Mapping[str, str]) -> FleetConfig:
    """Read a fleet file.

    Args:
        path: the file.
        environ: where `${NAME}` is looked up, as a rule `os.environ`.

    Raises:
        FleetFault: it cannot be read, or holds mistakes.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise FleetFault(str(path), [Problem(1, "", f"larger than {MOST_BYTES // 2**20} MiB: no fleet file")])
        return parse(raw.decode("utf-8-sig"), str(path), environ)
    except OSError as error:
        raise FleetFault(str(path), [Problem(1, "", f"cannot be read: {error.strerror or error}")]) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise FleetFault(str(path), [Problem(line, "", "not UTF-8 text")]) from error


def parse(text: str, source: str, environ: Mapping[str, str]) -> FleetConfig:
    """Read the text of a fleet file; see `load`. A list of urls alone is a whole file."""
    document = read(text)
    problems = [Problem(one.line, path_of(one.location), one.message) for one in document.mistakes]
    if document.value is None:
        raise FleetFault(source, problems or [Problem(1, "", "empty: give at least a list of urls")])
    raw, unset = filled_in(document.value, environ)
    if isinstance(raw, list):
        raw, document = {"backends": raw}, below(document, "backends")
        unset = [(("backends", *location), name) for location, name in unset]
    for location, name in unset:
        message = f"the environment variable {name} is not set: export it before the router starts, or set it there"
        problems.append(Problem(document.line_of(location), path_of(location), message))
    config, found = validated(raw, document, {location for location, _ in unset})
    if config is None or problems or found:
        raise FleetFault(source, [*problems, *found])
    return config


def from_urls(urls: Sequence[str]) -> FleetConfig:
    """Make a fleet of addresses alone, as from `--backend URL` on the command line.

    Raises:
        FleetFault: an address is wrong or given twice.
    """
    raw = {"backends": list(urls)}
    config, problems = validated(raw, Document(raw, {(): 0}), set())
    if config is None:
        raise FleetFault("--backend", problems)
    return config


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a fleet file, for editors (`# yaml-language-server: $schema=…`)."""
    schema = FleetConfig.model_json_schema()
    schema["title"] = "Fleet file of the router"
    backends = {"type": "array", "items": {"$ref": "#/$defs/BackendConfig"}}
    definitions = schema.pop("$defs")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "anyOf": [schema, {**backends, "description": "A list of backends alone is a whole file."}],
        "$defs": definitions,
    }


def validated(raw: object, document: Document, excused: set[Location]) -> tuple[FleetConfig | None, list[Problem]]:
    """Build the config, or say everything that keeps it from being built; `excused` places were reported before."""
    problems = []
    config = None
    try:
        config = FleetConfig.model_validate(raw)
    except ValidationError as error:
        for one in error.errors(include_url=False, include_context=True):
            location = one["loc"]
            if one["type"] != "conflicts" and not any(location[: len(place)] == place for place in excused):
                problems.append(Problem(document.line_of(location), path_of(location), in_words(one, document.value)))
    for conflict in contradictions(raw):
        also = (
            f" (line {document.line_of(conflict.other)})" if conflict.other and document.line_of(conflict.other) else ""
        )
        line = document.line_of(conflict.location)
        problems.append(Problem(line, path_of(conflict.location), conflict.message + also))
    return config, problems


def contradictions(raw: object) -> Iterator[Conflict]:
    """Find contradictions between those parts that can be read, however wrong the others are."""
    if not isinstance(raw, dict):
        return
    backends = raw.get("backends")
    models = raw.get("models")
    yield from conflicts(
        [readable(one) for one in backends] if isinstance(backends, list) else [],
        readable_aliases(raw.get("aliases")),
        models if isinstance(models, dict) else {},
    )


def readable(raw: object) -> BackendConfig | None:
    """Return a backend if it can be read."""
    try:
        return BackendConfig.model_validate(raw)
    except ValidationError:
        return None


def readable_aliases(raw: object) -> dict[str, tuple[str, ...]]:
    """Return those aliases that can be read."""
    aliases = raw.items() if isinstance(raw, dict) else ()
    found = {alias: (to,) if isinstance(to, str) else to for alias, to in aliases}
    return {
        alias: tuple(to)
        for alias, to in found.items()
        if isinstance(to, list | tuple) and all(isinstance(one, str) for one in to)
    }


def filled_in(
    raw: object, environ: Mapping[str, str], here: Location = ()
) -> tuple[object, list[tuple[Location, str]]]:
    """Put the environment's values where `${NAME}` stands; also return where a name is not set."""
    if isinstance(raw, dict):
        done = {key: filled_in(child, environ, (*here, key)) for key, child in raw.items()}
        return {key: child for key, (child, _) in done.items()}, [one for _, unset in done.values() for one in unset]
    if isinstance(raw, list):
        items = [filled_in(child, environ, (*here, i)) for i, child in enumerate(raw)]
        return [child for child, _ in items], [one for _, unset in items for one in unset]
    if not isinstance(raw, str):
        return raw, []
    names = [match[1] for match in VARIABLE.finditer(raw) if match[1]]
    text = VARIABLE.sub(lambda match: environ.get(match[1], match[0]) if match[1] else "$", raw)
    return text, [(here, name) for name in names if not environ.get(name)]
