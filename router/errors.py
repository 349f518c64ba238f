"""Everything that can go wrong, sorted by whose fault it is, with HTTP status and code.

A fault is a value as much as an exception: it carries what the client is told (status, code, type, message, param)
and what the router needs to decide (kind and phase of a backend's failure). Foreign exceptions stop at the door and
become one of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum


class FailureKind(StrEnum):
    """What a backend did wrong, as seen from here. The failure table in `policy/retry.py` has a row for each."""

    REFUSED = "refused"  # nobody listens: dead, or still loading (vLLM binds late)
    UNREACHABLE = "unreachable"  # no route, name not found
    CONNECT_TIMEOUT = "connect_timeout"
    TLS = "tls"
    STALE = "stale_keep_alive"  # a reused connection died before any answer byte
    RESET = "reset"  # the connection died on a fresh connection or within an answer
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    INTER_CHUNK_TIMEOUT = "inter_chunk_timeout"
    HUNG = "hung"  # found by the hang rule while the call was waiting
    LOST = "lost"  # its engine worked, then had nothing left to do, and this call was still without an answer
    BAD_FRAMING = "bad_framing"  # not HTTP, or a body that breaks its own framing
    TRUNCATED = "truncated"  # ended before its Content-Length, last chunk or terminal events
    GARBAGE = "garbage"  # framed well, but not what the route answers
    ERROR_EVENT = "error_event"  # an error inside a 200
    SERVER_ERROR = "server_error"  # 5xx without another meaning
    BUSY = "busy"  # 503 or 429 or 408
    AUTH = "auth"  # 401 or 403 to our key
    UNKNOWN_MODEL = "unknown_model"  # 404 for a model that it listed
    CANNOT = "cannot"  # 400: too long, modality, parser or feature missing there
    CLIENT = "client"  # any other 4xx: the client's own
    DRAINED = "drained"  # the operator took it away past the drain deadline


class Phase(StrEnum):
    """How far an attempt had come when it failed."""

    CONNECT = "connect"  # nothing was sent
    SENT = "sent"  # the request is out, no answer byte yet
    HEAD = "head"  # an answer's head has come, no body the client could use
    COMMITTED = "committed"  # the client has bytes of this answer


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what it came of, and so on to the system's own at the end: wrappers say less than what they wrap."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def settled(fault: BaseException) -> None:
    """Drop the traceback of a fault that is kept as a value, and of what led to it.

    A traceback holds its frames, and they hold the call with its whole body: a cycle that only the collector frees.
    """
    before: BaseException | None = fault
    while before is not None:
        before.__traceback__ = None
        before = before.__context__


class RouterError(Exception):
    """Base of every fault.

    Args:
        message: one sentence for a person: which backend, what happened, what to do.
        status: HTTP status that the client gets.
        code: machine-readable reason, snake_case; every code stands in docs/errors.md.
        param: the request field at fault, where there is one.
        retry_after_s: seconds after which trying again makes sense; sent as Retry-After, rounded up.
    """

    default_status = 500
    default_code = "internal_error"
    type = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = self.default_status if status is None else status
        self.code = code or self.default_code
        self.param = param
        self.retry_after_s = retry_after_s

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.status} {self.code}: {self.message})"


class ClientFault(RouterError):
    """The client's own mistake (4xx): never retried, never counted against a backend."""

    default_status = 400
    default_code = "invalid_request"
    type = "invalid_request_error"


class MethodNotAllowed(ClientFault):
    """405: the path exists, the method does not; `allow` goes into the Allow header."""

    default_status = 405
    default_code = "method_not_allowed"

    def __init__(self, method: str, path: str, allow: tuple[str, ...]) -> None:
        super().__init__(f"{method} is not possible on {path}; use {' or '.join(allow)}.")
        self.allow = allow


class Overloaded(RouterError):
    """We, or every backend that could answer, are full: try later (429 or 503 with Retry-After)."""

    default_status = 503
    default_code = "overloaded"
    type = "overloaded_error"


class NoBackend(Overloaded):
    """No backend of the model can be used now, and why."""

    default_code = "no_backend"


class ConfigFault(RouterError):
    """Something the operator must mend: a fleet file, a key, a name that does not resolve."""

    default_status = 502
    default_code = "misconfigured"
    type = "configuration_error"


class BackendFault(RouterError):
    """A backend failed; another may do.

    Args:
        backend: its name.
        kind: what it did, the row of the failure table.
        phase: how far the attempt had come, the column of the failure table.
        backend_status: the HTTP status it answered with, if it answered.
        retry_after_s: what its own Retry-After asked for.
    """

    default_status = 502
    default_code = "backend_failed"
    type = "backend_error"

    def __init__(
        self,
        message: str,
        *,
        backend: str,
        kind: FailureKind,
        phase: Phase,
        backend_status: int | None = None,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code or kind.value, param=param, retry_after_s=retry_after_s)
        self.backend = backend
        self.kind = kind
        self.phase = phase
        self.backend_status = backend_status
