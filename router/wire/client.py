"""A backend's connections: one answer at a time on each, idle ones kept a little shorter than the backend keeps them.

A backend's answer is handed to a `Sink` by callback: head, pieces of body without their framing, end or failure.
Exactly one of `on_end` and `on_failure` is called, and nothing after it.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, cast

import httptools

from router.errors import BackendFault, FailureKind, Phase
from router.wire.head import Framing, Header, ResponseHead

READ_BYTES = 64 * 1024
_HEAD_LIMIT = 64 * 1024


class Sink(Protocol):
    """Whoever takes an answer."""

    def on_head(self, head: ResponseHead) -> None:
        """The status line and headers have come (1xx left out)."""

    def on_data(self, data: bytes) -> None:
        """A piece of the body, as it came."""

    def on_end(self) -> None:
        """The body is whole, as far as its framing can tell."""

    def on_failure(self, kind: FailureKind, detail: str) -> None:
        """The answer will not become whole."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a backend listens. `path` is a unix socket; else host and port, with TLS where `tls` is set."""

    host: str = ""
    port: int = 0
    path: str | None = None
    tls: ssl.SSLContext | None = None

    @property
    def authority(self) -> bytes:
        """For the Host header."""
        if self.path is not None:
            return b"localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.tls else 80
        return (host if self.port == default else f"{host}:{self.port}").encode(
            "idna" if not host.isascii() else "ascii"
        )

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path is not None else f"{self.host}:{self.port}"


Dial = Callable[[Callable[[], asyncio.BaseProtocol], Address], Awaitable[asyncio.BaseProtocol]]
"""Opens a transport for a protocol made by the factory; handed in, so that tests can hand in memory."""


async def dial_socket(factory: Callable[[], asyncio.BaseProtocol], address: Address) -> asyncio.BaseProtocol:
    """Open a real connection. Names are resolved anew each time, so a Spark that moved is found."""
    loop = asyncio.get_running_loop()
    if address.path is not None:
        _, protocol = await loop.create_unix_connection(factory, address.path)
    else:
        name = address.host if address.tls else None
        _, protocol = await loop.create_connection(
            factory, address.host, address.port, ssl=address.tls, server_hostname=name
        )
    return protocol


class _OutOfStep(Exception):
    """A second answer to one request."""


class _BadFraming(Exception):
    """A head that does not say, or says twice, where its body ends."""


_BUFFER = memoryview(bytearray(READ_BYTES))
"""What every connection reads into: each read is parsed before the next begins, and its size bounds what a single read
can bring a slow client."""


_SPENT: Final = httptools.HttpResponseParser(object())  # of a connection that is gone
_CLOSE: Final = Framing.CLOSE  # bound once: before Python 3.12, `Framing.CLOSE` is a function call


