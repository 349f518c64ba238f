"""Recorded top-20 logprobs of one small model in several states of health and damage.

`data/logprobs.json.xz` holds what servers answered for the same 20 texts (638 scored positions): SmolLM2-135M-Instruct
(Apache-2.0) on vLLM 0.32 for CPU and on llama.cpp, with Gaussian noise of X × rms on every weight matrix (`n0.02` is
2 %), and with NVFP4 rounding emulated in every linear layer but the head, right and damaged (`nvfp4/…`).

    {"tokens": [[id, …] per text], "runs": {name: {"own": …, "ids": …, "top": …}}}

`data/gpu.json.xz` holds the same for states of that model on an H100 (`gpu/…`; `record_gpu.py` wrote it).

with, per run, text and position: the token's own logprob, the ids of the 20 most likely tokens and their logprobs, in
units of 1e-4 nats. A text's first token was not scored.
"""

import json
import lzma
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from router.policy.logprobs import Position, Text, Unscorable
from router.policy.scoring import (
    Basis,
    Paired,
    TextScore,
    pair,
    pair_mutual,
    pair_nll,
    score,
)

DATA = Path(__file__).parent / "data" / "logprobs.json.xz"
ON_GPU = DATA.with_name("gpu.json.xz")
GPU = "gpu/"
UNIT = 1e-4
TEXTS = 20


@cache
def _recorded(file: Path) -> Any:
    return json.loads(lzma.decompress(file.read_bytes()))


@cache
def run(name: str) -> tuple[Text, ...]:
    """What the server called `name` answered for each text."""
    recorded = _recorded(ON_GPU if name.startswith(GPU) else DATA)
    columns = recorded["runs"][name.removeprefix(GPU)]
    rows = zip(recorded["tokens"], *(columns[column] for column in ("own", "ids", "top")), strict=True)
    return tuple(
        Text(
            f"text {number}",
            tuple(
                Position(
                    token, None if own is None else own * UNIT, dict(zip(ids, (v * UNIT for v in top), strict=True))
                )
                for token, own, ids, top in zip(tokens[1:], owns, listed, tops, strict=True)
            ),
        )
        for number, (tokens, owns, listed, tops) in enumerate(rows)
    )


@cache
def scores(reference: str, candidate: str) -> tuple[TextScore, ...]:
    """The candidate's score on each text, against the reference's logprobs."""
    return tuple(_score(r, c) for r, c in zip(run(reference), run(candidate), strict=True))


def _score(reference: Text, candidate: Text) -> TextScore:
    result = score(reference, candidate)
    assert isinstance(result, TextScore), result
    return result


def pairs(basis: Basis, candidate: str, trusted: str, reference: str = "") -> tuple[Paired, ...]:
    """The paired differences between a candidate and a trusted run, text by text."""
    if basis is Basis.MUTUAL:
        return tuple(pair_mutual(s) for s in scores(trusted, candidate))
    if basis is Basis.DISTANCE:
        both = zip(scores(reference, trusted), scores(reference, candidate), strict=True)
        return tuple(pair(t, c) for t, c in both)
    paired = [pair_nll(t, c) for t, c in zip(run(trusted), run(candidate), strict=True)]
    return tuple(p for p in paired if not isinstance(p, Unscorable))


def mean_kl(values: Sequence[TextScore]) -> float:
    """Mean over positions, as published tables have it."""
    return sum(s.kl * s.positions for s in values) / sum(s.positions for s in values)


def positions(names: Sequence[str]) -> int:
    """How many scored positions these texts hold together."""
    lengths = {t.name: len(t.positions) for t in run("base")}
    return sum(lengths[name] for name in names)
