"""How a kernel computes: rounding noise of a scheme, and the faults that make an answer wrong while /health says 200.

The shape is that of NVFP4 measured on a small model: two W4A4 kernels differ *from each other* (mutual KL 0.20) more
than their distances to the 16-bit model differ (0.354 against 0.363), because rounding activations is chaotic; two
weight-only kernels hardly differ (0.001 at a distance of 0.18). The sizes here are a tenth of that, as published for
calibrated 30B checkpoints (KLD 0.01 to 0.05).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from zlib import crc32

_TABLE_BITS = 12
_dice = random.Random(20260331)
_GAUSS = tuple(_dice.gauss(0.0, 1.0) for _ in range(1 << _TABLE_BITS))
_MASK = (1 << 64) - 1
_SHIFT = 64 - _TABLE_BITS

WEIGHTS_NOISE = 0.21  # of the logits, from rounding weights: mean KL to 16 bits near 0.02
ACTIVATION_NOISE = 0.21  # the same again from rounding activations
CHAOS = 0.56  # share of the activations' part that another kernel draws anew
ARITHMETIC_NOISE = 0.02  # another order of additions


def mix(*values: int) -> int:
    """Spread integers over 64 bits, the same in every process (unlike `hash`)."""
    state = 0x9E3779B97F4A7C15
    for value in values:
        state = ((state ^ (value & _MASK)) * 0xBF58476D1CE4E5B9) & _MASK
        state ^= state >> 29
    return state


def gauss(place: int, token: int, stream: int = 0) -> float:
    """A standard normal draw that belongs to a place in a text, a token and a stream of noise."""
    return _GAUSS[((place ^ (token * 0x9E3779B97F4A7C15) ^ stream) * 0xD6E8FEB86659FD93 & _MASK) >> _SHIFT]


def name_seed(name: str) -> int:
    """A stream of noise of its own for each name."""
    return mix(crc32(name.encode()))


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong with the answers.

    Attributes:
        weights: noise on the logits everywhere, as a wrong scale in one layer makes.
        decode: noise on the logits of generated tokens only; scoring a given text shows nothing.
        long_after: from this many generated tokens on, an answer repeats itself. None: never.
        garbage: fluent in nothing: the same few tokens, deterministically.
        nan: every logit is NaN: token 0 ("!") for ever, null logprobs.
    """

    weights: float = 0.0
    decode: float = 0.0
    long_after: int | None = None
    garbage: bool = False
    nan: bool = False


SOUND = Damage()


class Numerics:
    """The noise of one kernel on the logits of the toy model.

    Args:
        scheme: "bf16" (none), "w4a16" (weights rounded) or "w4a4" (activations, too).
        kernel: its name; the same kernel always makes the same noise.
        damage: what is wrong with it.
    """

    def __init__(self, scheme: str, kernel: str, damage: Damage = SOUND) -> None:
        self.damage = damage
        own = name_seed(kernel)
        streams: list[tuple[float, int]] = []
        if scheme != "bf16":
            streams += [(WEIGHTS_NOISE, name_seed("weights")), (ARITHMETIC_NOISE, own ^ 0x5BD1E995)]
        if scheme == "w4a4":
            common, new = math.sqrt(1.0 - CHAOS), math.sqrt(CHAOS)
            streams += [(ACTIVATION_NOISE * common, name_seed("activations")), (ACTIVATION_NOISE * new, own)]
        if damage.weights:
            streams.append((damage.weights, name_seed("damage")))
        self._prefill = tuple(streams)
        self._decode = (*streams, (damage.decode, name_seed("decode damage"))) if damage.decode else self._prefill

    def noise(self, place: int, token: int, decoding: bool) -> float:
        """What this kernel adds to the logit of a token at a place."""
        total = 0.0
        for size, stream in self._decode if decoding else self._prefill:
            total += size * gauss(place, token, stream)
        return total

    def spread(self, decoding: bool) -> float:
        """Variance of that noise."""
        return sum(size * size for size, _ in (self._decode if decoding else self._prefill))
