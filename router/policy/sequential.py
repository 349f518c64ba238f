"""The sequential test: is this build worse than allowed? Valid however often one looks.

**What is tested.** Text i, drawn at random, gives the paired difference dᵢ (candidate's distance minus the trusted
build's, `scoring.py`) and the excess zᵢ = (max(dᵢ, 0) / δᵢ)², cut at `MOST_EXCESS`. The null hypothesis "no worse
than δ" is E[z] ≤ 1: the root mean square of what the candidate is worse by does not pass the tolerance. Nothing else
is assumed: no shape, no variance, no independence of positions within a text.

**How.** A bettor starts with capital 1 and stakes a fraction f of it on each text: capital × (1 − f + f·z). Under the
null that is a non-negative supermartingale, so by Ville's inequality it ever reaches 1/α with probability at most α
(Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86(1), 2024,
arXiv:2010.09686; Ville 1939). We mix a few fixed fractions (Cover's universal portfolio on a grid, which needs no
tuning), and keep part of the capital as cash that is put in bit by bit: a mixture over the moment when damage began,
so that a build that was right for months is not owed to by its past. A mixture of such processes is one again.

**Why squared.** The score has a floor of zero, so large damage can be betted on with most of the capital, and one
text of tenfold excess weighs a hundred. A test on the plain mean with the same α needs several texts for any damage.

**Unit and budget.** The unit is one text; the same text again under the same build adds nothing, so it is ignored.
The texts count as a random sample of all text: their order must be drawn at random. α is spent over one week
(`WEEK_S`): then the test starts again from capital 1 with a fresh α, so the promise reads "at most α per build and
week". A changed build or a restarted server is another null hypothesis and starts a test of its own.

**Why own code.** `confseq` (0.0.11, the last release of January 2023, "early-stage development") needs a C++14
compiler and Boost headers to install and offers confidence sequences over arrays, not a state of a few numbers that
is kept between texts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from router.policy.scoring import Basis, Paired, rounds_activations

WEEK_S = 7 * 24 * 3600.0
ALPHA = 0.01  # false flags per build and week, at most
MOST_EXCESS = 1e4  # hundredfold the tolerance; cutting can only weaken the evidence
STAKES = (0.1, 0.3, 0.5, 0.7, 0.9)  # fractions of the capital, a fifth of it behind each
INVESTED = 0.75  # at the start; the rest is cash
TRICKLE = 0.02  # share of the cash that goes in with each text
GOOD_AT = 20.0  # capital that proves "within tolerance": wrong for at most one bad build in twenty
GOOD_CLIP = 4.0  # the proof bets on min(z, 4), because a bet on smallness needs a ceiling


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a right kernel may differ by on one text: δ = floor + share × the trusted build's distance (nats)."""

    floor: float
    share: float

    def of(self, trusted: float) -> float:
        """δ for a text on which the trusted build has this distance."""
        return self.floor + self.share * max(trusted, 0.0)


# Twice the largest root mean square (over texts) that a right kernel showed when everything but the kernel stayed:
# - distances, no rounded activations: float32 beside bfloat16 0.0008, llama.cpp's Q4_1 beside vLLM 0.0027 (trusted
#   distance 0), W4A16 in float32 beside bfloat16 0.007 (trusted distance 0.19);
# - distances, rounded activations: W4A4 in float32 beside bfloat16 0.057 (trusted distance 0.37). On a large model two
#   W4A4 kernels agree to about 1 % of a distance of 0.036, and a bad checkpoint lay at 0.109 (rtx6kpro's KLD study of
#   Qwen3.5-397B): inside and far outside of this tolerance;
# - likelihoods, the same pairs: 0.014 without and 0.095 with rounded activations (at an NLL of 2.9 per token).
# - decode gaps: 0.039 and 0.19 (at a gap of 0.56), from the same pairs of prefill runs: no decode kernel was measured.
# Measured on SmolLM2-135M, on 20 texts that also serve as the acceptance test; `make quality-study` prints them again.
# The same model on an H100 (PyTorch 2.11): attention kernels, fused kernels, float16, TF32 and float32
# lie at 0.1 to 0.2 of these tolerances, emulated NVFP4 at 0.3 to 0.6, a batch of other texts at 0 (W4A4 0.3). No NVFP4
# kernel and no Spark was measured.
TOLERANCES: Mapping[tuple[Basis, bool], Tolerance] = {
    (Basis.DISTANCE, False): Tolerance(0.005, 0.05),
    (Basis.DISTANCE, True): Tolerance(0.005, 0.3),
    (Basis.MUTUAL, False): Tolerance(0.005, 0.0),
    (Basis.MUTUAL, True): Tolerance(0.005, 0.0),  # runs of one build only
    (Basis.NLL, False): Tolerance(0.03, 0.0),
    (Basis.NLL, True): Tolerance(0.03, 0.06),
    (Basis.GAP, False): Tolerance(0.08, 0.0),
    (Basis.GAP, True): Tolerance(0.08, 0.6),
}


