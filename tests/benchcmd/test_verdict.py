"""What is said of a bench: winners only where they stand, quality beside speed, pages that nothing breaks out of."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from math import exp

import pytest

from router.bench.measured import Figures, Key, Measurement, Rates
from router.bench.outcome import Outcome
from router.bench.page import page
from router.bench.plan import SHAPES, Condition, Plan, Shape, Siblings, Subject
from router.bench.result import Result, document, judge
from router.bench.stats import Mean, Ratio
from router.bench.text import markdown, rate_cell, ratio_cell, tables
from router.bench.verdict import Comparison, Quality, compare, sentences

MARLIN = Subject("spark-1", "http://spark-1:8000", "nano", ("spark-1",), "MARLIN", "0.33.0", "aaaa")
FLASH = Subject("spark-2", "http://spark-2:8000", "nano", ("spark-2",), "FLASHINFER_CUTLASS", "0.33.0", "bbbb")
ONE = Key("decode", 1, Siblings.IDLE, "short")
PREFILL = Key("prefill", 1, Siblings.IDLE)
NOISE = (-0.011, 0.004, 0.009, -0.006, 0.003)


def rates(speed: float, shift: int = 0) -> dict[int, float]:
    return {n + 1: speed * exp(NOISE[(n + shift) % 5]) for n in range(5)}


def two(decode: tuple[float, float], prefill: tuple[float, float] = (3000.0, 3000.0)) -> dict[str, Rates]:
    return {
        one.name: {ONE: rates(decode[n], 2 * n), PREFILL: rates(prefill[n], 2 * n)}
        for n, one in enumerate((MARLIN, FLASH))
    }


def verdict(found: dict[str, Rates], **grades: str) -> list[str]:
    subjects = (MARLIN, FLASH)
    qualities = {one.name: Quality(grades.get(one.name.replace("-", "_"), "good")) for one in subjects}
    return sentences(compare(found, [one.name for one in subjects]), subjects, qualities)


def test_the_verdict_names_who_is_faster_at_what_with_its_interval() -> None:
    said = verdict(two((50.0, 42.7), (3000.0, 3930.0)))
    assert re.fullmatch(
        r"spark-1 \(MARLIN\) decodes 1\.17× faster than spark-2 \(FLASHINFER_CUTLASS\) at c=1 "
        r"\(95 % CI 1\.1[5-7]–1\.(17|18|19)\)",
        said[0],
    )
    assert said[1].startswith("spark-2 (FLASHINFER_CUTLASS) prefills 1.31× faster than spark-1 (MARLIN) at c=1")
    assert said[2].startswith("no quality difference beyond noise")


def test_nobody_wins_within_the_noise() -> None:
    said = verdict(two((50.0, 50.1)))
    assert all("faster than" not in one for one in said)
    assert said[0].startswith("no difference beyond noise in how fast")


def test_a_difference_that_stands_alone_may_fall_among_many() -> None:
    alone = {name: {ONE: of} for name, of in (("a", rates(100.0)), ("b", rates(98.0, 2)))}
    assert compare(alone, ["a", "b"])[0].winner == "a"
    many = [Key("decode", n, Siblings.IDLE, "long") for n in range(2, 40)]
    crowd = {name: {**alone[name], **{key: rates(50.0, n) for n, key in enumerate(many)}} for name in alone}
    crowded = compare(crowd, ["a", "b"])
    p_values = [one.ratio.p for one in crowded if one.ratio is not None]
    assert min(p_values) < 0.05  # by chance, and nobody wins by it
    assert all(one.winner is None for one in crowded if one.key in many[1:-1])


@pytest.mark.parametrize("grade", ["flagged", "suspect"])
def test_whoever_is_fast_and_wrong_is_not_praised(grade: str) -> None:
    said = verdict(two((50.0, 42.7)), spark_1=grade)
    assert f"spark-1 (MARLIN) is faster at something, but its answers are {grade}: fast is not right." in said


def test_quality_that_nobody_measured_is_said_to_be_not_measured() -> None:
    said = verdict(two((50.0, 50.0)), spark_2="not measured")
    assert "quality not measured of spark-2 (FLASHINFER_CUTLASS)" in said
    assert not any("no quality difference" in one for one in said)


def test_rounds_that_only_one_was_measured_in_are_no_pair() -> None:
    found = two((50.0, 42.7))
    del found["spark-2"][ONE][1], found["spark-2"][ONE][2], found["spark-2"][ONE][3]
    one = next(one for one in compare(found, ["spark-1", "spark-2"]) if one.key == ONE)
    assert (one.ratio, one.rounds, one.winner) == (None, 2, None)


def test_a_difference_below_half_a_percent_has_no_winner_however_sure() -> None:
    tiny = Comparison(ONE, "a", "b", Ratio(1.003, 1.002, 1.004, 1e-9, 5), 5, True, significant=True)
    assert tiny.winner is None
    assert replace(tiny, ratio=Ratio(1.03, 1.02, 1.04, 1e-9, 5)).winner == "a"


# --- shown ---


def figures(decode: float, prefill_s: float, tokens: float) -> Figures:
    return Figures(tokens, prefill_s, prefill_s, decode, prefill_s + 32 / decode, 32)


def result(subjects: tuple[Subject, ...] = (MARLIN, FLASH), stopped: str = "", rounds: int = 5) -> Result:
    conditions = tuple(Condition(shape, n) for shape in SHAPES for n in (1, 4))
    plan = Plan(subjects, conditions, rounds)
    outcome = Outcome(stopped=stopped)
    for step in plan.rounds():
        which = subjects.index(step.subject)
        noise = exp(NOISE[(step.round + 2 * which) % 5])
        shape, n = step.condition.shape, step.condition.concurrency
        decode = (50.0 - 8.0 * which) / n**0.5 * noise
        tokens = float(n * shape.prompt_tokens)
        found = figures(decode, 0.1 + tokens / (3000.0 + 900.0 * which) / noise, tokens)
        outcome.measurements.append(Measurement(step.round, step.condition, step.subject.name, 0.0, found))
    return judge(plan, outcome, {one.name: Quality("good", "", 0.01, 20) for one in subjects}, 1.79e9, 600.0)


class Strict(HTMLParser):
    """Notes every element and address, and whether elements close in order."""

    EMPTY = frozenset({"meta", "br", "link", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, (tag, self.open)

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(html: str) -> Strict:
    reader = Strict()
    reader.feed(html)
    assert reader.open == []
    return reader


def test_the_page_needs_nothing_from_elsewhere_and_holds_verdict_plots_and_method() -> None:
    one = result()
    found = parsed(page(one))
    assert found.addresses == []
    assert not {"script", "link", "img", "iframe"} & set(found.seen)
    assert "url(" not in page(one)
    assert found.seen.count("svg") >= 4
    for sentence in one.verdict:
        assert sentence in found.text
    assert "How it was measured" in found.text


def test_the_page_of_an_interrupted_bench_says_so_first() -> None:
    found = parsed(page(result(stopped="interrupted")))
    assert found.text.index("Incomplete") < found.text.index("Verdict")


def test_names_cannot_break_out_of_page_or_markdown() -> None:
    evil = replace(MARLIN, name='x"><script>alert(1)</script>|`*', model="<b>|[a](b)")
    one = result((evil, FLASH))
    assert "script" not in parsed(page(one)).seen
    text = markdown(one)
    assert "<script" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in rows}
    assert widths <= {4, 5}  # two subjects, with and without the ratio


@pytest.mark.parametrize("count", [1, 2, 4])
def test_any_number_of_backends_has_a_page_and_tables(count: int) -> None:
    subjects = tuple(replace(MARLIN, name=f"b{n}", url=f"http://b{n}") for n in range(count))
    one = result(subjects)
    parsed(page(one))
    for table in tables(one):
        assert all(len(row) == len(table.heads) for row in table.rows)
    assert len(one.comparisons) == count * (count - 1) // 2 * len(one.seen())


def test_a_bench_of_nothing_has_a_page_too() -> None:
    plan = Plan((MARLIN, FLASH), (Condition(SHAPES[0], 1),), 3)
    empty = judge(plan, Outcome(stopped="interrupted"), {}, 1.79e9, 1.0, lost={"who": "it cannot be reached"})
    assert "who was not measured to the end" in parsed(page(empty)).text
    assert "Incomplete" in markdown(empty)
    assert json.loads(json.dumps(document(empty)))["complete"] is False


def test_markdown_has_the_verdict_the_numbers_and_the_method() -> None:
    text = markdown(result())
    assert "decodes 1.19× faster than" in text
    assert "| decode after a short prompt, c=1 |" in text
    assert "| answers | good, distance 0.01 nats a text, 20 texts |" in text
    assert "4096 tokens that no cache has seen" in text


def test_json_holds_every_measurement_and_each_winner() -> None:
    one = result()
    found = json.loads(json.dumps(document(one)))
    assert found["complete"] is True
    assert len(found["measurements"]) == len(one.measurements)
    main = next(c for c in found["comparisons"] if c["what"] == "decode after a short prompt, c=1")
    assert main["winner"] == "spark-1"
    assert main["ratio"]["value"] == pytest.approx(50 / 42, rel=0.01)
    assert found["priors"]["spark-1"]["decode"]["p"] >= 0


def test_a_wide_interval_is_told_by_its_ends_a_narrow_one_by_its_half() -> None:
    assert rate_cell(Mean(63.2, 62.9, 63.5, 5)) == "63.2 ±0.3"
    assert rate_cell(Mean(4583.0, 1100.0, 19100.0, 5)) == "4583 (1100–19100)"
    assert rate_cell(Mean(63.2, None, None, 2)) == "63.2"
    assert rate_cell(None) == "–"


def test_a_star_marks_only_what_stands() -> None:
    ratio = Ratio(1.17, 1.15, 1.19, 1e-4, 5)
    assert ratio_cell(Comparison(ONE, "a", "b", ratio, 5, True, True)) == "1.17× (1.15–1.19) *"
    assert ratio_cell(Comparison(ONE, "a", "b", ratio, 5, True, False)) == "1.17× (1.15–1.19)"
    assert ratio_cell(None) == "too few rounds"


def test_prompts_found_in_a_cache_are_said_and_do_not_count_as_prefilled() -> None:
    plan = Plan((MARLIN,), (Condition(Shape("long", "short", 4096, 32), 1),), 3)
    outcome = Outcome()
    for step in plan.rounds():
        found = replace(figures(50.0, 0.5, 2048.0), cached_share=0.5)
        outcome.measurements.append(Measurement(step.round, step.condition, "spark-1", 0.0, found))
    notes = judge(plan, outcome, {}, 0.0, 1.0).notes
    assert any("found 50% of new prompts in its cache" in one for one in notes)
