"""What checks took of a backend is booked to the backend that was asked, once for questions side by side."""

from hypothesis import given
from hypothesis import strategies as st

from router.quality.ledger import Ledger

MOVES = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.floats(0, 10), st.floats(0, 10)), max_size=30)


@given(MOVES)
def test_every_second_in_which_a_question_is_open_is_booked_once(moves: list[tuple[str, float, float]]) -> None:
    now, told = [0.0], {"a": 0.0, "b": 0.0}
    ledger = Ledger(lambda: now[0], lambda: 0.01, lambda name, s: told.update({name: told[name] + s}))
    whole = ledger.budget("a").left_s
    wanted = {"a": 0.0, "b": 0.0}
    for name, alone_s, both_s in moves:
        with ledger.asking(name):
            now[0] += alone_s
            with ledger.asking(name):
                now[0] += both_s
        wanted[name] += alone_s + both_s
    for name, seconds in wanted.items():
        assert abs(told[name] - seconds) < 1e-6
        assert ledger.budget(name).left_s <= whole - 0.98 * seconds + 0.01 * now[0] + 1e-6


def test_a_question_that_is_given_up_is_booked_too() -> None:
    now, told = [0.0], []
    ledger = Ledger(lambda: now[0], lambda: 0.01, lambda name, s: told.append((name, s)))
    try:
        with ledger.asking("spark"):
            now[0] += 3.0
            raise TimeoutError
    except TimeoutError:
        pass
    assert told == [("spark", 3.0)]


def test_another_share_begins_another_budget() -> None:
    share = [0.01]
    ledger = Ledger(lambda: 0.0, lambda: share[0], lambda name, s: None)
    assert ledger.allows("spark", 800.0)
    share[0] = 0.001
    assert not ledger.allows("spark", 800.0)
