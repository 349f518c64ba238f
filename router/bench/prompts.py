"""Prompts of a wanted length whose beginning nobody has seen: they hit no prefix cache.

Real sentences in a drawn order, since speculative decoding and expert routing feel the difference to random words.
"""

from __future__ import annotations

import random
import re
from functools import lru_cache

from router.probes.texts import load_probes

FIRST_GUESS = 1.35  # tokens per word of English prose; measured for each model by the warm-up
_ENDING = "\n\nContinue the text above in the same manner, at length.\n\n"
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@lru_cache(maxsize=1)
def _sentences() -> tuple[str, ...]:
    prose = [one.text for one in load_probes() if one.name.startswith("prose/") and one.kind == "en"]
    found = [part.strip() for text in prose for part in _SENTENCE_END.split(text.replace("\n", " "))]
    return tuple(one for one in found if len(one.split()) > 3)


def prompt(seed: str, tokens: int, tokens_per_word: float = FIRST_GUESS) -> str:
    """A prompt of about so many tokens. Another seed gives another beginning, and another text after it."""
    dice = random.Random(seed)
    # Sixteen digits in groups: more than one block of a prefix cache differs, whatever the tokenizer joins.
    words = [f"{dice.randrange(10_000):04d}" for _ in range(6)]
    wanted = max(len(words) + 1, round(tokens / tokens_per_word) - len(_ENDING.split()))
    sentences = _sentences()
    while len(words) < wanted:
        words += dice.choice(sentences).split()
    return " ".join(words[:wanted]) + _ENDING


def words_of(text: str) -> int:
    """Words as `prompt` counts them."""
    return len(text.split())
