"""The sentinel: what it sees in one answer, what it leaves alone, and how seldom it suspects a right backend."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.policy.sentinel import (
    ALPHA,
    TAIL,
    Counts,
    Defect,
    Sentinel,
    Suspicion,
    Watch,
    allowed_rate,
    count,
    finish,
    fold,
)
from router.policy.sequential import WEEK_S

STORY = (
    "Marta found the letter under the door, read it twice and put the kettle on. Nobody had written to the mill since "
    "her father died, and the stamp came from a country that no longer existed.\n"
)
NONE: frozenset[Defect] = frozenset()


def watched(*pieces: str) -> Watch:
    watch = Watch()
    for piece in pieces:
        watch = fold(watch, piece)
    return watch


def ended(*pieces: str, reason: str | None = "stop", arguments: tuple[str, ...] = ()) -> frozenset[Defect]:
    return finish(watched(*pieces), finish_reason=reason, tool_arguments=arguments, has_tool_calls=bool(arguments))


@pytest.mark.parametrize(
    ("text", "defect"),
    [
        ("!" * 400, Defect.FLOOD),
        (STORY + "!" * 3000, Defect.FLOOD),
        (STORY + "lockhandle " * 500, Defect.REPETITION),
        ("I will now say it once more and then stop.\n" * 60 + STORY, Defect.REPETITION),
        ("the cat, the dog and the bird went out to see the whole wide world, " * 60, Defect.REPETITION),
        ("\ufffd\ufffd\ufffdabc", Defect.BROKEN_UTF8),
        ("", Defect.EMPTY),
    ],
)
def test_a_defect_is_seen_wherever_the_text_was_split(text: str, defect: Defect) -> None:
    assert ended(text) == {defect}
    for size in (1, 7, 300):
        assert ended(*(text[i : i + size] for i in range(0, len(text), size))) == {defect}


@pytest.mark.parametrize(
    "text",
    [
        STORY,
        "| a | b |\n" * 500,
        "```python\n" + "    push(0)\n" * 500 + "```\n",
        "~~~\n" + "0" * 5000,
        "a,b,c,d,e,f,g,h,i,j\n" * 400,
        "\n".join(f"{i}. entry {i * 37 % 101} of {i}" for i in range(300)),
        "-" * 300,
        "".join(random.Random(9).choices("ACGT", k=1_500)),
        "ha ha ha!",
    ],
)
def test_tables_code_lists_and_short_laughter_are_left_alone(text: str) -> None:
    assert ended(text) == NONE


def test_thinking_that_uses_up_max_tokens_is_no_empty_answer() -> None:
    assert ended("Let me think about this. ", reason="length") == {Defect.CUT}
    assert ended("", reason="length") == {Defect.CUT}


def test_a_tool_call_without_text_is_no_empty_answer_and_its_arguments_must_parse() -> None:
    assert ended(reason="tool_calls", arguments=('{"city": "Bonn"}', "")) == NONE
    assert ended(reason="tool_calls", arguments=('{"city": "Bonn"',)) == {Defect.BAD_ARGUMENTS}
    assert ended(reason="length", arguments=('{"city": "Bo',)) == {Defect.CUT}
    assert ended(reason="tool_calls", arguments=("[" * 70_000,)) == NONE


def test_null_logprobs_and_the_servers_own_repetition_stop_are_defects() -> None:
    watch = fold(fold(Watch(), STORY), "", null_logprobs=True)
    assert finish(watch, finish_reason="stop") == {Defect.NULL_LOGPROBS}
    assert ended(STORY, reason="repetition") == {Defect.REPETITION}


def test_an_answer_that_broke_off_is_not_called_empty() -> None:
    assert ended("", reason=None) == NONE


@given(st.lists(st.text(alphabet="ab |,\n`!\ufffd", max_size=200), max_size=40))
def test_memory_stays_bounded_whatever_comes(pieces: list[str]) -> None:
    watch = watched(*pieces)
    assert len(watch.prose) <= TAIL
    assert len(watch.line) <= TAIL + 200
    finish(watch, finish_reason="stop")


def week_of(rate: float, usual: Counts, dice: random.Random, answers: int, defect: Defect) -> list[Suspicion]:
    sentinel = Sentinel(0.0)
    for _ in range(answers):
        sentinel, new = count(sentinel, frozenset({defect}) if dice.random() < rate else NONE, usual, 1.0)
        if new:
            return new
    return []


@pytest.mark.parametrize("defect", [Defect.REPETITION, Defect.CUT])
def test_of_right_backends_no_more_than_alpha_are_suspected_in_a_week(defect: Defect) -> None:
    usual = Counts(2_000, {Defect.REPETITION: 30, Defect.CUT: 400})
    rate = allowed_rate(usual, defect)  # at the very edge of the allowance
    dice = random.Random(3)
    suspected = sum(bool(week_of(rate, usual, dice, 100, defect)) for _ in range(300))
    assert suspected / 300 <= ALPHA * 1.5  # 300 draws of a share of at most 1 %


def test_a_backend_that_loops_in_one_answer_of_five_is_suspected_within_a_few_dozen() -> None:
    usual = Counts(500, {Defect.REPETITION: 2})
    dice = random.Random(4)
    found = week_of(0.2, usual, dice, 100, Defect.REPETITION)
    assert found
    assert found[0].answers < 60
    assert "repetition" in found[0].detail


def test_one_odd_answer_is_no_suspicion() -> None:
    _, new = count(Sentinel(0.0), frozenset({Defect.EMPTY}), Counts(), 0.0)
    assert new == []


def test_a_defect_is_suspected_once_a_week() -> None:
    sentinel, found = Sentinel(0.0), []
    for _ in range(50):
        sentinel, new = count(sentinel, frozenset({Defect.FLOOD}), Counts(), 1.0)
        found += new
    assert [s.defect for s in found] == [Defect.FLOOD]
    later, _ = count(sentinel, NONE, Counts(), WEEK_S)
    assert later.suspicions == ()
    assert later.counts.answers == 1


def test_a_model_that_often_runs_long_is_measured_against_itself() -> None:
    assert allowed_rate(Counts(100), Defect.CUT) == pytest.approx(0.1)
    assert allowed_rate(Counts(1_000, {Defect.CUT: 400}), Defect.CUT) > 0.7
    assert allowed_rate(Counts(1_000, {Defect.CUT: 900}), Defect.CUT) == 1.0


def test_clients_that_ask_for_few_tokens_make_nobody_suspect() -> None:
    sentinel = Sentinel(0.0)
    for _ in range(500):
        sentinel, new = count(sentinel, frozenset({Defect.CUT}), Counts(20, {Defect.CUT: 3}), 1.0)
        assert new == []


@settings(max_examples=20)
@given(st.lists(st.frozensets(st.sampled_from(list(Defect))), max_size=20))
def test_counts_add_up(answers: list[frozenset[Defect]]) -> None:
    counts = Counts()
    for defects in answers:
        counts = counts.plus(defects)
    assert counts.answers == len(answers)
    for defect in Defect:
        assert counts.defects.get(defect, 0) == sum(defect in a for a in answers)
