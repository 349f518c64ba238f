"""A build's baseline: what it answered when it stood well, kept so that any later build can be held against it."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from router.policy.facts import Grade

FORMAT = 1
LARGEST = 256 * 2**20  # bytes unpacked: a file from elsewhere must not fill the memory


@dataclass(frozen=True, slots=True)
class Decoded:
    """A greedy continuation: the prompt's ids, the packed logprobs, and its gap to the own prefill (nats per token)."""

    prompt: tuple[int, ...]
    packed: bytes
    gap: float | None


@dataclass(frozen=True, slots=True)
class Baseline:
    """See the module.

    Attributes:
        model: the served name.
        backend: whose it is.
        build: of that backend.
        scheme: "w4a16", "w4a4" or "" where nobody knows.
        checkpoint: what the server says it loaded.
        tokenizer: a hash over the ids of a fixed text: other ids cannot be compared.
        kernels: as observed.
        version: of vLLM.
        at: Unix time.
        grade: how the build stood when this was kept.
        texts: packed scored texts by name.
        decoded: greedy continuations by name of the text they begin with.
        right: known-answer questions that it got right.
        vectors: embeddings by name of the text.
    """

    model: str
    backend: str
    build: str
    scheme: str
    checkpoint: str
    tokenizer: str
    kernels: str
    version: str
    at: float
    grade: Grade
    texts: Mapping[str, bytes] = field(default_factory=dict)
    decoded: Mapping[str, Decoded] = field(default_factory=dict)
    right: frozenset[str] = frozenset()
    vectors: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def mean_gap(self) -> float | None:
        """How far its decode stood from its prefill on average, None where that was never measured."""
        gaps = [one.gap for one in self.decoded.values() if one.gap is not None]
        return sum(gaps) / len(gaps) if gaps else None

    @property
    def is_empty(self) -> bool:
        """Nothing of it could be compared with anything."""
        return not (self.texts or self.decoded or self.right or self.vectors)

    def joined(self, later: Baseline) -> Baseline:
        """This one with what `later` adds; what stands here stays, so that slow drift is seen."""
        return replace(
            later,
            texts={**later.texts, **self.texts},
            decoded={**later.decoded, **self.decoded},
            right=self.right | later.right,
            vectors={**later.vectors, **self.vectors},
        )


def dump(baseline: Baseline) -> bytes:
    """As bytes: for the history and for a file."""
    document = {
        "format": FORMAT,
        **{name: getattr(baseline, name) for name in _PLAIN},
        "grade": baseline.grade.value,
        "texts": {name: _encode(packed) for name, packed in baseline.texts.items()},
        "decoded": {n: [list(d.prompt), _encode(d.packed), d.gap] for n, d in baseline.decoded.items()},
        "right": sorted(baseline.right),
        "vectors": {name: list(vector) for name, vector in baseline.vectors.items()},
    }
    return zlib.compress(json.dumps(document).encode(), 1)


def load(data: bytes) -> Baseline:
    """Read what `dump` wrote.

    Raises:
        ValueError: it is none, or another version's.
    """
    try:
        document: dict[str, Any] = json.loads(zlib.decompressobj().decompress(data, LARGEST))
        if document["format"] != FORMAT:
            raise ValueError(f"a baseline of format {document['format']}, this router knows {FORMAT}")
        return Baseline(
            **{name: document[name] for name in _PLAIN},
            grade=Grade(document["grade"]),
            texts={name: _decode(text) for name, text in document["texts"].items()},
            decoded={n: Decoded(tuple(map(int, p)), _decode(t), g) for n, (p, t, g) in document["decoded"].items()},
            right=frozenset(document["right"]),
            vectors={name: tuple(map(float, v)) for name, v in document["vectors"].items()},
        )
    except (zlib.error, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ValueError(f"this is no baseline: {problem}") from problem


_PLAIN = ("model", "backend", "build", "scheme", "checkpoint", "tokenizer", "kernels", "version", "at")


def _encode(packed: bytes) -> str:
    return base64.b64encode(packed).decode("ascii")


def _decode(text: str) -> bytes:
    return base64.b64decode(text)