@dataclass(frozen=True, slots=True)
class Strictness:
    """How sure one must be, and of what.

    Attributes:
        alpha: chance a week that a right build is flagged, over all families of probes.
        tolerance: the tolerances above are multiplied by this; 2 lets a kernel differ by twice as much.
    """

    alpha: float = ALPHA
    tolerance: float = 1.0


USUAL = Strictness()


def tolerance_of(basis: Basis, scheme: str, strictness: Strictness = USUAL) -> Tolerance:
    """The tolerance for a comparison between two builds of this weight and activation scheme."""
    found, times = TOLERANCES[basis, rounds_activations(scheme)], strictness.tolerance
    return found if times == 1.0 else Tolerance(found.floor * times, found.share * times)


def excess(paired: Paired, tolerance: Tolerance) -> float:
    """What the candidate is worse by on this text, in squared tolerances: 0 and more, 1 is the allowance."""
    if not math.isfinite(paired.difference):
        raise ValueError(f"{paired.name}: a difference of {paired.difference} is a finding, not a score")
    return min((max(paired.difference, 0.0) / tolerance.of(paired.trusted)) ** 2, MOST_EXCESS)


@dataclass(frozen=True, slots=True)
class Bets:
    """A bettor's capital against E[z] ≤ 1.

    Attributes:
        stakes: what stands behind each of `STAKES`.
        cash: what is not at stake yet.
        peak: the largest capital so far.
    """

    stakes: tuple[float, ...] = (INVESTED / len(STAKES),) * len(STAKES)
    cash: float = 1.0 - INVESTED
    peak: float = 1.0

    @property
    def capital(self) -> float:
        """The evidence now: the e-value of a bettor who began with 1."""
        return self.cash + math.fsum(self.stakes)

    def after(self, z: float) -> Bets:
        """The capital after one more draw, which must be independent of what was bet before."""
        if not z >= 0.0:
            raise ValueError(f"an excess is never negative or NaN, got {z}")
        z = min(z, MOST_EXCESS)
        fresh = self.cash * TRICKLE / len(STAKES)
        stakes = tuple([(c + fresh) * (1.0 + f * (z - 1.0)) for c, f in zip(self.stakes, STAKES, strict=True)])
        cash = self.cash * (1.0 - TRICKLE)
        return Bets(stakes, cash, max(self.peak, cash + sum(stakes)))


@dataclass(frozen=True, slots=True)
class SequentialTest:
    """The state of one test: a few numbers and the names of the texts it has seen.

    Attributes:
        alpha: chance of a false flag over the test's life.
        started_s: when it began; a week later `renew` starts the next.
        bets: the capital of the bet that the build is worse than allowed.
        proof: the capital of the opposite bet, that it lies within tolerance.
        total: sum of the excesses seen.
        seen: the texts that were counted.
    """

    alpha: float
    started_s: float
    bets: Bets
    proof: float
    total: float
    seen: frozenset[str]

    @property
    def e_value(self) -> float:
        """The evidence now; see `is_worse` for the verdict, which stands once it was reached."""
        return self.bets.capital

    @property
    def texts(self) -> int:
        """How many different texts were counted."""
        return len(self.seen)

    @property
    def mean_excess(self) -> float:
        """Mean excess per text, in squared tolerances; 0 before the first text."""
        return self.total / self.texts if self.seen else 0.0

    @property
    def is_worse(self) -> bool:
        """Whether "no worse than δ" is refuted: false for at most a share α of right builds."""
        return self.bets.peak >= 1.0 / self.alpha

    @property
    def is_within(self) -> bool:
        """Whether "worse than δ" is refuted instead. Never both at once."""
        return not self.is_worse and self.proof >= GOOD_AT

    def __repr__(self) -> str:
        needed = 1.0 / self.alpha
        return f"SequentialTest({self.texts} texts, e={self.e_value:.3g} of {needed:.3g}, z={self.mean_excess:.2g})"


def begin(now: float, alpha: float = ALPHA) -> SequentialTest:
    """A fresh test with its whole budget."""
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    return SequentialTest(alpha, now, Bets(), 1.0, 0.0, frozenset())


def renew(test: SequentialTest, now: float) -> SequentialTest:
    """The same test while its week lasts, then a fresh one with the same α."""
    return begin(now, test.alpha) if now - test.started_s >= WEEK_S else test


def observe(test: SequentialTest, name: str, z: float) -> SequentialTest:
    """Count one text's excess. A text that was seen before changes nothing."""
    if name in test.seen:
        return test
    bets = test.bets.after(z)
    return SequentialTest(
        test.alpha,
        test.started_s,
        bets,
        test.proof * _proof_factor(z),
        test.total + min(z, MOST_EXCESS),
        test.seen | {name},
    )


def observe_all(test: SequentialTest, pairs: Iterable[Paired], tolerance: Tolerance) -> SequentialTest:
    """Count several texts in order, each against its own δ."""
    for paired in pairs:
        test = observe(test, paired.name, excess(paired, tolerance))
    return test


def _proof_factor(z: float) -> float:
    """One step of the opposite bet: under E[min(z, 4)] ≥ 1 its mean is at most 1."""
    stake = 0.9 / (GOOD_CLIP - 1.0)
    return 1.0 + stake * (1.0 - min(z, GOOD_CLIP))
