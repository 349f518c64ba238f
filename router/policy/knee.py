"""How many calls a backend should have at once: where one more lowers what it gets done.

A plateau is no knee: where more streams bring the same tokens per second, nothing is lost by them. A cap comes only of
a fall that its own noise does not explain, and never lies below the number of streams that was best.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt

_MOST_LEVELS = 256
_MOST_WEIGHT = 20.0  # looks that a level remembers: a backend that changes is followed within them
_LOOKS_QUEUED = 3  # looks in a row with calls in its own queue before that is believed
_SLACK = 1  # calls that may wait in its own queue, so that no place in its batch stays empty


@dataclass(slots=True)
class _Level:
    """Tokens per second with so many streams: mean and variance of the looks, older ones fading."""

    rate: float = 0.0
    variance: float = 0.0
    weight: float = 0.0
    at: float = 0.0

    def learn(self, now: float, rate: float, half_life_s: float) -> None:
        self.weight = min(self.weight_at(now, half_life_s) + 1.0, _MOST_WEIGHT)
        self.at = now
        step = rate - self.rate
        self.rate += step / self.weight
        self.variance += (step * (rate - self.rate) - self.variance) / self.weight

    def weight_at(self, now: float, half_life_s: float) -> float:
        return float(self.weight * 0.5 ** (max(0.0, now - self.at) / half_life_s))

    def error(self, weight: float) -> float:
        """Standard error of the mean. Looks that follow each other are alike: half of them count."""
        return sqrt(self.variance / max(0.5 * weight, 1.0))


@dataclass(slots=True)
class Knee:
    """Learned from what a backend shows at each look; time is handed in.

    What was seen fades, so the numbers above the cap are tried again later.

    Attributes:
        fall: share by which more streams must lower the tokens per second to be too many.
        half_life_s: in which what was seen counts half; a cap lasts two to three of them after its last evidence.
        least: looks (faded) from which on a number of streams speaks.
        sure: standard errors of both means that must lie between them.
    """

    fall: float = 0.05
    half_life_s: float = 120.0
    least: float = 4.0
    sure: float = 2.0
    levels: dict[int, _Level] = field(default_factory=dict)
    queued_looks: int = 0
    places: int | None = None  # of its batch, as its own queue showed them
    places_at: float = 0.0

    def observe(self, now: float, streams: int, tokens_per_s: float) -> None:
        """Tokens per second since the last look, with so many streams decoding (their mean, rounded)."""
        if streams < 1:
            return
        self.levels.setdefault(streams, _Level(at=now)).learn(now, tokens_per_s, self.half_life_s)
        if len(self.levels) > _MOST_LEVELS:
            del self.levels[min(self.levels, key=lambda one: self.levels[one].at)]

    def observe_queue(self, now: float, running: int, waiting: int) -> None:
        """Its own queue at this look. Call it with `waiting` 0 where those who wait only wait for a long prefill."""
        if waiting <= _SLACK or running < 1:
            self.queued_looks = 0
            if self.places is not None and running >= self.places:
                self.places = running + 1  # it takes more than was thought
            return
        self.queued_looks += 1
        if self.queued_looks >= _LOOKS_QUEUED:
            self.places, self.places_at = running, now

    def cap(self, now: float, limit: int | None = None) -> int | None:
        """Most calls in flight there now, never above the configured limit; None where nothing speaks for one."""
        found = self._before_the_fall(now)
        if self.places is not None:
            # One more again for each half-life without a queue.
            eased = self.places + _SLACK + int((now - self.places_at) / self.half_life_s)
            found = eased if found is None else min(found, eased)
        if found is None or limit is None:
            return limit if found is None else found
        return min(found, limit)

    def _before_the_fall(self, now: float) -> int | None:
        known = [
            (streams, level, weight)
            for streams, level in sorted(self.levels.items())
            if (weight := level.weight_at(now, self.half_life_s)) >= self.least
        ]
        if len(known) < 2:
            return None
        best, top, top_weight = max(known, key=lambda entry: entry[1].rate)
        worst_best = top.rate - self.sure * top.error(top_weight)
        for streams, level, weight in known:
            if streams <= best:
                continue
            highest = level.rate + self.sure * level.error(weight)
            if highest < worst_best and level.rate < (1.0 - self.fall) * top.rate:
                return max(best, streams - 1)
        return None
