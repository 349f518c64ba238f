"""Odd requests beyond those that tests/wire/test_strict.py refuses or takes: for comparing with another parser."""

GET = b"GET /a HTTP/1.1\r\nHost: h\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: h\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH = POST + b"Content-Length: 3\r\n"

ODD: dict[str, bytes] = {
    # the request line
    "two spaces after the method": b"GET  /a HTTP/1.1\r\nHost: h\r\n\r\n",
    "two spaces before the version": b"GET /a  HTTP/1.1\r\nHost: h\r\n\r\n",
    "a tab after the method": b"GET\t/a HTTP/1.1\r\nHost: h\r\n\r\n",
    "a tab before the version": b"GET /a\tHTTP/1.1\r\nHost: h\r\n\r\n",
    "a space before the method": b" GET /a HTTP/1.1\r\nHost: h\r\n\r\n",
    "a space after the version": b"GET /a HTTP/1.1 \r\nHost: h\r\n\r\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
    "a tab in the target": b"GET /a\tb HTTP/1.1\r\nHost: h\r\n\r\n",
    "a form feed in the target": b"GET /a\x0cb HTTP/1.1\r\nHost: h\r\n\r\n",
    "DEL in the target": b"GET /a\x7f HTTP/1.1\r\nHost: h\r\n\r\n",
    "a fragment in the target": b"GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n",
    "quotes and braces in the target": b'GET /"{a}|\\^` HTTP/1.1\r\nHost: h\r\n\r\n',
    "dots in the target": b"GET /a/../b HTTP/1.1\r\nHost: h\r\n\r\n",
    "a percent that encodes nothing": b"GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n",
    "an empty query": b"GET /a? HTTP/1.1\r\nHost: h\r\n\r\n",
    "two slashes": b"GET //x/a HTTP/1.1\r\nHost: h\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\nHost: h\r\n\r\n",
    "an empty target": b"GET  HTTP/1.1\r\nHost: h\r\n\r\n",
    "no version": b"GET /a\r\nHost: h\r\n\r\n",
    "a version in lower case": b"GET /a http/1.1\r\nHost: h\r\n\r\n",
    "a version without a number": b"GET /a HTTP/\r\nHost: h\r\n\r\n",
    "a version of one digit": b"GET /a HTTP/1\r\nHost: h\r\n\r\n",
    "a version of three numbers": b"GET /a HTTP/1.1.1\r\nHost: h\r\n\r\n",
    "a version with a zero in front": b"GET /a HTTP/01.1\r\nHost: h\r\n\r\n",
    "a version of two digits": b"GET /a HTTP/1.10\r\nHost: h\r\n\r\n",
    "another protocol": b"GET /a RTSP/1.0\r\nHost: h\r\n\r\n",
    "HTTP/1.0 with keep-alive": b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2,
    "HTTP/1.0 without keep-alive, twice": b"GET /a HTTP/1.0\r\n\r\n" * 2,
    "an absolute target of another scheme": b"GET ftp://x/a HTTP/1.1\r\nHost: h\r\n\r\n",
    "an authority for a target": b"GET h:80 HTTP/1.1\r\nHost: h\r\n\r\n",
    "a lone CR in the request line": b"GET /a\rb HTTP/1.1\r\nHost: h\r\n\r\n",
    "CR CR LF after the request line": b"GET /a HTTP/1.1\r\r\nHost: h\r\n\r\n",
    "two empty lines before it": b"\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n",
    "a bare LF before it": b"\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n",
    "a NUL before it": b"\0GET /a HTTP/1.1\r\nHost: h\r\n\r\n",
    # methods
    "HEAD": b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n",
    "DELETE with a body": b"DELETE /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
    "GET with a body": GET + b"Content-Length: 3\r\n\r\nabc",
    "TRACE": b"TRACE /a HTTP/1.1\r\nHost: h\r\n\r\n",
    "PATCH": b"PATCH /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
    "PRI": b"PRI /a HTTP/1.1\r\nHost: h\r\n\r\n",
    "SOURCE": b"SOURCE /a HTTP/1.1\r\nHost: h\r\n\r\n",
    "a method with a dot": b"GE.T /a HTTP/1.1\r\nHost: h\r\n\r\n",
    "a method with a colon": b"GET: /a HTTP/1.1\r\nHost: h\r\n\r\n",
    "an empty method": b" /a HTTP/1.1\r\nHost: h\r\n\r\n",
    # headers
    "an empty value": GET + b"X:\r\n\r\n",
    "only spaces for a value": GET + b"X:  \t \r\n\r\n",
    "a tab before a value": GET + b"X:\ta\r\n\r\n",
    "a space before a name": GET + b" X: a\r\n\r\n",
    "a tab before a name": GET + b"\tX: a\r\n\r\n",
    "a space in a name": GET + b"X Y: a\r\n\r\n",
    "a slash in a name": GET + b"X/Y: a\r\n\r\n",
    "a quote in a name": GET + b'X"Y: a\r\n\r\n',
    "an underscore in a name": GET + b"X_Y: a\r\n\r\n",
    "every mark that a name may hold": GET + b"!#$%&'*+-.^_`|~: a\r\n\r\n",
    "a raw byte in a name": GET + b"X\xe9: a\r\n\r\n",
    "a DEL in a value": GET + b"X: a\x7fb\r\n\r\n",
    "a control character in a value": GET + b"X: a\x01b\r\n\r\n",
    "an escape in a value": GET + b"X: a\x1b[31m\r\n\r\n",
    "a form feed in a value": GET + b"X: a\x0cb\r\n\r\n",
    "a tab in a value": GET + b"X: a\tb\r\n\r\n",
    "UTF-8 in a value": GET + "X: ü🦊\r\n\r\n".encode(),
    "a NUL at the end of a value": GET + b"X: a\0\r\n\r\n",
    "a CR at the end of a value": GET + b"X: a\r\r\n\r\n",
    "a fold with a tab": GET + b"X: a\r\n\tb\r\n\r\n",
    "a fold of only spaces": GET + b"X: a\r\n \r\n\r\n",
    "a folded length": POST + b"Content-Length:\r\n 3\r\n\r\nabc",
    "a folded coding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "an empty line of spaces": GET + b" \r\n\r\n",
    "a header twice": GET + b"X: a\r\nX: b\r\n\r\n",
    "a hundred headers": GET + b"X: a\r\n" * 90 + b"\r\n",
    "more headers than are taken": GET + b"X: a\r\n" * 200 + b"\r\n",
    "a long value": GET + b"X: " + b"a" * 8_000 + b"\r\n\r\n",
    "a value longer than is taken": GET + b"X: " + b"a" * 70_000 + b"\r\n\r\n",
    "a head that does not end": GET + b"X: a",
    "a head without its last line": GET,
    # Host
    "a host with a port": b"GET /a HTTP/1.1\r\nHost: h:80\r\n\r\n",
    "a host with two colons": b"GET /a HTTP/1.1\r\nHost: h:80:80\r\n\r\n",
    "a host with a control character": b"GET /a HTTP/1.1\r\nHost: h\x01\r\n\r\n",
    "a host with a fragment": b"GET /a HTTP/1.1\r\nHost: h#x\r\n\r\n",
    "a host with a question": b"GET /a HTTP/1.1\r\nHost: h?x\r\n\r\n",
    "a host with a backslash": b"GET /a HTTP/1.1\r\nHost: h\\x\r\n\r\n",
    "a host in raw bytes": b"GET /a HTTP/1.1\r\nHost: h\xc3\xa9\r\n\r\n",
    "two different hosts": b"GET /a HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n",
    "two hosts in HTTP/1.0": b"GET /a HTTP/1.0\r\nHost: h\r\nHost: i\r\n\r\n",
    # bodies by length
    "a length of zero": POST + b"Content-Length: 0\r\n\r\n",
    "a length with zeros in front": POST + b"Content-Length: 0003\r\n\r\nabc",
    "a length in another digit": POST + "Content-Length: ３\r\n\r\nabc".encode(),
    "a length with an underscore": POST + b"Content-Length: 1_0\r\n\r\n" + b"a" * 10,
    "a length with a decimal point": POST + b"Content-Length: 3.0\r\n\r\nabc",
    "a length with an exponent": POST + b"Content-Length: 1e1\r\n\r\n" + b"a" * 10,
    "a length and a body too short": LENGTH + b"\r\nab",
    "a length and more than it": LENGTH + b"\r\nabcGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
    "a length with a comma after it": POST + b"Content-Length: 3,\r\n\r\nabc",
    "two lengths, the first empty": POST + b"Content-Length:\r\nContent-Length: 3\r\n\r\nabc",
    "a length in the plural": POST + b"Content-Lengths: 3\r\n\r\n",
    "a length with an underscore in its name": POST + b"Content_Length: 3\r\n\r\n",
    # bodies in chunks
    "chunks": CHUNKED + b"3\r\nabc\r\n0\r\n\r\n",
    "chunks in capitals": POST + b"TRANSFER-ENCODING: CHUNKED\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "no chunks": CHUNKED + b"0\r\n\r\n",
    "many zeros for the last chunk": CHUNKED + b"0000\r\n\r\n",
    "zeros before a size": CHUNKED + b"003\r\nabc\r\n0\r\n\r\n",
    "a size in capitals": CHUNKED + b"A\r\n0123456789\r\n0\r\n\r\n",
    "a space after a size": CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n",
    "a space before a size": CHUNKED + b" 3\r\nabc\r\n0\r\n\r\n",
    "a size and a tab": CHUNKED + b"3\t\r\nabc\r\n0\r\n\r\n",
    "a negative size": CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n",
    "an empty size": CHUNKED + b"\r\nabc\r\n0\r\n\r\n",
    "an extension": CHUNKED + b"3;a\r\nabc\r\n0\r\n\r\n",
    "an extension with a value": CHUNKED + b"3;a=b\r\nabc\r\n0\r\n\r\n",
    "an extension with a quoted value": CHUNKED + b'3;a="b;c"\r\nabc\r\n0\r\n\r\n',
    "an extension with a line end in quotes": CHUNKED + b'3;a="b\r\nc"\r\nabc\r\n0\r\n\r\n',
    "an extension without a name": CHUNKED + b"3;\r\nabc\r\n0\r\n\r\n",
    "an extension with spaces around": CHUNKED + b"3 ; a = b\r\nabc\r\n0\r\n\r\n",
    "an extension longer than is taken": CHUNKED + b"3;" + b"a" * 70_000 + b"\r\nabc\r\n0\r\n\r\n",
    "bare CR after a size": CHUNKED + b"3\rabc\r\n0\r\n\r\n",
    "bare LF at the end of the chunks": CHUNKED + b"3\r\nabc\r\n0\n\n",
    "a chunk shorter than said": CHUNKED + b"4\r\nabc\r\n0\r\n\r\n",
    "no line end after a chunk": CHUNKED + b"3\r\nabc0\r\n\r\n",
    "chunks that do not end": CHUNKED + b"3\r\nabc\r\n",
    "a trailer": CHUNKED + b"3\r\nabc\r\n0\r\nX: y\r\n\r\n",
    "a host among the trailers": CHUNKED + b"0\r\nHost: i\r\n\r\n",
    "a coding among the trailers": CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a bad trailer": CHUNKED + b"0\r\nX Y: z\r\n\r\n",
    "more trailers than are taken": CHUNKED + b"0\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
    "identity": POST + b"Transfer-Encoding: identity\r\n\r\n",
    "an empty coding": POST + b"Transfer-Encoding:\r\n\r\n",
    "chunked with a comma before it": POST + b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
    "chunked with a parameter": POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    "chunked in quotes": POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "a coding with an underscore in its name": POST + b"Transfer_Encoding: chunked\r\n\r\n",
    # around it
    "a keep-alive with odd capitals": GET + b"Connection: KEEP-alive\r\n\r\n" + GET + b"\r\n",
    "close, and another request": GET + b"Connection: close\r\n\r\n" + GET + b"\r\n",
    "Connection that names a length": POST + b"Connection: content-length\r\nContent-Length: 3\r\n\r\nabc",
    "100-continue": LENGTH + b"Expect: 100-continue\r\n\r\nabc",
    "100-continue in capitals": LENGTH + b"Expect: 100-CONTINUE\r\n\r\nabc",
    "100-continue in HTTP/1.0": b"POST /p HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
    "two in a row": GET + b"\r\n" + GET + b"\r\n",
    "two in a row, the second bad": GET + b"\r\nGET b HTTP/1.1\r\nHost: h\r\n\r\n",
    "an empty line between two": GET + b"\r\n\r\n" + GET + b"\r\n",
    "rubbish after one": GET + b"\r\n\x00\x01\x02",
    "nothing": b"",
}  # fmt: skip

