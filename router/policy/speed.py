"""Prefill and decode: what was learned of a backend's speed for one model and build, and what it predicts.

`ttft ≈ wait + overhead + uncached / prefill_rate` and `tpot(n) ≈ (a + b·n)·(1 + c·busy siblings)`: a line each, learned
online from real streams. `c` belongs to the host, not to the backend, and is kept in `HostModel`. It is a share, and
counts busy backends instead of their streams: a step reads its weights once however many streams it serves, so a
sibling takes its part of the bandwidth from its first stream on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

from router.policy.facts import Estimate, Speed
from router.policy.outliers import Kind, Outlier, Outliers, Watch
from router.policy.recursive import Line

SHORTEST_DECODE = 8  # tokens; fewer say more about jitter than about speed

# Priors where nothing else is known: a mid-size MoE on a Spark (Nemotron-3-Nano NVFP4, public figures of 2026:
# 50 to 75 tok/s at one stream, 150 aggregate at five, prefill 2,800 to 6,000 tok/s), wide enough to be moved by
# the first few answers.
_OVERHEAD_S = 0.15
_PREFILL_RATE = 3000.0
_TPOT_A_S = 0.013
_TPOT_B_S = 0.0045
# Two backends that read memory all the time, each at 70 to 80 % of the peak, get about 60 % of their own pace
# beside each other; time slices without overlap would give 50 % (c = 1).
_CONTENTION = 0.7
# Speeds of kernels relative to the prior, per class: weight-only decodes faster, W4A4 prefills faster (facts of
# public benchmarks: Marlin 50.0 against FlashInfer's 42.6 tok/s; b12x prefill 1.21 to 1.37 times Marlin's).
_KERNELS = {
    "marlin": (1.0, 1.0),
    "vllm_cutlass": (1.12, 0.8),
    "flashinfer_cutlass": (1.17, 0.77),
    "b12x": (0.9, 0.8),
    "flashinfer_b12x": (0.9, 0.8),
    "emulation": (6.0, 6.0),
}


def _prefill_prior(scale: float = 1.0) -> Line:
    q = scale / _PREFILL_RATE
    return Line(_OVERHEAD_S, q, (0.7 * _OVERHEAD_S) ** 2, 0.0, (0.7 * q) ** 2, noise=0.25)


def _decode_prior(scale: float = 1.0) -> Line:
    a, b = _TPOT_A_S * scale, _TPOT_B_S * scale
    return Line(a, b, (0.7 * a) ** 2, 0.0, (0.7 * b) ** 2, noise=0.1)


@dataclass(slots=True)
class HostModel:
    """By which share one busy sibling backend of the same host slows decoding: one non-negative number per host.

    Stays at its prior until siblings were seen busy together.
    """

    c: float = _CONTENTION
    variance: float = 0.25
    samples: float = 0.0

    @property
    def is_learned(self) -> bool:
        """Whether siblings were ever busy together."""
        return self.samples >= 3.0

    def begin_with(self, c: float) -> None:
        """A bench measured c; traffic that was seen already knows better."""
        if not self.is_learned:
            self.c, self.variance = max(0.0, c), (0.3 * max(c, 0.1)) ** 2

    def learn(self, slower: float, siblings: float, noise: float) -> bool:
        """A stream took this share more time per token than it would have alone, beside so many busy siblings.

        Says whether that fits what is known; what does not counts little.
        """
        if siblings < 0.1:
            return True
        self.variance += 1e-4  # it forgets: drivers, clocks and siblings change
        error = slower - self.c * siblings
        total = noise * noise + siblings * siblings * self.variance
        fits = error * error <= 9.0 * total
        if not fits:
            noise *= error * error / (9.0 * total)  # the further off, the less it counts
            total = noise * noise + siblings * siblings * self.variance
        gain = self.variance * siblings / total
        self.c = max(0.0, self.c + gain * error)
        self.variance *= 1.0 - gain * siblings
        self.samples = min(self.samples + 1.0, 200.0)
        return fits


@dataclass(slots=True)
class SpeedModel:
    """One backend, one model, one build. Time is handed in.

    Attributes:
        prefill: seconds to the first content over uncached prompt tokens.
        decode: seconds per token over streams decoding there.
        hosts: the host parameters that apply (several for tensor parallel).
        source: where the prior came from: "prior", "kernel table", "history", "bench".
        outliers: what was out of the ordinary, by name.
    """

    prefill: Line = field(default_factory=_prefill_prior)
    decode: Line = field(default_factory=_decode_prior)
    hosts: tuple[HostModel, ...] = ()
    source: str = "prior"
    outliers: Outliers = field(default_factory=Outliers)
    accepted: float | None = None  # share of drafted tokens that speculative decoding keeps
    _speed: Speed | None = None
    _prefill: Watch = field(init=False)
    _decode: Watch = field(init=False)

    def __post_init__(self) -> None:
        self._prefill = Watch("prefill", self.prefill, self.outliers)
        self._decode = Watch("decode", self.decode, self.outliers)

    def observe_first_token(
        self,
        now: float,
        ttft_s: float,
        uncached_prompt_tokens: float,
        backlog_tokens: float = 0.0,
    ) -> None:
        """A call's first content came `ttft_s` after it was sent.

        `backlog_tokens` of other prompts were sent there before and had no content yet: it waited for those too. They
        count as its own, as in the prediction of its wait; taking a time for them off needs the rate to be learned.
        """
        tokens, took = uncached_prompt_tokens + backlog_tokens, max(1e-4, ttft_s)
        self._prefill.look(self.prefill.learn(tokens, took, now), tokens, took, now)
        self._speed = None

    def observe_decode(
        self, now: float, tokens: float, seconds: float, mean_streams: float, mean_siblings: float
    ) -> None:
        """`tokens` came in `seconds`, with so many streams there on average and so many busy sibling backends."""
        if tokens <= 0 or seconds <= 0:
            return
        tpot = seconds / tokens
        line, fits, stretch = self.decode, True, 1.0 + self._contention() * mean_siblings
        expected = line.predict(mean_streams)
        if self.hosts and mean_siblings >= 0.1:
            noise = max(line.noise, line.spread(mean_streams) / max(expected, 1e-9))
            for host in self.hosts:
                fits &= host.learn(tpot / max(expected, 1e-9) - 1.0, mean_siblings, max(0.05, noise))
        said = line.learn(mean_streams, tpot / stretch, now)
        self._decode.look(said, mean_streams, tpot / stretch, now)
        if not fits and said == "sample":
            ratio = tpot / stretch / max(expected, 1e-9)
            self.outliers.add(Outlier("contention", Kind.ODD, ratio, now))
        self._speed = None

    def restarted(self) -> None:
        """The backend started anew: what it compiles on first touch, it may compile again."""
        self._prefill.restarted()
        self._decode.restarted()

    def predict(self, now: float) -> Speed:
        """What a decision needs, as plain numbers; the same object until something is learned."""
        if self._speed is None or self._contention() != self._speed.contention:
            prefill, decode = self.prefill, self.decode
            rate = 1.0 / prefill.q if prefill.q > 1e-9 else 1e9
            tpot = decode.predict(1.0)
            self._speed = Speed(
                overhead_s=prefill.p,
                prefill_rate=rate,
                tpot_a=decode.p,
                tpot_b=decode.q,
                contention=self._contention(),
                spread=min(1.0, decode.spread(1.0) / max(tpot, 1e-9)),
                samples=min(prefill.samples, decode.samples),
            )
        return self._speed

    def _contention(self) -> float:
        """The mean over its hosts: each slows a part of every step."""
        hosts = self.hosts
        if len(hosts) == 1:
            return hosts[0].c
        return sum([host.c for host in hosts]) / len(hosts) if hosts else _CONTENTION

    def estimates(self, now: float) -> dict[str, Estimate]:
        """Every number with its spread, samples and age, for a person."""
        speed = self.predict(now)
        tpot, spread = self.decode.predict(1.0), self.decode.spread(1.0)
        decode_source = "learned" if self.decode.samples >= 1 else self.source
        prefill_source = "learned" if self.prefill.samples >= 1 else self.source
        rate_spread = speed.prefill_rate * min(1.0, self.prefill.qq**0.5 / max(self.prefill.q, 1e-9))
        ages = (_age(self.prefill, now), _age(self.decode, now))
        host = next((one for one in self.hosts if one.is_learned), None)
        return {
            "prefill_rate": Estimate(speed.prefill_rate, rate_spread, self.prefill.samples, ages[0], prefill_source),
            "overhead_s": Estimate(self.prefill.p, self.prefill.pp**0.5, self.prefill.samples, ages[0], prefill_source),
            "decode_rate": Estimate(1.0 / tpot, spread / tpot / tpot, self.decode.samples, ages[1], decode_source),
            "tpot_a": Estimate(self.decode.p, self.decode.pp**0.5, self.decode.samples, ages[1], decode_source),
            "tpot_b": Estimate(self.decode.q, self.decode.qq**0.5, self.decode.samples, ages[1], decode_source),
            "contention": Estimate(
                speed.contention,
                host.variance**0.5 if host else speed.contention,
                host.samples if host else 0.0,
                None,
                "learned" if host else "prior",
            ),
        }

    def to_json(self) -> dict[str, Any]:
        """For the history; times and the last samples are left out: the loop's clock does not survive a restart."""
        prefill, decode = asdict(self.prefill), asdict(self.decode)
        for line in (prefill, decode):
            del line["at"], line["recent"], line["ratio"], line["shift"]
        return {"prefill": prefill, "decode": decode}

    @classmethod
    def from_json(cls, state: Mapping[str, Any], hosts: tuple[HostModel, ...] = ()) -> SpeedModel:
        """What was learned in an earlier run of this very build.

        Raises:
            ValueError, TypeError, KeyError: it is not what `to_json` wrote.
        """
        return cls(_remembered(state["prefill"]), _remembered(state["decode"]), hosts, "history")

    def as_prior(self, wider: float = 3.0) -> SpeedModel:
        """A changed build keeps the old speed as a wide prior."""
        fresh = SpeedModel.from_json(self.to_json(), self.hosts)
        for line in (fresh.prefill, fresh.decode):
            line.pp = max(line.pp * wider * wider, (0.3 * line.p) ** 2)
            line.qq = max(line.qq * wider * wider, (0.3 * line.q) ** 2)
            line.pq = 0.0
            line.samples = 0.0
        return fresh

    @classmethod
    def from_bench(
        cls, prefill: Mapping[str, float], decode: Mapping[str, float], hosts: tuple[HostModel, ...] = ()
    ) -> SpeedModel:
        """What a bench measured of this very build: `p`, `q`, `pp`, `pq`, `qq` and `noise` of both lines.

        Raises:
            ValueError, TypeError, KeyError: those are no lines.
        """
        return cls(_line_of(prefill), _line_of(decode), hosts, "bench")

    @classmethod
    def from_kernel_table(cls, kernel: str, hosts: tuple[HostModel, ...] = ()) -> SpeedModel:
        """The prior that a kernel's class gives."""
        decode, prefill = _KERNELS.get(kernel, (1.0, 1.0))
        source = "kernel table" if kernel in _KERNELS else "prior"
        return cls(_prefill_prior(prefill), _decode_prior(decode), hosts, source)


_PARTS = ("p", "q", "pp", "pq", "qq", "noise")


def _remembered(state: Mapping[str, Any]) -> Line:
    line = Line(**{name: value for name, value in state.items() if name != "recent"})  # older files hold it
    if not all(isfinite(getattr(line, name)) for name in (*_PARTS, "samples", "half_life_s")):
        raise ValueError("a line has finite numbers")
    return line


def _line_of(given: Mapping[str, float]) -> Line:
    p, q, pp, pq, qq, noise = (float(given[name]) for name in _PARTS)
    line = Line(p, q, pp, pq, qq, noise)
    if not all(isfinite(getattr(line, name)) for name in _PARTS):
        raise ValueError("a line has finite numbers")
    if line.p < 0 or line.q < 0 or line.p + line.q <= 0:
        raise ValueError("a line has no negative part, and is not zero")
    if line.pp <= 0 or line.qq <= 0 or line.noise <= 0 or line.pq**2 > line.pp * line.qq:
        raise ValueError("the covariance of a line is not one")
    return line


def _age(line: Line, now: float) -> float | None:
    return None if line.at is None else now - line.at
