"""A name is looked up for every new connection: a Spark that got another address is found without a restart."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from router.wire.client import Address, dial_socket

NAME = "spark-1.home"


class Renumbered(asyncio.SelectorEventLoop):
    """A loop whose resolver knows one name, at whatever address it has at the moment."""

    def __init__(self) -> None:
        super().__init__()
        self.address = "127.0.0.1"
        self.asked = 0

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        if host != NAME:
            return await super().getaddrinfo(host, port, **options)
        self.asked += 1
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (self.address, port))]


class Dialled(asyncio.Protocol):
    """Remembers where it came to."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.peer = transport.get_extra_info("peername")[0]
        self.transport = transport


@pytest.fixture
def loop() -> Iterator[Renumbered]:
    with asyncio.Runner(loop_factory=Renumbered) as runner:
        yield runner.get_loop()  # type: ignore[misc]


def test_a_spark_that_got_another_address_is_found_by_the_next_connection(loop: Renumbered) -> None:
    async def found_at(address: str, port: int) -> str:
        loop.address = address
        protocol = await dial_socket(Dialled, Address(NAME, port))
        assert isinstance(protocol, Dialled)
        protocol.transport.close()
        return str(protocol.peer)

    async def both() -> list[str]:
        first = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        port = first.sockets[0].getsockname()[1]
        second = await loop.create_server(asyncio.Protocol, "127.0.0.2", port)
        try:
            return [await found_at(address, port) for address in ("127.0.0.1", "127.0.0.2", "127.0.0.1")]
        finally:
            for server in (first, second):
                server.close()
                with suppress(TimeoutError):
                    await asyncio.wait_for(server.wait_closed(), 5)

    assert loop.run_until_complete(both()) == ["127.0.0.1", "127.0.0.2", "127.0.0.1"]
    assert loop.asked == 3
