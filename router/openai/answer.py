"""What a whole JSON answer says of itself: usage, id, finish reasons, fingerprint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from router.openai.usage import Usage, read_usage


@dataclass(frozen=True, slots=True)
class Answer:
    """The few fields of an answer that the router looks at; the bytes pass as they are."""

    usage: Usage | None = None
    response_id: str | None = None
    finish_reasons: tuple[str, ...] = ()
    fingerprint: str | None = None


def read_answer(body: bytes) -> Answer:
    """Read a whole JSON answer of any route.

    Raises:
        ValueError: it is not one whole JSON document.
    """
    document: Any = orjson.loads(body)
    if not isinstance(document, dict):
        return Answer()
    usage = document.get("usage")
    choices = document.get("choices")
    reasons: list[str] = []
    for choice in choices if isinstance(choices, list) else ():
        reason = choice.get("finish_reason") if isinstance(choice, dict) else None
        if isinstance(reason, str):
            reasons.append(reason)
    if isinstance(document.get("stop_reason"), str):
        reasons.append(document["stop_reason"])
    return Answer(
        read_usage(usage) if isinstance(usage, dict) else None,
        _text(document.get("id")),
        tuple(reasons),
        _text(document.get("system_fingerprint")),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
