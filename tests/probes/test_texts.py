"""The probe texts: enough of them, short enough, each with its source; and how files are refused."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.probes.texts import LEAST_BYTES, MOST_BYTES, draw_texts, load_probes, parse

TEXTS = load_probes()
BODY = "A sentence that is repeated until the text is long enough to be scored. " * 4


def test_there_are_enough_texts_of_many_kinds_and_each_names_its_source() -> None:
    assert len(TEXTS) >= 120
    assert len({t.name for t in TEXTS}) == len(TEXTS)
    assert len({t.text for t in TEXTS}) == len(TEXTS)
    kinds = Counter(t.kind for t in TEXTS)
    assert {"en", "de", "fr", "es", "ru", "zh", "ja", "ar", "python", "c", "sql", "numbers"} <= set(kinds)
    assert all(t.source for t in TEXTS)


def test_every_text_fits_into_a_scored_prompt() -> None:
    for text in TEXTS:
        assert LEAST_BYTES <= len(text.text.encode()) <= MOST_BYTES
        assert len(text.text) <= 1_400, text.name  # under 400 tokens at 3.5 characters each


def test_own_texts_are_added_from_a_file_or_a_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text(f"=== a | en | me\n{BODY}\n=== b | de | me\n{BODY}\n", encoding="utf-8")
    for extra in (tmp_path, tmp_path / "mine.txt"):
        own = load_probes(extra)[len(TEXTS) :]
        assert [t.name for t in own] == ["own/mine/a", "own/mine/b"]
        assert own[0].text == BODY


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{BODY}\n", "line 1: text before"),
        (f"=== a | en\n{BODY}", "line 1: a heading is"),
        (f"=== a | | me\n{BODY}", "line 1: a heading is"),
        ("=== a | en | me\nshort", "line 1: 5 bytes"),
        (f"=== a | en | me\n{BODY * 20}", "bytes, allowed are"),
        (f"=== a | en | me\n{BODY}\n=== a | en | me\n{BODY}", "line 3: own/a stands there twice"),
    ],
)
def test_a_file_that_breaks_the_format_is_refused_by_line(content: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse("own", content)


def test_an_empty_file_holds_no_texts() -> None:
    assert parse("own", "\n\n") == []


@given(st.floats(0.0, 1.0), st.integers(0, 200), st.sets(st.sampled_from([t.name for t in TEXTS]), max_size=20))
def test_a_draw_is_repeatable_without_repeats_and_leaves_out_what_was_used(
    draw: float, count: int, used: set[str]
) -> None:
    drawn = draw_texts(TEXTS, count, draw, used)
    assert drawn == draw_texts(TEXTS, count, draw, used)
    names = {t.name for t in drawn}
    assert len(names) == len(drawn) == min(count, len(TEXTS) - len(used))
    assert not names & used


def test_another_draw_gives_another_order() -> None:
    assert draw_texts(TEXTS, 20, 0.1) != draw_texts(TEXTS, 20, 0.2)
