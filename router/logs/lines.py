"""What a log line says: events to fields, fields to JSON or to a line for a terminal.

No line holds a prompt, a key or a header of the client's; what clients do choose (model name, request id) is cut.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import lru_cache
from typing import Any

import orjson

from router.events import (
    Attempt,
    BackendLoading,
    BuildChanged,
    CallEnded,
    CanaryEnded,
    Event,
    GateChanged,
    HealthChanged,
    IntentChanged,
    KernelObserved,
    Notice,
    Outcome,
    QualityChanged,
    Reloaded,
)

LONGEST_TEXT = 200  # characters of anything a client chose
LONGEST_DETAIL = 2_000  # characters of anything else, a traceback included


class LogFormat(StrEnum):
    """How lines look: for machines, or for a person at a terminal."""

    JSON = "json"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Record:
    """A line that did not come from an event: of the standard library's loggers, or of the log itself."""

    level: str
    event: str
    message: str
    logger: str = ""


Entry = Event | Record
Fields = dict[str, Any]


def render_json(at: float, entry: Entry) -> bytes:
    """One JSON object and a newline."""
    line = _fields(at, entry)
    try:
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a lone surrogate in something that a client sent: orjson refuses it, escapes carry it
        return json.dumps(line, default=str).encode() + b"\n"


def render_text(at: float, entry: Entry) -> bytes:
    """One line for a person; control characters are escaped, so that no client can write to the terminal."""
    if isinstance(entry, CallEnded):
        parts = _call_text(at, entry)
    elif isinstance(entry, Record):
        return _record_text(at, entry)
    else:
        line = _fields(at, entry)
        level = "" if line["level"] == "info" else f"{line['level'].upper()} "
        shown = (f"{key}={_short(value)}" for key, value in line.items() if key not in _HEAD and value not in _EMPTY)
        parts = f"{_clock(at)} {level}{line['event']} {' '.join(shown)}"
    return _line(parts)


RENDER: Mapping[LogFormat, Callable[[float, Entry], bytes]] = {
    LogFormat.JSON: render_json,
    LogFormat.TEXT: render_text,
}

# What a change of state is called, and how loud it is. Events that are no change of state are not here.
_CHANGES: Mapping[type, tuple[str, Callable[[Any], str]]] = {
    HealthChanged: ("health", lambda e: "warning" if e.new in ("ejected", "suspect") else "info"),
    IntentChanged: ("intent", lambda e: "info"),
    QualityChanged: ("quality", lambda e: "warning" if e.new in ("flagged", "suspect") else "info"),
    GateChanged: ("gate", lambda e: "info"),
    KernelObserved: ("kernel", lambda e: "warning" if e.matches is False else "info"),
    BuildChanged: ("build", lambda e: "info"),
    BackendLoading: ("loading", lambda e: "info"),
    Reloaded: ("reload", lambda e: "info" if e.ok else "error"),
    CanaryEnded: ("canary", lambda e: "info"),
    Notice: ("notice", lambda e: "error" if e.alarm else "info"),
}
LOGGED: frozenset[type] = frozenset((CallEnded, *_CHANGES))

_HEAD = frozenset(("time", "level", "event"))
_EMPTY: tuple[object, ...] = (None, "", (), [])


def _fields(at: float, entry: Entry) -> Fields:
    if isinstance(entry, CallEnded):
        return _call(at, entry)
    if isinstance(entry, Record):
        line: Fields = {"time": _iso(at), "level": entry.level, "event": entry.event}
        if entry.logger:
            line["logger"] = entry.logger
        return line | {"message": entry.message[:LONGEST_DETAIL]}
    kind: type = type(entry)
    word, level = _CHANGES[kind]
    line = {"time": _iso(at), "level": level(entry), "event": word}
    for name in _names(kind):
        line[name] = _value(getattr(entry, name))
    return line


def _call(at: float, call: CallEnded) -> Fields:
    last = call.attempts[-1] if call.attempts else None
    line: Fields = {
        "time": _iso(at),
        "level": "warning" if call.outcome in (Outcome.FAILED, Outcome.BROKEN) else "info",
        "event": "call",
        "request_id": call.request_id[:LONGEST_TEXT],
        "client": call.client,
        "route": call.route,
        "model": call.model,
        "asked": call.asked[:LONGEST_TEXT],
        "stream": call.stream,
        "outcome": call.outcome.value,
        "status": call.status,
        "code": call.code,
        "backend": last.backend if last else None,
        "kernel": last.kernel if last else None,
        "reason": last.reason if last else None,
        "duration_s": round(call.duration_s, 4),
        "queued_s": round(call.queued_s, 4),
        "ttft_s": _rounded(call.ttft_s),
        "predicted_ttft_s": _rounded(call.predicted_ttft_s),
        "predicted_end_s": _rounded(call.predicted_end_s),
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": call.completion_tokens,
        "cached_tokens": call.cached_tokens,
        "bytes_in": call.bytes_in,
        "bytes_out": call.bytes_out,
        "finish_reasons": call.finish_reasons,
        "session": call.session,
        "background": call.background,
    }
    if len(call.attempts) > 1 or (last is not None and last.failure is not None):
        line["attempts"] = [_attempt(attempt) for attempt in call.attempts]
    return line


def _attempt(attempt: Attempt) -> Fields:
    return {
        "backend": attempt.backend,
        "kernel": attempt.kernel,
        "reason": attempt.reason,
        "duration_s": round(attempt.duration_s, 4),
        "ttft_s": _rounded(attempt.ttft_s),
        "failure": attempt.failure,
        "phase": attempt.phase,
        "detail": attempt.detail[:LONGEST_DETAIL],
        "resumed_at": attempt.resumed_at,
    }


def _record_text(at: float, record: Record) -> bytes:
    """A message of several lines (a traceback) stays readable: only its line ends are believed."""
    first, *more = record.message[:LONGEST_DETAIL].splitlines() or [""]
    start = f"{_clock(at)} {record.level.upper()} {record.logger or record.event}: {first}"
    return b"".join(map(_line, (start, *(f"    {line}" for line in more))))


def _line(text: str) -> bytes:
    return _printable(text).encode(errors="backslashreplace") + b"\n"


def _call_text(at: float, call: CallEnded) -> str:
    where = "->".join(f"{a.backend}({a.failure})" if a.failure else a.backend for a in call.attempts) or "-"
    ttft = "" if call.ttft_s is None else f" ttft {call.ttft_s:.3f}s"
    tokens = f" {call.prompt_tokens or '?'}+{call.completion_tokens}tok" if call.completion_tokens is not None else ""
    code = f" {call.code}" if call.code else ""
    return (
        f"{_clock(at)} {call.status} {call.outcome}{code} {call.asked[:LONGEST_TEXT]} {where} "
        f"{call.duration_s:.2f}s{ttft}{tokens} {call.request_id[:LONGEST_TEXT]}"
    )


@lru_cache(maxsize=16)
def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def _value(value: object) -> object:
    if isinstance(value, str):
        return value[:LONGEST_DETAIL]
    return round(value, 4) if isinstance(value, float) else value


def _short(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return json.dumps(text, ensure_ascii=False) if " " in text else text


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


@lru_cache(maxsize=4)
def _local_second(second: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(second))


def _iso(at: float) -> str:
    """RFC 3339 in UTC with milliseconds; the date is formatted once a second."""
    return f"{_second(int(at))}.{int(at % 1 * 1000):03d}Z"


def _clock(at: float) -> str:
    return _local_second(int(at))
