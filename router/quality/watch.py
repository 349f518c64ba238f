"""The sentinel on live answers: looks at what went to clients, off the chunk path, and counts what looks wrong.

Streams are seen where the router folds what it forwarded anyway, and once more at their end; whole JSON answers when
they are passed on. Many short answers a second are sampled: the test is about rates, so a fair share says the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from router.backend import Backend
from router.continuation import Emitted
from router.events import CallEnded, Outcome
from router.exchange import Exchange
from router.fleet import Fleet
from router.openai.stream import Folded
from router.policy.sentinel import Counts, Defect, Sentinel, Suspicion, Watch, count, finish, fold

MOST_PER_S = 8.0  # answers looked at, over all backends; a sample of answers says the same about rates
BURST = 16.0
PIECE = 1024  # characters handed in at once
LARGEST = 64 * 1024  # bytes of a JSON answer that is looked at: parsing more would hold the loop


@dataclass(slots=True)
class _Seen:
    """How far an answer was looked at."""

    watch: Watch = field(default_factory=Watch)
    text: int = 0
    reasoning: int = 0
    nulls: int = 0


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
        self._left, self._at = BURST, wall()

    # --- what the front calls ---

    def folded(self, exchange: Exchange, emitted: Emitted) -> None:
        """More of a running stream was folded into text."""
        if not self._fleet.config.quality.sentinel:
            return
        if exchange not in self._seen:
            self._seen[exchange] = _Seen() if self._may_look() else None
        seen = self._seen[exchange]
        if seen is not None:
            self._look(seen, emitted.folded)

    def ended(self, exchange: Exchange, event: CallEnded) -> None:
        """A call is over. Only whole answers of one backend say something about it."""
        was_seen = exchange in self._seen
        seen = self._seen.pop(exchange, None)
        if event.outcome is not Outcome.OK or len(event.attempts) != 1 or not self._fleet.config.quality.sentinel:
            return
        emitted = exchange.emitted
        if emitted is None or emitted.too_long or (seen is None if was_seen else not self._may_look()):
            return
        emitted.fold()
        seen = seen or _Seen()
        folded = emitted.folded
        self._look(seen, folded)
        found = finish(
            seen.watch,
            finish_reason=event.finish_reasons[0] if event.finish_reasons else None,
            tool_arguments=folded.tool_args.values(),
            has_tool_calls=bool(folded.tool_args),
        )
        self.count(event.attempts[0].backend, exchange.model, found)

    def answered(self, exchange: Exchange, backend: Backend, body: bytes) -> None:
        """A whole JSON answer is about to be passed on; the exchange has read it once, so it parses."""
        if not self._fleet.config.quality.sentinel or len(body) > LARGEST or not self._may_look():
            return
        document: Any = orjson.loads(body)
        choices = document.get("choices") if isinstance(document, dict) else None
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
        if choice is not None:
            self.count(backend.name, exchange.model, _judge_choice(choice))

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

    def forget(self, backend: str) -> None:
        """Another build: what the old one did becomes the model's history."""
        for key in [key for key in self._sentinels if key[0] == backend]:
            counts = self._sentinels.pop(key).counts
            self._earlier[key[1]] = _sum(self._earlier.get(key[1], Counts()), counts)

    def _usual(self, key: tuple[str, str]) -> Counts:
        """What the siblings do, else what was done under earlier builds."""
        total = Counts()
        for (backend, model), sentinel in self._sentinels.items():
            if model == key[1] and backend != key[0]:
                total = _sum(total, sentinel.counts)
        return total if total.answers else self._earlier.get(key[1], total)

    # --- looking ---

    def _may_look(self) -> bool:
        now = self._wall()
        self._left = min(BURST, self._left + MOST_PER_S * max(0.0, now - self._at))
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def _look(self, seen: _Seen, folded: Folded) -> None:
        reasoning, text = folded.reasoning[seen.reasoning :], folded.text[seen.text :]
        seen.reasoning, seen.text = len(folded.reasoning), len(folded.text)
        nulls, seen.nulls = folded.null_logprobs > seen.nulls, folded.null_logprobs
        whole = reasoning + text
        if not whole and not nulls:
            return
        for at in range(0, len(whole) or 1, PIECE):
            seen.watch = fold(seen.watch, whole[at : at + PIECE], null_logprobs=nulls)


def _sum(one: Counts, two: Counts) -> Counts:
    return Counts(one.answers + two.answers, {d: one.defects.get(d, 0) + two.defects.get(d, 0) for d in Defect})


def _judge_choice(choice: dict[str, Any]) -> frozenset[Defect]:
    """The defects of a choice in a whole answer of chat or completions."""
    message = choice.get("message")
    source = message if isinstance(message, dict) else choice
    texts = [source.get(name) for name in ("reasoning", "reasoning_content", "content", "text")]
    watch = Watch()
    whole = "".join(text for text in texts if isinstance(text, str))
    for at in range(0, len(whole), PIECE):
        watch = fold(watch, whole[at : at + PIECE])
    calls = source.get("tool_calls")
    functions = [c.get("function") for c in calls if isinstance(c, dict)] if isinstance(calls, list) else []
    arguments = [f.get("arguments") for f in functions if isinstance(f, dict)]
    reason = choice.get("finish_reason")
    return finish(
        watch,
        finish_reason=reason if isinstance(reason, str) else None,
        tool_arguments=[a for a in arguments if isinstance(a, str)],
        has_tool_calls=bool(functions),
    )
