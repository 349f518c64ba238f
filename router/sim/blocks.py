"""KV cache of the simulated vLLM: blocks of 16 tokens, shared between equal prefixes, forgotten least recently used."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

BLOCK_TOKENS = 16  # vLLM's default block size on CUDA


def block_hashes(ids: Sequence[int], salt: int = 0) -> tuple[int, ...]:
    """Chained hashes of the full blocks of a token sequence: equal hash means equal prefix up to there."""
    hashes: list[int] = []
    chained = salt
    for start in range(0, len(ids) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        chained = hash((chained, *ids[start : start + BLOCK_TOKENS]))
        hashes.append(chained)
    return tuple(hashes)


def blocks_for(tokens: int) -> int:
    """How many blocks that many tokens take."""
    return -(-tokens // BLOCK_TOKENS)


class BlockPool:
    """All blocks of one engine. A block is free, held by sequences, or kept (held by nobody, still of use)."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._held: dict[int, int] = {}  # hash: how many sequences hold it
        self._kept: OrderedDict[int, None] = OrderedDict()  # oldest first
        self._nameless = 0  # held blocks without a hash: partly filled, or of unknown content

    def __repr__(self) -> str:
        return f"<BlockPool {self.used} of {self.capacity} held, {len(self._kept)} kept>"

    @property
    def used(self) -> int:
        """Blocks held by sequences; what `kv_cache_usage_perc` counts."""
        return len(self._held) + self._nameless

    @property
    def available(self) -> int:
        """Blocks a sequence may take now; kept ones are given up for it."""
        return self.capacity - self.used

    def known(self, hashes: Sequence[int]) -> int:
        """How many leading blocks of this sequence are still here."""
        count = 0
        for block in hashes:
            if block not in self._held and block not in self._kept:
                break
            count += 1
        return count

    def kept_among(self, hashes: Sequence[int]) -> int:
        """How many of these blocks nobody holds: holding them takes from what is available."""
        return sum(block in self._kept for block in hashes)

    def hold(self, hashes: Sequence[int]) -> None:
        """Hold blocks that are here (`known`)."""
        for block in hashes:
            self._kept.pop(block, None)
            self._held[block] = self._held.get(block, 0) + 1

    def take(self, count: int) -> bool:
        """Take fresh blocks, all of them or none."""
        if count > self.available:
            return False
        self._nameless += count
        while self.used + len(self._kept) > self.capacity:
            self._kept.popitem(last=False)
        return True

    def name(self, block: int) -> None:
        """One fresh block is full and can be shared from now on; where its like exists, one of the two goes."""
        self._nameless -= 1
        self.hold((block,))

    def give_back(self, hashes: Sequence[int], nameless: int) -> None:
        """Return what a sequence held. Named blocks are kept, the end of the sequence forgotten first."""
        self._nameless -= nameless
        for block in reversed(hashes):
            left = self._held[block] - 1
            if left:
                self._held[block] = left
            else:
                del self._held[block]
                self._kept[block] = None

    def forget(self) -> None:
        """Drop everything kept (`/reset_prefix_cache`)."""
        self._kept.clear()
