"""Split an event around the one string in it that changes from event to event.

Servers write every chunk of an answer alike: what stands before the text (*head*) and after it (*foot*) is the same
bytes again and again. An event with a known head and foot, and no quote between them, holds no surprise.
"""

from __future__ import annotations

import re

_FIELDS = ("content", "text", "delta", "reasoning", "reasoning_content", "arguments", "thinking", "partial_json")
_OPENING = {name: re.compile(rb'"%b"\s*:\s*"' % name.encode()) for name in _FIELDS}


def split(event: bytes, field: str) -> tuple[bytes, bytes] | None:
    """Return the head and foot of a whole event around the string of `field`; None where it cannot be told.

    The last string of that name counts: a role or a name may stand before it.
    """
    opening = _OPENING.get(field)
    if opening is None or b"\r" in event or not event.endswith(b"\n\n"):
        return None
    starts = [found.end() for found in opening.finditer(event)]
    if not starts:
        return None
    start = starts[-1]
    end = event.find(b'"', start)
    if end < 0 or b"\\" in event[start:end]:
        return None
    return event[:start], event[end:]
