"""The heads that leave: a client's request for a backend, a backend's answer for a client.

Everything end-to-end passes in order, repeats kept. Named changes only: Host is the backend's, bodies are never
compressed on the way, credentials are the backend's own, the request id is ours or the client's, and answers say who
gave them.
"""

from __future__ import annotations

import re

from router.config import BackendConfig
from router.errors import ClientFault
from router.wire.head import HOP_BY_HOP, Header, RequestHead, ResponseHead, end_to_end, request_bytes

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
    headers = end_to_end(head.headers, _OURS)
    headers.append((b"host", authority))
    headers.append((b"accept-encoding", b"identity"))
    headers.append((b"x-request-id", request_id.encode("ascii")))
    if config.api_key is not None:
        headers.append((b"authorization", b"Bearer " + config.api_key.get_secret_value().encode()))
    elif not keys_are_ours:
        # A vLLM knows only Bearer, on /v1/messages too, where Anthropic clients send x-api-key.
        value = head.get(b"authorization")
        if value is None and (key := head.get(b"x-api-key")) is not None:
            value = b"Bearer " + key
        if value is not None:
            headers.append((b"authorization", value))
    return request_bytes(head.method, head.target, headers, length)


def from_backend(head: ResponseHead, request_id: str, backend: str, kernel: str, attempts: int) -> list[Header]:
    """The answer's headers for a client."""
    headers = end_to_end(head.headers, _ANSWER_OURS)
    headers += about(request_id, backend, kernel, attempts)
    content_type = head.get(b"content-type")
    if content_type is not None and content_type.startswith(b"text/event-stream"):
        headers.append(NO_BUFFER)  # nginx and others in front would hold events back
        if head.get(b"cache-control") is None:
            headers.append(NO_CACHE)
    return headers


def about(request_id: str, backend: str = "", kernel: str = "", attempts: int = 0) -> list[Header]:
    """Who answered, in headers."""
    headers = [(b"x-request-id", request_id.encode("ascii"))]
    if backend:
        headers += [
            (b"x-router-backend", backend.encode("ascii", "replace")),
            (b"x-router-kernel", kernel.encode("ascii", "replace")),
            (b"x-router-attempts", b"%d" % attempts),
        ]
    return headers


def retry_after_s(head: ResponseHead) -> float | None:
    """What a Retry-After in seconds asks for; dates are not looked at (no vLLM sends one), nor is nonsense."""
    value = head.get(b"retry-after")
    if value is None or not value.isdigit() or len(value) > 6:
        return None
    return float(value)
