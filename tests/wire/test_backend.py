"""A backend's connection: one answer each, whole or visibly not, and nothing of another's."""

import asyncio

import pytest

from router.errors import BackendFault, FailureKind
from router.wire.client import Address, BackendConnection, Pool
from router.wire.head import ResponseHead
from tests.memory import Network, connect
from tests.wire.talk import Raw


class Taker:
    """A sink that keeps what it is handed."""

    def __init__(self) -> None:
        self.heads: list[ResponseHead] = []
        self.body = b""
        self.ends: list[FailureKind | None] = []

    def on_head(self, head: ResponseHead) -> None:
        self.heads.append(head)

    def on_data(self, data: bytes) -> None:
        self.body += data

    def on_end(self) -> None:
        self.ends.append(None)

    def on_failure(self, kind: FailureKind, detail: str) -> None:
        self.ends.append(kind)


OK = b"HTTP/1.1 200 OK\r\n"
WHOLE = OK + b"Content-Length: 2\r\n\r\nok"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
KEPT, CLOSED = True, False

ANSWERS: dict[str, tuple[bytes, str, bytes, FailureKind | None, bool]] = {
    "a length": (WHOLE, "", b"ok", None, KEPT),
    "chunks, extensions and trailers": (CHUNKED + b"2;a=b\r\nok\r\n0\r\nX: y\r\n\r\n", "", b"ok", None, KEPT),
    "interim answers first": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n" + WHOLE,
        "",
        b"ok",
        None,
        KEPT,
    ),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", "", b"", None, KEPT),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "", b"", None, KEPT),
    "Connection: close": (OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok", "", b"ok", None, CLOSED),
    "a body that ends with the connection": (OK + b"\r\nok", "close", b"ok", None, CLOSED),
    "a body that a reset ends": (OK + b"\r\nok", "abort", b"ok", FailureKind.RESET, CLOSED),
    "a length cut short": (OK + b"Content-Length: 9\r\n\r\nok", "close", b"ok", FailureKind.TRUNCATED, CLOSED),
    "chunks cut short": (CHUNKED + b"2\r\nok\r\n", "close", b"ok", FailureKind.TRUNCATED, CLOSED),
    "nothing": (b"", "close", b"", FailureKind.RESET, CLOSED),
    "a bad chunk": (CHUNKED + b"2\r\nok\r\nzz\r\n", "", b"ok", FailureKind.BAD_FRAMING, CLOSED),
    "length and chunked": (
        OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        "",
        b"",
        FailureKind.BAD_FRAMING,
        CLOSED,
    ),
    "another coding": (
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "",
        b"",
        FailureKind.BAD_FRAMING,
        CLOSED,
    ),
    "an upgrade": (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        "",
        b"",
        FailureKind.BAD_FRAMING,
        CLOSED,
    ),
    "a head without end": (OK + b"X: " + b"a" * 70_000, "", b"", FailureKind.BAD_FRAMING, CLOSED),
    "a second answer in the same read": (WHOLE + OK + b"Content-Length: 4\r\n\r\nevil", "", b"ok", None, CLOSED),
    "rubbish after the answer": (WHOLE + b"rubbish", "", b"ok", None, CLOSED),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_is_whole_or_failed_exactly_once(name: str) -> None:
    said, then, body, end, kept = ANSWERS[name]
    loop = asyncio.get_running_loop()
    pool = Pool("spark", Address("spark", 8000), loop.time)
    connection, backend, taker = BackendConnection(pool), Raw(), Taker()
    connect(loop, connection, backend)
    connection.send(b"GET / HTTP/1.1\r\n\r\n", b"", taker)
    backend.say(said)
    if then == "abort":
        await asyncio.sleep(0.001)
        backend.transport.abort()
    elif then:
        backend.transport.close()
    await asyncio.sleep(0.001)
    assert taker.ends == [end]
    assert taker.body == body
    assert len(taker.heads) <= 1
    assert [one for one, _ in pool.idle] == ([connection] if kept else [])
    assert bool(pool.open) is kept


async def test_an_answer_that_nobody_asked_for_ends_an_idle_connection() -> None:
    loop = asyncio.get_running_loop()
    pool = Pool("spark", Address("spark", 8000), loop.time)
    connection, backend, taker = BackendConnection(pool), Raw(), Taker()
    connect(loop, connection, backend)
    connection.send(b"GET / HTTP/1.1\r\n\r\n", b"", taker)
    backend.say(WHOLE)
    await asyncio.sleep(0.001)
    backend.say(WHOLE)
    await asyncio.sleep(0.001)
    assert pool.take() is None
    assert (taker.body, taker.ends) == (b"ok", [None])


async def test_a_kept_connection_expires_before_its_backend_closes_it() -> None:
    loop = asyncio.get_running_loop()
    pool = Pool("spark", Address("spark", 8000), loop.time, expiry_s=3)
    connection, backend = BackendConnection(pool), Raw()
    connect(loop, connection, backend)
    connection.send(b"GET / HTTP/1.1\r\n\r\n", b"", Taker())
    backend.say(WHOLE)
    await asyncio.sleep(2.9)
    assert pool.take() is connection
    pool.keep(connection)
    await asyncio.sleep(3)
    assert pool.take() is None
    await asyncio.sleep(0.001)
    assert not pool.open


DIALS = {
    FailureKind.REFUSED: ConnectionRefusedError("refused"),
    FailureKind.RESET: ConnectionResetError("reset"),
    FailureKind.UNREACHABLE: OSError(113, "No route to host"),
}


@pytest.mark.parametrize("kind", DIALS)
async def test_a_dial_that_fails_says_how(kind: FailureKind) -> None:
    await fails_as(DIALS[kind], kind)


async def test_a_name_whose_addresses_all_refuse_has_refused() -> None:
    several = OSError("Multiple exceptions: [Errno 111] Connect call failed (1), [Errno 111] Connect call failed (2)")
    await fails_as(several, FailureKind.REFUSED)


async def fails_as(error: OSError, kind: FailureKind) -> None:
    async def dial(factory: object, address: Address) -> asyncio.BaseProtocol:
        raise error

    pool = Pool("spark", Address("spark", 8000), asyncio.get_running_loop().time, dial)
    with pytest.raises(BackendFault) as caught:
        await pool.connect()
    assert caught.value.kind is kind


async def test_a_pool_that_moved_uses_no_connection_to_the_old_address() -> None:
    loop, network = asyncio.get_running_loop(), Network()
    network.listeners[("spark", 8000)] = asyncio.Protocol
    pool = Pool("spark", Address("spark", 8000), loop.time, network.dial)
    idle, busy = await pool.connect(), await pool.connect()
    pool.keep(idle)
    assert pool.moved(Address("spark", 8000)) is pool
    moved = pool.moved(Address("spark", 8001))
    assert moved.take() is None
    assert (idle.is_closing, busy.is_closing) == (True, False), "an answer under way ends in peace"
    pool.keep(busy)
    assert busy.is_closing
