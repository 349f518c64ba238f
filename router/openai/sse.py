"""The grammar of event streams: where events end, and what data they carry (WHATWG HTML, "Server-sent events").

Lines end with LF, CRLF or CR; a blank line ends an event; several `data` lines are joined with LF; a line that
begins with a colon is a comment. Everything here works on bytes and never changes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import orjson

# A CR at the very end is not counted yet: an LF may follow and belong to it.
_NEWLINE = rb"(?:\r\n|\n|\r(?=[^\n]))"
_BLANK_LINE = re.compile(_NEWLINE + _NEWLINE)
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


def event_ends(buffer: bytes, at: int = 0) -> Iterator[int]:
    """Yield the offset after each complete event at or after `at`."""
    if b"\r" in buffer:
        for blank in _BLANK_LINE.finditer(buffer, at):
            yield blank.end()
        return
    at = buffer.find(b"\n\n", at)
    while at >= 0:
        yield at + 2
        at = buffer.find(b"\n\n", at + 2)


def data_of(event: bytes) -> bytes | None:
    """Return the data of an event, None where it has none: comments, blank lines, other fields."""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2 and b"\r" not in event:
        return event[6:-2]
    lines = [value for name, value in _fields(event) if name == b"data"]
    return b"\n".join(lines) if lines else None


def name_of(event: bytes) -> str:
    """Return what the `event:` line says, "" where there is none."""
    name = ""
    for field, value in _fields(event):
        if field == b"event":
            name = value.decode("utf-8", "replace")
    return name


def parse(data: bytes) -> Any:
    """Parse an event's data as JSON; NaN and Infinity are let through, as Python servers write them.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json.loads(data.decode("utf-8"))


def documents(stream: bytes) -> Iterator[dict[str, Any]]:
    """Yield the JSON object of each complete event that carries one; everything else is skipped."""
    at = 0
    for end in event_ends(stream):
        data = data_of(stream[at:end])
        at = end
        if data is None or not data.startswith(b"{"):
            continue
        try:
            document = parse(data)
        except (ValueError, RecursionError):
            continue
        if isinstance(document, dict):
            yield document


def _fields(event: bytes) -> Iterator[tuple[bytes, bytes]]:
    for line in _LINE_END.split(event.removeprefix(_BOM)):
        name, _, value = line.partition(b":")
        if name:
            yield name, value.removeprefix(b" ")
