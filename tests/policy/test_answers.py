"""Judging an answer by its text: known answers kindly, degeneration without crying wolf."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.policy.answers import (
    FLOOD_SHARE,
    GRAM,
    LEAST_FLOOD,
    LEAST_WORDS,
    MOST_REPEATED,
    Answer,
    degeneration,
    flood,
    is_right,
    repetition,
)

SENTENCE = "The old mill by the river had not turned for thirty years when the first letter came. "
STORY = (
    "Marta found the letter under the door, read it twice and put the kettle on. Nobody had written to the mill since "
    "her father died, and the stamp came from a country that no longer existed. She looked at the wheel, green with "
    "moss, and wondered who would want to buy a thing that could not move. By evening she had answered in four lines, "
    "crossed out three of them, and walked to the post office in the rain with what was left of her patience."
)


@pytest.mark.parametrize(
    ("check", "expected", "text", "right"),
    [
        ("contains", "Rome", "The capital of Italy is\n**rome**.", True),
        ("contains", "blue  heron", "I saw a Blue Heron", True),
        ("contains", "Rome", "It is Milan.", False),
        ("number", "144", "12 times 12 is 144.", True),
        ("number", "1200", "That makes 1,200 in all", True),
        ("number", "144", "144 is wrong, it is 146", False),
        ("number", "144", "no idea", False),
        ("copy", "a7-Kq", "Here it is: a7-Kq", True),
        ("copy", "a7-Kq", "Here it is: A7-KQ", False),
        ("json", '{"city": "Oslo", "n": 3}', 'Sure: ```{"city": "oslo", "n": 3, "x": 1}```', True),
        ("json", '{"city": "Oslo"}', '{"city": "Oslo"', False),
        ("json", '{"city": "Oslo"}', "{city: Oslo}", False),
        ("json", '{"city": "Oslo"}', '{"town": "Oslo"}', False),
    ],
)
def test_a_known_answer_is_judged_by_its_content(check: str, expected: str, text: str, right: bool) -> None:
    assert is_right(check, expected, Answer(text)) == right


def test_a_tool_call_is_judged_by_name_and_arguments() -> None:
    expected = '{"name": "weather", "arguments": {"city": "Bonn"}}'
    assert is_right("tool", expected, Answer("", (("weather", '{"city": "bonn", "unit": "C"}'),)))
    assert not is_right("tool", expected, Answer("", (("weather", '"Bonn"'),)))
    assert not is_right("tool", expected, Answer("", (("forecast", '{"city": "Bonn"}'),)))
    assert not is_right("tool", expected, Answer("weather in Bonn"))


def test_a_check_that_nobody_knows_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError):
        is_right("poetry", "", Answer(""))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("!" * 300, "'!' fills 300 of 300"),
        ("Well then" + "! " * 300, "'!' fills 300 of 308"),
        ("-" * 2000, "'-' fills"),
        (SENTENCE * 12, "repeat earlier ones"),
        (STORY + " lockhandle" * 400, "repeat earlier ones"),
        ("月の光が静かに" * 60, "repeat earlier ones"),
        ("caf\ufffd\ufffd \ufffd\ufffd", "broken UTF-8"),
    ],
)
def test_a_degenerate_text_is_named(text: str, reason: str) -> None:
    assert reason in (degeneration(text) or "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "!!!",
        STORY,
        STORY + "\n" + "-" * 200,
        "| a | b |\n" * 200,
        "```\n" + "    push(0)\n" * 200 + "```\nDone.",
        "x, y, z, 1, 2, 3, 4, 5, 6, 7\n" * 100,
        " ".join(str(i) for i in range(1, 400)),
        "1. one\n" + "\n".join(f"{i}. item number {i} of the list" for i in range(2, 60)),
        STORY + " A single broken \ufffd sign.",
    ],
)
def test_tables_code_lists_rules_and_stories_are_not_degenerate(text: str) -> None:
    assert degeneration(text) is None


@given(st.text(max_size=400))
def test_any_text_can_be_judged(text: str) -> None:
    degeneration(text)
    for check in ("contains", "copy", "number", "json", "tool"):
        expected = {"number": "1", "json": "{}", "tool": '{"name": "a", "arguments": {}}'}.get(check, "x")
        is_right(check, expected, Answer(text, ((text, text),)))


def test_a_flood_of_exactly_its_share_is_one() -> None:
    assert flood("a" * 24 + "!" * 369 + "a" * 17) is not None


@given(st.data(), st.integers(LEAST_FLOOD, 400), st.integers(0, 60))
def test_the_quick_look_never_overlooks_a_flood(data: st.DataObject, run: int, others: int) -> None:
    rest = data.draw(st.text(alphabet="abcxyz", min_size=others, max_size=others))
    at = data.draw(st.integers(0, others))
    prose = rest[:at] + "!" * run + rest[at:]
    assert (flood(prose) is not None) == (run >= FLOOD_SHARE * len(prose))


@given(st.data(), st.integers(1, 60), st.integers(LEAST_WORDS, 200))
def test_the_quick_look_never_overlooks_a_repetition(data: st.DataObject, distinct: int, length: int) -> None:
    words = data.draw(st.lists(st.integers(0, distinct), min_size=length, max_size=length))
    prose = " ".join(f"word{'abcdefghij'[n % 10]}{'klmnopqrst'[n // 10]}" for n in words)
    grams = [tuple(words[i : i + GRAM]) for i in range(length - GRAM + 1)]
    assert (repetition(prose) is not None) == (1 - len(set(grams)) / len(grams) >= MOST_REPEATED)
