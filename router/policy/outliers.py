"""What was out of the ordinary about a backend's speed, by name: a compile, a step, a wrong prior, or just odd.

A line (`recursive.py`) says of each sample whether it fits; what it means shows only by what comes next. One answer
that is much slower, of a size not seen since the backend started, and then normal answers: something was compiled.
Answers that go on at another pace: a step, as clocks and heat make them. A step is named when the answers after it
confirm it; the line follows at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import exp, log

from router.policy.recursive import Line, Shift

COMPILE_FROM = log(2.0)  # a first touch takes at least twice as long; what takes less is told apart by nobody
SETTLED = 8.0  # samples from which on a line knows enough to call a change the backend's own
CONFIRM = 4  # samples after a shift that must bear it out
KEPT = 8  # of the last ones, to be shown


class Kind(StrEnum):
    """Why samples did not fit."""

    COMPILE = "compile"  # the first of its size since the start, much slower, then normal again
    STEP = "step"  # everything slower or faster from there on: heat, clocks, a neighbour nobody knows of
    PRIOR = "prior"  # the first samples agree on another speed than was believed before there were any
    ODD = "odd"  # anything else; it counts little


@dataclass(frozen=True, slots=True)
class Outlier:
    """Samples that did not fit, for one reason.

    Attributes:
        what: "prefill", "decode" or "contention".
        kind: the reason.
        ratio: time that was taken as a multiple of the time expected.
        at: when it began, by the caller's clock (s).
        samples: how many.
    """

    what: str
    kind: Kind
    ratio: float
    at: float
    samples: int = 1


@dataclass(slots=True)
class Outliers:
    """All of one model on one backend: counts since its speed is learned, the last few, and what nobody took yet."""

    counts: dict[Kind, int] = field(default_factory=dict)
    last: deque[Outlier] = field(default_factory=lambda: deque(maxlen=KEPT))
    _counted: dict[Kind, int] = field(default_factory=dict)
    _steps: list[Outlier] = field(default_factory=list)

    def add(self, one: Outlier) -> None:
        """Count it and keep it."""
        self.counts[one.kind] = self.counts.get(one.kind, 0) + one.samples
        self._counted[one.kind] = self._counted.get(one.kind, 0) + one.samples
        self.last.append(one)
        if one.kind is Kind.STEP:
            self._steps = [*self._steps[1 - KEPT :], one]

    def take(self) -> tuple[Mapping[Kind, int], list[Outlier]]:
        """Samples by kind, and steps, since this was asked last."""
        counted, steps = self._counted, self._steps
        if counted:
            self._counted, self._steps = {}, []
        return counted, steps


@dataclass(slots=True)
class _Doubt:
    """A shift that the next samples must bear out."""

    shift: Shift
    at: float
    samples: int
    is_new_size: bool
    logs: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Watch:
    """Names what does not fit a line. `look` is called after each sample that the line learned."""

    what: str
    line: Line
    outliers: Outliers
    sizes: int = 0  # bit n: samples with 2^(n-1) <= x < 2^n were seen since the start
    _run: list[tuple[float, float, float]] = field(default_factory=list)  # outliers in a row: x, y, log ratio
    _run_at: float = 0.0
    _run_is_new_size: bool = False
    _doubt: _Doubt | None = None
    _had_step: bool = False
    _is_quiet: bool = True  # nothing waits for its name

    def look(self, said: str, x: float, y: float, now: float) -> None:
        """The line said this of a sample that it took just now."""
        size = 1 << int(x).bit_length()
        if said == "sample" and self._is_quiet:
            self.sizes |= size
            return
        is_new_size = not self.sizes & size
        self.sizes |= size
        if self._doubt is not None:
            self._bear_out(self._doubt, x, y)
        if said == "sample":
            self._end_run()
        elif said == "outlier":
            if self._run and (self._run[-1][2] > 0.0) != (self.line.ratio > 0.0):
                self._end_run()
            if not self._run:
                self._run_at, self._run_is_new_size = now, is_new_size
            self._run.append((x, y, self.line.ratio))
        elif self.line.shift is not None:
            self._shifted(self.line.shift, now, is_new_size)
        self._is_quiet = not self._run and self._doubt is None

    def restarted(self) -> None:
        """The backend started anew: every size is a first one again."""
        self.sizes = 0

    def _end_run(self) -> None:
        """Normal again: what was it? A line that knew little may have come round to it."""
        if not self._run:
            return
        run, self._run = self._run, []
        x, y, then = max(run, key=lambda one: abs(one[2]))
        ratio = log(max(y, 1e-9) / max(self.line.predict(x), 1e-9))
        if abs(ratio) < 0.5 * abs(then):
            self.outliers.add(Outlier(self.what, Kind.PRIOR, exp(then), self._run_at, len(run)))
        else:
            self._name(ratio, self._run_at, len(run), self._run_is_new_size)

    def _name(self, ratio: float, at: float, samples: int, is_new_size: bool) -> None:
        kind = Kind.COMPILE if is_new_size and ratio >= COMPILE_FROM else Kind.ODD
        self.outliers.add(Outlier(self.what, kind, exp(ratio), at, samples))

    def _shifted(self, shift: Shift, now: float, is_new_size: bool) -> None:
        if self._run:
            now, is_new_size = self._run_at, self._run_is_new_size
        samples, self._run = len(self._run) + 1, []
        doubt = self._doubt
        if doubt is not None and (doubt.shift.ratio > 0.0) == (shift.ratio > 0.0):
            doubt.samples += samples  # it goes on the same way: one step, from the same old level
            doubt.logs.clear()
        elif doubt is not None:
            self._name(doubt.shift.ratio, doubt.at, doubt.samples + samples, doubt.is_new_size)
            self._doubt = None  # and back
        elif shift.samples < SETTLED and not self._had_step:
            self.outliers.add(Outlier(self.what, Kind.PRIOR, exp(shift.ratio), now, samples))
        else:
            self._doubt = _Doubt(shift, now, samples, is_new_size)

    def _bear_out(self, doubt: _Doubt, x: float, y: float) -> None:
        """Samples after a shift, against the line before it: chance does not keep up the half of it."""
        doubt.logs.append(log(max(y, 1e-9) / max(doubt.shift.p + doubt.shift.q * x, 1e-9)))
        if len(doubt.logs) < CONFIRM:
            return
        self._doubt = None
        mean, ratio = sum(doubt.logs) / CONFIRM, doubt.shift.ratio
        if ratio != 0.0 and mean / ratio >= 0.5:
            self._had_step = True
            self.outliers.add(Outlier(self.what, Kind.STEP, exp(mean), doubt.at, doubt.samples))
        else:
            self._name(ratio, doubt.at, doubt.samples, doubt.is_new_size)
