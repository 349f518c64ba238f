"""Every error code the router can send, read from its source: status, code, and the sentence that goes with it."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from router.errors import RouterError

ROUTER = Path(__file__).parents[2] / "router"
OTHER_FAULTS = ("router.fleetfile", "router.history.reader", "router.openai.routes", "router.recipes.recipe")


@dataclass(frozen=True, slots=True, order=True)
class ErrorCode:
    """One code, the HTTP status it comes with ("" where the code alone does not say), and what it means."""

    code: str
    status: str
    meaning: str


def error_codes() -> list[ErrorCode]:
    """Every code in `router/`, by name; what backends did wrong has its codes in the failure table."""
    classes = fault_classes()
    found = {(one.code, one.status): one for path in sorted(ROUTER.rglob("*.py")) for one in _codes_in(path, classes)}
    for kind in classes.values():
        entry = ErrorCode(kind.default_code, str(kind.default_status), _first_sentence(kind))
        found.setdefault((entry.code, entry.status), entry)
    return sorted(found.values())


def fault_classes() -> dict[str, type[RouterError]]:
    """Every class of fault, by its name."""
    for module in OTHER_FAULTS:
        importlib.import_module(module)
    found: dict[str, type[RouterError]] = {}
    ahead: list[type[RouterError]] = [RouterError]
    while ahead:
        kind = ahead.pop()
        if kind.__module__.startswith("router."):
            found[kind.__name__] = kind
        ahead.extend(kind.__subclasses__())
    return found


def _codes_in(path: Path, classes: dict[str, type[RouterError]]) -> Iterator[ErrorCode]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        given = {word.arg: word.value for word in node.keywords}
        code = given.get("code")
        kind = classes.get(node.func.id) if isinstance(node.func, ast.Name) else None
        if kind is None or not isinstance(code, ast.Constant) or not isinstance(code.value, str):
            continue
        status = given.get("status")
        number = status.value if isinstance(status, ast.Constant) else kind.default_status
        message = _text(node.args[0]) if node.args else ""
        yield ErrorCode(code.value, str(number), message or _first_sentence(kind))


def _text(node: ast.expr) -> str:
    """The words of a message, with … where a value stands."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in parts)  # type: ignore[misc]
        case ast.BinOp(left=left, right=right):
            return _text(left) + _text(right)
    return ""


def _first_sentence(kind: type[RouterError]) -> str:
    if kind is RouterError:
        return "A fault of the router itself; its log says more."
    text = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
    return text[:1].upper() + text[1:]
