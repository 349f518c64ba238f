"""The small parts of a multipart body, found by offset; the file in it is never decoded or copied.

RFC 7578 (form-data) over RFC 2046 section 5.1.1 (boundaries).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from router.errors import ClientFault

_BOUNDARY = re.compile(rb'boundary=(?:"([^"]{1,70})"|([^\s;,"]{1,70}))', re.IGNORECASE)
_NAME = re.compile(rb'^content-disposition:[^\r\n]*?[;\s]name="?([^";\r\n]*)"?', re.IGNORECASE | re.MULTILINE)
_HEADERS_LIMIT = 16 * 1024


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its form field and where its content begins and ends."""

    name: str
    start: int
    end: int


def parts(body: bytes, content_type: bytes) -> list[Part]:
    """Find every part of a multipart/form-data body, in order.

    Raises:
        ClientFault: 415 for another content type, 400 where boundary or framing is broken.
    """
    kind = content_type.partition(b";")[0].strip().lower()
    if kind != b"multipart/form-data":
        raise ClientFault(
            f"Expected multipart/form-data, got {kind.decode('latin-1')[:100] or 'no content type'}.",
            status=415,
            code="unsupported_media_type",
        )
    named = _BOUNDARY.search(content_type)
    if named is None:
        raise ClientFault("The multipart content type has no boundary.", code="invalid_multipart")
    delimiter = b"--" + (named[1] or named[2])
    start = 0 if body.startswith(delimiter) else body.find(b"\r\n" + delimiter) + 2
    if start < 2 and not body.startswith(delimiter):
        raise ClientFault("The multipart body does not contain its boundary.", code="invalid_multipart")
    return list(_walk(body, delimiter, start))


def _walk(body: bytes, delimiter: bytes, at: int) -> list[Part]:
    found: list[Part] = []
    at += len(delimiter)
    while body[at : at + 2] != b"--":
        headers_end = body.find(b"\r\n\r\n", at, at + _HEADERS_LIMIT)
        end = body.find(b"\r\n" + delimiter, headers_end + 2)
        if headers_end < 0 or end < 0:
            raise ClientFault("The multipart body ends within a part.", code="invalid_multipart")
        name = _NAME.search(body, at, headers_end)
        # an empty part's closing delimiter shares its line break with the headers' end
        found.append(
            Part(name[1].decode("utf-8", "replace") if name else "", headers_end + 4, max(end, headers_end + 4))
        )
        at = end + 2 + len(delimiter)
    return found
