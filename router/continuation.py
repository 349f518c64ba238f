"""What a client already has of an answer, and how the rest of it is asked for elsewhere.

Nothing is injected up front: the forwarded bytes are kept as they went out, folded into text off the chunk path, and
only when a backend dies is a request made from them that continues the answer. A continuation is another attempt with
a resume point: it goes the same way through the exchange, with another body and another observer.
"""

from __future__ import annotations

from router.openai.call import Call
from router.openai.resume import Splice, can_resume, resume_body, seam_text
from router.openai.stream import EventStream, Folded, fold
from router.openai.usage import Usage

KEEP_AT_MOST = 64 * 1024  # characters of text; a longer answer can no longer be continued
WINDOW = 256  # pieces of each batch of such a long answer that are still folded, where somebody watches it
_NOTHING = Folded()


class Spliced:
    """Observes a continuation: the attempt's own stream is judged as ever, what passes is rewritten to fit."""

    __slots__ = ("_splice", "broken", "stream")

    def __init__(self, stream: EventStream, splice: Splice) -> None:
        self.stream = stream
        self._splice = splice
        self.broken: str | None = None

    @property
    def committable(self) -> bool:
        """Whether an event that is not an error has come."""
        return self.stream.committable

    @property
    def has_content(self) -> bool:
        """Whether content has come from this backend."""
        return self.stream.has_content

    @property
    def error(self) -> object | None:
        """The error event that came, None while none did."""
        return self.stream.error

    @property
    def ended(self) -> bool:
        """Whether a stop string across the seam ended the answer: the backend may be let go."""
        return self._splice.ended

    def feed(self, piece: bytes) -> bytes:
        """What may be forwarded now."""
        return self._judged(self._splice.feed(self.stream.feed(piece)))

    def end(self) -> bytes:
        """The body has ended."""
        return self._judged(self._splice.feed(self.stream.end()))

    def _judged(self, out: bytes) -> bytes:
        if not self._splice.ended:
            self.broken = self.stream.broken or self._splice.broken
        return out


class Emitted:
    """One call's answer so far, as the client has it.

    Attributes:
        folded: its text.
        pieces: forwarded bytes that are not folded yet.
        passed: how many pieces were forwarded up to the last fold.
        resumed: how often the answer was taken up again.
        lost: why it can no longer be continued, whatever comes; its text is not kept any more. None while it can.
        is_long: it is lost for its length.
        watched: somebody looks at each batch, lost or not.
    """

    __slots__ = ("_allowed", "_call", "folded", "is_long", "lost", "passed", "pieces", "resumed", "watched")

    def __init__(self, call: Call, allowed: bool) -> None:
        self._call = call
        self._allowed = allowed
        self.folded = Folded()
        self.pieces: list[bytes] = []
        self.passed = 0
        self.resumed = 0
        self.lost: str | None = None
        self.is_long = False
        self.watched = False

    @property
    def characters(self) -> int:
        """How much text the client has."""
        return len(self.folded.text)

    @property
    def unfolded(self) -> int:
        """Forwarded pieces that are not folded yet."""
        return len(self.pieces)

    def fold(self) -> Folded:
        """Fold what was forwarded since the last time into text; returns that batch, empty where nobody needs it.

        Of a very long answer a batch holds the last `WINDOW` pieces at most.
        """
        pieces = self.pieces[:]
        self.pieces.clear()
        self.passed += len(pieces)
        if not pieces or (self.lost is not None and not self.watched):
            return _NOTHING
        batch = fold(pieces[-WINDOW:] if self.is_long else pieces)
        if self.lost is None:
            self.folded += batch
            self.lost = self._loss()
            if self.lost is not None:
                self.folded = _NOTHING
        return batch

    def _loss(self) -> str | None:
        if self.folded.reasoning:
            return "a reasoning block has begun"
        if self.folded.tool_args:
            return "a tool call has begun"
        self.is_long = len(self.folded.text) > KEEP_AT_MOST
        return f"more than {KEEP_AT_MOST} characters of it went out" if self.is_long else None

    def prepare(self, stream: EventStream | None) -> str | None:
        """Get ready to resume after a break in `stream`. Why that cannot be; None where the next attempt resumes."""
        if not self._allowed:
            return "continuation is switched off for this model"
        if stream is None:
            return "it is no event stream"
        self.fold()
        reason = self.lost or can_resume(self._call, stream)
        if reason is None:
            self.resumed += 1
        return reason

    def request(self, *, model: str | None, max_tokens: int | None, include_usage: bool) -> bytes:
        """The body that asks another backend for the rest."""
        return resume_body(
            self._call,
            self.folded.text,
            self.folded.deltas,
            model=model,
            max_tokens=max_tokens,
            include_usage=include_usage,
            token_ids=self.folded.token_ids,
        )

    def splice(self, stream: EventStream, usage: Usage | None, repeats: bool) -> Spliced:
        """An observer that joins the rest to what the client has.

        Args:
            usage: what an earlier attempt said of the prompt, None where it said nothing.
            repeats: whether this backend repeats the message that it continues.
        """
        return Spliced(
            stream,
            Splice(
                self.folded,
                self.folded.deltas,
                seam=seam_text(self._call, self.folded.text),
                stop=self._call.stop,
                repeats=repeats,
                prompt_tokens=usage.prompt_tokens if usage is not None else None,
            ),
        )
