"""Heads, bodies and chunks as nobody sends them: taken the same however they are cut, and never what h11 refuses."""

from hypothesis import given
from hypothesis import strategies as st

from router.errors import FailureKind
from tests.fuzz.wires import Seen, answered, cut, ours, theirs
from tests.wire.odd import ANSWERS, ODD, PER_READ
from tests.wire.test_strict import REFUSED, TAKEN

CUTS = st.lists(st.integers(0, 5_000), max_size=8)
SMALL = [data for name, data in ODD.items() if len(data) < 5_000 and name not in PER_READ]
REQUESTS = SMALL + [data for data, _ in (*REFUSED.values(), *TAKEN.values())]

METHOD = st.sampled_from([b"GET", b"POST", b"POST", b"HEAD", b"PUT", b"G@T", b"get"])
TARGET = st.sampled_from(
    [b"/", b"/a?b=c", b"/v1/chat/completions", b"*", b"http://x/a", b"http://", b"a", b"/\xc3\xa9"]
)
VERSION = st.sampled_from([b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.2"])
NAME = st.sampled_from(
    [b"X", b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Expect", b"X Y", b"", b"TE", b"Upgrade"]
)
VALUE = st.one_of(
    st.sampled_from([b"", b"a", b"h", b"3", b"0", b"+3", b"3, 3", b"chunked", b"Chunked", b"gzip, chunked", b"close"]),
    st.sampled_from([b"keep-alive", b"100-continue", b"x\0", b"a\rb", b"content-length", b"99999999999999999999"]),
    st.binary(max_size=6),
)
SPACE = st.sampled_from([b" ", b" ", b"", b"\t", b"  ", b"\x0b"])
LINE_END = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\r\n", b"\r\n "])


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """A request line and headers, most of them nearly right."""
    line = draw(METHOD) + b" " + draw(TARGET) + b" " + draw(VERSION) + draw(LINE_END)
    fields = [draw(NAME) + b":" + draw(SPACE) + draw(VALUE) + draw(LINE_END) for _ in range(draw(st.integers(0, 4)))]
    if draw(st.integers(0, 5)):
        fields.insert(0, b"Host: h\r\n")
    return line + b"".join(fields) + b"\r\n"


@st.composite
def in_chunks(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A body, and the same in chunks of any sizes."""
    pieces = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
    extension = st.sampled_from([b"", b"", b";a", b";a=b", b';a="b;c"'])
    sizes = [b"%x%b\r\n%b\r\n" % (len(piece), draw(extension), piece) for piece in pieces]
    return b"".join(pieces), b"".join(sizes) + b"0\r\n\r\n"


@st.composite
def changed(draw: st.DrawFn, corpus: list[bytes]) -> bytes:
    """One of the odd ones with a few bytes changed, dropped or put in."""
    data = bytearray(draw(st.sampled_from(corpus)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        how = draw(st.integers(0, 2))
        byte = draw(st.one_of(st.sampled_from(list(b"\r\n \t:,;0\0")), st.integers(0, 255)))
        data[at : at + (how > 0)] = b"" if how == 1 else bytes([byte])
    return bytes(data)


def begins_like(mine: Seen, other: Seen) -> bool:
    """We took nothing that h11 did not take as well, up to where one of us gave up."""
    return all((one[0], one[2]) == (two[0], two[2]) for one, two in zip(mine.requests, other.requests, strict=False))


@given(st.one_of(heads(), changed(REQUESTS)), CUTS)
def test_a_request_is_the_same_however_it_is_cut(data: bytes, cuts: list[int]) -> None:
    assert ours(cut(data, cuts)) == ours([data])


@given(heads(), st.binary(max_size=20))
def test_where_both_take_a_request_it_is_the_same_one(head: bytes, rest: bytes) -> None:
    mine, other = ours([head + rest]), theirs(head + rest)
    assert begins_like(mine, other), (mine, other)


@given(in_chunks(), CUTS, st.integers(1, 3))
def test_chunks_come_out_as_the_body_they_were(made: tuple[bytes, bytes], cuts: list[int], times: int) -> None:
    body, sent = made
    request = b"POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + sent
    assert ours(cut(request * times, cuts)) == Seen((("POST", "/p", body),) * times)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=6), CUTS)
def test_pipelined_requests_are_taken_in_order_each_with_its_body(bodies: list[bytes], cuts: list[int]) -> None:
    sent = b"".join(
        b"POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (i, len(b), b) for i, b in enumerate(bodies)
    )
    assert ours(cut(sent, cuts)).requests == tuple(("POST", f"/{i}", b) for i, b in enumerate(bodies))


@given(changed([data for data in ANSWERS.values() if data]), CUTS)
def test_an_answer_is_the_same_however_it_is_cut(data: bytes, cuts: list[int]) -> None:
    whole, pieces = answered([data]), answered(cut(data, cuts))
    assert (pieces.status, pieces.ends) == (whole.status, whole.ends)
    if whole.ends == [None]:
        assert pieces.body == whole.body


@given(in_chunks(), CUTS)
def test_an_answer_in_chunks_is_whole_and_a_cut_one_never_is(made: tuple[bytes, bytes], cuts: list[int]) -> None:
    body, sent = made
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + sent
    taken = answered(cut(answer, cuts))
    assert (taken.status, taken.body, taken.ends) == (200, body, [None])
    for end in {place % len(answer) for place in cuts}:
        short = answered([answer[:end]])
        assert short.ends[0] in (FailureKind.TRUNCATED, FailureKind.RESET)
        assert body.startswith(short.body)
