"""The text of an answer, folded out of stream bytes that went to the client. Called in batches, off the chunk path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from router.openai import sse, steady

_REASONING = ("reasoning", "reasoning_content")
_SAYING = ("content", "text", *_REASONING, "tool_calls")  # the fields of a chunk that are folded
_NEVER: tuple[()] = ()  # what nothing begins with, whatever comes in


@dataclass(frozen=True, slots=True)
class Folded:
    """What some consecutive events of one answer hold together (first choice only).

    Attributes:
        text: the plain content.
        reasoning: the reasoning.
        tool_args: the arguments of its tool calls, by the server's own index of them.
        token_ids: ids of the generated tokens, where the answer carries them.
        deltas: events with output; with one token an event, the number of tokens.
        response_id, model, created, kind: what every chunk of the answer repeats (`kind` is its "object").
        null_logprobs: events whose logprob is null, a sign of NaN.
    """

    text: str = ""
    reasoning: str = ""
    tool_args: Mapping[int, str] = field(default_factory=dict)
    token_ids: tuple[int, ...] = ()
    deltas: int = 0
    response_id: str | None = None
    model: str | None = None
    created: int | None = None
    kind: str | None = None
    null_logprobs: int = 0

    def __add__(self, later: Folded) -> Folded:
        """Join two batches of one answer, in order."""
        args = dict(self.tool_args)
        for index, more in later.tool_args.items():
            args[index] = args.get(index, "") + more
        return Folded(
            text=self.text + later.text,
            reasoning=self.reasoning + later.reasoning,
            tool_args=args,
            token_ids=self.token_ids + later.token_ids,
            deltas=self.deltas + later.deltas,
            response_id=self.response_id or later.response_id,
            model=self.model or later.model,
            created=self.created or later.created,
            kind=self.kind or later.kind,
            null_logprobs=self.null_logprobs + later.null_logprobs,
        )


def fold(pieces: Iterable[bytes]) -> Folded:
    """Fold a batch of stream bytes that begins and ends at event boundaries, as `EventStream.feed` returns them.

    A piece that is one event like the one before costs a tenth of one that must be parsed.
    """
    folder = _Folder()
    for piece in pieces:
        folder.take(piece)
    return folder.result()


class _Folder:
    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.tools: dict[int, list[str]] = {}
        self.token_ids: list[int] = []
        self.deltas = 0
        self.null_logprobs = 0
        self.first: dict[str, Any] = {}
        self._head: bytes | tuple[()] = _NEVER
        self._foot = b""
        self._to = self.text  # where the texts of steady events belong
        self._steady: list[bytes] = []  # as JSON writes them
        self._odd: list[bytes] = []  # pieces of an event that is not whole yet

    def take(self, piece: bytes) -> None:
        if self._takes_steady(piece):
            return
        self._odd.append(piece)
        if not piece.endswith(b"\n\n"):
            return
        raw = b"".join(self._odd)
        self._odd.clear()
        if b"\r" in raw:
            self._read(raw)
            return
        for event in raw[:-2].split(b"\n\n"):  # a burst brings many at once
            if not self._takes_steady(event + b"\n\n"):
                self._read(event + b"\n\n")

    def _takes_steady(self, event: bytes) -> bool:
        head, foot = self._head, self._foot
        if event.startswith(head) and event.endswith(foot) and event.find(b'"', len(head), -len(foot)) < 0:
            self._steady.append(event[len(head) : -len(foot)])
            return True
        return False

    def _settle(self) -> None:
        """Read the texts of steady events: side by side, they are one JSON string."""
        if self._steady:
            # An empty text is no output, empty arguments of a tool call are.
            is_text = self._to is self.text or self._to is self.reasoning
            self.deltas += sum(map(bool, self._steady)) if is_text else len(self._steady)
            written = b"".join(self._steady)
            self._steady.clear()
            try:
                self._to.append(str(sse.parse(b'"%b"' % written)))
            except ValueError:  # broken UTF-8 or bare control characters: a sick backend's
                self._to.append(written.decode("utf-8", "replace"))

    def _read(self, raw: bytes) -> None:
        """Parse bytes that are no steady event; where they are one event, the next ones may be like it."""
        self._settle()
        found = list(sse.documents(raw))
        for document in found:
            self.add(document)
        plain = _plain_field(found[0]) if len(found) == 1 else None
        if plain is not None:
            name, index = plain
            self._head, self._foot = steady.split(raw, name) or (_NEVER, b"")
            if name == "arguments":
                self._to = self._tool(index)
            else:
                self._to = self.reasoning if name in _REASONING else self.text

    def add(self, document: dict[str, Any]) -> None:
        if not self.first:
            self.first = document
        if "choices" not in document:
            self._add_typed(document)
            return
        for choice in objects(document["choices"]):
            if choice.get("index", 0) == 0:
                self._add_choice(choice)

    def _add_choice(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta")
        source = delta if isinstance(delta, dict) else choice
        said = False
        for key, to in (
            ("content", self.text),
            ("text", self.text),
            ("reasoning", self.reasoning),
            ("reasoning_content", self.reasoning),
        ):
            value = source.get(key)
            if isinstance(value, str) and value:
                to.append(value)
                said = True
        for call in objects(source.get("tool_calls")):
            function = call.get("function")
            arguments = function.get("arguments") if isinstance(function, dict) else None
            self._tool(call.get("index")).append(arguments if isinstance(arguments, str) else "")
            said = True
        self.deltas += said
        ids = choice.get("token_ids")
        if isinstance(ids, list):
            self.token_ids += ids
        self.null_logprobs += has_null_logprob(choice.get("logprobs"))

    def _add_typed(self, document: dict[str, Any]) -> None:
        delta = document.get("delta")
        kind = str(document.get("type"))
        if isinstance(delta, dict):
            pairs = (("text", self.text), ("thinking", self.reasoning))
            found = [(to, delta[key]) for key, to in pairs if isinstance(delta.get(key), str)]
            if isinstance(delta.get("partial_json"), str):
                found.append((self._tool(document.get("index")), delta["partial_json"]))
        elif isinstance(delta, str):
            tool = "arguments" in kind or "input" in kind
            to = self._tool(document.get("output_index")) if tool else self.text
            found = [(self.reasoning if "reasoning" in kind else to, delta)]
        else:
            return
        for to, value in found:
            to.append(value)
        self.deltas += bool(found)

    def _tool(self, index: object) -> list[str]:
        return self.tools.setdefault(index if isinstance(index, int) else 0, [])

    def result(self) -> Folded:
        self._read(b"".join(self._odd))
        inner = self.first.get("response") or self.first.get("message")
        source = inner if isinstance(inner, dict) else self.first
        created = source.get("created", source.get("created_at"))
        return Folded(
            text="".join(self.text),
            reasoning="".join(self.reasoning),
            tool_args={index: "".join(self.tools[index]) for index in sorted(self.tools)},
            token_ids=tuple(self.token_ids),
            deltas=self.deltas,
            response_id=source.get("id"),
            model=source.get("model"),
            created=int(created) if isinstance(created, int | float) else None,
            kind=self.first.get("object"),
            null_logprobs=self.null_logprobs,
        )


def objects(value: Any) -> list[dict[str, Any]]:
    """Return the objects of an array, nothing of what is none: a backend may write anything."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _plain_field(document: dict[str, Any]) -> tuple[str, object] | None:
    """Name the field of a chunk that adds one string of the first choice and nothing else that is folded.

    Beside it stands the index of the tool call that the string belongs to, None for text.
    """
    choices = document.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        return None
    choice = choices[0]
    if choice.get("token_ids") or choice.get("logprobs") or choice.get("index"):
        return None
    delta = choice.get("delta")
    source = delta if isinstance(delta, dict) else choice
    said = [name for name in _SAYING if source.get(name)]
    if len(said) != 1:
        return None
    if said[0] != "tool_calls":
        return said[0], None
    calls = objects(source["tool_calls"])
    function = calls[0].get("function") if len(calls) == 1 else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return None
    return "arguments", calls[0].get("index")


def has_null_logprob(logprobs: Any) -> bool:
    """Say whether a logprob is null: vLLM's streams write NaN so, the sign of a broken kernel."""
    if not isinstance(logprobs, dict):
        return False
    content = logprobs.get("content")
    if isinstance(content, list):
        return any(isinstance(token, dict) and token.get("logprob", 0) is None for token in content)
    values = logprobs.get("token_logprobs")
    return isinstance(values, list) and any(value is None for value in values)
