"""Which backend probably still holds this prefix: chained hashes of a prompt's raw bytes, remembered per backend.

Nothing is tokenised or written anew: a conversation that grows sends the same bytes first, so equal leading bytes mean
equal leading tokens. Each block's hash includes all before it, so one comparison per block finds the common prefix.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

BLOCK_BYTES = 1024  # about 256 tokens of English; a 400 kB prompt is 400 blocks
_MOST_BLOCKS = 4096


def hashes(body: bytes, start: int, salt: bytes) -> list[int]:
    """Chained hashes of the whole blocks of `body` from `start`; empty for a prompt shorter than one block.

    Python's own hash of bytes (SipHash, 64 bits): fast, and keyed anew in each process, so nobody can aim at another
    conversation's blocks. They mean nothing outside this process. One pass over the body.
    """
    chained = hash(salt)
    found: list[int] = []
    last = min(len(body) - BLOCK_BYTES, start + (_MOST_BLOCKS - 1) * BLOCK_BYTES)
    for at in range(start, last + 1, BLOCK_BYTES):
        chained = hash((chained, body[at : at + BLOCK_BYTES]))
        found.append(chained)
    return found


class PrefixIndex:
    """What one backend's KV cache probably holds: least recently used blocks fall out, as they do there.

    Args:
        capacity_tokens: of its KV cache.
    """

    __slots__ = ("_blocks", "_capacity", "_tokens")

    def __init__(self, capacity_tokens: int = 200_000) -> None:
        self._capacity = capacity_tokens
        self._blocks: OrderedDict[int, float] = OrderedDict()  # hash to the tokens of its block
        self._tokens = 0.0

    def __len__(self) -> int:
        return len(self._blocks)

    def warm_tokens(self, prefix: Sequence[int]) -> float:
        """Prompt tokens of this prefix that it probably still holds."""
        total = 0.0
        blocks = self._blocks
        for one in prefix:
            tokens = blocks.get(one)
            if tokens is None:
                break
            total += tokens
        return total

    def add(self, prefix: Sequence[int], prompt_tokens: float) -> None:
        """A prompt with this prefix was computed (or found) there."""
        if not prefix:
            return
        each = prompt_tokens / len(prefix)
        blocks = self._blocks
        # The deepest block first: where room runs out, the end of a conversation goes before its beginning.
        for one in reversed(prefix):
            self._tokens += each - blocks.pop(one, 0.0)
            blocks[one] = each
        self._evict()

    def correct(self, prefix: Sequence[int], cached_tokens: float) -> None:
        """The server said how much of this prefix it found: forget what it did not.

        A block of which it found more than half stays: the server counts in blocks of its own.
        """
        blocks, held = self._blocks, 0.0
        for at, one in enumerate(prefix):
            tokens = blocks.get(one)
            if tokens is None:
                return
            if held + 0.5 * tokens > cached_tokens:
                for gone in prefix[at:]:
                    self._tokens -= blocks.pop(gone, 0.0)
                return
            held += tokens

    def resize(self, capacity_tokens: int) -> None:
        """The KV cache is this large."""
        self._capacity = capacity_tokens
        self._evict()

    def _evict(self) -> None:
        while self._tokens > self._capacity and self._blocks:
            self._tokens -= self._blocks.popitem(last=False)[1]
        if not self._blocks:
            self._tokens = 0.0  # sums of floats drift

    def clear(self) -> None:
        """It restarted: its cache is empty."""
        self._blocks.clear()
        self._tokens = 0.0
