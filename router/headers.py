"""The heads that leave: a client's request for a backend, a backend's answer for a client.

Everything end-to-end passes in order, repeats kept. Named changes only: Host is the backend's, bodies are never
compressed on the way, credentials are the backend's own, the request id is ours or the client's, and answers say who
gave them.
"""

from __future__ import annotations

import re

from router.config import BackendConfig
from router.errors import ClientFault
from router.wire.head import HOP_BY_HOP, Header, RequestHead, ResponseHead, end_to_end, header_lines, request_bytes

_OURS = HOP_BY_HOP | frozenset(
    {
        b"host",
        b"content-length",
        b"expect",
        b"accept-encoding",
        b"authorization",
        b"x-api-key",
        b"x-request-id",
        b"x-router-backend",
        b"x-router-pin",
    }
)
_ANSWER_OURS = HOP_BY_HOP | frozenset(
    {
        b"content-length",
        b"x-request-id",
        b"x-router-backend",
        b"x-router-kernel",
        b"x-router-attempts",
        b"access-control-allow-origin",
        b"access-control-allow-credentials",
    }
)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}\Z")
_SESSION_HEADERS = (b"x-session-affinity", b"x-session-id", b"session-id", b"x-openwebui-chat-id")
_SESSION_NAMES = frozenset(_SESSION_HEADERS)
EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")
NO_BUFFER = (b"x-accel-buffering", b"no")
NO_CACHE = (b"cache-control", b"no-cache")


def request_id(head: RequestHead, fresh: str) -> str:
    """The client's own id where it is one that can be logged and forwarded, else a fresh one."""
    given = head.get(b"x-request-id")
    if given is not None and _REQUEST_ID.match(given):
        return given.decode("ascii")
    return fresh


def session(head: RequestHead) -> str | None:
    """An opaque key of the conversation from the headers that clients already send, None where there is none."""
    if _SESSION_NAMES.isdisjoint(head.fields):
        return None
    for name in _SESSION_HEADERS:
        value = head.get(name)
        if value:
            return value[:256].decode("latin-1")
    return None


def pinned(head: RequestHead) -> str | None:
    """The backend that the client names itself."""
    value = head.get(b"x-router-backend")
    return value.decode("latin-1") if value else None


def bearer(head: RequestHead) -> bytes | None:
    """The client's key: `Authorization: Bearer`, or `x-api-key` as Anthropic clients send it.

    Raises:
        ClientFault: 401, for another scheme.
    """
    value = head.get(b"authorization")
    if value is not None:
        scheme, _, key = value.partition(b" ")
        if scheme.lower() != b"bearer":
            raise ClientFault("use Authorization: Bearer KEY", status=401, code="invalid_api_key")
        return key.strip()
    return head.get(b"x-api-key")


def to_backend(
    head: RequestHead,
    config: BackendConfig,
    authority: bytes,
    length: int | None,
    request_id: str,
    *,
    keys_are_ours: bool,
) -> bytes:
    """The request head for a backend.

    Args:
        length: of the (edited) body; None where the request has none.
        keys_are_ours: clients authenticate to the router, so their key is not for the backend.
    """
    passed = head.memo.get(b"passed")
    if passed is None:
        passed = head.memo[b"passed"] = header_lines(end_to_end(head.headers, _OURS))
    key = b""
    if config.api_key is not None:
        key = b"authorization: Bearer %b\r\n" % config.api_key.get_secret_value().encode()
    elif not keys_are_ours:
        # A vLLM knows only Bearer, on /v1/messages too, where Anthropic clients send x-api-key.
        value = head.get(b"authorization")
        if value is None and (given := head.get(b"x-api-key")) is not None:
            value = b"Bearer " + given
        if value is not None:
            key = b"authorization: %b\r\n" % value
    lines = b"%bhost: %b\r\naccept-encoding: identity\r\nx-request-id: %b\r\n%b" % (
        passed,
        authority,
        request_id.encode("ascii"),
        key,
    )
    return request_bytes(head.method, head.target, lines, length)


def from_backend(head: ResponseHead, request_id: str, backend: str, kernel: str, attempts: int) -> bytes:
    """The answer's headers for a client, ready to be written."""
    who = (backend, kernel, attempts)
    lines = head.memo.get(who)
    if lines is None:
        lines = head.memo[who] = header_lines(_answer_headers(head, *who))
    return b"%bx-request-id: %b\r\n" % (lines, request_id.encode("ascii"))


def _answer_headers(head: ResponseHead, backend: str, kernel: str, attempts: int) -> list[Header]:
    headers = end_to_end(head.headers, _ANSWER_OURS)
    headers += _who(backend, kernel, attempts)
    content_type = head.get(b"content-type")
    if content_type is not None and content_type.startswith(b"text/event-stream"):
        headers.append(NO_BUFFER)  # nginx and others in front would hold events back
        if head.get(b"cache-control") is None:
            headers.append(NO_CACHE)
    return headers


def _who(backend: str, kernel: str, attempts: int) -> list[Header]:
    return [
        (b"x-router-backend", backend.encode("ascii", "replace")),
        (b"x-router-kernel", kernel.encode("ascii", "replace")),
        (b"x-router-attempts", b"%d" % attempts),
    ]


def about(request_id: str) -> list[Header]:
    """Which call this was, in headers."""
    return [(b"x-request-id", request_id.encode("ascii"))]


def retry_after_s(head: ResponseHead) -> float | None:
    """What a Retry-After in seconds asks for; dates are not looked at (no vLLM sends one), nor is nonsense."""
    value = head.get(b"retry-after")
    if value is None or not value.isdigit() or len(value) > 6:
        return None
    return float(value)
