"""Read the last start of a vLLM out of a log file of any size: its beginning, and its newest lines.

A server that has run for a week has its start-up lines gigabytes back. They are searched for backwards, block by block;
only a window after them and the file's end are kept.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from router.vllm.logs import START_MARKS

BLOCK = 4 << 20  # bytes searched at a time
HEAD = 8 << 20  # bytes kept from the start-up on: loading and tuning included
TAIL = 4 << 20  # bytes kept of the end: what broke lately
LEAD = 64 << 10  # bytes kept before the mark: the banner and its neighbours
SCAN = 512 << 20  # bytes searched for the start-up, at most

_NEEDLES = tuple(mark.encode() for mark in START_MARKS)
_OVERLAP = max(map(len, _NEEDLES))


def read_last_start(path: Path, scan: int = SCAN) -> bytes:
    """Read what counts of a log file: at most HEAD + TAIL + LEAD bytes, wherever the last start lies.

    Where the file holds no start-up, the one it was rotated from (`path.1`) is looked at too.

    Raises:
        OSError: it cannot be read.
    """
    text = _window(path, scan)
    before = path.with_name(f"{path.name}.1")
    if not holds_start(text) and before.is_file():
        older = _window(before, scan)
        return older + b"\n" + text if holds_start(older) else text
    return text


def holds_start(text: bytes) -> bool:
    """Whether a start-up's marks are in there."""
    return any(needle in text for needle in _NEEDLES)


def _window(path: Path, scan: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        try:
            mark = _last_start(file, size, scan)
            if mark is None:
                return _read_at(file, max(size - TAIL, 0), TAIL)
            begin = max(mark - LEAD, 0)
            if size - begin <= HEAD + TAIL:
                return _read_at(file, begin, HEAD + TAIL)
            return _read_at(file, begin, HEAD) + b"\n" + _read_at(file, size - TAIL, TAIL)
        finally:
            _forget(file)


def _last_start(file: BinaryIO, size: int, scan: int) -> int | None:
    """Where the last start begins: from its newest mark back over those that stand close before it."""
    end, floor = size, max(size - scan, 0)
    while end > floor:
        begin = max(end - BLOCK, floor)
        block = _read_at(file, begin, end - begin + _OVERLAP)
        found = max(block.rfind(needle) for needle in _NEEDLES)
        if found >= 0:
            return begin + found
        end = begin
    return None


def _read_at(file: BinaryIO, offset: int, length: int) -> bytes:
    """Read up to `length` bytes; fewer where the file ends, also because it was truncated meanwhile."""
    file.seek(offset)
    parts: list[bytes] = []
    while length > 0 and (part := file.read(length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _forget(file: BinaryIO) -> None:
    """Give the page cache back: on a Spark it is the very memory that vLLM wants."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
