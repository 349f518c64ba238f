"""Whole benches over simulated engines in virtual time: intervals hold the truth, and equal backends have no winner.

`python -m tests.benchcmd.coverage` does the same 500 times; here as often as a quick run allows, with bounds that a
correct bench passes at these fixed seeds and a t interval of the wrong width does not.
"""

from tests.benchcmd.study import PAIRS, Tally, tally

BENCHES = 60


def last(pairs: tuple[tuple[str, str], ...], benches: int = BENCHES) -> Tally:
    *_, found = tally(pairs, range(benches))
    return found


def test_intervals_hold_the_truth_nineteen_times_of_twenty() -> None:
    found = last(PAIRS)
    assert 0.92 <= found.share <= 0.98, found
    assert found.benches_with_winner >= 0.95 * found.benches  # the pairs differ by 13 % and more: it must be seen


def test_two_equal_backends_have_no_winner() -> None:
    found = last((("marlin", "marlin"),))
    assert found.benches_with_winner <= 0.1 * found.benches, found
    assert found.share >= 0.92
