"""How far a backend's answers lie from a reference: the score of one text, and its paired difference.

The score of a build on a text is its mean KL divergence from fixed, stored logprobs R. The evidence is the *paired
difference*: how much farther from R the candidate lies than a trusted build of the same weight and activation scheme,
text by text. Two right W4A4 kernels differ a lot from each other (activation rounding amplifies every last bit) while
their distance to a common R hardly moves, so a threshold on their mutual divergence cannot work and this one does.

With R = the trusted build's own logprobs the trusted distance is zero and the difference is the mutual divergence:
allowed only where kernels agree closely, between weight-only kernels or runs of one build. With R = the text itself
the difference is that of the negative log-likelihood (ΔNLL): for servers that list no top tokens.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean

from router.policy.logprobs import Fault, Position, Text, Token, Unscorable

LEAST_TAIL = 1e-9  # probability left outside the top k, at least: lists that add up to one by rounding
SAME_BUILD_FLOOR = 1e-3  # nats; mutual KL below this between runs of one build is rounding


class Basis(StrEnum):
    """What a paired difference is measured in."""

    DISTANCE = "distance"  # KL(R, candidate) − KL(R, trusted), R a third build's logprobs
    MUTUAL = "mutual"  # KL(trusted, candidate)
    NLL = "nll"  # NLL(candidate) − NLL(trusted) of the text itself
    GAP = "gap"  # decode_gap(candidate) − decode_gap(trusted)


@dataclass(frozen=True, slots=True)
class TextScore:
    """One text scored against one reference, means over its positions, in nats.

    Attributes:
        name: which text.
        positions: how many positions the means stand on.
        kl: KL(reference, candidate) over the reference's top tokens plus one tail bucket: a lower bound of the whole.
        nll_delta: NLL of the candidate minus NLL of the reference, signed; None where a token's own logprob is missing.
        nll_shift: the mean of its absolute value by position.
        agreement: share of positions where both think the same token most likely.
        worst: the largest KL of one position.
    """

    name: str
    positions: int
    kl: float
    nll_delta: float | None
    nll_shift: float | None
    agreement: float
    worst: float


@dataclass(frozen=True, slots=True)
class Paired:
    """The unit of evidence: one text, scored for a candidate and for a trusted build.

    Attributes:
        name: which text; a second one of the same name says nothing new about the same build.
        trusted: the trusted build's distance (nats): zero for `Basis.MUTUAL`, its NLL for `Basis.NLL`, its own gap for
            `Basis.GAP`.
        difference: candidate minus trusted (nats); positive is worse.
    """

    name: str
    basis: Basis
    trusted: float
    difference: float


def divergence(reference: Mapping[Token, float], candidate: Mapping[Token, float]) -> float:
    """KL(reference, candidate) of one position, from two top-k lists, in nats.

    Sums over every token that the reference lists, then adds one bucket for the rest. A token that the candidate does
    not list has at most the candidate's k-th logprob there, and counts with that: never dropped. (Over shared tokens
    only, pure garbage scores like a near-perfect copy, because nothing is shared.)
    """
    if not reference or not candidate:
        return math.nan
    least = min(candidate.values())
    inside, reference_mass, candidate_mass = 0.0, 0.0, 0.0
    for token, logprob in reference.items():
        p = math.exp(logprob)
        other = candidate.get(token)
        inside += p * (logprob - (least if other is None else other))
        reference_mass += p
        candidate_mass += 0.0 if other is None else math.exp(other)
    p_tail, q_tail = max(1.0 - reference_mass, LEAST_TAIL), max(1.0 - candidate_mass, LEAST_TAIL)
    return max(inside + p_tail * math.log(p_tail / q_tail), 0.0)


def score(reference: Text, candidate: Text) -> TextScore | Unscorable:
    """Compare one text, position by position. Both must have scored the same tokens."""
    if reference.tokens != candidate.tokens:
        return Unscorable(Fault.OTHER_TOKENS, f"{candidate.name}: not the reference's tokens")
    return score_positions(candidate.name, reference.positions, candidate.positions)


def score_positions(name: str, reference: Sequence[Position], candidate: Sequence[Position]) -> TextScore | Unscorable:
    """Compare positions that saw the same context. Without top tokens on both sides there is no KL to take."""
    pairs = list(zip(reference, candidate, strict=True))
    if not pairs:
        return Unscorable(Fault.OTHER_TOKENS, f"{name}: no position in common")
    if not all(r.top and c.top for r, c in pairs):
        return Unscorable(Fault.IGNORED, f"{name}: no top tokens to compare")
    kl = [divergence(r.top, c.top) for r, c in pairs]
    shifts = [r.logprob - c.logprob for r, c in pairs if r.logprob is not None and c.logprob is not None]
    whole = len(shifts) == len(pairs)
    return TextScore(
        name=name,
        positions=len(pairs),
        kl=fmean(kl),
        nll_delta=fmean(shifts) if whole else None,
        nll_shift=fmean(abs(x) for x in shifts) if whole else None,
        agreement=fmean(r.best == c.best for r, c in pairs),
        worst=max(kl),
    )


def nll(text: Text) -> float | None:
    """Mean negative log-likelihood of the text in nats per token, None where a token's own logprob is missing."""
    own = [p.logprob for p in text.positions if p.logprob is not None]
    return -fmean(own) if len(own) == len(text.positions) else None


