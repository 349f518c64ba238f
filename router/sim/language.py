"""A toy language model: for every context the same distribution, in prefill and decode, up to rounding and damage.

The distribution over the vocabulary is that of 48 candidates picked by the last tokens, plus an even tail; where a
chat's script says what comes next, that token leads. On top of it comes noise in the shape of real numerics (measured
on an emulated NVFP4 model): what a scheme's weights and activations cost is common to all its kernels, activation
rounding is chaotic and each kernel's own. So two right W4A4 kernels differ a lot from each other, and are equally far
from a reference. The sizes are smaller here, as published for calibrated big models.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from router.sim import scripts
from router.sim.tokens import FULL_STOP, IDS, IM_END, VOCABULARY, WORD_IDS, decode, encode

CANDIDATES = 48
EXACT_LEAD, PROSE_LEAD = 12.0, 5.0  # logit by which a scripted token leads
TAIL = -4.0  # logit of every token that is no candidate
WEIGHT_NOISE, ACTIVATION_NOISE = 0.22, 0.14  # in logits; squares add up to about twice the KL to the reference
KERNEL_NOISE = {"bf16": 0.0, "w4a16": 0.03, "w4a4": 0.17}
_CALM_DAMAGE = 0.5  # up to here no scripted token loses its lead


@dataclass(frozen=True, slots=True)
class Flavour:
    """How a server's numbers differ from the ideal ones. Damages are in logits; 0 = none, 1 a bad layer, 6 a wreck."""

    scheme: str = "w4a16"
    kernel: str = "marlin"
    damage: float = 0.0
    decode_damage: float = 0.0
    long_damage: float = 0.0
    long_after: int = 512
    is_garbage: bool = False
    is_nan: bool = False
    is_ignorant: bool = False

    def is_calm(self) -> bool:
        """Nothing here moves a scripted token from the lead."""
        worst = max(self.damage, self.decode_damage, self.long_damage)
        return worst <= _CALM_DAMAGE and not self.is_garbage and not self.is_nan

    def noise(self, emitted: int) -> float:
        """Damage at a position: `emitted` tokens into the answer, -1 within the prompt."""
        if emitted < 0:
            return self.damage
        late = self.long_damage if emitted >= self.long_after else 0.0
        return math.hypot(self.damage, self.decode_damage, late)


@dataclass(frozen=True, slots=True)
class Distribution:
    """What may come next: candidates with their log-probabilities, best first, and that of any other token."""

    ranked: tuple[tuple[int, float], ...]
    tail: float

    def of(self, token: int) -> tuple[float, int]:
        """A token's log-probability and its rank, counted from 1."""
        for rank, (one, logprob) in enumerate(self.ranked, 1):
            if one == token:
                return logprob, rank
        return self.tail, len(self.ranked) + 1 + token % (len(VOCABULARY) - len(self.ranked))


