"""Both ends of the wire without a loop: bytes in, in any splitting; what came of them out. And h11 beside them."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import h11

from router.errors import FailureKind, RouterError
from router.wire.client import Address, BackendConnection, Pool
from router.wire.head import ResponseHead
from router.wire.server import ClientConnection, Request, Server, ServerLimits

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a server made of a client's bytes: the requests it took, whether it refused what followed them."""

    requests: tuple[tuple[str, str, bytes], ...] = ()  # method, target, body
    refused: bool = False


class Transport(asyncio.Transport):
    """Keeps what is written; closing is only noted."""

    def __init__(self) -> None:
        super().__init__({"peername": ("10.0.0.2", 9)})
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.written += map(bytes, list_of_data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close


class Now:
    """A loop that only has callbacks, and no time."""

    def __init__(self) -> None:
        self.due: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()

    def time(self) -> float:
        return 0.0

    def call_soon(self, callback: Callable[..., object], *args: object) -> None:
        self.due.append((callback, args))

    def settle(self) -> None:
        while self.due:
            callback, args = self.due.popleft()
            callback(*args)


@dataclass
class Keeper:
    """A handler that answers everything with nothing and keeps what it was asked."""

    requests: list[Request] = field(default_factory=list)
    faults: list[RouterError] = field(default_factory=list)

    def handle(self, connection: ClientConnection, request: Request) -> None:
        self.requests.append(request)
        connection.respond(200, [], b"")

    def refuse(self, connection: ClientConnection, fault: RouterError) -> None:
        self.faults.append(fault)
        connection.respond(fault.status, [], b"")


def ours(pieces: Iterable[bytes]) -> Seen:
    """What our server makes of a client's bytes."""
    loop, keeper = Now(), Keeper()
    server = Server(keeper, ServerLimits(), cast(asyncio.AbstractEventLoop, loop))
    connection, transport = server.protocol(), Transport()
    connection.connection_made(transport)
    for piece in pieces:
        if piece and not transport.closed:
            connection.data_received(piece)
            loop.settle()
    connection.connection_lost(None)
    assert server.body_bytes == 0
    assert not server.connections
    assert len(keeper.faults) <= 1
    taken = tuple((one.head.method, one.head.target, one.body) for one in keeper.requests)
    return Seen(taken, bool(keeper.faults))


def theirs(data: bytes) -> Seen:
    """What h11 makes of them."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    taken: list[tuple[str, str, bytes]] = []
    request: h11.Request | None = None
    body = b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return Seen(tuple(taken), True)
        if isinstance(event, h11.Request):
            request, body = event, b""
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage) and request is not None:
            taken.append((request.method.decode("latin-1"), request.target.decode("latin-1"), body))
            connection.send(h11.Response(status_code=404, headers=[(b"content-length", b"0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE:
                return Seen(tuple(taken))
            connection.start_next_cycle()
        else:
            return Seen(tuple(taken))


@dataclass
class Taken:
    """What a call saw of a backend's bytes."""

    status: int | None = None
    body: bytes = b""
    ends: list[FailureKind | None] = field(default_factory=list)

    def on_head(self, head: ResponseHead) -> None:
        assert self.status is None
        self.status = head.status

    def on_data(self, data: bytes) -> None:
        assert not self.ends
        self.body += data

    def on_end(self) -> None:
        self.ends.append(None)

    def on_failure(self, kind: FailureKind, detail: str) -> None:
        self.ends.append(kind)


def answered(pieces: Iterable[bytes], *, closes: bool = True) -> Taken:
    """What a call sees of a backend's answer, brought in these pieces, the connection closed after it."""
    pool = Pool("spark", Address("spark", 8000), lambda: 0.0)
    connection, taken, transport = BackendConnection(pool), Taken(), Transport()
    connection.connection_made(transport)
    connection.send(b"GET / HTTP/1.1\r\n\r\n", b"", taken)
    for piece in pieces:
        if piece and not transport.closed:
            connection.data_received(piece)
    if closes:
        connection.connection_lost(None)
        assert len(taken.ends) == 1
    return taken


def their_answer(data: bytes) -> Taken:
    """What h11 makes of a backend's answer that ends with the connection."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "h")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    connection.receive_data(b"")
    taken = Taken()
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            taken.on_failure(FailureKind.BAD_FRAMING, "")
            return taken
        if isinstance(event, h11.Response):
            taken.status = event.status_code
        elif isinstance(event, h11.Data):
            taken.on_data(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            taken.on_end()
            return taken
        elif not isinstance(event, h11.InformationalResponse):
            taken.on_failure(FailureKind.RESET, "")
            return taken


def cut(data: bytes, at: Iterable[int]) -> list[bytes]:
    """The data in pieces, cut at these offsets (taken modulo its length)."""
    places = sorted({place % (len(data) + 1) for place in at} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]
