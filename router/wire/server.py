"""A client's connection: requests parsed strictly and in order, answers framed by us, leaving noticed at once.

Reading never pauses while a call is open, or nobody would see the client leave; what it pipelines meanwhile is kept
up to a bound and beyond that ignored, with the connection closed after the answer in progress (RFC 9112 §9.3.2 lets
the client repeat). Timeouts are looked at by one sweep over all connections, so a connection owns no timer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final, Protocol, cast

import httptools

from router.errors import ClientFault, Overloaded, RouterError
from router.wire.head import Header, RequestHead, judge_request, response_bytes

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_JOIN_BELOW = 1 << 16  # bytes: copying a small body is cheaper than a second buffer


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What one client may use. Lengths in bytes, times in seconds."""

    header_bytes: int = 32 * 1024
    header_count: int = 100
    body_bytes: int = 100 * 1024 * 1024
    bodies_total_bytes: int = 512 * 1024 * 1024
    pipelined_bytes: int = 64 * 1024
    connections: int = 8192
    connections_per_address: int = 4096
    idle_s: float = 75.0
    slow_head_s: float = 15.0
    slow_body_s: float = 60.0
    slow_body_rate: float = 500.0  # bytes/s that a body must have come at once slow_body_s have passed
    slow_reader_s: float = 120.0
    linger_s: float = 2.0  # a refused upload is read and dropped this long, or a reset would outrun the answer
    write_high_bytes: int = 64 * 1024


@dataclass(slots=True)
class Request:
    """One whole request."""

    head: RequestHead
    body: bytes
    received_at: float  # loop time at which its last byte came


class Handler(Protocol):
    """Whoever answers requests. Called with no call open on the connection."""

    def handle(self, connection: ClientConnection, request: Request) -> None:
        """Start answering; end with `respond`, `finish` or `abort` on the connection."""

    def refuse(self, connection: ClientConnection, fault: RouterError) -> None:
        """Answer a request that could not be read; the connection closes afterwards."""


@dataclass(slots=True)
class Server:
    """What all client connections share: the handler, the limits, who is connected, how much they hold."""

    handler: Handler
    limits: ServerLimits
    loop: asyncio.AbstractEventLoop
    connections: set[ClientConnection] = field(default_factory=set)
    per_address: dict[str, int] = field(default_factory=dict)
    body_bytes: int = 0  # held in request bodies now
    refused: int = 0  # connections turned away at the door
    closing: bool = False

    def protocol(self) -> asyncio.Protocol:
        """A factory for `loop.create_server`."""
        return cast(asyncio.Protocol, ClientConnection(self))

    def sweep(self, now: float) -> None:
        """End what has been too slow. To be called about once a second."""
        for connection in tuple(self.connections):
            connection.sweep(now)

    def stop_keep_alive(self) -> None:
        """No more requests on any connection: idle ones close now, busy ones after their answer."""
        self.closing = True
        for connection in tuple(self.connections):
            connection.close_when_idle()


class _State(Enum):
    IDLE = "idle"  # between requests
    READING = "reading"  # some bytes of a request have come
    CALL = "call"  # a request is with the handler
    CLOSED = "closed"


_SPENT: Final = httptools.HttpRequestParser(object())  # of a connection that is gone
# Bound once: before Python 3.12, every `_State.X` is a function call.
_IDLE: Final = _State.IDLE
_READING: Final = _State.READING
_CALL: Final = _State.CALL
_CLOSED: Final = _State.CLOSED


