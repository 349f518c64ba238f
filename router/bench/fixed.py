"""The work that the router takes of an idle backend by itself: always the same, so that days can be compared.

Sizes: a prompt of 2,048 tokens takes a Spark about a second, 128 tokens of an answer 2 to 9 s; all of it is about a
minute of the slowest models that fit there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from router.bench.measured import Stream

PREFILL, DECODE, DECODE_FOUR = "prefill_tok_s", "decode_c1_tok_s", "decode_c4_tok_s"


@dataclass(frozen=True, slots=True)
class Step:
    """So many calls at once, some times over.

    Attributes:
        name: of the step, part of what its answers are kept under.
        prompt_tokens, answer_tokens: of each call, about.
        streams: calls at once.
        times: how often.
    """

    name: str
    prompt_tokens: int
    answer_tokens: int
    streams: int = 1
    times: int = 1

    @property
    def context(self) -> int:
        """Tokens that a backend must hold for it; words are turned into tokens by a guess, so with room."""
        return int(1.5 * self.prompt_tokens) + self.answer_tokens


CHECK = (Step("check", 256, 32),)
FIXED = (
    Step("short", 128, 8, times=3),
    Step("long", 2048, 8, times=3),
    Step("one", 128, 128, times=2),
    Step("four", 128, 128, streams=4, times=2),
)

Bursts = Mapping[str, Sequence[Sequence[Stream]]]
"""By step: what came of each of its times, one stream for each call."""


def figures_of(bursts: Bursts) -> dict[str, float]:
    """Tokens per second: prefill, and decode of one stream and of four together. What cannot be said is left out.

    Prefill is the slope between two lengths of prompt, so that what a call costs in any case does not count. Decode
    counts from the first content on.
    """
    figures = {}
    for name, step in ((DECODE, "one"), (DECODE_FOUR, "four")):
        rates = [sum(map(_rate, burst)) for burst in bursts.get(step, ()) if all(_rate(one) for one in burst)]
        if rates:
            figures[name] = median(rates)
    short, long = _prompts(bursts.get("short", ())), _prompts(bursts.get("long", ()))
    if short is not None and long is not None and long[1] > short[1] and long[0] > short[0]:
        figures[PREFILL] = (long[0] - short[0]) / (long[1] - short[1])
    return figures


def _rate(stream: Stream) -> float:
    """Tokens per second after the first content, 0 where too little came."""
    seconds, tokens = stream.last - stream.first, stream.tokens - stream.marks[0][1]
    return tokens / seconds if seconds > 0 and tokens > 0 else 0.0


def _prompts(bursts: Sequence[Sequence[Stream]]) -> tuple[float, float] | None:
    """Median uncached tokens, and median seconds to the first content."""
    seen = [
        (one.prompt_tokens - one.cached_tokens, one.first - one.sent)
        for burst in bursts
        for one in burst
        if one.prompt_tokens is not None
    ]
    if not seen:
        return None
    return median(tokens for tokens, _ in seen), median(seconds for _, seconds in seen)
