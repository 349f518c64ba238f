"""Request and response heads: judge what llhttp leaves to us, strip what is for one hop, build what we send.

llhttp already refuses conflicting or repeated lengths, obs-fold, bare LF, control characters and bad chunk framing.
It leaves to us: Host rules (RFC 9112 §3.2), the version, absolute-form targets (§3.2.2), Transfer-Encoding other than
plain chunked (§6.1), and everything about what may be forwarded (RFC 9110 §7.6.1).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus

from router.errors import ClientFault

Header = tuple[bytes, bytes]
"""Name in lower case, value without surrounding space."""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
_HOST_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%!$&'()*+,;=:[]")


class Framing(Enum):
    """How a body is delimited."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"  # ends with the connection: cannot be told from a cut


@dataclass(slots=True)
class RequestHead:
    """A client's request line and headers, judged."""

    method: str
    target: str  # origin-form: path and query
    version: str  # "1.0" or "1.1"
    headers: list[Header]
    fields: dict[bytes, bytes]  # the same by name; of repeated ones the last
    keep_alive: bool
    expects_continue: bool = False
    length: int | None = None  # Content-Length; None: chunked or no body
    chunked: bool = False
    memo: dict[object, bytes] = field(default_factory=dict)  # made of these headers; kept while they stay the same

    def get(self, name: bytes) -> bytes | None:
        """The last value of a header, None where it is absent."""
        return self.fields.get(name)


@dataclass(slots=True)
class ResponseHead:
    """A backend's status line and headers, judged."""

    status: int
    headers: list[Header]
    framing: Framing
    length: int | None
    keep_alive: bool
    memo: dict[object, bytes] = field(default_factory=dict)  # as in `RequestHead`

    def get(self, name: bytes) -> bytes | None:
        """The first value of a header, None where it is absent."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


def judge_request(method: bytes, target: bytes, version: str, headers: list[Header], keep_alive: bool) -> RequestHead:
    """What a parsed request head means to us.

    Raises:
        ClientFault: 400, 417, 501 or 505, when it is not a request that we can pass on without ambiguity.
    """
    if version != "1.1" and version != "1.0":
        raise ClientFault(f"HTTP/{version} is not spoken here; use HTTP/1.1", status=505, code="http_version")
    fields = dict(headers)
    head = RequestHead(method.decode("ascii"), _origin_form(method, target), version, headers, fields, keep_alive)
    host = fields.get(b"host")
    if host is None:
        if version == "1.1":
            raise _one_host()
    elif not _HOST_BYTES.issuperset(host):
        raise ClientFault("the Host header is not a host name", code="bad_host")
    if len(fields) != len(headers):
        names = [name for name, _ in headers]
        if names.count(b"host") > 1:
            raise _one_host()
        if names.count(b"transfer-encoding") > 1:
            raise _only_chunked()
    length = fields.get(b"content-length")
    if length is not None:
        head.length = int(length)
    encoding = fields.get(b"transfer-encoding")
    if encoding is not None:
        if version == "1.0":
            raise ClientFault("Transfer-Encoding has no meaning in HTTP/1.0", code="bad_framing")
        if encoding.lower() != b"chunked":
            raise _only_chunked()
        head.chunked = True
    expect = fields.get(b"expect")
    if expect is not None:
        if expect.lower() != b"100-continue":
            raise ClientFault("only Expect: 100-continue is understood", status=417, code="expectation_failed")
        head.expects_continue = version == "1.1"
    if b"upgrade" in fields and version == "1.1":
        raise ClientFault("protocol upgrades are not served here", status=501, code="upgrade_refused")
    return head


def _one_host() -> ClientFault:
    return ClientFault("exactly one Host header is needed (RFC 9112, section 3.2)", code="bad_host")


def _only_chunked() -> ClientFault:
    return ClientFault("only Transfer-Encoding: chunked is understood", status=501, code="bad_framing")


def _origin_form(method: bytes, target: bytes) -> str:
    if method == b"CONNECT":
        raise ClientFault("CONNECT is not served here", status=501, code="upgrade_refused")
    if not target.startswith(b"/"):
        lowered = target[:8].lower()
        if lowered.startswith((b"http://", b"https://")):
            _, _, rest = target.partition(b"//")
            authority, slash, path = rest.partition(b"/")
            if not authority or b"@" in authority:  # RFC 9110 §4.2.1 and §4.2.4
                raise ClientFault("the request target names no host, or a user", code="bad_target")
            target = slash + path if slash else b"/"
        elif not (target == b"*" and method == b"OPTIONS"):
            raise ClientFault("the request target is not a path", code="bad_target")
    try:
        return target.decode("ascii")
    except UnicodeDecodeError:
        raise ClientFault("the request target must be ASCII; percent-encode it", code="bad_target") from None


def connection_names(headers: Iterable[Header]) -> frozenset[bytes]:
    """Names that a Connection header declares to be for this hop only, lower case (RFC 9110 §7.6.1)."""
    named: set[bytes] = set()
    for name, value in headers:
        if name == b"connection":
            named.update(token.strip().lower() for token in value.split(b","))
    return frozenset(named)


def end_to_end(headers: list[Header], drop: frozenset[bytes]) -> list[Header]:
    """The headers that may be passed on, in order, repeats kept; without `drop` (which holds the hop-by-hop ones) and
    those that Connection names.
    """
    for name, value in headers:
        if name == b"connection" and value.lower() not in (b"keep-alive", b"close"):
            drop = drop | connection_names(headers)
            break
    return [header for header in headers if header[0] not in drop]


def request_bytes(method: str, target: str, lines: bytes, body_length: int | None) -> bytes:
    """A request head for a backend, ready to be written before its body; `lines` are its finished headers."""
    line = f"{method} {target} HTTP/1.1\r\n".encode("ascii")
    if body_length is None:
        return b"%b%b\r\n" % (line, lines)
    return b"%b%bcontent-length: %d\r\n\r\n" % (line, lines, body_length)


def header_lines(headers: Iterable[Header]) -> bytes:
    """Headers, ready to be written."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


def status_line(status: int) -> bytes:
    """The status line; a status without a registered phrase gets an empty one, which is allowed."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


def response_bytes(status: int, headers: Iterable[Header] | bytes, framing: bytes) -> bytes:
    """An answer's head for a client; `framing` holds the finished length, encoding and Connection lines."""
    lines = headers if isinstance(headers, bytes) else header_lines(headers)
    return b"%b%b%b\r\n" % (status_line(status), lines, framing)
