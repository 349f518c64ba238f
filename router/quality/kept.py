"""What a build answered while there was nothing to hold it against: asked again of the record, not of the server.

Only canary texts are ever kept. A check that runs on a record costs the build nothing; a running reference may be asked
to score the greedy answers, as it would have been at the time.
"""

from __future__ import annotations

from router.helper import Helper
from router.policy.answers import Answer
from router.policy.logprobs import Fault, Unscorable
from router.policy.quality import Family
from router.probes.questions import Question
from router.probes.texts import ProbeText
from router.quality import work
from router.quality.ask import Asker, Talents
from router.quality.plan import Item, Plan, Size
from router.quality.record import Baseline

COMPARED = frozenset({Family.PREFILL, Family.DECODE, Family.LOADED})
_ABSENT = Unscorable(Fault.OTHER_TOKENS, "it was not asked this at the time")


class KeptAsker:
    """Answers a check's questions out of a baseline.

    Args:
        kept: the record.
        tokens: who spells texts as token ids: any server with the record's tokenizer.
    """

    def __init__(self, kept: Baseline, tokens: Asker, talents: Talents, helper: Helper) -> None:
        self._kept = kept
        self._tokens = tokens
        self._helper = helper
        self.talents = talents

    async def ids_of(self, text: ProbeText) -> tuple[int, ...] | None:
        """The text's token ids."""
        return await self._tokens.ids_of(text)

    async def score(self, name: str, ids: tuple[int, ...]) -> bytes | Unscorable:
        """The logprobs that it answered, if these ids were asked."""
        return self._kept.texts.get(name, _ABSENT)

    async def generate(self, name: str, ids: tuple[int, ...]) -> work.Generation | Unscorable:
        """The greedy continuation that it answered."""
        found = self._kept.decoded.get(name)
        if found is None or found.prompt != ids:
            return _ABSENT
        return await self._helper.run(work.kept_generation, found.packed)

    def known_gap(self, name: str) -> float | None:
        """How far its decode stood from its prefill, where that was measured."""
        found = self._kept.decoded.get(name)
        return found.gap if found is not None else None

    async def answer(self, question: Question) -> Answer | Unscorable:
        """Answers to questions are judged at once and not kept."""
        return _ABSENT

    async def embed(self, text: ProbeText) -> tuple[float, ...] | Unscorable:
        """Embeddings are compared with their own past only."""
        return _ABSENT

    async def is_alive(self) -> bool:
        """A record does not die."""
        return True


def plan_of(kept: Baseline, texts: tuple[ProbeText, ...]) -> Plan:
    """Everything that the record holds, as the steps of a check."""
    items = [Item(Family.PREFILL, (text,)) for text in texts if text.name in kept.texts]
    items += [Item(Family.DECODE, (text,)) for text in texts if text.name in kept.decoded]
    return Plan(Size.KEPT, tuple(items), 0.0)
