"""A toy language model: deterministic, readable, with logprobs that agree however a text is scored.

At every place of a text it gives a distribution over the whole vocabulary: two dozen candidates (words that may follow
by a small grammar; or the next token of an answer that is known), and a tail for all the rest. The logprob of a token
is the same whether it was just generated or stands in a prompt, up to the kernel's own noise (`Numerics`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from router.sim.known import known_answer
from router.sim.numerics import Numerics, gauss, mix
from router.sim.tokens import END_THINK, IM_END, IM_START, PIECES_END, THINK, VOCABULARY, decode, encode, id_of
from router.sim.words import ADJECTIVES, ADVERBS, DETERMINERS, NOUNS, PREPOSITIONS, VERBS

CANDIDATES = 24
TAIL = 0.02  # probability of everything that is no candidate
_KNOWN_LEAD = 5.0  # a known next token leads the best candidate by this
_NEWLINE = encode("\n")[0]
_ASSISTANT = tuple(encode("assistant\n"))
_USER = tuple(encode("user\n"))
_STOP = encode(".")[0]


def _ids(words: Sequence[str]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(id_of(" " + word) for word in words))


_CLASSES = {
    "det": _ids(DETERMINERS),
    "adj": _ids(ADJECTIVES),
    "noun": _ids(NOUNS),
    "verb": _ids(VERBS),
    "prep": _ids(PREPOSITIONS),
    "adv": _ids(ADVERBS),
    "start": _ids([word.capitalize() for word in DETERMINERS]),
    "stop": (_STOP,),
}
_AFTER = {
    "start": ("adj", "noun"),
    "det": ("adj", "noun"),
    "adj": ("noun",),
    "noun": ("verb", "prep"),
    "verb": ("det", "adv"),
    "adv": ("det", "prep"),
    "prep": ("det",),
    "stop": ("start",),
}
_CLASS_OF = {token: name for name, tokens in reversed(_CLASSES.items()) for token in tokens}
_OPENING = tuple(id_of(word.capitalize()) for word in DETERMINERS)


@dataclass(frozen=True, slots=True)
class Distribution:
    """What may stand at one place.

    Attributes:
        tokens: candidates, likeliest first.
        logprobs: theirs.
        place: the place, for the tail.
        tail_noise: what the kernel does to a token of the tail.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    place: int
    numerics: Numerics
    decoding: bool

    def logprob(self, token: int) -> float:
        """Of any token of the vocabulary."""
        if token in self.tokens:
            return self.logprobs[self.tokens.index(token)]
        own = gauss(self.place, token) + self.numerics.noise(self.place, token, self.decoding)
        prior = math.log((0.9 if token < PIECES_END else 0.1) / (PIECES_END if token < PIECES_END else VOCABULARY))
        return math.log(TAIL) + prior + own - 0.5 * (1.0 + self.numerics.spread(self.decoding))

    def rank(self, token: int) -> int:
        """1 for the likeliest; in the tail about where its logprob puts it."""
        if token in self.tokens:
            return self.tokens.index(token) + 1
        return CANDIDATES + 1 + int(min(VOCABULARY - CANDIDATES - 2, math.exp(-self.logprob(token)) * TAIL / 10))


