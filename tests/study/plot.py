"""Draws one plot as SVG with the standard library: curves, a band and labelled points on two logarithmic axes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 44, 56
GREY, BLUE, RED = "#4b5563", "#2563eb", "#dc2626"


@dataclass(frozen=True, slots=True)
class Axis:
    """A logarithmic axis from `low` to `high`, drawn from pixel `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[float]
    label: str

    def at(self, value: float) -> float:
        """The pixel of a value; values outside sit on the edge."""
        share = math.log(min(max(value, self.low), self.high) / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)


@dataclass(frozen=True, slots=True)
class Curve:
    """The median and a high quantile of y over x."""

    x: Sequence[float]
    middle: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True, slots=True)
class Point:
    """A labelled measurement."""

    x: float
    y: float
    label: str


def draw(title: str, x: Axis, y: Axis, curve: Curve, points: Sequence[Point]) -> str:
    """The whole picture as SVG text; points carry numbers, which a legend in the upper right explains."""
    middle = [*zip(curve.x, curve.middle, strict=True)]
    band = [*zip(curve.x, curve.high, strict=True), *reversed(middle)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        '  font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#ffffff"/>',
        _text(LEFT, 24, title, "#111827", "start", 15),
        *_grid(x, y),
        f'<polygon points="{_path(band, x, y)}" fill="{BLUE}" fill-opacity="0.15"/>',
        f'<polyline points="{_path(middle, x, y)}" fill="none" stroke="{BLUE}" stroke-width="2"/>',
        *(line for number, point in enumerate(points, 1) for line in _point(number, point, x, y)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def axes(x_high: float, y_high: float, x_label: str, y_label: str) -> tuple[Axis, Axis]:
    """Both axes, from 1 up."""
    steps = [m * 10**e for e in range(5) for m in (1, 2, 5)]
    x = Axis(1.0, x_high, LEFT, WIDTH - RIGHT, [s for s in steps if s <= x_high], x_label)
    y = Axis(0.9, y_high, HEIGHT - BOTTOM, TOP, [s for s in steps if s <= y_high], y_label)
    return x, y


def _grid(x: Axis, y: Axis) -> list[str]:
    lines = []
    for tick in x.ticks:
        at = x.at(tick)
        lines.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#e5e7eb"/>')
        lines.append(_text(at, HEIGHT - BOTTOM + 18, f"{tick:g}", GREY, "middle"))
    for tick in y.ticks:
        at = y.at(tick)
        lines.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#e5e7eb"/>')
        lines.append(_text(LEFT - 8, at + 4, f"{tick:g}", GREY, "end"))
    lines.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, x.label, GREY, "middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    lines.append(f'<g transform="translate(18 {middle}) rotate(-90)">{_text(0, 0, y.label, GREY, "middle")}</g>')
    return lines


def _point(number: int, point: Point, x: Axis, y: Axis) -> list[str]:
    at_x, at_y = x.at(point.x), y.at(point.y)
    return [
        f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="8" fill="{RED}"/>',
        _text(at_x, at_y + 4, str(number), "#ffffff", "middle", 11),
        _text(WIDTH - RIGHT - 290, TOP + 16 * number, f"{number}  {point.label}", RED, "start"),
    ]


def _text(x: float, y: float, text: str, fill: str, anchor: str, size: int = 12) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{fill}"'
    return f"<text {place}>{escape(text)}</text>"


def _path(points: Iterable[tuple[float, float]], x: Axis, y: Axis) -> str:
    return " ".join(f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in points)
