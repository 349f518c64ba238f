"""What a client already has of an answer, and how the rest of it is asked for elsewhere.

Nothing is injected up front: the forwarded bytes are kept as they went out, folded into text off the chunk path, and
only when a backend dies is a request made from them that continues the answer.
"""

from __future__ import annotations

from router.openai.call import Call
from router.openai.stream import EventStream, Folded, fold

FOLD_ABOVE = 16 * 1024  # bytes of forwarded events before they are folded into text
KEEP_AT_MOST = 64 * 1024  # characters of text; a longer answer can no longer be continued


class Emitted:
    """One call's answer so far."""

    __slots__ = ("_allowed", "_call", "folded", "pieces", "resumed", "too_long")

    def __init__(self, call: Call, allowed: bool) -> None:
        self._call = call
        self._allowed = allowed
        self.folded = Folded()
        self.pieces: list[bytes] = []
        self.resumed = False
        self.too_long = False

    @property
    def characters(self) -> int:
        """How much text the client has."""
        return len(self.folded.text)

    def fold_if_large(self) -> None:
        """Fold what was forwarded into text, once there is enough of it for that to be worth a look."""
        if len(self.pieces) >= 64:
            self.fold()

    def fold(self) -> None:
        """Fold what was forwarded since the last time."""
        pieces, self.pieces[:] = self.pieces[:], []
        if self.too_long or not pieces:
            return
        self.folded += fold(pieces)
        if len(self.folded.text) > KEEP_AT_MOST:
            self.too_long = True
            self.folded = Folded()

    def prepare(self, stream: EventStream | None) -> str | None:
        """Why the answer cannot be continued; None where the next attempt resumes it."""
        if not self._allowed:
            return "switched off for this model"
        return "not possible yet"

    def request(self, call: Call, model: str) -> bytes:
        """The body that asks another backend for the rest."""
        raise NotImplementedError

    def splice(self, stream: EventStream) -> EventStream:
        """An observer that joins the rest to what the client has."""
        return stream
