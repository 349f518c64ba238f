"""Make a continuation's events part of the stream that the client already has.

The one place where answer bytes are rewritten: same id, model and time stamp, no second role, no repeated text, one
finish_reason, usage of both parts together, and a stop string that lies across the seam still stops.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from router.openai import sse
from router.openai.fold import Folded
from router.openai.usage import read_usage


class Splice:
    """Rewrites the events of one continuation (first choice of chat or completions).

    Args:
        so_far: what the client has: text, id, model, time stamp.
        sent_tokens: about how many tokens that was.
        seam: the text that the continuation's prompt ends with (`resume.seam_text`).
        stop: the call's stop strings.
        repeats: whether this backend repeats the message that it continues (llama.cpp does).
        prompt_tokens: of the call's own prompt, where known.

    Attributes:
        ended: whether a stop string across the seam has ended the answer: the backend may be let go.
        broken: why the continuation does not fit, None where it does.
    """

    def __init__(
        self,
        so_far: Folded,
        sent_tokens: int,
        *,
        seam: str | None = None,
        stop: Sequence[str] = (),
        repeats: bool = False,
        prompt_tokens: int | None = None,
    ) -> None:
        seam = so_far.text if seam is None else seam
        self.ended = False
        self.broken: str | None = None
        self._sent_tokens = sent_tokens
        self._prompt_tokens = prompt_tokens
        self._same = {"id": so_far.response_id, "model": so_far.model, "created": so_far.created}
        self._text = _Seam(so_far.text, seam, stop, repeats)
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """Take whole events, as `EventStream.feed` returns them; return what the client gets."""
        buffer = self._held + piece
        passed: list[bytes] = []
        at = 0
        for end in sse.event_ends(buffer):
            passed.append(self._event(buffer[at:end]))
            at = end
        self._held = buffer[at:]
        return b"".join(passed)

    def _event(self, event: bytes) -> bytes:
        if self._is_over():
            return b""
        data = sse.data_of(event)
        if data is None or not data.startswith(b"{"):
            return event  # [DONE] and comments
        document = sse.parse(data)
        document |= {key: value for key, value in self._same.items() if value is not None and key in document}
        choices = document.get("choices")
        keeps = not choices
        if isinstance(document.get("usage"), dict):
            document["usage"] = self._both(document["usage"])
        for choice in choices if isinstance(choices, list) else ():
            keeps = (isinstance(choice, dict) and self._choice(choice)) or keeps
        if not keeps:
            return b""
        for key in ("prompt_token_ids", "prompt_text"):  # of the continuation's prompt, not of the client's
            document.pop(key, None)
        return b"data: " + orjson.dumps(document) + b"\n\n" + (b"data: [DONE]\n\n" if self._is_over() else b"")

    def _is_over(self) -> bool:
        return self.ended or self.broken is not None

    def _choice(self, choice: dict[str, Any]) -> bool:
        """Rewrite one choice; say whether anything of it is left to be said."""
        delta = choice.get("delta")
        source, key = (delta, "content") if isinstance(delta, dict) else (choice, "text")
        if source.get("reasoning") or source.get("reasoning_content"):
            self.broken = "the continuation began a reasoning block"
            return False
        source.pop("role", None)
        text = source.get(key)
        said = self._text.take(text) if isinstance(text, str) and text else ""
        if choice.get("finish_reason") is not None:
            said += self._text.flush()
        if self._text.stopped is not None and not self.ended:
            self.ended = True
            choice["finish_reason"] = "stop"
            choice["stop_reason"] = self._text.stopped
            said = ""
        if isinstance(text, str) or said:
            source[key] = said
        return bool(said or source.get("tool_calls") or choice.get("finish_reason") is not None)

    def _both(self, usage: dict[str, Any]) -> dict[str, Any]:
        """Count both parts: what was said already is completion here, though it was prompt to this backend."""
        here = read_usage(usage)
        prompt = self._prompt_tokens
        if prompt is None:
            prompt = max(0, here.prompt_tokens - self._sent_tokens)
        completion = here.completion_tokens + self._sent_tokens
        counted: dict[str, Any] = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict) and isinstance(details.get("cached_tokens"), int):
            counted["prompt_tokens_details"] = details | {"cached_tokens": min(prompt, details["cached_tokens"])}
        return usage | counted


class _Seam:
    """The text on both sides of a seam: what comes after it, less what the client has already.

    Three questions are asked in turn, each holding text back while it is open: does the continuation repeat the
    message, does it begin with the white space that was left off the prompt, does a stop string lie across the seam.
    """

    def __init__(self, sent: str, seam: str, stop: Sequence[str], repeats: bool) -> None:
        self.stopped: str | None = None
        self._repeat = seam if repeats else ""
        self._white = sent.removeprefix(seam)
        # what would complete a stop string whose beginning the client has
        self._rests = [(s[k:], s) for s in stop for k in range(1, len(s)) if sent.endswith(s[:k])]
        self._open = ""

    def take(self, text: str) -> str:
        """Return what of this text can be said now."""
        if not (self._repeat or self._white or self._rests):
            return text
        self._open += text
        if self._repeat:
            if len(self._open) < len(self._repeat) and self._repeat.startswith(self._open):
                return ""
            self._open = self._open.removeprefix(self._repeat)
            self._repeat = ""
        while self._white and self._open:
            if self._open[0] != self._white[0]:
                self._white = ""
                break
            self._open, self._white = self._open[1:], self._white[1:]
        return self._past_stops() if self._open else ""

    def flush(self) -> str:
        """Return what was held back, at the end."""
        said, self._open = self._open, ""
        return said

    def _past_stops(self) -> str:
        for rest, stop in self._rests:
            if self._open.startswith(rest):
                self.stopped = stop
                return ""
        self._rests = [(rest, stop) for rest, stop in self._rests if rest.startswith(self._open)]
        return "" if self._rests else self.flush()
