"""Why a log could not be read, and the one command that reads one on another machine."""

from __future__ import annotations

from enum import StrEnum

from router.vllm.logs import MARKS

SCAN = 512 << 20  # bytes of a far file that are searched
LINES = 20_000  # lines sent of those found


class Reason(StrEnum):
    """A state to show, never a fault of the backend."""

    BAD_SOURCE = "bad_source"  # the source string is none
    FORBIDDEN = "forbidden"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    NOT_FOUND = "not_found"  # no such container, file or socket
    NOT_RUNNING = "not_running"
    TIMEOUT = "timeout"
    FAILED = "failed"


class Unreadable(Exception):
    """A log cannot be read; carries a reason and one sentence."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def filtered_tail(path: str) -> list[str]:
    """A command for a POSIX shell that prints the lines of a file that say something, whatever its size.

    Exits with 44 where the file cannot be read. The path is an argument, never part of the script.
    """
    return ["sh", "-c", f'test -r "$1" || exit 44; tail -c {SCAN} "$1" | {FILTER}', "sh", path]


def _filter() -> str:
    patterns = " ".join(f"-e '{mark}'" for mark in MARKS)
    return f"LC_ALL=C grep -a -F {patterns} | tail -n {LINES}"


FILTER = _filter()
"""Lines that say something, newest kept; none of the marks holds a quote."""
