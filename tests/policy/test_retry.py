"""The failure table walked row by row, the step after each failure, and a budget that no storm can overdraw."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import FailureKind, Phase
from router.policy.retry import Remedy, RetryBudget, Step, Verdict, after, failure_table, phases_of, verdict

TABLE = failure_table()
NEVER_COUNT = {
    FailureKind.STALE,  # the keep-alive race is nobody's fault
    FailureKind.BUSY,  # full is not dead
    FailureKind.AUTH,  # the fleet file's fault
    FailureKind.UNKNOWN_MODEL,
    FailureKind.CANNOT,
    FailureKind.CLIENT,
    FailureKind.DRAINED,
}
FREE = {FailureKind.CANNOT, FailureKind.UNKNOWN_MODEL, FailureKind.DRAINED}


def step(
    kind: FailureKind,
    phase: Phase,
    *,
    attempts: int = 1,
    others: bool = True,
    unresumable: str | None = None,
    budget: RetryBudget | None = None,
) -> Step:
    return after(
        kind,
        phase,
        attempts=attempts,
        max_attempts=3,
        others=others,
        unresumable=unresumable,
        budget=budget or RetryBudget(),
        now=0.0,
    )


def test_every_kind_of_failure_has_a_row_and_says_what_it_means() -> None:
    assert {kind for kind, _, _ in TABLE} == set(FailureKind)
    assert all(phases_of(kind) for kind in FailureKind)
    assert all(one.meaning for _, _, one in TABLE)


@pytest.mark.parametrize(("kind", "phase", "told"), TABLE, ids=[f"{kind} {phase}" for kind, phase, _ in TABLE])
def test_each_cell_of_the_table(kind: FailureKind, phase: Phase, told: Verdict) -> None:
    assert told.counts == (kind not in NEVER_COUNT)
    if phase is Phase.COMMITTED:
        assert told.status == 200, "the status is long sent"
        assert told.remedy is Remedy.CONTINUE, "the client has bytes: only a continuation helps"
        assert step(kind, phase, unresumable="a tool call has begun").remedy is Remedy.NONE
    elif kind is FailureKind.CLIENT:
        assert (told.remedy, told.status) == (Remedy.NONE, None), "its own mistake passes unchanged"
    elif kind is FailureKind.STALE:
        assert told.remedy is Remedy.SAME
    else:
        assert told.remedy is Remedy.ELSEWHERE
        assert told.status is None or 502 <= told.status <= 504
    assert step(kind, phase).remedy is told.remedy


def test_nothing_is_tried_where_nobody_else_could_take_it_or_enough_was_tried() -> None:
    assert step(FailureKind.RESET, Phase.SENT, others=False).remedy is Remedy.NONE
    assert step(FailureKind.RESET, Phase.SENT, attempts=2).remedy is Remedy.ELSEWHERE
    assert step(FailureKind.RESET, Phase.SENT, attempts=3).remedy is Remedy.NONE


@pytest.mark.parametrize("kind", FailureKind)
def test_a_spent_budget_stops_retries_and_not_what_is_routing(kind: FailureKind) -> None:
    spent = RetryBudget(balance=0.0)
    for phase in phases_of(kind):
        found = step(kind, phase, budget=spent).remedy
        wanted = verdict(kind, phase).remedy
        is_paid = wanted in (Remedy.ELSEWHERE, Remedy.CONTINUE) and kind not in FREE
        assert found is (Remedy.NONE if is_paid else wanted)


def test_what_is_no_retry_takes_nothing_from_the_budget() -> None:
    budget = RetryBudget()
    for kind, phase in (
        (FailureKind.CLIENT, Phase.HEAD),
        (FailureKind.STALE, Phase.SENT),
        (FailureKind.CANNOT, Phase.HEAD),
    ):
        step(kind, phase, budget=budget)
    step(FailureKind.RESET, Phase.SENT, others=False, budget=budget)
    step(FailureKind.RESET, Phase.COMMITTED, unresumable="n > 1", budget=budget)
    assert budget.balance == RetryBudget().balance


@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 5.0)), max_size=300))
def test_retries_stay_a_share_of_the_calls_plus_a_floor(happenings: list[tuple[bool, float]]) -> None:
    """Whatever comes in whichever order: never more than burst + share × calls + floor × time."""
    budget, now, calls, paid = RetryBudget(), 0.0, 0, 0
    for is_call, later in happenings:
        now += later
        if is_call:
            budget.call()
            calls += 1
        else:
            paid += budget.take(now)
        assert 0.0 <= budget.balance <= budget.burst
    assert paid <= 10.0 + budget.share * calls + budget.floor_per_s * now + 1e-6
