"""Say in plain words what is wrong with a field, and what was probably meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from router.config import BackendConfig, FleetConfig, Location, ModelConfig, Section

PLAIN = {
    "list_type": "needs a list",
    "tuple_type": "needs a list",
    "model_type": "needs fields below it, each as name: value",
    "dict_type": "needs names below it, each as name: value",
    "bool_type": "is true or false",
    "bool_parsing": "is true or false",
    "finite_number": "needs a finite number",
}
WORDS = {
    "Input should be": "must be",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "more than",
}


def in_words(error: Mapping[str, Any], raw: object) -> str:
    """Return one sentence for an error of the models.

    Args:
        error: as pydantic tells it: type, loc, msg, ctx.
        raw: the whole file as it was read, to say what stands there; secrets not filled in.
    """
    kind, location = error["type"], tuple(error["loc"])
    context = error.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown_field(location)
    if kind in PLAIN:
        return f"{PLAIN[kind]}, not {described(at(raw, location))}"
    if kind in ("float_type", "int_type", "int_from_float", "float_parsing", "int_parsing"):
        whole = "a whole number" if kind.startswith("int") else "a number"
        return f"needs {whole}{unit_of(location)}, not {described(at(raw, location))}"
    if kind == "string_type":
        return f"needs a text, not {described(at(raw, location))}: put it in quotes"
    if kind == "literal_error":
        return unknown_word(at(raw, location), str(context.get("expected", "")))
    if kind == "string_pattern_mismatch":
        return "letters, digits, dots, dashes and underscores only, at most 63, the first one a letter or digit"
    message = str(error["msg"]).removeprefix("Value error, ")
    for theirs, ours in WORDS.items():
        message = message.replace(theirs, ours)
    return message


def unknown_field(location: Location) -> str:
    """Say that there is no such field, and which one was meant."""
    name, around = str(location[-1]), location[:-1]
    known = list(section_at(around).model_fields)
    near = get_close_matches(name, known, n=1, cutoff=0.6) or [one for one in known if one.startswith(f"{name}_")][:1]
    if near:
        return f"there is no field {name}: did you mean {near[0]}?"
    homes = [place for place, section in places() if name in section.model_fields and place != path_of(around)]
    if homes:
        return f"there is no field {name} here: it belongs under {homes[0]}"
    return f"there is no field {name} here: there are {', '.join(known)}"


def unknown_word(value: object, expected: str) -> str:
    """Say which words a field knows, and which one was meant."""
    words = [word.strip("' ") for word in expected.replace(" or ", ",").split(",")]
    near = get_close_matches(str(value), words, n=1, cutoff=0.5)
    meant = f": did you mean {near[0]}?" if near else ""
    return f"{described(value)} is none of {', '.join(words)}{meant}"


def places() -> list[tuple[str, type[Section]]]:
    """Return each part of a fleet file that has fields, with its path."""
    found = [(name, type(field.default)) for name, field in FleetConfig.model_fields.items()]
    sections = [(name, section) for name, section in found if issubclass(section, Section)]
    return [("the top of the file", FleetConfig), ("a backend", BackendConfig), ("models.NAME", ModelConfig), *sections]


def section_at(location: Sequence[str | int]) -> type[Section]:
    """Return the model of the part that lies at a place."""
    if not location:
        return FleetConfig
    if location[0] == "backends":
        return BackendConfig
    if location[0] == "models":
        return ModelConfig
    return dict(places()).get(str(location[0]), FleetConfig)


def unit_of(location: Location) -> str:
    """Return the unit that a field's name ends in, as words."""
    name = str(location[-1]) if location else ""
    units = {"_per_s": " per second", "_s": " of seconds", "_bytes": " of bytes"}
    return next((words for ending, words in units.items() if name.endswith(ending)), "")


def at(raw: object, location: Location) -> object:
    """Return what stands at a place, None where nothing does."""
    for step in location:
        if isinstance(raw, dict):
            raw = raw.get(step)
        elif isinstance(raw, list) and isinstance(step, int) and step < len(raw):
            raw = raw[step]
        else:
            return None
    return raw


def described(value: object) -> str:
    """Return a value as the reader of a message knows it from the file; long ones by their kind."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {value!r}" if len(value) <= 40 else "a long text"
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        return "a list"
    return str(value)


def path_of(location: Sequence[str | int]) -> str:
    """Return a place as it is written: `backends[0].url`."""
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path
