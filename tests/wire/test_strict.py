"""What is refused before anybody works for it, and what odd but valid requests become."""

import pytest

from tests.wire.talk import Stage, statuses

HOST = b"Host: h\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: h\r\n"

REFUSED = {
    "both length and chunked": (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked and length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
    "two different lengths": (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
    "the same length twice": (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    "a list of lengths": (POST + b"Content-Length: 3, 3\r\n\r\nabc", 400),
    "a signed length": (POST + b"Content-Length: +3\r\n\r\nabc", 400),
    "a negative length": (POST + b"Content-Length: -3\r\n\r\nabc", 400),
    "a hexadecimal length": (POST + b"Content-Length: 0x3\r\n\r\nabc", 400),
    "a length with a space": (POST + b"Content-Length: 1 2\r\n\r\nabc", 400),
    "an empty length": (POST + b"Content-Length: \r\n\r\n", 400),
    "a length beyond 64 bits": (POST + b"Content-Length: 99999999999999999999999\r\n\r\n", 400),
    "gzip before chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "chunked twice": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "an unknown coding": (POST + b"Transfer-Encoding: xchunked\r\n\r\n", 501),
    "chunked before identity": (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
    "a space before the colon": (POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    "a vertical tab around chunked": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "chunked in HTTP/1.0": (b"POST /p HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "a folded line": (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", 400),
    "a fold before the first header": (b"GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400),
    "bare LF after the request line": (b"GET / HTTP/1.1\nHost: h\r\n\r\n", 400),
    "bare LF after a header": (b"GET / HTTP/1.1\r\nHost: h\nX: a\r\n\r\n", 400),
    "bare LF at the end of the head": (b"GET / HTTP/1.1\r\nHost: h\r\n\n", 400),
    "bare CR in a value": (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", 400),
    "NUL in a value": (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n", 400),
    "NUL in a name": (b"GET / HTTP/1.1\r\nHost: h\r\nX\0: a\r\n\r\n", 400),
    "NUL in the target": (b"GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "an empty name": (b"GET / HTTP/1.1\r\nHost: h\r\n: a\r\n\r\n", 400),
    "a header without a colon": (b"GET / HTTP/1.1\r\nHost: h\r\nnonsense\r\n\r\n", 400),
    "a raw byte in the target": (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", 400),
    "a host with a space": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "a host with a path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "a host with a user": (b"GET / HTTP/1.1\r\nHost: me@h\r\n\r\n", 400),
    "two hosts in one": (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    "a target that is no path": (b"GET p HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "an absolute target without a host": (b"GET http:///a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "an absolute target with a user": (b"GET http://me@x/a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "an asterisk for GET": (b"GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "CONNECT": (b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", 501),
    "a websocket": (
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        501,
    ),
    "cleartext HTTP/2 asked for": (
        POST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc",
        501,
    ),
    "an upgrade that Connection does not name": (b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\n\r\n", 501),
    "another expectation": (POST + b"Expect: 200-ok\r\nContent-Length: 3\r\n\r\nabc", 417),
    "HTTP/2.0 in a request line": (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: h\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 505),
    "TLS on the plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "a method nobody knows": (b"BREW / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "a method in lower case": (b"get / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "a bad chunk size": (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    "a chunk size with a sign": (POST + b"Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n", 400),
    "a chunk size with a prefix": (POST + b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", 400),
    "a chunk size beyond 64 bits": (POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n", 400),
    "a chunk longer than said": (POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", 400),
    "bare LF after a chunk size": (POST + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", 400),
    "bare LF after a chunk": (POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n", 400),
    "a length among the trailers": (
        POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 9\r\n\r\n",
        400,
    ),
    "bare LF in a chunk extension": (POST + b"Transfer-Encoding: chunked\r\n\r\n3;a\nabc\r\n0\r\n\r\n", 400),
}


@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
@pytest.mark.parametrize("name", REFUSED)
async def test_it_is_refused_and_the_connection_closed(name: str, bytewise: bool) -> None:
    data, status = REFUSED[name]
    stage = Stage()
    raw = await stage.says(data, bytewise=bytewise)
    assert statuses(raw.got) == [status], raw.got
    assert b"connection: close" in raw.got
    assert stage.handler.requests == []
    raw.say(b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n")
    await stage.settle()
    assert stage.handler.requests == []
    await stage.over(raw)


async def test_the_preface_of_http_2_is_refused() -> None:
    stage = Stage()
    raw = await stage.says(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert statuses(raw.got) in ([400], [505])
    await stage.over(raw)


TAKEN = {
    "a plain one": (b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n", b"/a"),
    "an absolute target, whose host counts for nothing": (b"GET http://x/a?b HTTP/1.1\r\nHost: h\r\n\r\n", b"/a?b"),
    "an absolute target without a path": (b"GET http://x HTTP/1.1\r\nHost: h\r\n\r\n", b"/"),
    "OPTIONS for everything": (b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", b"*"),
    "an empty line before it": (b"\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n", b"/a"),
    "an empty host": (b"GET /a HTTP/1.1\r\nHost:\r\n\r\n", b"/a"),
    "an IPv6 host": (b"GET /a HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", b"/a"),
    "HTTP/1.0 without a host": (b"GET /a HTTP/1.0\r\n\r\n", b"/a"),
    "chunks": (POST + b"Transfer-Encoding: Chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", b"/pabc"),
    "chunk extensions and trailers, dropped": (
        POST + b'Transfer-Encoding: chunked\r\n\r\n2;a=b;c="d"\r\nab\r\n0;z\r\nX: y\r\n\r\n',
        b"/pab",
    ),
    "spaces around a length": (POST + b"Content-Length:  \t3 \r\n\r\nabc", b"/pabc"),
    "Latin-1 in a value": (b"GET /a HTTP/1.1\r\nHost: h\r\nX: \xe9\r\n\r\n", b"/a"),
}


@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
@pytest.mark.parametrize("name", TAKEN)
async def test_it_is_taken(name: str, bytewise: bool) -> None:
    data, said = TAKEN[name]
    stage = Stage()
    raw = await stage.says(data, bytewise=bytewise)
    assert statuses(raw.got) == [200], raw.got
    assert raw.got.endswith(b"\r\n\r\n" + said)
    assert all(name != b"x" or value == b"\xe9" for name, value in stage.handler.requests[0].head.headers)
    await stage.over(raw)