class Cursor:
    """A place in a growing text: what comes next, and on to it."""

    def __init__(self, ids: Sequence[int], numerics: Numerics, forced: str | None = None, at_end: bool = True) -> None:
        """Stand at the end of `ids` (or at their beginning, to walk through them with `push`).

        Args:
            ids: the text so far.
            numerics: the kernel's noise.
            forced: the answer's text where something outside forces it (a JSON schema, a tool call).
        """
        self._numerics = numerics
        self._ids: list[int] = []
        self._script: list[int] = []
        self._script_at = 0
        self._answer_from: int | None = None
        self._answer_tokens = 0
        self.generated = 0
        if at_end:
            self._ids = list(ids)
            self._find_turn()
        if forced is not None:
            self._script, self._script_at = [*encode(forced), IM_END], 0

    def push(self, token: int, generated: bool = False) -> None:
        """This token comes next."""
        self._ids.append(token)
        if generated:
            self.generated += 1
        if self._script_at < len(self._script) and self._script[self._script_at] == token:
            self._script_at += 1
        elif self._script:
            self._script = []
        if not generated and token == _NEWLINE and tuple(self._ids[-len(_ASSISTANT) - 1 :]) == (IM_START, *_ASSISTANT):
            self._find_turn()

    def next(self, decoding: bool = True) -> Distribution:
        """What may come next; `decoding` says by which kernels it is computed."""
        ids = self._ids
        last = ids[-1] if ids else 0
        place = mix(last, ids[-2] if len(ids) > 1 else 0, len(ids))
        names = self._classes(last, place)
        pool = [token for name in names for token in _CLASSES[name]]
        best = sorted(((gauss(place, token, 7), token) for token in pool), reverse=True)[:CANDIDATES]
        if len(best) < CANDIDATES:
            nouns = _CLASSES["noun"]
            taken = {token for _, token in best}
            extra = [token for token in nouns if token not in taken][: CANDIDATES - len(best)]
            best += [(gauss(place, token, 7) - 4.0, token) for token in extra]
        logits = {token: 1.6 * value for value, token in best}
        wanted = self._wanted(place)
        if wanted is not None:
            logits.pop(best[-1][1])
            logits[wanted] = max(logits.values()) + _KNOWN_LEAD
        noise = self._numerics.noise
        noisy = sorted(((value + noise(place, token, decoding), token) for token, value in logits.items()), reverse=True)
        top = noisy[0][0]
        total = math.log(sum(math.exp(value - top) for value, _ in noisy)) + top - math.log(1.0 - TAIL)
        return Distribution(
            tuple(token for _, token in noisy), tuple(value - total for value, _ in noisy), place, self._numerics,
            decoding,
        )  # fmt: skip

    def _classes(self, last: int, place: int) -> tuple[str, ...]:
        """Which words may follow: by the grammar, or the beginning of a sentence after anything else."""
        name = _CLASS_OF.get(last)
        if name is None:
            return ("start",) if last in (_NEWLINE, IM_END, THINK, END_THINK) or not self._ids else ("adj", "noun")
        if name == "noun" and gauss(place, 1, 3) > 0.3:
            return ("stop",)
        return _AFTER[name]

    def _wanted(self, place: int) -> int | None:
        """The next token of a known answer, or the end where this answer has been long enough."""
        if self._script_at < len(self._script):
            return self._script[self._script_at]
        if self._answer_from is None:
            return None
        written = len(self._ids) - self._answer_from
        if written >= self._answer_tokens and self._ids[-1] == _STOP:
            return IM_END
        return None

    def _find_turn(self) -> None:
        """Read the last turn: what was asked, what of the answer is there, and what it will be."""
        self._script, self._script_at, self._answer_from = [], 0, None
        head = _last(self._ids, (IM_START, *_ASSISTANT))
        if head is None:
            self._plain(decode(self._ids[-64:]))
            return
        start = head + 1 + len(_ASSISTANT)
        asked_at = _last(self._ids[:head], (IM_START, *_USER))
        question = ""
        if asked_at is not None:
            asked = self._ids[asked_at + 1 + len(_USER) : head]
            question = decode(asked[: asked.index(IM_END)] if IM_END in asked else asked)
        written = self._ids[start:]
        self._answer_from = start
        self._answer_tokens = answer_tokens(question)
        if THINK in written:
            thought = written[written.index(THINK) :]
            if END_THINK not in thought:
                self._script = [*encode(thought_about(question)), END_THINK, *encode("\n\n")]
                self._script += self._known(question)
                return
            written = thought[thought.index(END_THINK) + 1 :]
        answer = known_answer(question)
        done = decode(written).lstrip("\n")
        if answer is not None and answer.startswith(done):
            self._script = [*encode(answer[len(done) :]), IM_END]

    def _known(self, question: str) -> list[int]:
        answer = known_answer(question)
        return [] if answer is None else [*encode(answer), IM_END]

    def _plain(self, text: str) -> None:
        """A text without turns: known only where it ends with the question."""
        line = text.rstrip("\n").rpartition("\n")[2]
        answer = known_answer(line) if text and "count to" in line.lower() else None
        if answer is not None:
            self._script = [*encode(answer), IM_END]


def answer_tokens(question: str) -> int:
    """How long the answer to a question is: the same on every backend, 20 to about 600 tokens."""
    seed = mix(*encode(question)[-48:])
    return max(20, min(600, int(140 * math.exp(0.7 * gauss(seed, 11)))))


def thought_about(question: str) -> str:
    """What a model that thinks writes before its answer."""
    words = question.split()[:12]
    return "The user asks: " + " ".join(words) + ". Let me think about it. The answer should be short and right.\n"


def _last(ids: Sequence[int], wanted: tuple[int, ...]) -> int | None:
    """Where a run of ids begins for the last time."""
    for at in range(len(ids) - len(wanted), -1, -1):
        if ids[at] == wanted[0] and tuple(ids[at : at + len(wanted)]) == wanted:
            return at
    return None
