"""A client connection in memory with a handler that a test drives, and a raw client that sees every byte."""

import asyncio
import re
from typing import Any, cast

from router.errors import RouterError
from router.wire.server import ClientConnection, Request, Server, ServerLimits
from tests.memory import MemoryTransport, connect


class Raw(asyncio.Protocol):
    """Sends what it is told and keeps what comes."""

    def __init__(self) -> None:
        self.transport = cast(MemoryTransport, None)
        self.got = b""
        self.closed = False
        self.stays = False  # keeps its side open after ours has ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(MemoryTransport, transport)

    def say(self, data: bytes) -> None:
        """Send, where there is still somebody to send to."""
        if not self.closed:
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        self.got += data

    def eof_received(self) -> bool:
        return self.stays

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True


class Counter:
    """A handler that answers each request with its target (and body), at once or when the test says so."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.faults: list[RouterError] = []
        self.held: list[tuple[ClientConnection, Request]] = []
        self.hold = False

    def handle(self, connection: ClientConnection, request: Request) -> None:
        self.requests.append(request)
        if self.hold:
            self.held.append((connection, request))
        else:
            connection.respond(200, [], request.head.target.encode() + request.body)

    def refuse(self, connection: ClientConnection, fault: RouterError) -> None:
        self.faults.append(fault)
        connection.respond(fault.status, [], fault.code.encode())


class Stage:
    """One server in virtual time."""

    def __init__(self, **limits: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self.handler = Counter()
        self.server = Server(self.handler, ServerLimits(**limits), self.loop)

    def client(self, address: str = "10.0.0.2") -> Raw:
        raw = Raw()
        connect(self.loop, raw, self.server.protocol(), (address, 9))
        return raw

    async def settle(self) -> None:
        """Let everything that is due happen."""
        await asyncio.sleep(0.001)

    async def says(self, data: bytes, *, bytewise: bool = False) -> Raw:
        raw = self.client()
        for piece in [data[i : i + 1] for i in range(len(data))] if bytewise else [data]:
            raw.say(piece)
            if bytewise:
                await asyncio.sleep(0)
        await self.settle()
        return raw

    async def sweeps(self, seconds: float) -> None:
        """Let time pass with a sweep a second."""
        for _ in range(int(seconds)):
            await asyncio.sleep(1)
            self.server.sweep(self.loop.time())
        await self.settle()

    async def over(self, *clients: Raw) -> None:
        """Everybody leaves; nothing may be left."""
        for raw in clients:
            raw.transport.close()
        await self.settle()
        assert self.server.body_bytes == 0
        assert not self.server.connections
        assert not self.server.per_address


def statuses(raw: bytes) -> list[int]:
    """The status of every answer in what came (bodies here never look like a status line)."""
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", raw)]