class LanguageModel:
    """Distributions of one server; without state, so any position can be asked for in any order."""

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour
        self._kernel = zlib.crc32(flavour.kernel.encode())

    def next(self, context: Sequence[int], lead: tuple[int, bool] | None, emitted: int = -1) -> Distribution:
        """What follows `context` (its last three tokens count), `lead` = the scripted token and whether it is exact."""
        key = mix(context[-3:])
        flavour = self.flavour
        logits: dict[int, float] = {}
        for rank in range(CANDIDATES):
            logits[_candidate(key, rank)] = 2.0 - 1.6 * math.log1p(rank) + 0.5 * _bell(key, rank)
        if lead is not None:
            logits[lead[0]] = 2.0 + (EXACT_LEAD if lead[1] else PROSE_LEAD) - 3.0 * abs(_bell(key, 99)) / 3.0
        if flavour.is_garbage:
            logits = {token: 3.0 * _bell(self._kernel, key, token) for token in logits}
        scale = flavour.noise(emitted)
        for token, logit in logits.items():
            logits[token] = logit + self._rounding(key, token) + scale * _bell(7, key, token)
        total = math.log(sum(map(math.exp, logits.values())) + (len(VOCABULARY) - len(logits)) * math.exp(TAIL - 6.0))
        ranked = sorted(((token, logit - total) for token, logit in logits.items()), key=lambda one: (-one[1], one[0]))
        return Distribution(tuple(ranked), TAIL - 6.0 - total)

    def _rounding(self, key: int, token: int) -> float:
        scheme = self.flavour.scheme
        if scheme == "bf16":
            return 0.0
        noise = WEIGHT_NOISE * _bell(1, key, token) + KERNEL_NOISE[scheme] * _bell(self._kernel, key, token)
        return noise + (ACTIVATION_NOISE * _bell(2, key, token) if scheme == "w4a4" else 0.0)

    def score(self, ids: Sequence[int], prompt_tokens: int | None = None) -> list[Distribution]:
        """The distribution at every position but the first; teacher-forced, as `prompt_logprobs` wants it."""
        leads = leads_of(ids)
        split = len(ids) if prompt_tokens is None else prompt_tokens
        return [self.next(ids[max(0, at - 3) : at], leads.get(at), at - split if at >= split else -1)
                for at in range(1, len(ids))]  # fmt: skip

    def generate(self, prompt: Sequence[int], limit: int, ignores_eos: bool = False) -> tuple[list[int], bool]:
        """Greedy ids after a prompt, at most `limit`; and whether the model ended by itself (the end token counts)."""
        if self.flavour.is_nan:
            return [IDS[b"!"]] * limit, False
        following, is_exact = continuation(prompt)
        if self.flavour.is_calm() and following is not None and not ignores_eos:
            whole = [*following, IM_END]
            return whole[:limit], len(whole) <= limit
        return self._walk(prompt, following, is_exact, limit, ignores_eos)

    def _walk(
        self, prompt: Sequence[int], following: list[int] | None, is_exact: bool, limit: int, ignores_eos: bool
    ) -> tuple[list[int], bool]:
        script = None if following is None else [*following, IM_END]
        out: list[int] = []
        tail = list(prompt[-3:])
        while len(out) < limit:
            on_script = script is not None and len(out) < len(script) and script[: len(out)] == out
            lead = (script[len(out)], is_exact) if on_script and script is not None else None
            best = self.next(tail, lead, len(out)).ranked
            token = next(one for one, _ in best if one != IM_END) if ignores_eos else best[0][0]
            out.append(token)
            tail = [*tail[-2:], token]
            if token == IM_END:
                return out, True
        return out, False


def continuation(ids: Sequence[int]) -> tuple[list[int] | None, bool]:
    """What the script says comes after these ids, None where there is no chat or it was left already."""
    text = decode(ids)
    before, header, begun = text.rpartition(scripts.HEADER)
    if not header or "<|im_end|>" in begun:
        return None, False
    said = scripts.script(before)
    whole = said.text
    if begun.startswith("<think>"):
        whole = f"<think>\n{scripts.thought(before)}\n</think>\n\n{said.text}"
    if not whole.startswith(begun):
        return None, False
    return encode(whole[len(begun) :]), said.is_exact


def leads_of(ids: Sequence[int]) -> dict[int, tuple[int, bool]]:
    """Which token is scripted at which position of a text that holds chat answers."""
    leads: dict[int, tuple[int, bool]] = {}
    header = encode(scripts.HEADER)
    size = len(header)
    starts = [at + size for at in range(len(ids) - size + 1) if list(ids[at : at + size]) == header]
    for start in starts:
        following, is_exact = continuation(ids[:start])
        if len(ids) > start and ids[start] == IDS[b"<think>"]:
            following, is_exact = continuation(ids[: start + 2])
            start += 2
        for offset, token in enumerate([*(following or ()), IM_END] if following is not None else ()):
            leads[start + offset] = (token, is_exact)
            if start + offset >= len(ids) or ids[start + offset] != token:
                break
    return leads


def _candidate(key: int, rank: int) -> int:
    drawn = mix((key, rank))
    if rank == CANDIDATES - 1:
        return IM_END
    return FULL_STOP if drawn % 23 == 0 else WORD_IDS[(drawn >> 8) % len(WORD_IDS)]


def mix(values: Sequence[int]) -> int:
    """A 64-bit number that looks random and is the same everywhere."""
    mixed = 0x9E3779B97F4A7C15
    for value in values:
        mixed = ((mixed ^ (value & 0xFFFFFFFFFFFFFFFF)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 29
    mixed = (mixed * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return mixed ^ (mixed >> 31)


def _bell(*values: int) -> float:
    """About normal, mean 0, deviation 1: three uniform numbers out of one mix."""
    mixed = mix(values)
    return ((mixed & 0x1FFFFF) + (mixed >> 21 & 0x1FFFFF) + (mixed >> 42 & 0x1FFFFF)) / 0x100000 - 3.0
