"""A network in memory: pairs of transports that deliver through the loop, with backpressure, close and abort.

As on a socket, nothing is delivered within the call that wrote it, a paused reader makes its peer's writes pile up, and
`pause_writing` comes once more than the high-water mark waits.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from router.wire.client import Address, BackendConnection


class MemoryTransport(asyncio.Transport):
    """One end of a connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.BaseProtocol, peername: Any = None) -> None:
        super().__init__({"peername": peername})
        self._loop = loop
        self._protocol = protocol
        self.peer: MemoryTransport = cast(MemoryTransport, None)
        self._out: list[bytes] = []
        self._eof = self._closing = self._lost = False
        self._reading = True
        self._high, self._paused = 64 * 1024, False
        self._scheduled = False
        self.written = 0

    # --- writing ---

    def write(self, data: Any) -> None:
        if self._lost:
            raise RuntimeError("the handler is closed")  # as uvloop does
        if self._eof:
            return
        data = bytes(data)
        if data:
            self.written += len(data)
            self._out.append(data)
            self._soon()
        if not self._paused and self.get_write_buffer_size() > self._high:
            self._paused = True
            cast(asyncio.Protocol, self._protocol).pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        self._eof = True
        self._soon()

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self._out))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = 64 * 1024 if high is None else high

    def _soon(self) -> None:
        if not self._scheduled and self.peer is not None:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        peer = self.peer
        if not peer._reading and not peer._lost:
            return
        out, self._out = self._out, []
        if out and not peer._lost:
            peer._deliver(b"".join(out))
        if self._paused:
            self._paused = False
            if not self._lost:
                cast(asyncio.Protocol, self._protocol).resume_writing()
        if self._out:
            self._soon()
        elif self._eof or self._closing:
            if not peer._lost and not peer._closing and cast(asyncio.Protocol, peer._protocol).eof_received():
                return
            peer.close()
            if self._closing:
                self._lose(None)

    def _deliver(self, data: bytes) -> None:
        if self._closing:
            return
        protocol = self._protocol
        if isinstance(protocol, asyncio.BufferedProtocol | BackendConnection):
            while data and not self._closing:
                buffer = memoryview(cast(Any, protocol.get_buffer(-1)))
                size = min(len(buffer), len(data))
                buffer[:size] = data[:size]
                data = data[size:]
                protocol.buffer_updated(size)
        else:
            cast(asyncio.Protocol, protocol).data_received(data)

    # --- reading ---

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self.peer._soon()

    def is_reading(self) -> bool:
        return self._reading

    # --- the end ---

    def is_closing(self) -> bool:
        return self._closing or self._lost

    def close(self) -> None:
        if not self.is_closing():
            self._closing = True
            self._soon()

    def abort(self) -> None:
        """Reset the connection: what was not delivered is lost."""
        if not self._lost:
            self._closing = True
            self._out.clear()
            self._loop.call_soon(self._lose, None)
            self._loop.call_soon(self.peer._lose, ConnectionResetError("connection reset by peer"))

    def _lose(self, exc: Exception | None) -> None:
        if not self._lost:
            self._lost = self._closing = True
            self._protocol.connection_lost(exc)
            self._protocol = asyncio.BaseProtocol()  # a real transport forgets it too
            self._soon()


def connect(
    loop: asyncio.AbstractEventLoop, near: asyncio.BaseProtocol, far: asyncio.BaseProtocol, peername: Any = None
) -> tuple[MemoryTransport, MemoryTransport]:
    """Join two protocols; `near` is the one that dialled, `peername` what `far` sees of it."""
    a, b = MemoryTransport(loop, near), MemoryTransport(loop, far, peername)
    a.peer, b.peer = b, a
    far.connection_made(b)
    near.connection_made(a)
    return a, b


class Network:
    """Who listens where, in memory."""

    def __init__(self) -> None:
        self.listeners: dict[tuple[str, int], Callable[[], asyncio.BaseProtocol]] = {}
        self.dialled = 0
        self.transports: list[MemoryTransport] = []

    async def dial(self, factory: Callable[[], asyncio.BaseProtocol], address: Address) -> asyncio.BaseProtocol:
        """What a pool dials with."""
        self.dialled += 1
        await asyncio.sleep(0)
        listener = self.listeners.get((address.host, address.port))
        if listener is None:
            raise ConnectionRefusedError(f"nobody listens on {address}")
        near = factory()
        a, b = connect(asyncio.get_running_loop(), near, listener(), ("10.0.0.1", 4))
        self.transports += [a, b]
        return near
