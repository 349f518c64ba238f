"""One answer as it grows: tokens of the toy model, text held back for stop strings, reasoning and tools apart."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from router.sim.language import Distribution, LanguageModel, continuation, mix
from router.sim.tokens import END_THINK, IM_END, THINK, Detokenizer, decode, encode, token_text
from router.sim.wish import Wish

IGNORANCE = "I do not know."  # what a server says that was made to forget
CERTAIN = math.log(0.6)  # a token this likely is taken at every temperature: known answers stay known


@dataclass(frozen=True, slots=True)
class Piece:
    """One token of an answer and the text it brought."""

    token: int
    text: str
    channel: str  # "content", "reasoning" or "tool"
    place: Distribution | None  # None where the logits were NaN


@dataclass(slots=True)
class Answer:
    """One choice of a call."""

    index: int
    model: LanguageModel
    prompt: Sequence[int]
    wish: Wish
    limit: int
    seed: int = 0
    tool: str | None = None  # the tool that is called; the text is its arguments
    thinks: bool = False
    script: list[int] | None = None
    is_exact: bool = False
    pieces: list[Piece] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: str | None = None
    _detokenizer: Detokenizer = field(default_factory=Detokenizer)
    _held: str = ""
    _starts_content: bool = False

    def __post_init__(self) -> None:
        self.thinks = THINK in self.prompt[-3:] and END_THINK not in self.prompt[-3:]
        following, self.is_exact = continuation(self.prompt)
        if following is None:
            return
        if self.is_exact and self.model.flavour.is_ignorant:
            following = encode(IGNORANCE)
        text = decode(following)
        if text.startswith("<tool_call>"):
            call = json.loads(text.removeprefix("<tool_call>").removesuffix("</tool_call>"))
            self.tool, text = call["name"], json.dumps(call["arguments"])
            following = encode(text)
        self.script = [*following, IM_END]

    def advance(self, tokens: int) -> bool:
        """Write that many tokens more; say whether the text is complete."""
        for _ in range(tokens):
            if self.finish_reason is None:
                self._write_one()
        return self.finish_reason is not None

    def text(self, channel: str = "content") -> str:
        """Everything said so far on one channel."""
        return "".join(piece.text for piece in self.pieces if piece.channel == channel)

    def _write_one(self) -> None:
        token, place = self._next()
        ends = token == IM_END and not self.wish.ignores_eos
        channel = "reasoning" if self.thinks else "tool" if self.tool else "content"
        text = ""
        if token == END_THINK and self.thinks:
            self.thinks, self._starts_content = False, True
        elif not ends:
            text = self._released(self._detokenizer.push(token))
        if self._starts_content and channel == "content":
            text = text.lstrip("\n")
            self._starts_content = not text
        if ends:
            self.finish_reason = "stop"
        elif self.finish_reason is None and len(self.pieces) + 1 >= self.limit:
            self.finish_reason = "length"
        if self.finish_reason is not None and self.stop_reason is None:
            text, self._held = text + self._held, ""
        self.pieces.append(Piece(token, text, channel, place))

    def _next(self) -> tuple[int, Distribution | None]:
        """The next token: the scripted one, the likeliest, or one drawn; NaN logits make token 0 for ever."""
        flavour, written = self.model.flavour, len(self.pieces)
        if flavour.is_nan:
            return 0, None
        script = self.script
        lead = (script[written], self.is_exact) if script is not None and written < len(script) else None
        if lead is not None and self.wish.top_logprobs is None and flavour.is_calm():
            return lead[0], None
        recent = [piece.token for piece in self.pieces[-3:]]
        context = [*self.prompt[-3:], *recent][-3:]
        place = self.model.next(context, lead, written)
        token = self._drawn(place, written)
        if flavour.long_damage and written >= flavour.long_after + 4:
            token = self.pieces[-4].token  # long answers go round in circles, as damaged ones were seen to
        if lead is not None and token != lead[0]:
            self.script = None
        if self.wish.ignores_eos and token == IM_END:
            token = place.ranked[1][0]
        return token, place

    def _drawn(self, place: Distribution, written: int) -> int:
        heat = self.wish.temperature
        if heat == 0 or place.ranked[0][1] > CERTAIN:
            return place.ranked[0][0]
        weights = [math.exp(logprob / heat) for _, logprob in place.ranked]
        left = mix((self.seed, self.index, written)) / 2.0**64 * sum(weights)
        for (token, _), weight in zip(place.ranked, weights, strict=True):
            left -= weight
            if left <= 0:
                return token
        return place.ranked[0][0]

    def _released(self, new: str) -> str:
        """Text that can't be the beginning of a stop string any more."""
        self._held += new
        found = [(self._held.index(stop), stop) for stop in self.wish.stop if stop in self._held]
        if found:
            at, self.stop_reason = min(found)
            self.finish_reason = "stop"
            text, self._held = self._held[:at], ""
            return text
        keep = max(
            (n for stop in self.wish.stop for n in range(1, len(stop)) if self._held.endswith(stop[:n])), default=0
        )
        cut = len(self._held) - keep
        text, self._held = self._held[:cut], self._held[cut:]
        return text


def listed(place: Distribution, top: int, own: int | None = None) -> list[tuple[int, float, int]]:
    """(token, logprob, rank): the token itself first where it is given, then the `top` likeliest."""
    rows = [(own, *place.of(own))] if own is not None else []
    best = [(token, logprob, rank) for rank, (token, logprob) in enumerate(place.ranked[:top], 1) if token != own]
    return rows + best


def scored(ids: Sequence[int], model: LanguageModel, top: int) -> list[dict[str, Any] | None]:
    """`prompt_logprobs`: null, then for each token itself and the `top` likeliest in its place."""
    rows: list[dict[str, Any] | None] = [None]
    for token, place in zip(ids[1:], model.score(ids), strict=True):
        row = {}
        for one, logprob, rank in listed(place, top, token):
            value = math.nan if model.flavour.is_nan else logprob
            row[str(one)] = {"logprob": value, "rank": rank, "decoded_token": token_text(one)}
        rows.append(row)
    return rows
