"""The baselines of all builds: kept in the history, chosen from when a backend is to be held against something."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace

from router.helper import Helper
from router.history import History
from router.history.rows import Baseline as Row
from router.policy.facts import Grade
from router.quality.record import Baseline, dump, load

log = logging.getLogger(__name__)

MOST_PER_MODEL = 12  # a baseline is about a megabyte
_RANK = {Grade.GOOD: 0, Grade.PLAUSIBLE: 1, Grade.UNKNOWN: 2}


class Shelf:
    """All baselines in memory, written through. Without a history they live as long as the router."""

    def __init__(self, history: History | None, helper: Helper) -> None:
        self._history = history
        self._helper = helper
        self._kept: dict[tuple[str, str], Baseline] = {}

    async def open(self) -> None:
        """Read what earlier runs left; what cannot be read is said and left out."""
        if self._history is None:
            return
        for row in await self._history.rows(Row):
            try:
                baseline = await self._helper.run(load, row.data)
            except ValueError as problem:
                log.warning("the baseline of %s (build %s) cannot be read: %s", row.model, row.build, problem)
                continue
            self._kept.setdefault((row.model, row.build), baseline)

    def __iter__(self) -> Iterator[Baseline]:
        return iter(tuple(self._kept.values()))

    def get(self, model: str, build: str) -> Baseline | None:
        """This build's own, None where it has none."""
        return self._kept.get((model, build))

    def trusted(
        self, model: str, build: str, scheme: str, tokenizer: str | None, *, own: bool = True
    ) -> Baseline | None:
        """What a build is best held against: of its own scheme and tokenizer; proven first, then its `own`."""
        fitting = [
            one
            for one in self._kept.values()
            if one.model == model
            and one.grade in _RANK
            and one.tokenizer == (tokenizer or "")
            and ((own and one.build == build) or (one.build != build and scheme and one.scheme == scheme))
        ]
        return min(
            fitting, key=lambda one: (one.grade is not Grade.GOOD, one.build != build, _RANK[one.grade], -one.at),
            default=None,
        )  # fmt: skip

    def third(self, model: str, scheme: str, tokenizer: str | None) -> Baseline | None:
        """R: a build of another scheme, from which candidate and trusted build are both measured."""
        fitting = [
            one
            for one in self._kept.values()
            if one.model == model
            and one.texts
            and one.grade in _RANK
            and one.tokenizer == tokenizer
            and one.scheme not in ("", scheme)
        ]
        return min(fitting, key=lambda one: (_RANK[one.grade], -len(one.texts), one.at), default=None)

    def vectors(self, model: str, build: str) -> Mapping[str, tuple[float, ...]]:
        """The embeddings that clients of this name have stored by now: the build's own, else the newest ones.

        Scheme and tokenizer do not matter: whoever keeps vectors keeps them under the served name.
        """
        fitting = [one for one in self._kept.values() if one.model == model and one.vectors and one.grade in _RANK]
        best = min(fitting, key=lambda one: (one.build != build, -one.at), default=None)
        return best.vectors if best is not None else {}

    async def keep(self, baseline: Baseline) -> None:
        """Put one on the shelf; what it already held of the same build and tokenizer stays as it is."""
        key = (baseline.model, baseline.build)
        before = self._kept.get(key)
        if before is not None and before.tokenizer == baseline.tokenizer and before.grade in _RANK:
            baseline = before.joined(baseline)
        self._kept[key] = baseline
        of_model = sorted((one.at, k) for k, one in self._kept.items() if k[0] == baseline.model and k != key)
        for _, oldest in of_model[: max(0, len(of_model) + 1 - MOST_PER_MODEL)]:
            del self._kept[oldest]
        await self._write(baseline)

    async def distrust(self, baseline: Baseline) -> None:
        """It was made by a build that turned out to be the worse one: nothing is held against it any more."""
        worse = replace(baseline, grade=Grade.SUSPECT)
        self._kept[(worse.model, worse.build)] = worse
        await self._write(worse)

    async def _write(self, baseline: Baseline) -> None:
        if self._history is not None:
            data = await self._helper.run(dump, baseline)
            self._history.keep(Row(baseline.model, baseline.build, baseline.at, data))
