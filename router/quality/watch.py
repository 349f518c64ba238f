"""The sentinel on live answers: looks at what went to clients, off the chunk path, and counts what looks wrong.

Streams are seen where the router folds what it forwarded anyway, and once more at their end; whole JSON answers when
they are passed on. Not every answer is looked at: the test is about rates, so a fair sample says the same. Traffic
itself pays for the sample, see `Purse`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import orjson

from router.backend import Backend
from router.continuation import Emitted
from router.events import BuildChanged, CallEnded, Event, Outcome
from router.exchange import Exchange
from router.fleet import Fleet
from router.openai.stream import Folded
from router.openai.whole import read_whole
from router.policy.sentinel import MOST_ARGUMENTS, Counts, Defect, Sentinel, Suspicion, Watch, count, finish, fold

PIECE = 1024  # characters handed in at once
LARGEST = 64 * 1024  # bytes of a JSON answer that is looked at: parsing more would hold the loop

# What looking costs, in µs on the machine of `make bench`. Only the ratio to what relaying costs there matters.
ANSWER_US = 70.0  # counting it, and the look at its end
EVENT_US = 0.9  # folding an event into text that nobody else needed folded
CHARACTER_US = 0.04
UNSPACED_US = 0.22  # the same in a script without spaces: there are more n-grams in it
# What relaying adds: under 1 % of what it costs, which is 3 µs an event in a burst and 12 where each comes by itself.
EARNED_US_PER_EVENT = 0.012
EARNED_US_PER_PIECE = 0.1
EARNED_US_PER_ANSWER = 1.0  # that is no stream
EARNED_US_PER_S = 100.0  # what time adds: in quiet times every answer is looked at
MOST_SAVED_US = 2_000.0
DEPOSIT_US = 300.0  # kept back for a running answer that is looked at, until its end says what it cost


class Purse:
    """Microseconds that the sentinel may use: a share of what relaying costs, and a trickle for quiet times.

    It begins full, so that the first answers of a day, or of a build, are looked at one and all. An answer that was
    begun is watched to its end, on credit.
    """

    def __init__(self, now: float) -> None:
        self.left_us = MOST_SAVED_US
        self._at = now

    def earn(self, us: float) -> None:
        """Something was relayed."""
        self.left_us = min(MOST_SAVED_US, self.left_us + us)

    def spend(self, us: float) -> None:
        """So much was used."""
        self.left_us -= us

    def refill(self) -> None:
        """There is something new to look at."""
        self.left_us = MOST_SAVED_US

    def opens(self, now: float) -> bool:
        """Whether one more answer may be looked at."""
        self.left_us = min(MOST_SAVED_US, self.left_us + EARNED_US_PER_S * max(0.0, now - self._at))
        self._at = now
        return self.left_us > 0.0


@dataclass(slots=True)
class _Seen:
    """What was seen of a running answer: in O(1) memory, like `Watch`, whose bound holds for the arguments too."""

    watch: Watch = field(default_factory=Watch)
    arguments: dict[int, str] = field(default_factory=dict)


class LiveSentinel:
    """See the module.

    Args:
        tell: a backend answers a model oddly too often.
        sign: one answer of a backend looks wrong in this way: for the metrics.
        wall: Unix time.
    """

    def __init__(
        self,
        fleet: Fleet,
        wall: Callable[[], float],
        tell: Callable[[str, str, Suspicion], None],
        sign: Callable[[str, str, str], None],
    ) -> None:
        self._fleet = fleet
        self._wall = wall
        self._tell = tell
        self._sign = sign
        self._seen: dict[Exchange, _Seen | None] = {}  # None: this one is not in the sample
        self._sentinels: dict[tuple[str, str], Sentinel] = {}
        self._earlier: dict[str, Counts] = {}  # by model: what backends did under builds that are gone
        self.purse = Purse(wall())

    # --- what the front calls ---

    def folded(self, exchange: Exchange, emitted: Emitted, batch: Folded) -> None:
        """More of a running stream was folded into text."""
        if not self._fleet.config.quality.sentinel:
            return
        if exchange not in self._seen:
            emitted.watched = self.purse.opens(self._wall())
            self._seen[exchange] = _Seen() if emitted.watched else None
            if emitted.watched:
                self.purse.spend(DEPOSIT_US)
        seen = self._seen[exchange]
        if seen is not None:
            if emitted.lost is not None:  # nobody else needs it folded any more
                self.purse.spend(EVENT_US * batch.deltas)
            self._look(seen, batch)

    def ended(self, exchange: Exchange, event: CallEnded) -> None:
        """A call is over. Only whole answers of one backend say something about it."""
        is_new = exchange not in self._seen
        seen = self._seen.pop(exchange, None)
        if seen is not None:
            self.purse.spend(-DEPOSIT_US)
        if not self._fleet.config.quality.sentinel:
            return
        emitted, stream = exchange.emitted, exchange.stream
        if emitted is not None and stream is not None:
            pieces = emitted.passed + emitted.unfolded
            self.purse.earn(stream.events * EARNED_US_PER_EVENT + pieces * EARNED_US_PER_PIECE)
        if emitted is None or event.outcome is not Outcome.OK or len(event.attempts) != 1:
            return
        if is_new and self.purse.opens(self._wall()):
            emitted.watched, seen = True, _Seen()
        if seen is None:
            return
        batch = emitted.fold()
        self.purse.spend(ANSWER_US + EVENT_US * batch.deltas)
        self._look(seen, batch)
        found = finish(
            seen.watch,
            finish_reason=event.finish_reasons[0] if event.finish_reasons else None,
            tool_arguments=() if emitted.is_long else seen.arguments.values(),
            has_tool_calls=bool(seen.arguments),
        )
        self.count(event.attempts[0].backend, exchange.model, found)

    def answered(self, exchange: Exchange, backend: Backend, body: bytes) -> None:
        """A whole JSON answer is about to be passed on; the exchange has read it once, so it parses."""
        if not self._fleet.config.quality.sentinel or len(body) > LARGEST:
            return
        self.purse.earn(EARNED_US_PER_ANSWER)
        if not self.purse.opens(self._wall()):
            return
        self.purse.spend(ANSWER_US + CHARACTER_US * len(body))
        whole = read_whole(orjson.loads(body))
        if whole is not None:
            watch = fold(Watch(), "", null_logprobs=whole.has_null_logprobs)
            found = finish(
                _folded(watch, whole.text),
                finish_reason=whole.finish_reason,
                tool_arguments=whole.tool_args,
                has_tool_calls=whole.calls_tools,
            )
            self.count(backend.name, exchange.model, found)

    def on_event(self, event: Event) -> None:
        """A backend came back: it is looked at closely. What another build did becomes the model's history."""
        if not isinstance(event, BuildChanged) or event.completed:
            return
        self.purse.refill()
        if event.restarted_only:
            return
        for key in [key for key in self._sentinels if key[0] == event.backend]:
            counts = self._sentinels.pop(key).counts
            self._earlier[key[1]] = _sum(self._earlier.get(key[1], Counts()), counts)

    # --- counting ---

    def count(self, backend: str, model: str, defects: frozenset[Defect]) -> None:
        """One more answer of a backend."""
        key = (backend, model)
        before = self._sentinels.get(key) or Sentinel(self._wall())
        after, new = count(before, defects, self._usual(key), self._wall())
        self._sentinels[key] = after
        for defect in defects - {Defect.CUT}:
            self._sign(backend, model, defect.value)
        for suspicion in new:
            self._tell(backend, model, suspicion)

    def _usual(self, key: tuple[str, str]) -> Counts:
        """What the siblings do, else what was done under earlier builds."""
        total = Counts()
        for (backend, model), sentinel in self._sentinels.items():
            if model == key[1] and backend != key[0]:
                total = _sum(total, sentinel.counts)
        return total if total.answers else self._earlier.get(key[1], total)

    # --- looking ---

    def _look(self, seen: _Seen, batch: Folded) -> None:
        for index, more in batch.tool_args.items():
            seen.arguments[index] = (seen.arguments.get(index, "") + more)[: MOST_ARGUMENTS + 1]
        whole = batch.reasoning + batch.text
        self.purse.spend(_cost_us(whole))
        if batch.null_logprobs:
            seen.watch = fold(seen.watch, "", null_logprobs=True)
        seen.watch = _folded(seen.watch, whole)


def _cost_us(text: str) -> float:
    return len(text) * (CHARACTER_US if text.count(" ") * 12 > len(text) else UNSPACED_US)


def _folded(watch: Watch, whole: str) -> Watch:
    for at in range(0, len(whole), PIECE):
        watch = fold(watch, whole[at : at + PIECE])
    return watch


def _sum(one: Counts, two: Counts) -> Counts:
    return Counts(one.answers + two.answers, {d: one.defects.get(d, 0) + two.defects.get(d, 0) for d in Defect})
