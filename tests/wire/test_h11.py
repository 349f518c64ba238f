"""Our wire beside h11: every odd request and answer is taken or refused alike, or the difference is known."""

import pytest

from tests.fuzz.wires import answered, ours, their_answer, theirs
from tests.wire.odd import ANSWERS, KNOWN, KNOWN_ANSWERS, ODD, PER_READ
from tests.wire.test_strict import REFUSED, TAKEN

REQUESTS = {**{name: data for name, (data, _) in (*REFUSED.items(), *TAKEN.items())}, **ODD}


def test_the_corpus_is_large_and_every_known_difference_is_of_it() -> None:
    assert len(REQUESTS) > 200
    assert set(KNOWN) <= set(REQUESTS)
    assert set(KNOWN_ANSWERS) <= set(ANSWERS)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_understood_as_h11_does_or_the_difference_is_known(name: str) -> None:
    data = REQUESTS[name]
    differs = ours([data]) != theirs(data)
    assert differs == (name in KNOWN), f"ours {ours([data])}, h11 {theirs(data)}"


@pytest.mark.parametrize("name", sorted(REQUESTS.keys() - set(PER_READ)))
def test_a_request_is_understood_the_same_byte_by_byte(name: str) -> None:
    data = REQUESTS[name]
    assert ours([data[at : at + 1] for at in range(len(data))]) == ours([data])


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_understood_as_h11_does_or_the_difference_is_known(name: str) -> None:
    data = ANSWERS[name]
    mine, other = answered([data]), their_answer(data)
    alike = (mine.ends == [None]) == (other.ends == [None]) and (
        mine.ends != [None] or (mine.status, mine.body) == (other.status, other.body)
    )
    assert alike != (name in KNOWN_ANSWERS), f"ours {mine}, h11 {other}"


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_understood_the_same_byte_by_byte(name: str) -> None:
    data = ANSWERS[name]
    single, whole = answered([data[at : at + 1] for at in range(len(data))]), answered([data])
    assert (single.status, single.body, single.ends) == (whole.status, whole.body, whole.ends)