class BackendConnection:
    """One connection to a backend.

    An `asyncio.BufferedProtocol` by its methods alone, as uvloop tells it; to a loop that asks for the base class it is
    a plain `asyncio.Protocol`. A base from outside would cost a compiled build its fast fields.
    """

    __slots__ = (
        "_complete",
        "_head",
        "_head_bytes",
        "_headers",
        "_last_head",
        "_last_headers",
        "_parser",
        "_pieces",
        "_pool",
        "_sink",
        "_transport",
        "answered",
    )

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._parser = httptools.HttpResponseParser(self)
        self._sink: Sink | None = None
        self._headers: list[Header] = []
        self._head: ResponseHead | None = None
        self._last_head: ResponseHead | None = None
        self._last_headers: list[Header] = []
        self._head_bytes = 0
        self._complete = False
        self._pieces: list[bytes] = []
        self.answered = 0  # bytes of the answer in progress, head included

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self._transport = cast(asyncio.Transport, transport)
        self._pool.open.add(self)

    def send(self, head: bytes, body: bytes | Sequence[bytes], sink: Sink) -> None:
        """Write a request; its answer goes to `sink`."""
        self._sink = sink
        self._head = None
        self._headers = []
        self._head_bytes = self.answered = 0
        self._complete = False
        if not body:
            self._transport.write(head)
        elif isinstance(body, bytes):
            if len(body) < READ_BYTES:
                self._transport.write(head + body)
            else:
                self._transport.writelines((head, body))
        else:
            self._transport.writelines((head, *body))

    @property
    def is_closing(self) -> bool:
        """Whether it can no longer be used."""
        return self._transport.is_closing()

    def pause(self) -> None:
        """The client reads too slowly: read no more from this backend until `resume`."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Go on reading."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Drop the answer in progress, if any: closing is how a vLLM is told to stop generating."""
        self._sink = None
        self._transport.abort()

    # --- the transport's side ---

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to read to."""
        return _BUFFER

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer have come, from a loop that brings its own."""
        self._received(data)

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes of an answer have come."""
        self._received(_BUFFER[:nbytes])

    def _received(self, data: bytes | memoryview) -> None:
        nbytes = len(data)
        sink = self._sink
        if sink is None:
            self._transport.abort()  # nobody asked: an answer out of turn must not meet the next call
            return
        self.answered += nbytes
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(FailureKind.BAD_FRAMING, "answered with a protocol upgrade that nobody asked for")
            return
        except httptools.HttpParserError as exc:
            if not self._complete:
                self._deliver()
                said = exc.__context__ if isinstance(exc.__context__, _BadFraming) else f"what is not HTTP: {exc}"
                self._fail(FailureKind.BAD_FRAMING, f"sent {said}")
                return
            self._transport.close()  # more bytes than the answer had: the answer stands, the connection does not
        if self._pieces:
            self._deliver()
        if self._complete:
            self._end()
        elif self._head is None:
            self._head_bytes += nbytes
            if self._head_bytes > _HEAD_LIMIT:
                self._fail(FailureKind.BAD_FRAMING, f"sent a head of more than {_HEAD_LIMIT} bytes")

    def _deliver(self) -> None:
        """Hand on what one read brought as one piece: one write to the client, however many chunks it was."""
        pieces = self._pieces
        if pieces and self._sink is not None:
            self._sink.on_data(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        pieces.clear()

    def eof_received(self) -> bool:
        """The backend will send no more; `connection_lost` judges what that means."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone: the end of an unframed body, or a failure."""
        self._pool.lost(self)
        self._parser = _SPENT  # a parser knows its connection: nothing that is over may wait for the collector
        sink = self._sink
        if sink is None:
            return
        head = self._head
        if head is not None and head.framing is _CLOSE and exc is None:
            self._sink = None
            sink.on_end()
        elif head is not None:
            if exc is not None:
                self._fail(FailureKind.RESET, f"reset the connection within its answer ({exc})")
            else:
                self._fail(FailureKind.TRUNCATED, "closed the connection within its answer (end of file)")
        else:
            self._fail(FailureKind.RESET, f"closed the connection without an answer ({exc or 'end of file'})")

    # --- parsing ---

    def on_header(self, name: bytes, value: bytes) -> None:
        """llhttp: a header, or a trailer after the head (dropped)."""
        if self._head is None:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """llhttp: a head is whole."""
        status = self._parser.get_status_code()
        if status < 200:
            self._headers = []  # 1xx: llhttp calls message_complete for it; the real head follows
            return
        head = self._last_head
        alive = self._parser.should_keep_alive()
        if head is None or not alive or self._headers != self._last_headers or status != head.status:
            # Else it is byte for byte the head of the last answer here, as for every call within the same second of
            # its Date: what was judged and rendered of it holds (3 µs).
            headers = [(name.lower(), value.strip(b" \t")) for name, value in self._headers]
            head = _judge_response(status, headers, alive)
            self._last_head, self._last_headers = head, self._headers
        self._head = head
        if self._sink is not None:
            self._sink.on_head(self._head)

    def on_body(self, data: bytes) -> None:
        """llhttp: a piece of body."""
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        """llhttp: the message is whole, unless it was a 1xx or a body that ends with the connection."""
        if self._head is not None and self._head.framing is not _CLOSE:
            self._complete = True

    def on_message_begin(self) -> None:
        """llhttp: another message begins; within one answer's bytes that means the backend is out of step."""
        if self._complete:
            raise _OutOfStep  # stops the parser: nothing of it may reach the call that is being answered

    def _end(self) -> None:
        sink, self._sink = self._sink, None
        head = self._head
        if head is not None and head.keep_alive and not self._transport.is_closing():
            self._pool.keep(self)
        else:
            self._transport.close()
        if sink is not None:
            sink.on_end()

    def _fail(self, kind: FailureKind, detail: str) -> None:
        sink, self._sink = self._sink, None
        self._transport.abort()
        if sink is not None:
            sink.on_failure(kind, detail)


