"""Plots of a bench as inline SVG. Colours are CSS variables of the page, so they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from router.bench.stats import Mean

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 460, 270, 52, 14, 14, 40
_DASHES = ("", "7 4", "2 4", "9 3 2 3")
MOST_COLOURS = 8


@dataclass(frozen=True, slots=True)
class Series:
    """One line: a name, its place among the colours, and means by x."""

    name: str
    colour: int
    points: Mapping[int, Mean]


def lines(title: str, unit: str, series: Sequence[Series]) -> str:
    """Means with their intervals over the number of streams, one line each; "" where there is nothing."""
    shown = [one for one in series if one.points]
    if not shown:
        return ""
    xs = sorted({x for one in shown for x in one.points})
    means = [mean for one in shown for mean in one.points.values()]
    # One wide interval should not press everything else to the ground: it is cut at the top.
    top = min(max(mean.high or mean.value for mean in means), 1.5 * max(mean.value for mean in means))
    step = _nice(top / 4)
    ceiling = step * math.ceil(top / step)
    across, down = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def place(x: int, y: float) -> tuple[float, float]:
        share = (xs.index(x) + 0.5) / len(xs)
        return _LEFT + across * share, _TOP + down * (1 - y / ceiling)

    parts = [_opening(title, shown, unit)]
    for n in range(round(ceiling / step) + 1):
        _, y = place(xs[0], n * step)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{n * step:g}</text>')
    for x in xs:
        at, _ = place(x, 0)
        parts.append(f'<text x="{at:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{x}</text>')
    middle = _LEFT + across / 2
    parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT - 5}" text-anchor="middle">streams at once</text>')
    for number, one in enumerate(shown):
        shift = 5.0 * (number - (len(shown) - 1) / 2)  # intervals beside each other, not over each other
        parts += _line(one, shift, place)
    return "".join([*parts, "</svg>"])


def _opening(title: str, series: Sequence[Series], unit: str) -> str:
    said = "; ".join(
        f"{one.name}: " + ", ".join(f"{mean.value:.4g} at {x}" for x, mean in sorted(one.points.items()))
        for one in series
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)} in {escape(unit)}: '
        f'{escape(said)}">'
    )


def _line(one: Series, shift: float, place: Callable[[int, float], tuple[float, float]]) -> list[str]:
    colour = f"var(--line-{one.colour % MOST_COLOURS})"
    dash = _DASHES[one.colour // 2 % len(_DASHES)]
    spots = [(x, *place(x, mean.value), mean) for x, mean in sorted(one.points.items())]
    path = " ".join(f"{at + shift:.1f},{y:.1f}" for _, at, y, _ in spots)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>']
    for x, at, y, mean in spots:
        left = at + shift
        interval = ""
        if mean.low is not None and mean.high is not None:
            low, high = place(x, mean.low)[1], max(float(_TOP), place(x, mean.high)[1])
            parts.append(
                f'<path d="M{left:.1f} {low:.1f}V{high:.1f}M{left - 3:.1f} {low:.1f}h6M{left - 3:.1f} {high:.1f}h6" '
                f'stroke="{colour}" stroke-width="1.5" fill="none"/>'
            )
            interval = f" ({mean.low:.4g} to {mean.high:.4g})"
        told = escape(f"{one.name}, {x} streams: {mean.value:.4g}{interval}")
        parts.append(f'<circle cx="{left:.1f}" cy="{y:.1f}" r="3.6" fill="{colour}"><title>{told}</title></circle>')
    return parts


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of a forest plot: a ratio with its interval."""

    name: str
    value: float
    low: float
    high: float
    stands: bool


def forest(bars: Sequence[Bar], left: str, right: str) -> str:
    """Ratios on a logarithmic axis around 1. Left of it `left` is faster, right of it `right`."""
    if not bars:
        return ""
    width, names, numbers, row, top = 980, 330, 150, 30, 34
    widest = max(abs(math.log(edge)) for one in bars for edge in (one.low, one.high))
    furthest = max(abs(math.log(one.value)) for one in bars)
    reach = max(0.05, min(1.08 * widest, max(0.3, 1.5 * furthest)))  # a wider interval is cut at the edge
    across = width - names - numbers
    height = top + row * len(bars) + 34

    def at(ratio: float) -> float:
        return names + across * (0.5 + max(-reach, min(reach, math.log(ratio))) / (2 * reach))

    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Ratios: '
        + escape("; ".join(f"{one.name} {one.value:.2f} ({one.low:.2f} to {one.high:.2f})" for one in bars))
        + '">',
        f'<text x="{at(1) - 12:.1f}" y="16" text-anchor="end">← {escape(left)} faster</text>',
        f'<text x="{at(1) + 12:.1f}" y="16">{escape(right)} faster →</text>',
    ]
    for tick in _ticks(reach):
        if abs(math.log(tick)) <= reach:
            x, kind = at(tick), "one" if tick == 1 else "grid"
            parts.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 8}" y2="{height - 26}"/>')
            parts.append(f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{tick:g}×</text>')
    for number, one in enumerate(bars):
        y, kind = top + row * number + row / 2, "stands" if one.stands else "open"
        parts.append(f'<text class="name" x="0" y="{y + 4:.1f}">{escape(one.name)}</text>')
        parts.append(f'<line class="{kind}" x1="{at(one.low):.1f}" x2="{at(one.high):.1f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="{kind}" cx="{at(one.value):.1f}" cy="{y}" r="5"/>')
        numbers_text = f"{one.value:.2f}× ({one.low:.2f}–{one.high:.2f})"
        parts.append(f'<text class="{kind}" x="{width}" y="{y + 4:.1f}" text-anchor="end">{numbers_text}</text>')
    return "".join([*parts, "</svg>"])


def _ticks(reach: float) -> tuple[float, ...]:
    """Few enough to stand apart."""
    if reach < 0.12:
        return (0.9, 0.95, 1, 1.05, 1.1)
    if reach < 0.5:
        return (0.67, 0.8, 0.9, 1, 1.1, 1.25, 1.5)
    return (0.1, 0.2, 0.33, 0.5, 1, 2, 3, 5, 10) if reach > 0.9 else (0.5, 0.67, 0.8, 1, 1.25, 1.5, 2)


def _nice(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(max(step, 1e-9)))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= step)