_GUESSED = "two lengths, or a length beside chunks, are how requests are smuggled: refused, never reconciled"
_OLD_LINES = (
    "folded and bare-LF lines are allowed to old senders only (RFC 9112 §2.2, §5.2); nobody's client sends them"
)
_CONTROL = "a control character in a value is no field-vchar (RFC 9110 §5.5); it would reach terminals and logs"
_HOST = "h11 does not read Host; RFC 9112 §3.2 asks for 400 where it is no host"
_TARGET = "h11 does not read targets; only paths, http URLs and OPTIONS * can be routed (RFC 9112 §3.2)"
_PATH = "an absolute target becomes its path: the head that leaves is in origin form (RFC 9112 §3.2.2)"
_METHOD = "llhttp knows the registered methods; no route has another"
_UPGRADE = "upgrades, tunnels and cleartext HTTP/2 would leave HTTP behind: refused, where h11 leaves it to its caller"
_VERSION = "only 1.0 and 1.1 are spoken; h11 takes 1.2 and 2.0 in a request line for 1.1"
_EMPTY_LINE = "empty lines before a request are skipped, as RFC 9112 §2.2 advises"
_SPACES = "words of a request line may stand apart (RFC 9112 §3 allows it): what leaves is written anew"
_RTSP = "llhttp reads RTSP and ICE too; it is answered as HTTP/1.0, which it cannot be mistaken for"
_SIZE = "space after a chunk size and an extension without a name are bad grammar; h11 lets them pass"
_TRAILER = "a length or coding among trailers must not be there (RFC 9110 §6.5.1): refused rather than dropped"
_LIMIT = "h11's limits are others: 64 KiB of head, any number of headers"
_OLD_KEEP_ALIVE = "HTTP/1.0 with Connection: keep-alive goes on; h11 closes after every 1.0 request"
_OLD_CHUNKS = "HTTP/1.0 knows no codings (RFC 9112 §6.1)"
_EXPECT = "an expectation that is not met is 417 (RFC 9110 §10.1.1); h11 leaves it to its caller"