def pair(trusted: TextScore, candidate: TextScore) -> Paired:
    """How much farther from the common reference the candidate lies. Both must be scores of the same text."""
    if trusted.name != candidate.name:
        raise ValueError(f"{trusted.name} and {candidate.name} are two texts")
    return Paired(candidate.name, Basis.DISTANCE, trusted.kl, candidate.kl - trusted.kl)


def pair_mutual(candidate: TextScore) -> Paired:
    """The candidate scored against the trusted build's own logprobs; ask `may_use_mutual` first."""
    return Paired(candidate.name, Basis.MUTUAL, 0.0, candidate.kl)


def pair_nll(trusted: Text, candidate: Text) -> Paired | Unscorable:
    """Difference of the text's own likelihood: needs no top tokens, and many more texts to say the same."""
    if trusted.tokens != candidate.tokens:
        return Unscorable(Fault.OTHER_TOKENS, f"{candidate.name}: not the trusted build's tokens")
    ours, theirs = nll(trusted), nll(candidate)
    if ours is None or theirs is None:
        return Unscorable(Fault.IGNORED, f"{candidate.name}: a token's own logprob is missing")
    return Paired(candidate.name, Basis.NLL, ours, theirs - ours)


def pair_gap(name: str, trusted: float, candidate: float) -> Paired:
    """How much wider the candidate's decode stands from its prefill than the trusted build's, on one question.

    Where the trusted build was never asked this question, its mean gap over others stands in.
    """
    return Paired(name, Basis.GAP, trusted, candidate - trusted)


def rounds_activations(scheme: str) -> bool:
    """Whether a scheme like "w4a4" computes with rounded activations; one that nobody named counts as if it did."""
    named = re.fullmatch(r"w(\d+)a(\d+)", scheme.lower())
    return named is None or int(named[2]) < 16


def is_comparable(trusted_scheme: str, scheme: str) -> bool:
    """Whether a difference between the two may flag. Across schemes it only reports what the scheme costs."""
    return trusted_scheme.lower() == scheme.lower() != ""


def may_use_mutual(scheme: str, *, same_build: bool) -> bool:
    """Whether KL(trusted, candidate) means anything: kernels that don't round activations, or runs of one build."""
    return same_build or not rounds_activations(scheme)


def report(pairs: Sequence[Paired]) -> tuple[float, float]:
    """Mean paired difference and its standard error over texts (nats), for the report of what a scheme costs."""
    if not pairs:
        return math.nan, math.nan
    differences = [p.difference for p in pairs]
    mean = fmean(differences)
    if len(differences) < 2:
        return mean, math.nan
    spread = math.sqrt(sum((d - mean) ** 2 for d in differences) / (len(differences) - 1))
    return mean, spread / math.sqrt(len(differences))


def common_prefix(reference: Text, candidate: Text) -> TextScore | Unscorable:
    """Compare two greedy answers where they saw the same context: the common tokens and the first that differs.

    Tests decode kernels without a living reference, against a stored baseline. Where the answers part says little (a
    benign kernel change parts most answers); the logprobs up to there say much.
    """
    same = 0
    for ours, theirs in zip(reference.tokens, candidate.tokens, strict=False):
        if ours != theirs:
            break
        same += 1
    upto = min(same + 1, len(reference.positions), len(candidate.positions))
    return score_positions(candidate.name, reference.positions[:upto], candidate.positions[:upto])


def decode_gap(decoded: Text, prefilled: Text) -> float | Unscorable:
    """How far a backend's decode kernels stand from prefill kernels on the text it generated (nats per token).

    The mean absolute difference of the tokens' own logprobs. `prefilled` is the scored prompt that ends with the
    generated tokens (those before them are left out here): scored by the backend itself, which needs no reference, or
    by a trusted one.
    """
    count = len(decoded.positions)
    tail = prefilled.positions[-count:] if count else ()
    if not count or len(tail) != count:
        return Unscorable(Fault.OTHER_TOKENS, f"{decoded.name}: the scored prompt is shorter than the answer")
    pairs = [(d.logprob, p.logprob) for d, p in zip(decoded.positions, tail, strict=True)]
    known = [abs(d - p) for d, p in pairs if d is not None and p is not None]
    if len(known) != count:
        return Unscorable(Fault.IGNORED, f"{decoded.name}: a token's own logprob is missing")
    return fmean(known)


def cosine(stored: Sequence[float], answered: Sequence[float]) -> float | Unscorable:
    """Cosine of two embeddings; another dimension under the same name is its own, loud finding."""
    if len(stored) != len(answered):
        return Unscorable(Fault.OTHER_TOKENS, f"{len(answered)} dimensions where {len(stored)} were stored")
    if not all(math.isfinite(x) for x in answered):
        return Unscorable(Fault.NAN, "the embedding holds NaN or infinity")
    lengths = math.sqrt(math.fsum(x * x for x in stored)) * math.sqrt(math.fsum(x * x for x in answered))
    if not lengths:
        return Unscorable(Fault.NOT_A_PROBABILITY, "the embedding is all zeros")
    return min(max(math.fsum(a * b for a, b in zip(stored, answered, strict=True)) / lengths, -1.0), 1.0)
