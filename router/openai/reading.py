"""What the parsed events of an answer say: content, phase, usage, errors, the end. Values in, state on; no bytes."""

from __future__ import annotations

from typing import Any

from router.openai.routes import StreamShape, StreamTable
from router.openai.usage import Usage, at_path, read_usage

FAULTY_REASONS = frozenset({"error", "abort"})
# The fields that hold a delta's text, and the phase that a field alone decides.
_TEXT_FIELDS = {"text": None, "thinking": "reasoning", "signature": "reasoning", "partial_json": "tool"}


class Reading:
    """What one attempt's events have said so far.

    Attributes:
        events: data events seen.
        committable: whether a data event that is no error has been seen: the answer may go to the client.
        has_content: whether output has been seen; a role chunk or `response.created` is none.
        finished: whether the terminal events of every choice have been seen.
        done: whether `[DONE]` was seen, or the route has none and the stream is finished.
        usage: token counts, as far as they were said.
        finish_reasons: as they came.
        error: what an error event said (an object or a string), None where none came.
        response_id: the answer's id.
        fingerprint: `system_fingerprint`; vLLM writes it on the last chunk.
        phase: what is being written: "none", "reasoning", "content" or "tool".
        reasoned: whether a reasoning block has begun at any time.
        tooled: whether a tool call has begun at any time.
    """

    __slots__ = (
        "_begun",
        "_choices",
        "_ended",
        "_table",
        "committable",
        "done",
        "error",
        "events",
        "fingerprint",
        "finish_reasons",
        "finished",
        "has_content",
        "phase",
        "reasoned",
        "response_id",
        "tooled",
        "usage",
    )

    def __init__(self, table: StreamTable, choices: int = 1) -> None:
        self._table = table
        self._choices = choices
        self._begun: set[int] = set()  # indexes of the choices that were seen
        self._ended: set[int] = set()  # and of those that have their finish_reason
        self.events = 0
        self.committable = self.has_content = self.finished = self.done = False
        self.usage: Usage | None = None
        self.finish_reasons: list[str] = []
        self.error: dict[str, Any] | str | None = None
        self.response_id: str | None = None
        self.fingerprint: str | None = None
        self.phase = "none"
        self.reasoned = self.tooled = False

    def read(self, document: dict[str, Any], kind: str) -> str | None:
        """Read one event; `kind` is its type where the stream is typed.

        Returns:
            The key whose string is this event's output, where it has exactly one; else None.
        """
        if document.get("error"):
            self.error = document["error"]
            return None
        self._identify(document)
        if self._table.shape is StreamShape.CHOICES:
            return self._read_choices(document)
        return self._read_typed(document, kind)

    def read_done(self) -> bool:
        """Read the `[DONE]` at the end; say whether it is one, because the answer was finished before it.

        A server that does not know `n` finishes fewer choices than were asked for; it did finish what it began.
        """
        if not self.finished and self._ended and self._ended >= self._begun:
            self._finish()
        self.done = self.finished
        return self.done

    def is_usage_only(self, document: dict[str, Any]) -> bool:
        """Say whether this is the chunk that `include_usage` adds: no choices, only counts."""
        return document.get("choices") == [] and isinstance(document.get("usage"), dict)

    def _read_choices(self, document: dict[str, Any]) -> str | None:
        choices = document.get("choices")
        if not isinstance(choices, list):
            if document.get("object") == "error":  # vLLM up to 0.9 wrote its errors flat
                self.error = document
            return None
        field = None
        for choice in choices:
            if isinstance(choice, dict):
                field = self._read_choice(choice)
        return field if len(choices) == 1 else None

    def _read_choice(self, choice: dict[str, Any]) -> str | None:
        index = choice.get("index", 0)
        index = index if isinstance(index, int) else 0
        self._begun.add(index)
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason in FAULTY_REASONS:
            self.error = {"message": f"the backend ended the answer with finish_reason {reason!r}", "type": reason}
            return None
        delta = choice.get("delta")
        fields = []
        for key, value in (delta if isinstance(delta, dict) else choice).items():
            phase = self._table.content.get(key)
            if phase is not None and value:
                self._enter(phase)
                fields.append(key if isinstance(value, str) else "arguments")
        if reason is None:
            return fields[0] if len(fields) == 1 else None
        self.finish_reasons.append(str(reason))
        self._ended.add(index)
        if len(self._ended) >= self._choices:
            self._finish()
        return None

    def _read_typed(self, document: dict[str, Any], kind: str) -> str | None:
        table = self._table
        if kind in table.failed:
            self.error = _failure(document)
            return None
        if kind in table.terminal:
            self._read_end(document)
            return None
        delta = document.get("delta")
        if kind == "message_delta" and isinstance(delta, dict):
            self._add_reason(delta.get("stop_reason"))
        elif kind in ("content_block_start", "response.output_item.added"):
            self._begin_block(document)
        phase = table.content.get(kind)
        if phase is None:
            return None
        field = _text_field(delta)
        self._enter((_TEXT_FIELDS.get(field) if field else None) or phase)
        return field

    def _read_end(self, document: dict[str, Any]) -> None:
        """Read the terminal event of a typed stream: it may still say that the answer failed."""
        response = document.get("response")
        if isinstance(response, dict):
            status = response.get("status")
            if status in ("failed", "cancelled"):
                self.error = _failure(document)
                return
            details = response.get("incomplete_details")
            self._add_reason(details.get("reason") if isinstance(details, dict) else status)
        elif isinstance(document.get("delta"), dict):
            self._add_reason(document["delta"].get("finish_reason"))
        if self.error is None:
            self._finish()

    def _begin_block(self, document: dict[str, Any]) -> None:
        """A block's kind says what is coming, before its first delta does."""
        block = document.get("content_block") or document.get("item")
        kind = str(block.get("type")) if isinstance(block, dict) else ""
        if "tool" in kind or "call" in kind:
            self._enter("tool", is_content=False)
        elif kind in ("thinking", "redacted_thinking", "reasoning"):
            self._enter("reasoning", is_content=False)

    def _add_reason(self, reason: Any) -> None:
        if not isinstance(reason, str):
            return
        if reason in FAULTY_REASONS:
            self.error = {"message": f"the backend ended the answer with {reason!r}", "type": reason}
        else:
            self.finish_reasons.append(reason)

    def _identify(self, document: dict[str, Any]) -> None:
        table = self._table
        if self.response_id is None:
            for path in table.response_id:
                found = at_path(document, path)
                if isinstance(found, str):
                    self.response_id = found
        fingerprint = document.get("system_fingerprint")
        if isinstance(fingerprint, str):
            self.fingerprint = fingerprint
        for path in table.usage:
            found = at_path(document, path)
            if isinstance(found, dict):
                self.usage = read_usage(found, self.usage)

    def _enter(self, phase: str, *, is_content: bool = True) -> None:
        self.has_content = self.has_content or is_content
        self.phase = phase
        if phase == "reasoning":
            self.reasoned = True
        elif phase == "tool":
            self.tooled = True

    def _finish(self) -> None:
        self.finished = True
        self.done = self.done or not self._table.has_done


def _failure(document: dict[str, Any]) -> dict[str, Any] | str:
    """Find what a failing event says: `error` in it or in its response, else the event itself."""
    response = document.get("response")
    inner = response.get("error") if isinstance(response, dict) else None
    found = document.get("error") or inner
    return found if isinstance(found, dict | str) else document


def _text_field(delta: Any) -> str | None:
    """Name the key that holds a typed delta's text."""
    if isinstance(delta, str):
        return "delta"
    if not isinstance(delta, dict):
        return None
    for name in _TEXT_FIELDS:
        if name in delta:
            return name
    message = delta.get("message")  # cohere: delta.message.content.text
    return "text" if isinstance(message, dict) and isinstance(message.get("content"), dict) else None