def _judge_response(status: int, headers: list[Header], keep_alive: bool) -> ResponseHead:
    length: int | None = None
    framing = _CLOSE
    for name, value in headers:
        if name == b"content-length":
            length = int(value)
            framing = Framing.LENGTH
        elif name == b"transfer-encoding":
            if framing is Framing.CHUNKED or value.lower() != b"chunked":
                raise _BadFraming("a transfer coding that was not asked for")
            framing = Framing.CHUNKED
    if status in (204, 304):
        framing, length = Framing.NONE, None
    return ResponseHead(status, headers, framing, length, keep_alive and framing is not _CLOSE)


@dataclass(slots=True, eq=False)
class Pool:
    """The connections to one backend at one address.

    Attributes:
        expiry_s: how long an idle connection is kept; below the backend's own keep-alive (uvicorn: 5 s).
    """

    name: str
    address: Address
    clock: Callable[[], float]
    dial: Dial = dial_socket
    expiry_s: float = 3.0
    connect_s: float = 5.0
    open: set[BackendConnection] = field(default_factory=set)
    idle: list[tuple[BackendConnection, float]] = field(default_factory=list)
    closed: bool = False

    def take(self) -> BackendConnection | None:
        """The idle connection used last, None where a new one must be dialled."""
        now = self.clock()
        while self.idle:
            connection, kept_at = self.idle.pop()
            if connection.is_closing:
                continue
            if now - kept_at < self.expiry_s:
                return connection
            connection.close()
            self.expire(now)
        return None

    async def connect(self) -> BackendConnection:
        """Open a new connection.

        Raises:
            BackendFault: in phase CONNECT, with the kind that says why.
        """
        try:
            async with asyncio.timeout(self.connect_s):
                return cast(BackendConnection, await self.dial(self._protocol, self.address))
        except TimeoutError:
            kind, detail = FailureKind.CONNECT_TIMEOUT, f"did not accept a connection within {self.connect_s:g} s"
        except ConnectionRefusedError:
            kind, detail = FailureKind.REFUSED, "refused the connection"
        except ssl.SSLError as exc:
            kind, detail = FailureKind.TLS, f"failed the TLS handshake: {exc.reason or exc}"
        except socket.gaierror as exc:
            kind, detail = FailureKind.UNREACHABLE, f"has a name that does not resolve: {exc.strerror or exc}"
        except FileNotFoundError:
            kind, detail = FailureKind.REFUSED, "has no socket at its path"
        except ConnectionError as exc:
            kind, detail = FailureKind.RESET, f"reset the connection while it was made: {exc}"
        except OSError as exc:
            # A name with several addresses fails with one error that only quotes theirs.
            refused = exc.errno is None and f"[Errno {errno.ECONNREFUSED}]" in str(exc)
            kind = FailureKind.REFUSED if refused else FailureKind.UNREACHABLE
            detail = "refused the connection" if refused else f"cannot be reached: {exc.strerror or exc}"
        raise BackendFault(f"{self.name} at {self.address} {detail}", backend=self.name, kind=kind, phase=Phase.CONNECT)

    def _protocol(self) -> asyncio.BufferedProtocol:
        return cast(asyncio.BufferedProtocol, BackendConnection(self))

    def keep(self, connection: BackendConnection) -> None:
        """An answer ended well: the connection may serve another call."""
        if self.closed:
            connection.close()
        else:
            self.idle.append((connection, self.clock()))

    def lost(self, connection: BackendConnection) -> None:
        """A connection is gone."""
        self.open.discard(connection)

    def expire(self, now: float) -> None:
        """Close idle connections that the backend is about to close itself."""
        fresh = []
        for connection, kept_at in self.idle:
            if connection.is_closing:
                continue
            if now - kept_at < self.expiry_s:
                fresh.append((connection, kept_at))
            else:
                connection.close()
        self.idle = fresh

    def moved(self, address: Address) -> Pool:
        """The pool at another address, or with other certificates: no connection made by this one serves a new call."""
        if address == self.address:
            return self
        self.close()
        return Pool(self.name, address, self.clock, self.dial, self.expiry_s, self.connect_s)

    def close(self) -> None:
        """Close idle connections and keep none from now on; those in use end with their call."""
        self.closed = True
        for connection, _ in self.idle:
            connection.close()
        self.idle.clear()
