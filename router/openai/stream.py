"""The events of an answer's stream, observed as they pass: content, usage, errors, the end.

Bytes go through unchanged up to the last event boundary at hand; the rest is held, so that a failure can always be
said as an event of its own. What does not pass is named here: comments before the first data event, error events,
a `[DONE]` that no terminal event precedes, everything after a failure, and the usage chunk that our own injection
caused.

The steady state parses nothing. Once an event with output has been read, its bytes are split around the text: *head*,
text, *foot*. A later event with the same head and foot and no quote between them differs from the first in its text
only, so it is known without looking. Whatever differs in any other byte is parsed.
"""

from __future__ import annotations

import re

from router.openai import sse, steady
from router.openai.fold import Folded, fold
from router.openai.reading import Reading
from router.openai.routes import StreamShape, StreamTable
from router.openai.usage import Usage, read_usage

__all__ = ["EventStream", "Folded", "Usage", "fold"]

HELD_LIMIT = 64 * 1024  # an event longer than this is passed on before it is complete
COPY_LIMIT = 256 * 1024  # and is still parsed at its end, up to this size (parsing that much takes half a millisecond)
LEARN_LIMIT = 16  # how often one stream may be learned; some write a usage count into every event
_NEVER: tuple[()] = ()  # what nothing begins with, whatever comes in
_NUMBERED = re.compile(rb'"sequence_number"\s*:\s*\d+')
_USAGE = re.compile(rb'"usage"\s*:\s*(\{(?:[^{}]|\{[^{}]*\})*\})')


