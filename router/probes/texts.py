"""Loads the probe texts that ship with the package, and the operator's own; draws from them.

A probe file is plain text. Each text follows a line `=== NAME | KIND | SOURCE`: a name that is unique in the file, a
language or kind ("en", "python", "numbers"), and where the text is from. Those in `texts/` were written for this
project or are in the public domain. 60 to 400 tokens each for a tokenizer that knows the script: a scored prompt must
stay under 512 tokens, because a server materialises vocabulary × positions for it, outside of the memory it planned
with. Whoever sends one cuts its token ids there.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

FILES = ("prose", "classics", "languages", "code", "numbers")
MARK = "=== "
LEAST_BYTES = 150
MOST_BYTES = 2_000  # at most about 500 tokens, even of characters that take a token for every two or three bytes


@dataclass(frozen=True, slots=True)
class ProbeText:
    """One text to score.

    Attributes:
        name: "FILE/NAME", stable over releases: stored scores refer to it.
        kind: a language or sort of text.
        source: where it is from.
        text: what is scored.
    """

    name: str
    kind: str
    source: str
    text: str


def load_probes(extra: Path | None = None) -> tuple[ProbeText, ...]:
    """All probe texts: those of the package, and the operator's own from a file or a folder of `.txt` files.

    Raises:
        ValueError: a file breaks the format or a text is too short or too long; names file and line.
        OSError: `extra` cannot be read.
    """
    shipped = resources.files("router.probes") / "texts"
    texts = [t for name in FILES for t in parse(name, (shipped / f"{name}.txt").read_text(encoding="utf-8"))]
    if extra is not None:
        files = sorted(extra.glob("*.txt")) if extra.is_dir() else [extra]
        for file in files:
            texts += parse(f"own/{file.stem}", file.read_text(encoding="utf-8"))
    return tuple(texts)


def parse(prefix: str, content: str) -> list[ProbeText]:
    """The texts of one probe file.

    Raises:
        ValueError: see `load_probes`.
    """
    texts: dict[str, ProbeText] = {}
    heading: tuple[int, str] | None = None
    body: list[str] = []
    for number, line in enumerate([*content.splitlines(), MARK], start=1):
        if not line.startswith(MARK):
            if heading is None and line.strip():
                raise ValueError(f"{prefix}, line {number}: text before the first '{MARK}NAME | KIND | SOURCE'")
            body.append(line)
            continue
        if heading is not None:
            text = _text(prefix, *heading, "\n".join(body).strip("\n"))
            if text.name in texts:
                raise ValueError(f"{prefix}, line {heading[0]}: {text.name} stands there twice")
            texts[text.name] = text
        heading, body = (number, line), []
    return list(texts.values())


def _text(prefix: str, number: int, heading: str, body: str) -> ProbeText:
    parts = [part.strip() for part in heading.removeprefix(MARK).split("|", 2)]
    if len(parts) != 3 or not all(parts):
        raise ValueError(f"{prefix}, line {number}: a heading is '{MARK}NAME | KIND | SOURCE'")
    size = len(body.encode())
    if not LEAST_BYTES <= size <= MOST_BYTES:
        raise ValueError(f"{prefix}, line {number}: {size} bytes, allowed are {LEAST_BYTES} to {MOST_BYTES}")
    return ProbeText(f"{prefix}/{parts[0]}", parts[1], parts[2], body)


def draw_texts(texts: Sequence[ProbeText], count: int, draw: float, used: Collection[str] = ()) -> list[ProbeText]:
    """Some texts at random, those not yet used: the sequential test needs a random order and learns from new ones only.

    `draw` decides; the same one gives the same texts. Fewer than `count` come back when the rest was used.
    """
    left = [t for t in texts if t.name not in used]
    return random.Random(draw).sample(left, min(count, len(left)))
