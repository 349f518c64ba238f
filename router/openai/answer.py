"""What a whole JSON answer says of itself: usage, id, finish reasons, fingerprint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from router.openai.usage import Usage, read_usage


@dataclass(slots=True)  # one per answer; nobody changes it
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
    # orjson makes nothing but plain dicts, lists and strings, so `__class__ is` tells all (and costs no call).
    usage = document.get("usage")
    choices = document.get("choices")
    reasons: list[str] = []
    for choice in choices if choices.__class__ is list else ():
        reason = choice.get("finish_reason") if choice.__class__ is dict else None
        if reason.__class__ is str:
            reasons.append(reason)
    reason = document.get("stop_reason")
    if reason.__class__ is str:
        reasons.append(reason)
    response_id, fingerprint = document.get("id"), document.get("system_fingerprint")
    return Answer(
        read_usage(usage) if usage.__class__ is dict else None,
        response_id if response_id.__class__ is str else None,
        tuple(reasons),
        fingerprint if fingerprint.__class__ is str else None,
    )