class EventStream(Reading):
    """Watches one attempt's event stream; beyond what `Reading` says:

    Attributes:
        broken: why the stream cannot be taken for a whole answer, None while it can.
        resumable: False once bytes of an incomplete event had to be passed on.
    """

    __slots__ = (
        "_foot",
        "_foot_at",
        "_head",
        "_head_len",
        "_held",
        "_learned",
        "_learns",
        "_long",
        "_long_is_cut",
        "_stop",
        "_strip_usage",
        "broken",
        "resumable",
    )

    ended = False  # only a splice ends an answer before its backend does

    def __init__(self, table: StreamTable, *, choices: int = 1, strip_usage: bool = False) -> None:
        super().__init__(table, choices)
        self._strip_usage = strip_usage
        self._held = b""
        self._long: bytearray | None = None  # the beginning of an event that is passed on while it is incomplete
        self._long_is_cut = False
        self._learned: bytes | tuple[()] = _NEVER
        self._head: bytes | tuple[()] = _NEVER  # what was learned, but _NEVER while something is held
        self._head_len = 0
        self._foot = b""
        self._foot_at = -1
        self._stop = b'"'
        self._learns = 0
        self.broken: str | None = None
        self.resumable = True

    def feed(self, piece: bytes) -> bytes:
        """Take the next bytes of the body, in any splitting; return what may be passed on now."""
        if (
            piece.startswith(self._head)
            and piece.endswith(self._foot)
            and piece.find(self._stop, self._head_len, self._foot_at) < 0
        ):
            self.events += 1
            return piece
        return self._feed(piece)

    def end(self) -> bytes:
        """Take the end of the body; return what was held and may pass. What is amiss now stands in `broken`."""
        out, rest = b"", self._held
        if self._long is not None:
            self._read_long(bytes(self._long))
        elif rest.endswith(b"\r"):  # no LF can follow any more
            out, rest = self._feed(b"\n")[:-1], self._held.removesuffix(b"\n")
        if rest.strip(b"\r\n") and not self._is_over() and self._passes(rest) and self.finished:
            out += rest  # some servers leave out the last blank line; an event cut in the middle does not parse
        self._held = b""
        if not self.finished and not self._is_over():
            self._break("the stream ended without its terminal event")
        self._head = self._learned = _NEVER
        return out

    def _is_over(self) -> bool:
        return self.error is not None or self.broken is not None

    def _feed(self, piece: bytes) -> bytes:
        if self._is_over():
            return b""
        if self._long is not None:
            return self._feed_long(piece)
        buffer = self._held + piece if self._held else piece
        passed: list[bytes] = []
        at = 0
        for end in sse.event_ends(buffer):
            event = buffer[at:end]
            at = end
            if self._is_steady(event):
                self.events += 1
                passed.append(event)
            elif self._passes(event):
                passed.append(event)
            elif self._is_over():
                self._held = b""
                self._head = self._learned = _NEVER
                return b"".join(passed)
        self._held = self._kept(buffer[at:], passed)
        self._settle()
        return passed[0] if len(passed) == 1 else b"".join(passed)

    def _settle(self) -> None:
        """The shortcut is open only while no part of an event is held or passes by."""
        self._head = self._learned if not self._held and self._long is None else _NEVER

    def _kept(self, rest: bytes, passed: list[bytes]) -> bytes:
        """Return what is held of an incomplete event: all of it, or nothing where it has grown too long to hold."""
        if len(rest) <= HELD_LIMIT:
            return rest
        passed.append(rest)
        self._long = bytearray(rest)
        self._long_is_cut = False
        self.committable = True
        self.resumable = False
        return b""

    def _feed_long(self, piece: bytes) -> bytes:
        """Pass on the rest of an event that was too long to hold; read it when it is whole."""
        copy = self._long or bytearray()
        before = bytes(copy[-3:])  # a boundary may lie across the two
        end = next((e for e in sse.event_ends(before + piece) if e > len(before)), None)
        if end is None:
            copy += piece
            if len(copy) > COPY_LIMIT:
                del copy[COPY_LIMIT // 2 : -4096]
                self._long_is_cut = True
            return piece
        end -= len(before)
        self._read_long(bytes(copy) + piece[:end])
        return piece[:end] + self._feed(piece[end:])

    def _read_long(self, event: bytes) -> None:
        """Read an event that the client has already. Where it was too long to keep, its name and usage must do."""
        self._long = None
        if not self._long_is_cut:
            self._passes(event)
            return
        self.events += 1
        self.read({}, sse.name_of(event[:4096]))
        for usage in _USAGE.finditer(event, len(event) - 4096):
            self.usage = read_usage(sse.parse(usage[1]), self.usage)

    def _is_steady(self, event: bytes) -> bool:
        """Say whether an event differs from a known one in its text only."""
        return (
            event.startswith(self._learned)
            and event.endswith(self._foot)
            and event.find(self._stop, self._head_len, self._foot_at) < 0
        )

    def _passes(self, event: bytes) -> bool:
        """Read one event; say whether it may be passed on."""
        data = sse.data_of(event)
        if not data or data.isspace():
            return self.committable  # a comment, or another field: no progress
        if data.strip() == b"[DONE]":
            if not self.read_done():
                self._break("[DONE] came without a terminal event")
            return self.done
        try:
            document = sse.parse(data)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            self._break(f"an event holds no JSON object: {data[:80].decode('utf-8', 'replace')}")
            return False
        kind = str(document.get("type") or sse.name_of(event)) if self._table.shape is StreamShape.TYPED else ""
        if kind in self._table.keep_alive:
            return self.committable
        before = self.phase
        field = self.read(document, kind)
        if self.error is not None:
            return False
        if self.phase != before or self.finished:
            self._learned = _NEVER
        if field is not None and not self._ended:
            self._learn(event, field)
        self.events += 1
        self.committable = True
        return not (self._strip_usage and self.is_usage_only(document))

    def _break(self, why: str) -> None:
        self.broken = why
        self._head = self._learned = _NEVER

    def _learn(self, event: bytes, field: str) -> None:
        """Split an event around its text, so that the next ones are known by their head and foot."""
        parts = steady.split(event, field) if self._learns < LEARN_LIMIT else None
        if parts is None:
            return
        head, foot = parts
        self._stop = b'"'
        numbered = _NUMBERED.search(foot) if self._table.shape is StreamShape.TYPED else None
        if numbered is not None:  # vLLM counts the events of a response; the type at both ends says the rest
            foot, self._stop = foot[numbered.end() :], b"\n"
        self._learns += 1
        self._learned, self._foot = head, foot
        self._head_len, self._foot_at = len(head), -len(foot)
