"""What the helper process computes: answers read, texts compared. Plain values in and out, big ones packed as bytes.

The router's loop never unpacks a scored text: half a megabyte of logprobs would hold it for milliseconds.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Any

import orjson

from router.policy.logprobs import (
    Fault,
    Position,
    Text,
    Token,
    Unscorable,
    read_completion_logprobs,
    read_prompt_logprobs,
)
from router.policy.scoring import (
    Paired,
    TextScore,
    common_prefix,
    decode_gap,
    may_use_mutual,
    nll,
    pair,
    pair_mutual,
    pair_nll,
    score,
)


@dataclass(frozen=True, slots=True)
class Generation:
    """A greedy answer: its words, its token ids, and the packed logprobs of every step."""

    answer: str
    ids: tuple[int, ...]
    packed: bytes


@dataclass(frozen=True, slots=True)
class Compared:
    """One text's evidence. `nll_delta`: how much less likely the candidate finds the text (nats), None: not known."""

    paired: Paired
    nll_delta: float | None


def pack(text: Text) -> bytes:
    """A scored text as bytes, about a twentieth of what the server sent."""
    rows = [[p.token, _short(p.logprob), [[t, _short(v)] for t, v in p.top.items()]] for p in text.positions]
    return zlib.compress(orjson.dumps([text.name, rows]))


def unpack(packed: bytes) -> Text:
    """The text again.

    Raises:
        ValueError: these bytes are no packed text.
    """
    try:
        name, rows = orjson.loads(zlib.decompress(packed))
        return Text(str(name), tuple(Position(_token(t), p, {_token(k): v for k, v in top}) for t, p, top in rows))
    except (zlib.error, TypeError) as problem:
        raise ValueError(f"no packed text: {problem}") from problem


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def _token(value: Any) -> Token:
    return value if isinstance(value, int) else str(value)


def read_scored(name: str, body: bytes, ids: tuple[int, ...], top: int) -> bytes | Unscorable:
    """The answer to a prompt that was to be scored, packed."""
    choice = _choice(body)
    if isinstance(choice, Unscorable):
        return choice
    text = read_prompt_logprobs(name, choice.get("prompt_logprobs"), ids, top=max(top, 1))
    return text if isinstance(text, Unscorable) else pack(text)


def read_generation(name: str, body: bytes, top: int) -> Generation | Unscorable:
    """The answer to a prompt that was to be continued greedily."""
    choice = _choice(body)
    if isinstance(choice, Unscorable):
        return choice
    text = read_completion_logprobs(name, choice, top=max(top, 1))
    if isinstance(text, Unscorable):
        return text
    named = choice.get("token_ids")  # beside tokens that are named by their text
    ids = tuple(t for t in (named if isinstance(named, list) else text.tokens) if isinstance(t, int))
    if len(ids) != len(text.tokens):
        return Unscorable(Fault.IGNORED, "the answer names its tokens by text, not by id")
    answer = choice.get("text")
    return Generation(answer if isinstance(answer, str) else "", ids, pack(text))


def kept_generation(packed: bytes) -> Generation:
    """A greedy answer again from its packed logprobs; its words were not kept."""
    text = unpack(packed)
    return Generation("", tuple(t for t in text.tokens if isinstance(t, int)), packed)


def _choice(body: bytes) -> dict[str, Any] | Unscorable:
    """The first choice. Python's own parser, because it takes the NaN that some servers write."""
    try:
        choice = json.loads(body)["choices"][0]
    except (ValueError, KeyError, IndexError, TypeError):
        return Unscorable(Fault.MALFORMED, "the answer has no choices")
    return choice if isinstance(choice, dict) else Unscorable(Fault.MALFORMED, "the answer's choice is no object")


def compare_texts(
    candidate: bytes, trusted: bytes, reference: bytes | None, scheme: str, same_build: bool
) -> Compared | Unscorable:
    """One text's paired difference on the best basis there is: distance to R, mutual, else likelihood."""
    ours, theirs = unpack(candidate), unpack(trusted)
    likely, likely_trusted = nll(ours), nll(theirs)
    delta = likely - likely_trusted if likely is not None and likely_trusted is not None else None
    paired: Paired | Unscorable
    if may_use_mutual(scheme, same_build=same_build):
        mutual = score(theirs, ours)
        paired = mutual if isinstance(mutual, Unscorable) else pair_mutual(mutual)
    else:
        paired = _distance(ours, theirs, reference)
    if isinstance(paired, Unscorable) and paired.fault is Fault.IGNORED:
        paired = pair_nll(theirs, ours)
    return paired if isinstance(paired, Unscorable) else Compared(paired, delta)


def _distance(ours: Text, theirs: Text, reference: bytes | None) -> Paired | Unscorable:
    if reference is None:
        return Unscorable(Fault.IGNORED, "no third build's logprobs of this text are kept")
    third = unpack(reference)
    far, trusted_far = score(third, ours), score(third, theirs)
    if isinstance(far, TextScore) and isinstance(trusted_far, TextScore):
        return pair(trusted_far, far)
    return Unscorable(Fault.IGNORED, "the third build's logprobs do not fit this text")


def compare_prefix(candidate: bytes, trusted: bytes) -> Paired | Unscorable:
    """Two greedy answers to one prompt, up to where they part."""
    found = common_prefix(unpack(trusted), unpack(candidate))
    return found if isinstance(found, Unscorable) else pair_mutual(found)


def measure_gap(decoded: bytes, prefilled: bytes) -> float | Unscorable:
    """How far decode stands from prefill on a generated text, nats per token."""
    return decode_gap(unpack(decoded), unpack(prefilled))
