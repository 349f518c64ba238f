"""A bench as tables of text: for the terminal, and as Markdown to paste in a forum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router.bench.plan import Siblings
from router.bench.result import Result
from router.bench.stats import Mean
from router.bench.verdict import Comparison, Quality


@dataclass(frozen=True, slots=True)
class Table:
    """Heads and rows of text; the first column is a name, the others are numbers."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(result: Result) -> list[Table]:
    """Rates, then times, then quality. Empty ones are left out."""
    found = [_rates(result), _times(result), _quality(result)]
    return [one for one in found if one.rows]


def _rates(result: Result) -> Table:
    pair = len(result.subjects) == 2
    heads = ("tok/s", *(one.title for one in result.subjects), *(("ratio (95 % CI)",) if pair else ()))
    by_key = {one.key: one for one in result.comparisons} if pair else {}
    rows = []
    for key in result.seen():
        cells = [rate_cell(result.mean(one.name, key)) for one in result.subjects]
        rows.append((str(key), *cells, *((ratio_cell(by_key.get(key)),) if pair else ())))
    return Table("Prefill of all streams together, decode of one stream", heads, tuple(rows))


def _times(result: Result) -> Table:
    """At one stream and at the most: between them nothing surprises."""
    levels = {one.concurrency for one in result.conditions()}
    shown = {min(levels), max(levels)} if levels else set()
    rows = []
    for condition in result.conditions():
        if condition.concurrency in shown and condition.siblings is Siblings.IDLE:
            for word, name in (("first token", "ttft_s"), ("whole answer", "end_s")):
                cells = [seconds_cell(result.times(one.name, condition, name)) for one in result.subjects]
                rows.append((f"{condition}: {word}", *cells))
    return Table("Seconds a caller waits", ("s", *(one.title for one in result.subjects)), tuple(rows))


def _quality(result: Result) -> Table:
    rows = [
        ("answers", *(quality_cell(result.qualities[one.name]) for one in result.subjects)),
        ("model", *(one.model for one in result.subjects)),
        ("vLLM", *(one.version or "not known" for one in result.subjects)),
        ("build", *(one.build or "not known" for one in result.subjects)),
    ]
    return Table("What was measured", ("", *(one.title for one in result.subjects)), tuple(rows))


def rate_cell(rate: Mean | None) -> str:
    """Tokens per second with its interval."""
    return "–" if rate is None else _with_interval(rate, 0 if rate.value >= 1000 else 1)


def seconds_cell(time: Mean | None) -> str:
    """Seconds with their interval."""
    return "–" if time is None else _with_interval(time, 2)


def _with_interval(mean: Mean, digits: int) -> str:
    """Half its width where it is narrow; a wide one is lopsided, so both of its ends are told."""
    if mean.low is None or mean.high is None:
        return f"{mean.value:.{digits}f}"
    half = (mean.high - mean.low) / 2
    if half < 0.2 * mean.value:
        return f"{mean.value:.{digits}f} ±{half:.{digits}f}"
    return f"{mean.value:.{digits}f} ({mean.low:.{digits}f}–{mean.high:.{digits}f})"


def ratio_cell(one: Comparison | None) -> str:
    """First over second; a star where the difference stands among all that were asked."""
    if one is None or one.ratio is None:
        return "too few rounds"
    star = " *" if one.winner is not None else ""
    return f"{one.ratio.value:.2f}× ({one.ratio.low:.2f}–{one.ratio.high:.2f}){star}"


def quality_cell(quality: Quality) -> str:
    """What is thought of its answers."""
    score = "" if quality.score is None else f", distance {quality.score:.3g} nats a text"
    texts = f", {quality.texts} texts" if quality.texts else ""
    return f"{quality.grade}{score}{texts}"


def method(result: Result) -> str:
    """How it was measured, in one paragraph: whoever reads a number wants to know."""
    prompts = sorted({one.shape.prompt_tokens for one in result.plan.conditions})
    answers = sorted({one.shape.answer_tokens for one in result.plan.conditions})
    levels = sorted({one.concurrency for one in result.plan.conditions})
    pair = " A star marks a difference that stands among all that were asked (Holm, 5 % together)."
    return (
        f"Prompts of {_listed(prompts)} tokens that no cache has seen, answers of {_listed(answers)} tokens, "
        f"{_listed(levels)} streams at once, {result.plan.repeats} rounds after a warm-up of every shape; backends "
        "back to back within a round, who is first alternates. Decode counts only while all streams decode, prefill is "
        "the slope between short and long prompts. Ratios are paired by round, with t intervals of their logarithms."
        + (pair if len(result.subjects) > 1 else "")
        + " They speak of this hour on these boxes: one build differs by about 7 % between days."
    )


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def markdown(result: Result) -> str:
    """To paste in a forum or an issue."""
    parts = [f"### {_cell(result.title)}", ""]
    if result.stopped:
        parts += [f"**Incomplete:** {_cell(result.stopped)}", ""]
    parts += [f"- {_cell(one)}" for one in result.verdict] + [""]
    for table in tables(result):
        parts += [f"**{table.title}**", "", _row(table.heads), _row(["---", *("---:" for _ in table.heads[1:])])]
        parts += [*map(_row, table.rows), ""]
    if result.notes:
        parts += ["Seen on the way:", "", *(f"- {_cell(one)}" for one in result.notes), ""]
    parts.append(f"<sub>{method(result)} Measured with spark-router's `router bench`.</sub>")
    return "\n".join(parts) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_cell(one) for one in cells) + " |"


def _cell(text: str) -> str:
    """Text that cannot break out of a cell, nor begin markup of its own."""
    flat = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
    return flat.replace("<", "&lt;").replace("*", "\\*").replace("`", "\\`").replace("[", "\\[")
