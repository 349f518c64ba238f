"""Is one faster? Ratios of paired measurements, Student's t on their logarithms, and Holm's correction.

Two backends are measured back to back within a round; a box that warms up or clocks down in between slows both, and
their ratio hardly moves. Speeds scatter by shares, not by amounts, so the logarithm of the ratio is what is close to
normal; its mean over rounds, with the t interval of that many rounds, is honest from three rounds on, where a
percentile bootstrap of three to five values covers 74 to 85 % instead of 95.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, isclose, lgamma, log, log1p, sqrt
from statistics import mean, stdev

LEAST_PAIRS = 3
RESOLUTION = 0.001  # relative standard error below which timing tokens over a network says nothing
_STEPS = 300  # of the continued fraction; it converges in a few dozen for every df and t that occur


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of two speeds with its interval.

    Attributes:
        value: geometric mean over the pairs.
        low, high: of the interval.
        p: probability of pairs at least this uneven where the two are equally fast.
        pairs: how many there were.
    """

    value: float
    low: float
    high: float
    p: float
    pairs: int

    @property
    def inverse(self) -> Ratio:
        """The other way round."""
        return Ratio(1 / self.value, 1 / self.high, 1 / self.low, self.p, self.pairs)


def paired_ratio(pairs: Sequence[tuple[float, float]], confidence: float = 0.95) -> Ratio | None:
    """First over second, one pair a round; None with fewer than `LEAST_PAIRS`.

    Raises:
        ValueError: a value is not positive.
    """
    if len(pairs) < LEAST_PAIRS:
        return None
    if any(one <= 0 for pair in pairs for one in pair):
        raise ValueError("speeds are positive")
    logs = [log(first / second) for first, second in pairs]
    centre, df = mean(logs), len(logs) - 1
    error = max(stdev(logs) / sqrt(len(logs)), RESOLUTION)
    reach = t_quantile(0.5 + confidence / 2, df) * error
    return Ratio(exp(centre), exp(centre - reach), exp(centre + reach), t_two_sided(centre / error, df), len(logs))


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean of repeats of one backend, with its interval; `low` and `high` are None with fewer than three."""

    value: float
    low: float | None
    high: float | None
    repeats: int


def mean_of(values: Sequence[float], confidence: float = 0.95) -> Mean | None:
    """The geometric mean, None of nothing. Drift between rounds is in its interval, unlike in a ratio's."""
    if not values:
        return None
    logs = [log(one) for one in values]
    centre = mean(logs)
    if len(logs) < LEAST_PAIRS:
        return Mean(exp(centre), None, None, len(logs))
    reach = t_quantile(0.5 + confidence / 2, len(logs) - 1) * max(stdev(logs) / sqrt(len(logs)), RESOLUTION)
    return Mean(exp(centre), exp(centre - reach), exp(centre + reach), len(logs))


def holm(p_values: Sequence[float], alpha: float) -> list[bool]:
    """Which differences stand, so that with probability 1 - alpha not one of them is chance (Holm 1979)."""
    stands = [False] * len(p_values)
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    for rank, i in enumerate(order):
        if p_values[i] > alpha / (len(p_values) - rank):
            break
        stands[i] = True
    return stands


def t_two_sided(t: float, df: float) -> float:
    """Probability that Student's t with `df` degrees of freedom lies further from zero than `t`."""
    return _beta_share(df / (df + t * t), df / 2, 0.5) if t else 1.0


def t_quantile(share: float, df: float) -> float:
    """The value below which Student's t lies with probability `share`.

    Raises:
        ValueError: share is not between 0 and 1, or df not positive.
    """
    if not 0 < share < 1 or df <= 0:
        raise ValueError("a quantile needs 0 < share < 1 and df > 0")
    if share < 0.5:
        return -t_quantile(1 - share, df)
    tail = 2 * (1 - share)
    low, high = 0.0, 1.0
    while t_two_sided(high, df) > tail:
        low, high = high, 2 * high
        if high == inf:
            raise ValueError(f"no finite quantile {share} for df = {df}")
    while not isclose(low, high, rel_tol=1e-12, abs_tol=1e-14):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if t_two_sided(middle, df) > tail else (low, middle)
    return (low + high) / 2


def _beta_share(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b) (NIST DLMF 8.17.22, on the side where it converges)."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _beta_share(1 - x, b, a)
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x)) / a
    tiny = 1e-300  # modified Lentz: no denominator may vanish
    f, c, d = 1.0, 1.0, 0.0
    for i in range(_STEPS):
        m = i // 2
        if i == 0:
            term = 1.0
        elif i % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1.0 / ((1.0 + term * d) or tiny)
        c = (1.0 + term / c) or tiny
        f *= c * d
        if abs(1.0 - c * d) < 1e-14:
            break
    return front * (f - 1.0)
