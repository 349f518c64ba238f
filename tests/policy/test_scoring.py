"""Scoring one text: what the divergence of two top-k lists promises, and what pairs may be made of it."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from router.policy.logprobs import Fault, Position, Text, Token, Unscorable
from router.policy.scoring import (
    Basis,
    TextScore,
    common_prefix,
    cosine,
    decode_gap,
    divergence,
    is_comparable,
    may_use_mutual,
    nll,
    pair,
    pair_gap,
    pair_mutual,
    pair_nll,
    report,
    rounds_activations,
    score,
)


def logprobs_of(weights: Sequence[float]) -> list[float]:
    return [math.log(w / math.fsum(weights)) for w in weights]


distributions = st.lists(st.floats(1e-3, 1.0), min_size=6, max_size=6).map(logprobs_of)


def top(logprobs: Sequence[float], k: int) -> dict[Token, float]:
    return dict(sorted(enumerate(logprobs), key=lambda item: -item[1])[:k])


def text(name: str, *positions: tuple[Token, float | None, dict[Token, float]]) -> Text:
    return Text(name, tuple(Position(*p) for p in positions))


def scored(value: TextScore | Unscorable) -> TextScore:
    assert isinstance(value, TextScore)
    return value


@given(distributions)
def test_a_distribution_lies_at_no_distance_from_itself(p: list[float]) -> None:
    for k in (1, 3, 6):
        assert divergence(top(p, k), top(p, k)) == pytest.approx(0.0, abs=1e-12)


@given(distributions, distributions)
def test_the_divergence_is_never_negative_and_never_above_the_whole_one(p: list[float], q: list[float]) -> None:
    whole = math.fsum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True))
    bounded = divergence(top(p, 4), top(q, 6))
    assert 0.0 <= bounded <= whole + 1e-9


@given(distributions, distributions)
def test_a_token_that_is_not_listed_counts_as_if_listed_at_the_last_place(p: list[float], q: list[float]) -> None:
    short = top(q, 3)
    missing = [t for t in top(p, 3) if t not in short]
    assume(missing)
    least = min(short.values())
    assert divergence(top(p, 3), short) >= 0.0
    assert all(q[t] <= least for t in missing if isinstance(t, int))


def test_lists_that_share_nothing_are_far_apart() -> None:
    sure: dict[Token, float] = {1: -0.01, 2: -6.0}
    elsewhere: dict[Token, float] = {3: -0.5, 4: -8.0}
    assert divergence(sure, elsewhere) > 3.0


def test_nothing_listed_is_not_a_number() -> None:
    assert math.isnan(divergence({}, {1: -1.0}))


def test_a_score_carries_likelihood_agreement_and_the_worst_position() -> None:
    ours = text("t", (1, -0.2, {1: -0.2, 2: -2.0}), (2, -1.0, {2: -1.0, 1: -1.1}))
    theirs = text("t", (1, -0.3, {1: -0.3, 2: -1.5}), (2, -0.9, {1: -0.7, 2: -0.9}))
    result = scored(score(ours, theirs))
    assert result.positions == 2
    assert result.nll_delta == pytest.approx(0.0)
    assert result.nll_shift == pytest.approx(0.1)
    assert result.agreement == 0.5
    assert 0.0 < result.kl <= result.worst


def test_other_tokens_are_another_text() -> None:
    answer = score(text("t", (1, -1.0, {1: -1.0})), text("t", (2, -1.0, {2: -1.0})))
    assert isinstance(answer, Unscorable)
    assert answer.fault is Fault.OTHER_TOKENS
    assert not answer.is_hard


def test_no_positions_are_no_score() -> None:
    assert isinstance(score(text("t"), text("t")), Unscorable)


def test_without_top_tokens_there_is_a_likelihood_and_no_divergence() -> None:
    ours, theirs = text("t", (1, -1.0, {})), text("t", (1, -1.5, {}))
    assert isinstance(score(ours, theirs), Unscorable)
    paired = pair_nll(ours, theirs)
    assert not isinstance(paired, Unscorable)
    assert (paired.basis, paired.trusted, paired.difference) == (Basis.NLL, 1.0, 0.5)


def test_a_missing_own_logprob_leaves_the_likelihood_unknown() -> None:
    half = text("t", (1, -1.0, {1: -1.0}), (2, None, {1: -1.0}))
    assert nll(half) is None
    assert isinstance(pair_nll(half, half), Unscorable)
    assert scored(score(half, half)).nll_delta is None


def test_a_likelihood_of_other_tokens_is_not_compared() -> None:
    assert isinstance(pair_nll(text("t", (1, -1.0, {})), text("t", (2, -1.0, {}))), Unscorable)


def test_a_pair_is_how_much_farther_the_candidate_lies() -> None:
    near, far = TextScore("t", 9, 0.1, None, None, 1.0, 0.2), TextScore("t", 9, 0.4, None, None, 0.9, 0.8)
    assert pair(near, far).difference == pytest.approx(0.3)
    assert pair(near, far).trusted == 0.1
    assert pair_mutual(far).difference == 0.4
    assert pair_gap("t", 0.05, 0.25).difference == pytest.approx(0.2)
    with pytest.raises(ValueError, match="two texts"):
        pair(near, TextScore("u", 9, 0.1, None, None, 1.0, 0.2))


def test_mutual_divergence_means_nothing_between_kernels_that_round_activations() -> None:
    assert may_use_mutual("w4a16", same_build=False)
    assert not may_use_mutual("w4a4", same_build=False)
    assert may_use_mutual("w4a4", same_build=True)
    assert rounds_activations("nobody said")


def test_only_one_scheme_is_compared_with_itself() -> None:
    assert is_comparable("w4a4", "W4A4")
    assert not is_comparable("w4a16", "w4a4")
    assert not is_comparable("", "")


def test_a_report_is_a_mean_and_its_error() -> None:
    pairs = [pair_mutual(TextScore(str(i), 1, kl, None, None, 1.0, kl)) for i, kl in enumerate((0.1, 0.3))]
    mean, error = report(pairs)
    assert mean == pytest.approx(0.2)
    assert error == pytest.approx(0.1)
    assert math.isnan(report(pairs[:1])[1])
    assert math.isnan(report([])[0])


def test_greedy_answers_are_compared_up_to_where_they_part() -> None:
    same: dict[Token, float] = {"a": -0.1, "b": -3.0}
    other: dict[Token, float] = {"b": -0.2, "a": -2.0}
    ours = text("g", ("a", -0.1, same), ("a", -0.1, same), ("a", -0.1, same))
    theirs = text("g", ("a", -0.1, same), ("b", -0.2, other), ("b", -0.2, other))
    result = scored(common_prefix(ours, theirs))
    assert result.positions == 2
    assert result.agreement == 0.5
    assert scored(common_prefix(ours, ours)).positions == 3


def test_the_decode_gap_stands_on_the_generated_tokens_alone() -> None:
    decoded = text("g", (5, -0.5, {}), (6, -1.0, {}))
    prefilled = text("g", (1, -9.0, {}), (5, -0.4, {}), (6, -1.3, {}))
    assert decode_gap(decoded, prefilled) == pytest.approx(0.2)
    assert isinstance(decode_gap(prefilled, decoded), Unscorable)
    assert isinstance(decode_gap(text("g", (5, None, {})), prefilled), Unscorable)


def test_embeddings_are_compared_by_angle_and_by_dimension() -> None:
    assert cosine([1.0, 0.0], [2.0, 0.0]) == pytest.approx(1.0)
    assert cosine([1.0, 0.0], [0.0, 2.0]) == pytest.approx(0.0)
    for broken, fault in (
        ([1.0], Fault.OTHER_TOKENS),
        ([math.nan, 1.0], Fault.NAN),
        ([0.0, 0.0], Fault.NOT_A_PROBABILITY),
    ):
        answer = cosine([1.0, 0.0], broken)
        assert isinstance(answer, Unscorable)
        assert answer.fault is fault
