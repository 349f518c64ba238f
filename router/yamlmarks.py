"""Read YAML as plain values, and remember in which line each of them stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from router.config import Location

MOST_NODES = 100_000  # a fleet file has some hundred; references to references can make millions out of ten lines


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong in the text itself: where, which line (from 1), what."""

    location: Location
    line: int
    message: str


@dataclass(slots=True)
class Document:
    """A read text: its value, the line of each place in it, and what was wrong with it."""

    value: object = None
    lines: dict[Location, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def line_of(self, location: Location) -> int:
        """Return the line where a place stands; for one that isn't in the text, that of the nearest place around it."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)


def below(document: Document, key: str) -> Document:
    """Return the document as it would be if its whole value stood under a key."""
    return Document({key: document.value}, {(key, *where): line for where, line in document.lines.items()})


def read(text: str) -> Document:
    """Read one YAML document. What is wrong stands in `mistakes`; a text that is no YAML at all has no value."""
    document = Document()
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is not None:
                document.value = Reader(loader, document).value(node, (), ())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        document.mistakes.append(Mistake((), mark.line + 1 if mark else 1, in_words(error)))
    except yaml.YAMLError as error:
        document.mistakes.append(Mistake((), 1, f"not readable as YAML: {' '.join(str(error).split())}"))
    except RecursionError:
        document.mistakes.append(Mistake((), 1, "nested too deeply"))
    return document


def in_words(error: yaml.MarkedYAMLError) -> str:
    """Say what the YAML reader stumbled over, with the usual cause."""
    problem = error.problem or error.context or "not YAML"
    hint = ""
    if "'\\t'" in problem:
        hint = ": indent with spaces, not tabs"
    elif "mapping values are not allowed" in problem:
        hint = ": quote a text that holds a colon and a space, or mind the indent"
    elif "block end" in problem or "block mapping" in problem:
        hint = ": mind the indent of this line and the one above"
    return f"{problem}{hint}"


@dataclass(slots=True)
class Reader:
    """Turns nodes into values, noting lines and mistakes in the document."""

    loader: yaml.SafeLoader
    document: Document
    nodes: int = 0

    def value(self, node: yaml.Node, here: Location, around: tuple[yaml.Node, ...]) -> object:
        """Return a node's value; `around` are the nodes it lies in."""
        self.nodes += 1
        self.document.lines.setdefault(here, node.start_mark.line + 1)
        if node in around or self.nodes > MOST_NODES:
            raise yaml.MarkedYAMLError(
                problem="refers to itself" if node in around else "too large", problem_mark=node.start_mark
            )
        around = (*around, node)
        if isinstance(node, yaml.MappingNode):
            return dict(self.pairs(node, here, around))
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, (*here, i), around) for i, child in enumerate(node.value)]
        return self.loader.construct_object(node)

    def pairs(
        self, node: yaml.MappingNode, here: Location, around: tuple[yaml.Node, ...]
    ) -> Iterator[tuple[str, object]]:
        """Yield a mapping's keys and values; a key that is given twice or is no text is a mistake."""
        own = [key for key, _ in node.value]
        self.loader.flatten_mapping(node)  # resolves `<<: *shared`; those come first and may be overridden
        seen: dict[str, int] = {}
        for key_node, child in node.value:
            key = self.loader.construct_object(key_node)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                self.wrong(here, line, f"{key_node.value!r} is no name of a field: quote it if it is meant as text")
                continue
            if key_node in own:
                if key in seen:
                    self.wrong((*here, key), line, f"{key} is given twice (line {seen[key]} too): keep one")
                seen[key] = line
            self.document.lines[*here, key] = line
            yield key, self.value(child, (*here, key), around)

    def wrong(self, location: Location, line: int, message: str) -> None:
        """Note a mistake."""
        self.document.mistakes.append(Mistake(location, line, message))