KNOWN: dict[str, str] = {
    **dict.fromkeys(
        (
            "both length and chunked", "chunked and length", "the same length twice", "a list of lengths",
        ),
        _GUESSED,
    ),
    **dict.fromkeys(
        (
            "a folded line", "bare LF after the request line", "bare LF after a header",
            "bare LF at the end of the head", "a space before a name", "a tab before a name", "a fold with a tab",
            "a fold of only spaces", "a folded length", "a folded coding", "an empty line of spaces",
            "bare LF at the end of the chunks",
        ),
        _OLD_LINES,
    ),
    **dict.fromkeys(
        ("a DEL in a value", "a control character in a value", "an escape in a value"), _CONTROL
    ),
    **dict.fromkeys(
        (
            "a host with a space", "a host with a path", "a host with a user", "two hosts in one",
            "a host with a control character", "a host with a fragment", "a host with a question",
            "a host with a backslash", "a host in raw bytes",
        ),
        _HOST,
    ),
    **dict.fromkeys(
        (
            "a target that is no path", "an asterisk for GET", "an absolute target of another scheme",
            "an absolute target without a host", "an absolute target with a user", "an authority for a target",
            "two in a row, the second bad",
        ),
        _TARGET,
    ),
    **dict.fromkeys(
        ("an absolute target, whose host counts for nothing", "an absolute target without a path"), _PATH
    ),
    **dict.fromkeys(("a method nobody knows", "a method in lower case", "a method with a dot", "PRI"), _METHOD),
    **dict.fromkeys(
        ("CONNECT", "a websocket", "cleartext HTTP/2 asked for", "an upgrade that Connection does not name"), _UPGRADE
    ),
    **dict.fromkeys(("HTTP/2.0 in a request line", "HTTP/1.2"), _VERSION),
    **dict.fromkeys(
        ("an empty line before it", "two empty lines before it", "a bare LF before it", "an empty line between two"),
        _EMPTY_LINE,
    ),
    **dict.fromkeys(("two spaces after the method", "two spaces before the version"), _SPACES),
    "another protocol": _RTSP,
    **dict.fromkeys(("a space after a size", "a size and a tab", "an extension without a name"), _SIZE),
    **dict.fromkeys(("a length among the trailers", "a coding among the trailers"), _TRAILER),
    **dict.fromkeys(
        ("a chunk size beyond 64 bits", "more headers than are taken", "a value longer than is taken"), _LIMIT
    ),
    "HTTP/1.0 with keep-alive": _OLD_KEEP_ALIVE,
    "chunked in HTTP/1.0": _OLD_CHUNKS,
    "another expectation": _EXPECT,
}  # fmt: skip
"""Where we and h11 part, and why that is meant."""

