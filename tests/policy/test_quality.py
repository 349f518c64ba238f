"""Grades: the table walked cell by cell, and flags that come at once and go in two steps."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.policy.facts import Grade
from router.policy.logprobs import Fault, Unscorable
from router.policy.quality import (
    HARD,
    LIFTING,
    MOST_EVIDENCE,
    SHARES,
    TABLE,
    Evidence,
    Family,
    Kind,
    Quality,
    Reference,
    clear,
    flag,
    fresh,
    judge,
    meet_answer,
    meet_fault,
    restarted,
    score_answers,
    score_texts,
)
from router.policy.scoring import Basis, Paired
from router.policy.sequential import ALPHA, WEEK_S, Strictness

NOW = 1_000.0
TRUSTED = Reference("marlin 0.32", "w4a16", Grade.GOOD)
RIGHT_D, WRONG_D = 0.002, 0.5  # nats farther than the trusted build


def texts(count: int, difference: float, start: int = 0) -> list[Paired]:
    return [Paired(f"t{start + i}", Basis.DISTANCE, 0.2, difference) for i in range(count)]


def scored(quality: Quality, count: int, difference: float, start: int = 0, family: Family = Family.PREFILL) -> Quality:
    return score_texts(quality, family, texts(count, difference, start), TRUSTED, "w4a16", NOW)


def flagged_by_damage() -> Quality:
    return scored(fresh("b", 0.0), 3, WRONG_D)


def standing_at(grade: Grade) -> Quality:
    return Quality("b", grade, 0.0)


def found(kind: Kind) -> Evidence:
    return Evidence(kind, NOW, f"{kind} was seen")


@pytest.mark.parametrize("grade", list(Grade))
@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_of_evidence_moves_every_grade_as_the_table_says(grade: Grade, kind: Kind) -> None:
    after = judge(standing_at(grade), found(kind))
    assert after.grade is TABLE[grade, kind]
    assert after.evidence[-1].kind is kind
    assert (after.cause is not None) == (after.grade is not grade)


def test_only_hard_evidence_flags_and_all_of_it_does() -> None:
    for grade in set(Grade) - {Grade.FLAGGED}:
        assert {kind for kind in Kind if TABLE[grade, kind] is Grade.FLAGGED} == HARD


def test_nothing_leads_from_flagged_to_good_in_one_step() -> None:
    reached = {TABLE[Grade.FLAGGED, kind] for kind in Kind}
    assert reached == {Grade.FLAGGED, Grade.SUSPECT, Grade.UNKNOWN}


def test_what_a_scheme_costs_moves_nothing() -> None:
    other = Reference("cutlass", "w4a4", Grade.GOOD)
    for grade in Grade:
        after = score_texts(standing_at(grade), Family.PREFILL, texts(20, WRONG_D), other, "w4a16", NOW)
        assert after.grade is grade
        assert after.evidence[-1].kind is Kind.SCHEME_COST
        assert not after.tests


def test_damage_against_the_same_scheme_flags_and_carries_its_evidence() -> None:
    quality = flagged_by_damage()
    assert quality.grade is Grade.FLAGGED
    assert quality.cause is not None
    assert quality.cause.kind is Kind.DAMAGE
    assert quality.cause.probes == ("t0",)
    assert quality.cause.e_value is not None
    assert quality.cause.e_value >= 1.0 / quality.cause.numbers["alpha"]
    assert quality.cause.numbers["difference_nats"] == WRONG_D
    assert "marlin 0.32" in quality.reason


def test_a_flag_says_when_its_reference_is_itself_only_plausible() -> None:
    plausible = Reference("old", "w4a16", Grade.PLAUSIBLE)
    quality = score_texts(fresh("b", 0.0), Family.PREFILL, texts(3, WRONG_D), plausible, "w4a16", NOW)
    assert quality.grade is Grade.FLAGGED
    assert "itself only plausible" in quality.reason


def test_a_build_becomes_good_by_proof_and_not_by_a_quick_check() -> None:
    quick = scored(fresh("b", 0.0), 5, RIGHT_D)
    assert quick.grade is Grade.UNKNOWN
    assert quick.evidence[-1].kind is Kind.CLEAN
    assert scored(quick, 10, RIGHT_D, start=5).grade is Grade.GOOD


def test_agreeing_with_its_own_unproven_record_makes_a_build_plausible() -> None:
    own = Reference("b", "w4a16", Grade.PLAUSIBLE, independent=False)
    after = score_texts(fresh("b", 0.0), Family.PREFILL, texts(15, 0.0), own, "w4a16", NOW)
    assert after.grade is Grade.PLAUSIBLE


def test_the_same_texts_again_move_nothing() -> None:
    quick = scored(fresh("b", 0.0), 5, RIGHT_D)
    assert scored(quick, 5, RIGHT_D) == quick
    assert score_texts(quick, Family.PREFILL, [], TRUSTED, "w4a16", NOW) is quick


def test_a_flag_is_lifted_in_two_steps() -> None:
    quality = restarted(flagged_by_damage(), NOW)
    assert quality.grade is Grade.FLAGGED
    quality = scored(quality, 5, RIGHT_D)
    assert quality.grade is Grade.SUSPECT
    quality = scored(quality, 10, RIGHT_D)
    assert quality.grade is Grade.SUSPECT
    assert scored(quality, 5, RIGHT_D, start=10).grade is Grade.GOOD


def test_a_suspect_that_is_wrong_again_is_flagged_again() -> None:
    suspect = scored(restarted(flagged_by_damage(), NOW), 5, RIGHT_D)
    assert scored(suspect, 5, WRONG_D, start=5).grade is Grade.FLAGGED


def test_right_prefill_does_not_lift_what_decode_showed() -> None:
    quality = scored(fresh("b", 0.0), 3, WRONG_D, family=Family.DECODE)
    assert quality.grade is Grade.FLAGGED
    assert scored(quality, 20, RIGHT_D).grade is Grade.FLAGGED
    assert scored(quality, 5, RIGHT_D, start=3, family=Family.DECODE).grade is Grade.SUSPECT


def test_a_sentinel_only_makes_suspect_and_a_clean_check_of_a_proven_build_clears_it() -> None:
    good = scored(fresh("b", 0.0), 15, RIGHT_D)
    suspect = judge(good, found(Kind.SENTINEL))
    assert suspect.grade is Grade.SUSPECT
    assert scored(suspect, 4, RIGHT_D, start=15).grade is Grade.SUSPECT
    assert scored(suspect, 5, RIGHT_D, start=15).grade is Grade.GOOD
    assert judge(judge(suspect, found(Kind.SENTINEL)), found(Kind.SENTINEL)).grade is Grade.SUSPECT


@pytest.mark.parametrize("fault", list(Fault))
def test_only_a_hard_fault_on_a_probe_flags(fault: Fault) -> None:
    quality = meet_fault(fresh("b", 0.0), Family.PREFILL, "t1", Unscorable(fault, "position 3"), NOW)
    assert (quality.grade is Grade.FLAGGED) == Unscorable(fault, "").is_hard
    assert bool(quality.evidence) == (quality.grade is Grade.FLAGGED)


def test_a_flooded_answer_flags_at_once_and_a_loop_counts_as_a_miss() -> None:
    flooded = meet_answer(fresh("b", 0.0), Family.DECODE, "haiku", "!" * 200, trusted_is_whole=False, now=NOW)
    assert flooded.grade is Grade.FLAGGED
    assert "'!' fills" in flooded.reason
    quality, grades = standing_at(Grade.GOOD), []
    for number in range(8):
        quality = meet_answer(quality, Family.DECODE, f"q{number}", "and so on " * 99, trusted_is_whole=True, now=NOW)
        grades.append(quality.grade)
    assert grades[0] is Grade.GOOD
    assert grades[-1] is Grade.FLAGGED
    whole = meet_answer(standing_at(Grade.GOOD), Family.DECODE, "q", "It rains.", trusted_is_whole=True, now=NOW)
    assert whole.grade is Grade.GOOD
    assert whole.tests[Family.ANSWERS].mean_excess == 0.0


def test_of_right_builds_at_every_edge_at_once_no_more_than_alpha_are_flagged() -> None:
    """All families together, each with excesses whose mean is exactly what is allowed."""
    dice = random.Random(17)
    flagged = 0
    for _ in range(500):
        quality = fresh("b", 0.0)
        for family in (Family.PREFILL, Family.DECODE, Family.LOADED):
            pairs = [Paired(f"t{i}", Basis.MUTUAL, 0.0, 0.005 * dice.expovariate(1.0) ** 0.5) for i in range(20)]
            quality = score_texts(quality, family, pairs, TRUSTED, "w4a16", NOW)
        right = {f"q{i}": dice.random() >= 0.1 for i in range(20)}
        quality = score_answers(quality, right, trusted=frozenset(right), now=NOW)
        flagged += any(e.kind in HARD for e in quality.evidence)
    assert flagged / 500 <= ALPHA


def test_known_answers_make_a_first_build_plausible_and_never_good() -> None:
    right = {f"q{i}": True for i in range(20)}
    quality = score_answers(fresh("b", 0.0), right, trusted=frozenset(), now=NOW)
    assert quality.grade is Grade.PLAUSIBLE
    assert score_answers(quality, {"x": True}, trusted=frozenset(), now=NOW).grade is Grade.PLAUSIBLE
    assert score_answers(fresh("b", 0.0), {}, trusted=frozenset(), now=NOW).grade is Grade.UNKNOWN


def test_missing_what_a_trusted_build_answered_right_flags() -> None:
    missed = {f"q{i}": False for i in range(8)}
    quality = score_answers(standing_at(Grade.GOOD), missed, trusted=frozenset(missed), now=NOW)
    assert quality.grade is Grade.FLAGGED
    assert quality.cause is not None
    assert quality.cause.kind is Kind.WRONG
    assert len(quality.cause.probes) < 8


def test_a_weak_model_that_misses_half_its_questions_is_not_flagged() -> None:
    dice = random.Random(5)
    flagged = 0
    for _ in range(1_000):
        half = {f"q{i}": dice.random() < 0.5 for i in range(30)}
        flagged += score_answers(fresh("b", 0.0), half, trusted=frozenset(), now=NOW).grade is Grade.FLAGGED
    assert flagged <= 10


def test_wrong_answers_are_lifted_by_right_ones_in_two_steps() -> None:
    missed = {f"q{i}": False for i in range(8)}
    quality = score_answers(fresh("b", 0.0), missed, trusted=frozenset(missed), now=NOW)
    right = {f"r{i}": True for i in range(6)}
    quality = score_answers(quality, right, trusted=frozenset(right), now=NOW)
    assert quality.grade is Grade.SUSPECT
    again = {f"s{i}": True for i in range(6)}
    assert score_answers(quality, again, trusted=frozenset(again), now=NOW).grade is Grade.PLAUSIBLE


def test_what_the_operator_flagged_only_the_operator_lifts() -> None:
    quality = flag(fresh("b", 0.0), "users complain", NOW)
    assert quality.grade is Grade.FLAGGED
    assert quality.reason == "flagged by the operator: users complain"
    assert scored(quality, 30, RIGHT_D).grade is Grade.FLAGGED
    assert restarted(quality, NOW).grade is Grade.FLAGGED
    cleared = clear(quality, "", NOW)
    assert (cleared.grade, cleared.held) == (Grade.UNKNOWN, None)
    assert cleared.reason == "cleared by the operator"


def test_clearing_begins_every_test_again() -> None:
    assert not clear(scored(fresh("b", 0.0), 5, RIGHT_D), "", NOW).tests


def test_a_second_flag_of_the_operator_keeps_the_newer_reason() -> None:
    quality = flag(flag(fresh("b", 0.0), "first", NOW), "second", NOW)
    assert quality.reason.endswith("second")


def test_a_week_later_a_test_has_a_fresh_budget() -> None:
    quality = scored(fresh("b", 0.0), 5, RIGHT_D)
    later = score_texts(quality, Family.PREFILL, texts(1, RIGHT_D), TRUSTED, "w4a16", NOW + WEEK_S)
    assert later.tests[Family.PREFILL].texts == 1


def test_the_families_share_one_alpha() -> None:
    assert set(SHARES) == set(Family)
    assert sum(SHARES.values()) == pytest.approx(1.0)


kinds = st.sampled_from([k for k in Kind if k not in (Kind.FLAG, Kind.CLEAR)])


@given(st.lists(kinds, max_size=30))
def test_evidence_is_bounded_and_good_is_never_reached_from_flagged_without_lifting_twice(walk: list[Kind]) -> None:
    quality, lifted = fresh("b", 0.0), 0
    for kind in walk:
        before = quality.grade
        quality = judge(quality, found(kind))
        lifted = 0 if quality.grade is Grade.FLAGGED else lifted + (kind in LIFTING)
        if before is Grade.FLAGGED and quality.grade is not Grade.FLAGGED:
            assert quality.grade is Grade.SUSPECT
        assert len(quality.evidence) <= MOST_EVIDENCE


def test_a_wider_tolerance_and_a_smaller_risk_flag_less() -> None:
    pairs = [Paired(f"text {n}", Basis.MUTUAL, 0.0, 0.012) for n in range(12)]
    reference = Reference("trusted", "w4a16", Grade.GOOD)

    def grade_at(strictness: Strictness) -> Grade:
        start = fresh("build", 0.0)
        return score_texts(start, Family.PREFILL, pairs, reference, "w4a16", 1.0, strictness).grade

    assert grade_at(Strictness()) is Grade.FLAGGED
    assert grade_at(Strictness(tolerance=3.0)) is not Grade.FLAGGED
    assert grade_at(Strictness(alpha=1e-9)) is not Grade.FLAGGED


def test_another_risk_is_another_promise_and_begins_anew() -> None:
    pairs = [Paired(f"text {n}", Basis.MUTUAL, 0.0, 0.006) for n in range(3)]
    reference = Reference("trusted", "w4a16", Grade.GOOD)
    first = score_texts(fresh("build", 0.0), Family.PREFILL, pairs, reference, "w4a16", 1.0)
    again = score_texts(first, Family.PREFILL, pairs[:1], reference, "w4a16", 2.0, Strictness(alpha=0.001))
    assert first.tests[Family.PREFILL].texts == 3
    assert again.tests[Family.PREFILL].texts == 1
    assert again.tests[Family.PREFILL].alpha == pytest.approx(0.001 * SHARES[Family.PREFILL])