class ClientConnection:
    """One client. The handler sees `head_sent`, `left`, `paused`, and sets the `on_*` callbacks for its call.

    An `asyncio.Protocol` by its methods alone: a base class from outside would cost a compiled build its fast fields.
    """

    __slots__ = (
        "_began_at",
        "_bodiless",
        "_body",
        "_body_size",
        "_chunked_out",
        "_close_after",
        "_discard",
        "_fault",
        "_framing_bytes",
        "_head",
        "_head_bytes",
        "_headers",
        "_held",
        "_last_head",
        "_last_headers",
        "_length",
        "_lingers",
        "_parser",
        "_partial",
        "_pending",
        "_ready",
        "_state",
        "_target",
        "_transport",
        "_unparsed",
        "_waits_since",
        "address",
        "bytes_out",
        "head_sent",
        "left",
        "on_leave",
        "on_pause",
        "on_resume",
        "paused",
        "server",
    )

    def __init__(self, server: Server) -> None:
        self.server = server
        self.address = ""
        self.left = False
        self.paused = False
        self.head_sent = False
        self.bytes_out = 0
        self.on_leave: Callable[[], None] | None = None
        self.on_pause: Callable[[], None] | None = None
        self.on_resume: Callable[[], None] | None = None
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._parser = httptools.HttpRequestParser(self)
        self._state = _IDLE
        self._ready: deque[Request] = deque()
        self._pending: list[bytes] = []
        self._unparsed = 0
        self._discard = False  # what comes now is not read any more
        self._fault: RouterError | None = None  # to be answered once the requests before it are
        self._partial = False  # the parser is within a request
        self._framing_bytes = 0  # of chunk framing and trailers since the last byte of body
        self._lingers = False
        self._began_at = 0.0
        self._close_after = False
        self._chunked_out = False
        self._head: RequestHead | None = None
        self._headers: list[Header] = []  # as they came, Content-Length apart
        self._length: Header | None = None
        self._last_head: RequestHead | None = None
        self._last_headers: list[Header] = []
        self._head_bytes = 0
        self._target = b""
        self._body: list[bytes] = []
        self._body_size = 0
        self._held = 0
        self._bodiless = False
        self._waits_since = 0.0

    # --- the transport's side ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come; it may be one too many."""
        self._transport = cast(asyncio.Transport, transport)
        server = self.server
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if isinstance(peer, tuple) and peer else "unix"
        self._waits_since = server.loop.time()
        mine = server.per_address.get(self.address, 0) + 1
        server.per_address[self.address] = mine
        server.connections.add(self)
        self._transport.set_write_buffer_limits(high=server.limits.write_high_bytes)
        if len(server.connections) > server.limits.connections or mine > server.limits.connections_per_address:
            server.refused += 1
            self._refuse(Overloaded("too many connections; try again", code="too_many_connections", retry_after_s=1))

    def data_received(self, data: bytes) -> None:
        """Bytes from the client: parse them, or keep them while a call is open or earlier bytes wait."""
        if self._state is _CALL or self._pending or self.paused:
            self._keep(data)
        elif self._state is not _CLOSED and not self._discard:
            self._feed(data)

    def eof_received(self) -> bool:
        """A client that ends its side has left: nobody half-closes and still reads a chat."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: give everything back and tell whoever works for it."""
        server = self.server
        server.connections.discard(self)
        mine = server.per_address.get(self.address, 1) - 1
        if mine > 0:
            server.per_address[self.address] = mine
        else:
            server.per_address.pop(self.address, None)
        self._drop_body()
        self._pending.clear()
        self._state = _CLOSED
        self._parser = _SPENT  # a parser knows its connection: nothing that is over may wait for the collector
        self.left = True
        leave, self.on_leave = self.on_leave, None
        self.on_pause = self.on_resume = None
        if leave is not None:
            leave()

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        self.paused = True
        self._waits_since = self.server.loop.time()
        if self.on_pause is not None:
            self.on_pause()

    def resume_writing(self) -> None:
        """It has caught up; what it sent meanwhile is read now."""
        self.paused = False
        if self.on_resume is not None:
            self.on_resume()
        if self._state is not _CALL:
            self._resume_soon()

    # --- parsing ---

    def _keep(self, data: bytes) -> None:
        self._unparsed += len(data)
        if self._unparsed > self.server.limits.pipelined_bytes:
            self._discard = self._close_after = True
            self._pending.clear()
        if not self._discard:
            self._pending.append(data)

    def _feed(self, data: bytes) -> None:
        server = self.server
        now = server.loop.time()
        body_before = self._body_size
        if self._head is None:
            self._head_bytes += len(data)
            if self._state is _IDLE:
                self._state = _READING
                self._waits_since = self._began_at = now
        else:
            self._waits_since = now
        fault = self._parse(data)
        if fault is None and self._head is None and self._head_bytes > server.limits.header_bytes:
            fault = _too_large_head(server.limits)
        elif self._head is not None and self._body_size == body_before:
            # Chunk extensions and trailers are dropped, but not without end.
            self._framing_bytes += len(data)
            if self._framing_bytes > server.limits.header_bytes:
                fault = _too_large_head(server.limits)
        else:
            self._framing_bytes = 0
        if fault is not None and not self._ready:
            self._refuse(fault)
            return
        if fault is not None:
            self._fault = fault
            self._discard = True
        if self._ready and self._state is not _CALL and not self.paused:
            self._next()

    def _parse(self, data: bytes) -> RouterError | None:
        """Feed llhttp; what it or our callbacks refuse comes back as the fault."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as exc:
            fault = exc.__context__
            return fault if isinstance(fault, RouterError) else ClientFault("unreadable request")
        except httptools.HttpParserUpgrade:
            return ClientFault("protocol upgrades are not served here", status=501, code="upgrade_refused")
        except httptools.HttpParserError as exc:
            return ClientFault(f"not a valid HTTP/1.1 request: {exc}", code="bad_http")
        return None

    def on_message_begin(self) -> None:
        """llhttp: a request begins."""
        self._partial = True
        self._head = None
        self._headers = []
        self._length = None
        self._body = []
        self._body_size = 0
        self._target = b""

    def on_url(self, url: bytes) -> None:
        """llhttp: a piece of the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """llhttp: one header, or a trailer once the head is complete (dropped: nothing here asks for one)."""
        if self._head is not None:
            return
        if len(name) == 14 and name.lower() == b"content-length":
            self._length = (b"content-length", value.strip(b" \t"))
        else:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """llhttp: the head is whole; judge it before a byte of body is kept."""
        limits = self.server.limits
        head = self._same_head() or self._new_head(limits)
        self._head = head
        if head.length is not None and head.length > limits.body_bytes:
            raise _too_large_body(limits)
        if head.expects_continue and not self._ready:
            self._transport.write(_CONTINUE)

    def _same_head(self) -> RequestHead | None:
        """The last head again, where this one differs in nothing but its Content-Length.

        A client sends the same head with every call on a connection; what was judged and rendered of it holds (4 µs).
        """
        last = self._last_head
        if last is None or self._headers != self._last_headers:
            return None
        parser = self._parser
        if self._target != last.target.encode("ascii") or parser.get_method() != last.method.encode("ascii"):
            return None
        if parser.get_http_version() != last.version or (self._length is None) != (last.length is None):
            return None
        if self._length is None:
            return last
        length = int(self._length[1])
        if length == last.length:
            return last
        headers = [self._length if header[0] == b"content-length" else header for header in last.headers]
        fields = {**last.fields, b"content-length": self._length[1]}
        head = self._last_head = replace(last, headers=headers, fields=fields, length=length)
        return head

    def _new_head(self, limits: ServerLimits) -> RequestHead:
        headers = [(name.lower(), value.strip(b" \t")) for name, value in self._headers]
        if self._length is not None:
            headers.append(self._length)
        size = len(self._target) + sum([len(name) + len(value) + 4 for name, value in headers])
        if size > limits.header_bytes or len(headers) > limits.header_count:
            raise _too_large_head(limits)
        parser = self._parser
        head = judge_request(
            parser.get_method(), self._target, parser.get_http_version(), headers, parser.should_keep_alive()
        )
        # An absolute target was rewritten and `Expect` is answered each time: neither is worth remembering.
        self._last_head = head if self._target.startswith(b"/") else None
        self._last_headers = self._headers
        return head

    def on_body(self, data: bytes) -> None:
        """llhttp: a piece of body."""
        server = self.server
        self._body_size += len(data)
        if self._body_size > server.limits.body_bytes:
            raise _too_large_body(server.limits)
        if server.body_bytes + len(data) > server.limits.bodies_total_bytes:
            raise Overloaded("request bodies in flight fill their limit", code="bodies_full", retry_after_s=2)
        server.body_bytes += len(data)
        self._body.append(data)

    def on_message_complete(self) -> None:
        """llhttp: a request is whole."""
        head = self._head
        if head is None:
            return
        body = self._body
        whole = body[0] if len(body) == 1 else b"".join(body)
        self._ready.append(Request(head, whole, self.server.loop.time()))
        self._body = []
        self._body_size = 0
        self._head = None
        self._head_bytes = 0
        self._partial = False

    # --- one call at a time ---

    def _next(self) -> None:
        request = self._ready.popleft()
        self._state = _CALL
        self.head_sent = False
        self.bytes_out = 0
        if not request.head.keep_alive or self.server.closing:
            self._close_after = True
        self._chunked_out = request.head.version == "1.1"
        self._bodiless = request.head.method == "HEAD"
        self._held = len(request.body)
        self.server.handler.handle(self, request)

    def _drop_body(self) -> None:
        waiting = sum(len(request.body) for request in self._ready)
        self.server.body_bytes -= sum(map(len, self._body)) + waiting + self._held
        self._body = []
        self._ready.clear()
        self._held = 0

    def _call_over(self) -> None:
        self.on_leave = self.on_pause = self.on_resume = None
        self.server.body_bytes -= self._held
        self._held = 0
        if self._state is _CLOSED:
            return
        self._waits_since = self._began_at = self.server.loop.time()
        if self._close_after or self._transport.is_closing():
            self._close()
            return
        if self._partial:
            self._state = _READING
            head = self._head
            if head is not None and head.expects_continue and not (self._ready or self._body or self._fault):
                self._transport.write(_CONTINUE)
        else:
            self._state = _IDLE
        self._resume_soon()

    def _close(self) -> None:
        """Close once what was written is flushed; a client still sending what we refused gets to read why first."""
        self._state = _CLOSED
        if self._lingers and self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _resume_soon(self) -> None:
        # Not in this stack frame: a client that pipelines thousands of requests must not recurse.
        if self._ready or self._pending or self._discard:
            self.server.loop.call_soon(self._resume)

    def _takes_more(self) -> bool:
        return (self._state is _IDLE or self._state is _READING) and not self.paused

    def _resume(self) -> None:
        if not self._takes_more():
            return
        if self._ready:
            self._next()
        elif self._fault is not None:
            self._refuse(self._fault)
        elif self._discard:
            self._close()
        else:
            self._feed_pending()

    def _feed_pending(self) -> None:
        pending, self._pending = self._pending, []
        self._unparsed = 0
        for index, data in enumerate(pending):
            if not self._takes_more() or self._discard:
                self._pending = pending[index:]
                self._unparsed = sum(map(len, self._pending))
                return
            self._feed(data)

    # --- the handler's side ---

    def respond(self, status: int, headers: list[Header] | bytes, body: bytes) -> None:
        """Send a whole answer and end the call. HEAD gets the head that GET would get."""
        if self.left:
            return
        framing = b"content-length: %d\r\n" % len(body)
        if self._close_after:
            framing += b"connection: close\r\n"
        head = response_bytes(status, headers, framing)
        self.head_sent = True
        if self._bodiless:
            self._transport.write(head)
            self._call_over()
            return
        self.bytes_out += len(body)
        if len(body) < _JOIN_BELOW:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        self._call_over()

    def start(self, status: int, headers: list[Header] | bytes) -> None:
        """Send the head of an answer whose length is not known. HTTP/1.0 gets an unframed body and a close."""
        if self.left:
            return
        if self._chunked_out:
            framing = b"transfer-encoding: chunked\r\n"
            if self._close_after:
                framing += b"connection: close\r\n"
        else:
            self._close_after = True
            framing = b"connection: close\r\n"
        self.head_sent = True
        self._transport.write(response_bytes(status, headers, framing))

    def write(self, data: bytes) -> None:
        """Send a piece of the body as one chunk. Empty pieces are nothing, and so is what a client that left gets."""
        if data and not self.left:
            size = len(data)
            self.bytes_out += size
            if self._chunked_out:
                self._transport.write(b"%x\r\n%b\r\n" % (size, data))
            else:
                self._transport.write(data)

    def finish(self) -> None:
        """The body is whole: end it and the call."""
        if self._chunked_out and not self.left:
            self._transport.write(_LAST_CHUNK)
        self._call_over()

    def abort(self) -> None:
        """End the call visibly unfinished: flush what was written, then close without the last chunk."""
        self._close_after = True
        self._call_over()

    def close_when_idle(self) -> None:
        """Close now, or after the answer in progress."""
        self._close_after = True
        if self._state is _IDLE:
            self._state = _CLOSED
            self._transport.close()

    def _refuse(self, fault: RouterError) -> None:
        self._close_after = self._discard = True
        self._drop_body()
        self._pending.clear()
        if self._state is _CALL or self._state is _CLOSED:
            return
        self._lingers = self._state is _READING
        self._state = _CALL
        self._chunked_out = True
        self._bodiless = self._partial and self._parser.get_method() == b"HEAD"
        self.head_sent = False
        self.bytes_out = 0
        self.server.handler.refuse(self, fault)

    def sweep(self, now: float) -> None:
        """End this connection if it has been too slow in what it is doing."""
        limits = self.server.limits
        waited = now - self._waits_since
        if self.paused and waited > limits.slow_reader_s:
            self._transport.abort()
        elif self._state is _IDLE and waited > limits.idle_s:
            self.close_when_idle()
        elif self._state is _READING:
            self._sweep_reading(now, waited)
        elif self._state is _CLOSED and waited > (limits.linger_s if self._lingers else limits.slow_reader_s):
            self._transport.abort()

    def _sweep_reading(self, now: float, waited: float) -> None:
        limits = self.server.limits
        if self._head is None:
            if waited > limits.slow_head_s:
                self._refuse(ClientFault("the request head took too long", status=408, code="slow_head"))
            return
        owed = (now - self._began_at - limits.slow_body_s) * limits.slow_body_rate
        if waited > limits.slow_body_s or self._body_size < owed:
            self._refuse(ClientFault("the request body comes too slowly", status=408, code="slow_body"))

    @property
    def unsent(self) -> int:
        """Bytes of answers that the kernel has not taken yet: what a slow reader holds here."""
        return self._transport.get_write_buffer_size()

    def get_extra_info(self, name: str) -> Any:
        """The transport's own, for tests and logs."""
        return self._transport.get_extra_info(name)


def _too_large_head(limits: ServerLimits) -> ClientFault:
    return ClientFault(
        f"request headers exceed {limits.header_bytes} bytes or {limits.header_count} fields",
        status=431,
        code="headers_too_large",
    )


def _too_large_body(limits: ServerLimits) -> ClientFault:
    return ClientFault(f"the request body exceeds {limits.body_bytes} bytes", status=413, code="body_too_large")
