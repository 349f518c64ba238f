"""What one measurement says: streams that began together, and their prefill and decode apart."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean

from router.bench.plan import Condition, Siblings, Subject

LEAST_DECODED = 8  # tokens per stream within the window; fewer say nothing of a rate
MOST_CACHED = 0.05  # share of the prompt that may come from a cache unnoticed


@dataclass(frozen=True, slots=True)
class Stream:
    """One answer as it came. Times are of one clock.

    Attributes:
        sent: when the call was sent.
        marks: (time, tokens so far) at every content that came; tokens as the server counts them where it does.
        prompt_tokens: None where the server does not say.
        cached_tokens: those of them that came from its prefix cache.
    """

    sent: float
    marks: tuple[tuple[float, int], ...]
    prompt_tokens: int | None = None
    cached_tokens: int = 0

    @property
    def first(self) -> float:
        """When the first content came."""
        return self.marks[0][0]

    @property
    def last(self) -> float:
        """When the last content came."""
        return self.marks[-1][0]

    @property
    def tokens(self) -> int:
        """Of the answer."""
        return self.marks[-1][1]

    def tokens_until(self, at: float) -> int:
        """How many had come by then, those of that very moment included."""
        i = bisect_right(self.marks, at, key=lambda mark: mark[0])
        return self.marks[i - 1][1] if i else 0


@dataclass(frozen=True, slots=True)
class Figures:
    """A measurement in numbers: seconds, tokens, tokens per second. None: cannot be told from it.

    Attributes:
        prompt_tokens: computed by all streams together, without what a cache held.
        prefill_s: from the first stream sent until every stream had its first content.
        ttft_s: mean over the streams.
        decode_rate: of one stream, while all of them decoded.
        end_s: mean time to the end of an answer.
        tokens: of all answers.
    """

    prompt_tokens: float | None
    prefill_s: float
    ttft_s: float
    decode_rate: float | None
    end_s: float
    tokens: int
    cached_share: float = 0.0


def figures(streams: Sequence[Stream]) -> Figures:
    """The numbers of streams that began together.

    Raises:
        ValueError: there are none.
    """
    if not streams:
        raise ValueError("nothing was measured")
    known = [one.prompt_tokens for one in streams if one.prompt_tokens is not None]
    cached = sum(one.cached_tokens for one in streams)
    prompts = float(sum(known)) if len(known) == len(streams) else None
    return Figures(
        prompt_tokens=None if prompts is None else prompts - cached,
        prefill_s=max(one.first for one in streams) - min(one.sent for one in streams),
        ttft_s=mean(one.first - one.sent for one in streams),
        decode_rate=_decode_rate(streams),
        end_s=mean(one.last - one.sent for one in streams),
        tokens=sum(one.tokens for one in streams),
        cached_share=cached / prompts if prompts else 0.0,
    )


def _decode_rate(streams: Sequence[Stream]) -> float | None:
    """Tokens per second and stream while every stream decoded: no prefill beside, no batch that thins out."""
    begin, end = max(one.first for one in streams), min(one.last for one in streams)
    tokens = sum(one.tokens_until(end) - one.tokens_until(begin) for one in streams)
    if end <= begin or tokens < LEAST_DECODED * len(streams):
        return None
    return tokens / (end - begin) / len(streams)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One condition on one subject in one round.

    Attributes:
        at: seconds since the bench began.
        figures: None where it failed.
        failure: what went wrong, "" where nothing did.
        foreign: calls of somebody else seen there meanwhile.
        kept: whether it counts; a disturbed one does only where the operator said so.
    """

    round: int
    condition: Condition
    subject: str
    at: float
    figures: Figures | None
    failure: str = ""
    foreign: float = 0.0
    kept: bool = True


@dataclass(frozen=True, slots=True)
class Key:
    """One thing that is compared: a rate under one condition."""

    what: str  # "decode" or "prefill"
    concurrency: int
    siblings: Siblings
    prompt: str = ""  # of decode: whose context it decoded in; prefill needs both

    def __str__(self) -> str:
        after = f" after a {self.prompt} prompt" if self.prompt else ""
        beside = ", siblings busy" if self.siblings is Siblings.BUSY else ""
        return f"{self.what}{after}, c={self.concurrency}{beside}"

    @property
    def place(self) -> tuple[bool, str, bool, int]:
        """For sorting, in the order of reading."""
        return (self.siblings is not Siblings.IDLE, self.what, self.prompt != "short", self.concurrency)


Rates = dict[Key, dict[int, float]]  # what, by round


def rates_of(subject: str, measurements: Iterable[Measurement]) -> Rates:
    """Tokens per second of one subject: decode of one stream, prefill of all together."""
    mine = [one for one in measurements if one.subject == subject and one.kept and one.figures is not None]
    found: Rates = {}
    for one in mine:
        rate = one.figures.decode_rate if one.figures is not None else None
        if rate is not None and one.condition.shape.answer == "long":
            key = Key("decode", one.condition.concurrency, one.condition.siblings, one.condition.shape.prompt)
            found.setdefault(key, {})[one.round] = rate
    places = dict.fromkeys((one.round, one.condition.concurrency, one.condition.siblings) for one in mine)
    for number, concurrency, siblings in places:
        here = [
            one
            for one in mine
            if (one.round, one.condition.concurrency, one.condition.siblings) == (number, concurrency, siblings)
        ]
        slope = _prefill_rate(here)
        if slope is not None:
            found.setdefault(Key("prefill", concurrency, siblings), {})[number] = slope
    return found


def _prefill_rate(measurements: Sequence[Measurement]) -> float | None:
    """Tokens per second between a short and a long prompt: what every call pays besides is left out by itself."""
    points: dict[str, list[tuple[float, float]]] = {"short": [], "long": []}
    for one in measurements:
        if one.figures is not None and one.figures.prompt_tokens:
            points[one.condition.shape.prompt].append((one.figures.prompt_tokens, one.figures.prefill_s))
    if not points["long"] or not points["short"]:
        return None
    few, soon = _middle(points["short"])
    many, late = _middle(points["long"])
    return (many - few) / (late - soon) if late > soon and many > few else None


def _middle(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return mean(x for x, _ in points), mean(y for _, y in points)


def spoiled_by_cache(subject: Subject, measurements: Iterable[Measurement]) -> bool:
    """Whether prompts that nobody had seen were found in its cache all the same."""
    shares = [one.figures.cached_share for one in measurements if one.subject == subject.name and one.figures]
    return bool(shares) and mean(shares) > MOST_CACHED
