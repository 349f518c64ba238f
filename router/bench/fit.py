"""What a bench teaches the router: a line each for prefill and decode, how sure they are, and what a sibling costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from statistics import mean
from typing import Any

from router.bench.measured import Measurement, rates_of
from router.bench.plan import Siblings
from router.policy.recursive import Line

# A bench of minutes does not know tomorrow: figures of one build differ by about 7 % between days, so that traffic can
# move the prior from its first hour on.
LEAST_SPREAD = 0.07
_LEAST_NOISE = 0.02


@dataclass(frozen=True, slots=True)
class Prior:
    """What the speed model begins with; lines as `policy/recursive.py` has them.

    Attributes:
        prefill: seconds to the first content over uncached prompt tokens, at one call.
        decode: seconds per token over streams decoding.
        contention: share by which one busy sibling slows decoding, None where that was not measured.
        samples: measurements behind it.
    """

    prefill: Line
    decode: Line
    contention: float | None
    samples: int

    def to_json(self) -> dict[str, Any]:
        """For the admin API."""
        return {
            "prefill": _line(self.prefill),
            "decode": _line(self.decode),
            "contention": self.contention,
            "samples": self.samples,
        }


def _line(line: Line) -> dict[str, float]:
    state = asdict(line)
    return {name: state[name] for name in ("p", "q", "pp", "pq", "qq", "noise")}


def prior_of(subject: str, measurements: Sequence[Measurement]) -> Prior | None:
    """A prior from what was measured alone on its host; None where prefill or decode was not seen at two points."""
    kept = [
        one for one in measurements if one.subject == subject and one.kept and one.figures is not None and one.round > 0
    ]
    alone = [one for one in kept if one.condition.siblings is Siblings.IDLE]
    prefill = [
        (one.figures.prompt_tokens, one.figures.prefill_s)
        for one in alone
        if one.figures is not None and one.figures.prompt_tokens and one.condition.concurrency == 1
    ]
    decode = [
        (float(one.condition.concurrency), 1.0 / one.figures.decode_rate)
        for one in alone
        if one.figures is not None and one.figures.decode_rate and one.condition.shape.answer == "long"
    ]
    lines = [fit(points) for points in (prefill, decode)]
    if lines[0] is None or lines[1] is None:
        return None
    return Prior(lines[0], lines[1], _contention(subject, kept), len(alone))


def fit(points: Sequence[tuple[float, float]]) -> Line | None:
    """The non-negative line with the smallest relative errors; None where all points lie at one place."""
    if len({x for x, _ in points}) < 2 or len(points) < 3:
        return None
    rows = [(1.0 / y, x / y) for x, y in points]  # p·(1/y) + q·(x/y) = 1
    aa, ab, bb = (sum(r[i] * r[j] for r in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
    a, b = (sum(r[i] for r in rows) for i in (0, 1))
    det = aa * bb - ab * ab
    p, q = (a * bb - b * ab) / det, (b * aa - a * ab) / det
    if q < 0:
        p, q = a / aa, 0.0
    elif p < 0:
        p, q = 0.0, b / bb
    noise = max(_LEAST_NOISE, sqrt(mean((p * r[0] + q * r[1] - 1.0) ** 2 for r in rows)))
    pp, pq, qq = (noise * noise * one / det for one in (bb, -ab, aa))
    # Both parts share the day's spread, so it scales the line as a whole.
    day = LEAST_SPREAD * LEAST_SPREAD
    return Line(p, q, pp + day * p * p, pq + day * p * q, qq + day * q * q, noise=noise)


def _contention(subject: str, measurements: Sequence[Measurement]) -> float | None:
    """From decode beside busy siblings over decode alone, at the same number of streams after the same prompt."""
    rates = rates_of(subject, measurements)
    slower = []
    for key, busy in rates.items():
        alone = [
            rate
            for other, found in rates.items()
            if (other.what, other.concurrency, other.prompt) == ("decode", key.concurrency, key.prompt)
            and other.siblings is Siblings.IDLE
            for rate in found.values()
        ]
        if key.what == "decode" and key.siblings is Siblings.BUSY and alone:
            slower += [mean(alone) / rate - 1.0 for rate in busy.values()]
    return max(0.0, mean(slower)) if slower else None
