"""Who is faster at what, in words: a winner only where chance, asked about everything at once, does not explain it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import log

from router.bench.measured import Key, Rates
from router.bench.plan import Siblings, Subject
from router.bench.stats import LEAST_PAIRS, Ratio, holm, paired_ratio

ALPHA_MAIN, ALPHA_REST = 0.04, 0.01  # together 5 %: few main questions keep most of it, so that they can be answered
TOO_SMALL = 0.005  # a difference below half a percent is not told, however sure


@dataclass(frozen=True, slots=True)
class Quality:
    """What the router thinks of a backend's answers.

    Attributes:
        grade: "not measured" where nobody knows.
        score: paired distance to the reference per text, in nats; None where it could not be taken.
        texts: behind it.
    """

    grade: str = "not measured"
    reason: str = ""
    score: float | None = None
    texts: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two subjects under one key: `ratio` is first over second, None with too few rounds of both."""

    key: Key
    first: str
    second: str
    ratio: Ratio | None
    rounds: int
    is_main: bool
    significant: bool = False

    @property
    def winner(self) -> str | None:
        """Who is faster beyond noise."""
        if self.ratio is None or not self.significant or abs(log(self.ratio.value)) < TOO_SMALL:
            return None
        return self.first if self.ratio.value > 1 else self.second


def compare(rates: Mapping[str, Rates], subjects: Sequence[str]) -> list[Comparison]:
    """Every two subjects under every key that both were measured under, round by round."""
    found: list[Comparison] = []
    for first, second in combinations(subjects, 2):
        shared = [key for key in rates.get(first, {}) if key in rates.get(second, {})]
        main = _main(shared)
        for key in sorted(shared, key=lambda key: key.place):
            a, b = rates[first][key], rates[second][key]
            pairs = [(a[number], b[number]) for number in sorted(a.keys() & b.keys())]
            found.append(Comparison(key, first, second, paired_ratio(pairs), len(pairs), key in main))
    for is_main, alpha in ((True, ALPHA_MAIN), (False, ALPHA_REST)):
        asked = [i for i, one in enumerate(found) if one.is_main is is_main and one.ratio is not None]
        stands = holm([r.p for i in asked if (r := found[i].ratio) is not None], alpha)
        for i, stand in zip(asked, stands, strict=True):
            one = found[i]
            found[i] = Comparison(one.key, one.first, one.second, one.ratio, one.rounds, is_main, stand)
    return found


def _main(keys: Sequence[Key]) -> set[Key]:
    """The questions asked before anything was seen: decode of one and of many streams, prefill of one call."""
    idle = [key for key in keys if key.siblings is Siblings.IDLE]
    decode = [key for key in idle if key.what == "decode" and key.prompt == "short"] or [
        key for key in idle if key.what == "decode"
    ]
    prefill = [key for key in idle if key.what == "prefill"]
    main: set[Key] = set()
    if decode:
        main |= {min(decode, key=lambda k: k.concurrency), max(decode, key=lambda k: k.concurrency)}
    if prefill:
        main.add(min(prefill, key=lambda k: k.concurrency))
    return main


def sentences(
    comparisons: Sequence[Comparison], subjects: Sequence[Subject], qualities: Mapping[str, Quality]
) -> list[str]:
    """The verdict in words: the main questions each with an answer, quality, then what else stands."""
    titles = {one.name: one.title for one in subjects}
    said = [_answer(one, titles) for one in comparisons if one.is_main]
    said += dict.fromkeys(_quality(first, second, qualities) for first, second in combinations(subjects, 2))
    winners = {one.winner for one in comparisons if one.winner is not None}
    said += [
        f"{titles[name]} is faster at something, but its answers are {quality.grade}"
        f"{f' ({quality.reason})' if quality.reason else ''}: fast is not right."
        for name, quality in qualities.items()
        if name in winners and quality.grade in ("flagged", "suspect")
    ]
    return said + [f"also beyond noise: {one}" for one in _together(comparisons, titles)]


def _answer(one: Comparison, titles: Mapping[str, str]) -> str:
    verb = {"decode": "decodes", "prefill": "prefills"}[one.key.what]
    where = f"at c={one.key.concurrency}"
    where += " after a long prompt" if one.key.prompt == "long" else ""
    where += " beside busy siblings" if one.key.siblings is Siblings.BUSY else ""
    if one.ratio is None:
        return (
            f"too few rounds of both to say whether {titles[one.first]} or {titles[one.second]} {verb} faster {where} "
            f"({one.rounds} of at least {LEAST_PAIRS})"
        )
    ratio, faster, slower = one.ratio, one.first, one.second
    if ratio.value < 1:
        ratio, faster, slower = ratio.inverse, slower, faster
    interval = f"95 % CI {ratio.low:.2f}–{ratio.high:.2f}"
    if one.winner is not None:
        return f"{titles[faster]} {verb} {ratio.value:.2f}× faster than {titles[slower]} {where} ({interval})"
    return (
        f"no difference beyond noise in how fast {titles[faster]} and {titles[slower]} {one.key.what} {where} "
        f"({ratio.value:.2f}×, {interval})"
    )


def _together(comparisons: Sequence[Comparison], titles: Mapping[str, str]) -> list[str]:
    """What else stands, one sentence for all numbers of streams."""
    groups: dict[tuple[str, ...], list[tuple[int, float]]] = {}
    for one in comparisons:
        if one.is_main or one.winner is None or one.ratio is None:
            continue
        ratio, slower = (one.ratio, one.second) if one.winner == one.first else (one.ratio.inverse, one.first)
        group = (one.winner, slower, one.key.what, one.key.prompt, one.key.siblings)
        groups.setdefault(group, []).append((one.key.concurrency, ratio.value))
    said = []
    for (winner, slower, what, prompt, siblings), found in groups.items():
        low, high = (f"{edge(ratio for _, ratio in found):.2f}" for edge in (min, max))
        times = low if low == high else f"{low} to {high}"
        levels = ", ".join(str(n) for n, _ in sorted(found))
        where = (" after a long prompt" if prompt == "long" else "") + (
            " beside busy siblings" if siblings == Siblings.BUSY else ""
        )
        said.append(f"{titles[winner]} {what}s {times}× faster than {titles[slower]} at c={levels}{where}")
    return said


def _quality(first: Subject, second: Subject, qualities: Mapping[str, Quality]) -> str:
    grades = {one: qualities.get(one.name, Quality()).grade for one in (first, second)}
    pair = f"{first.title} and {second.title}"
    if set(grades.values()) == {"good"}:
        return f"no quality difference beyond noise: {pair} both agree with their reference"
    if "not measured" in grades.values() or "unknown" in grades.values():
        missing = [one.title for one, grade in grades.items() if grade in ("not measured", "unknown")]
        return f"quality not measured of {' and '.join(missing)}"
    return "quality: " + ", ".join(f"{one.title} is {grade}" for one, grade in grades.items())