OK = b"HTTP/1.1 200 OK\r\n"
IN_CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n"

ANSWERS: dict[str, bytes] = {
    "a length": OK + b"Content-Length: 2\r\n\r\nok",
    "a length of zero": OK + b"Content-Length: 0\r\n\r\n",
    "a length cut short": OK + b"Content-Length: 9\r\n\r\nok",
    "a length and more than it": OK + b"Content-Length: 2\r\n\r\nok, more",
    "the same length twice": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    "a signed length": OK + b"Content-Length: +2\r\n\r\nok",
    "chunks": IN_CHUNKS + b"2\r\nok\r\n0\r\n\r\n",
    "chunks with extensions": IN_CHUNKS + b"2;a=b\r\nok\r\n0;z\r\n\r\n",
    "chunks with trailers": IN_CHUNKS + b"2\r\nok\r\n0\r\nX: y\r\n\r\n",
    "chunks cut short": IN_CHUNKS + b"2\r\nok\r\n",
    "chunks cut within a size": IN_CHUNKS + b"2\r\nok\r\n1",
    "chunks cut before the last line": IN_CHUNKS + b"2\r\nok\r\n0\r\n",
    "a bad size": IN_CHUNKS + b"zz\r\nok\r\n0\r\n\r\n",
    "a chunk longer than said": IN_CHUNKS + b"1\r\nok\r\n0\r\n\r\n",
    "bare LF in chunks": IN_CHUNKS + b"2\nok\n0\n\n",
    "length and chunks": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "gzip and chunks": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": OK + b"Transfer-Encoding: x\r\n\r\nok",
    "a body that ends with the connection": OK + b"\r\nok",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nok",
    "no reason": b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",
    "no reason and no space": b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
    "a reason in UTF-8": "HTTP/1.1 200 schön\r\nContent-Length: 2\r\n\r\nok".encode(),
    "a status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    "a status of letters": b"HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nok",
    "a status beyond 599": b"HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nok",
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "204 with a length": b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
    "304 with a length": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
    "interim answers first": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\n"
    + OK
    + b"Content-Length: 2\r\n\r\nok",
    "only an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n",
    "an upgrade": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "two answers": (OK + b"Content-Length: 2\r\n\r\nok") * 2,
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "another protocol": b"ICY 200 OK\r\n\r\nok",
    "a folded header": OK + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "a space in a name": OK + b"X Y: a\r\nContent-Length: 2\r\n\r\nok",
    "a NUL in a value": OK + b"X: a\0\r\nContent-Length: 2\r\n\r\nok",
    "a head cut short": OK + b"Content-Le",
    "an empty line first": b"\r\n" + OK + b"Content-Length: 2\r\n\r\nok",
    "nothing": b"",
    "rubbish": b"hello?\r\n\r\n",
}

KNOWN_ANSWERS: dict[str, str] = {
    "the same length twice": _GUESSED,
    "length and chunks": _GUESSED,
    "a folded header": _OLD_LINES,
    "bare LF": _OLD_LINES,
    "an empty line first": "llhttp skips empty lines before an answer; nothing of it is passed on",
}
"""The same for answers."""

PER_READ = ("an extension longer than is taken", "more trailers than are taken")
"""What is bounded between two bytes of body, as reads bring them: in one read it is taken (and dropped)."""
