"""A line learned online: y ≈ p + q·x, both non-negative, by recursive least squares that forgets.

The textbook recursion (Ljung, System Identification, 2nd ed., §11.2) with three additions that serving needs: errors
are relative (a slow answer scatters more than a fast one), forgetting follows time as well as samples, and a run of
samples that lean to one side is a shift, answered by scaling the line and widening its uncertainty, while a single
one far off is an outlier that counts little.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp, log, sqrt

OUTLIER = 3.0  # standard deviations
SHIFT_AFTER = 3  # outliers in a row on one side
# A mean surprise of this many standard deviations over the last six samples: 3.7 standard deviations of such a mean.
DRIFT, DRIFT_OVER = 1.5, 6
MOST = 1e4  # seconds, and seconds per unit of x: beyond it no sample means anything
KEEP = 0.97  # weight of what is known when one more sample comes: memory of about 33 samples
WIDEST = 1.0  # relative standard deviation that forgetting leads to
SLOPE_SPEAKS = 0.2  # of a prediction; below that share of the slope a shift is no news about it


@dataclass(frozen=True, slots=True)
class Shift:
    """A line before the samples that shifted it, how many it rested on, and the logarithm of what it was scaled by."""

    p: float
    q: float
    samples: float
    ratio: float


@dataclass(slots=True)
class Line:
    """See the module.

    Attributes:
        p, q: the line.
        pp, pq, qq: their covariance.
        noise: relative standard deviation of one sample.
        samples: weight of what was learned, halved every `half_life_s`.
        at: when it last learned (s), None where never.
        half_life_s: in which an idle estimate loses half of its certainty.
    """

    p: float
    q: float
    pp: float
    pq: float
    qq: float
    noise: float = 0.15
    samples: float = 0.0
    at: float | None = None
    half_life_s: float = 3600.0
    surprises: int = 0  # outliers in a row; negative below the line
    # Of the last six samples: surprise, log ratio, and the line before each of them.
    recent: list[tuple[float, float, float, float]] = field(default_factory=list)
    outliers: int = 0
    shifts: int = 0
    ratio: float = 0.0  # of the last sample: logarithm of taken over expected
    shift: Shift | None = None  # the last one

    def predict(self, x: float) -> float:
        """The line at x."""
        return self.p + self.q * x

    def spread(self, x: float) -> float:
        """Standard deviation of the line itself at x: what is not known, noise of a single sample left out."""
        return sqrt(max(0.0, self.pp + 2 * x * self.pq + x * x * self.qq))

    def learn(self, x: float, y: float, now: float) -> str:
        """Take one sample; says "sample", "outlier" or "shift"."""
        self._forget(now)
        expected = self.predict(x)
        sigma = self.noise * max(expected, y, 1e-9)
        total = sqrt(sigma * sigma + self.spread(x) ** 2)
        surprise = (y - expected) / total
        said = "sample"
        self.ratio = log(max(y, 1e-9) / max(expected, 1e-9))
        if self._has_shifted(x, surprise, self.ratio):
            said = "shift"
        elif abs(surprise) > OUTLIER:
            said = "outlier"
            self.outliers += 1
            sigma *= (surprise / OUTLIER) ** 2  # Huber-like: the further off, the less it counts
        else:
            self.noise += 0.05 * (min(abs(y - expected) / max(expected, 1e-9), 1.0) * 1.25 - self.noise)
            self.noise = max(0.02, self.noise)
        self._correct(x, y, sigma)
        self.samples += 1.0
        self.at = now
        return said

    def _has_shifted(self, x: float, surprise: float, log_ratio: float) -> bool:
        """Whether the last samples agree that everything became slower or faster; the line is scaled then."""
        self.recent.append((max(-OUTLIER, min(OUTLIER, surprise)), log_ratio, self.p, self.q))
        del self.recent[:-DRIFT_OVER]
        side = (surprise > OUTLIER) - (surprise < -OUTLIER)
        self.surprises = (self.surprises + side if self.surprises * side > 0 else side) if side else 0
        drift = sum([one[0] for one in self.recent]) / DRIFT_OVER
        if abs(self.surprises) < SHIFT_AFTER and abs(drift) < DRIFT:
            return False
        self.shifts += 1
        ratios = sorted([one[1] for one in self.recent[-SHIFT_AFTER:]])
        middle = ratios[len(ratios) // 2]
        # Its first samples, still taken for outliers, have moved the line a little already.
        _, _, p, q = self.recent[-SHIFT_AFTER if abs(self.surprises) >= SHIFT_AFTER else 0]
        self.shift = Shift(p, q, self.samples, middle)
        self._widen(x, exp(middle))
        self.recent.clear()
        self.surprises = 0
        return True

    def _correct(self, x: float, y: float, sigma: float) -> None:
        hp, hq = self.pp + x * self.pq, self.pq + x * self.qq
        scale = 1.0 / (sigma * sigma + hp + x * hq)
        gain_p, gain_q = hp * scale, hq * scale
        error = y - self.predict(x)
        self.p += gain_p * error
        self.q += gain_q * error
        self.pp -= gain_p * hp
        self.pq -= gain_p * hq
        self.qq -= gain_q * hq
        # Neither may be negative: the other then carries the line alone.
        if self.p < 0.0:
            self.q, self.p = max(0.0, self.q + self.p / x) if x > 0 else self.q, 0.0
        if self.q < 0.0:
            self.p, self.q = max(0.0, self.p + self.q * x), 0.0
        self.p, self.q = min(self.p, MOST), min(self.q, MOST)

    def _forget(self, now: float) -> None:
        keep = KEEP
        if self.at is not None and now > self.at:
            keep *= 0.5 ** ((now - self.at) / self.half_life_s)
        grow = 1.0 / max(keep, 0.05)
        # Each part only up to its own width, or what no sample speaks of (the slope, while all prompts are short; all
        # of it, in idle hours) would be forgotten without end.
        if self.pp < (WIDEST * self.p) ** 2:
            self.pp *= grow
        if self.qq < (WIDEST * self.q) ** 2:
            self.qq *= grow
        most = 0.99 * sqrt(self.pp * self.qq)
        self.pq = max(-most, min(most, self.pq * grow))
        self.samples *= keep

    def _widen(self, x: float, ratio: float) -> None:
        """Everything became slower or faster by about `ratio`: believe that, and be unsure again.

        The slope goes along only where it had a part in what was seen: a short prompt says nothing about prefill.
        """
        if self.q * x >= SLOPE_SPEAKS * self.predict(x):
            self.q = min(self.q * ratio, MOST)
        self.p = min(self.p * ratio, MOST)
        self.pp = max(self.pp, (0.3 * self.p) ** 2)
        self.qq = max(self.qq, (0.3 * self.q) ** 2)
        self.pq = 0.0
        self.samples = min(self.samples, 3.0)
