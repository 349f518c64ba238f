"""A client that stops reading, on real sockets: what the router holds for it, and that its backend is stopped."""

import asyncio
import json
import socket

import pytest

from router.app import App, Outside
from router.wire.client import Address, dial_socket
from tests.exchange.conftest import World
from tests.fakes import MODEL, control_client

MOST_HELD = 128 * 1024
EVENT = b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": "x" * 4000}}]}).encode() + b"\n\n"
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
ASK = json.dumps({"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()
SETTLED_S = 0.5  # without a byte from the backend: everything that can be full is full
LIMIT_S = 50.0


class Firehose(asyncio.Protocol):
    """A backend that writes events as fast as the router takes them."""

    def __init__(self) -> None:
        self.sent = 0
        self.lost = asyncio.Event()
        self._writes = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self.sent == 0:
            self._transport.write(HEAD)
            self._pour()

    def _pour(self) -> None:
        if self._writes and not self._transport.is_closing():
            self._transport.write(CHUNK)
            self.sent += len(CHUNK)
            asyncio.get_running_loop().call_soon(self._pour)

    def pause_writing(self) -> None:
        self._writes = False

    def resume_writing(self) -> None:
        self._writes = True
        self._pour()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


@pytest.mark.realtime
async def test_a_client_that_stops_reading_holds_little_and_stops_its_backend(world: World) -> None:
    loop, hose = world.loop, Firehose()
    world.backend("spark")
    backend = await loop.create_server(lambda: hose, "127.0.0.1", 0)
    where = Address("127.0.0.1", backend.sockets[0].getsockname()[1])
    outside = Outside(
        loop.time,
        lambda: 0.5,
        lambda factory, _: dial_socket(factory, where),
        control_client(world.backends),
        which=lambda _: None,
    )
    world.app = app = App(world.config(), loop, outside)
    await app.start()
    port = await app.listen("127.0.0.1", 0)
    client = socket.create_connection(("127.0.0.1", port))
    try:
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: r\r\ncontent-length: %d\r\n\r\n%b" % (len(ASK), ASK)
        )
        await settled(hose)
        (connection,) = app.server.connections
        assert connection.paused, "the router knows that this client is slow"
        assert 0 < connection.unsent <= MOST_HELD
        before = hose.sent
        await asyncio.sleep(SETTLED_S)
        assert hose.sent == before, "nobody takes more from the backend meanwhile"
        client.setblocking(False)
        async with asyncio.timeout(LIMIT_S):
            while hose.sent == before:  # it reads again, and the backend goes on
                await asyncio.sleep(0.01)
                read_all(client)
    finally:
        client.close()
        backend.close()
    async with asyncio.timeout(LIMIT_S):
        await hose.lost.wait()  # told to stop when the client is gone


async def settled(hose: Firehose) -> None:
    async with asyncio.timeout(LIMIT_S):
        seen = -1
        while hose.sent != seen or not hose.sent:
            seen = hose.sent
            await asyncio.sleep(SETTLED_S)


def read_all(client: socket.socket) -> None:
    try:
        while client.recv(1 << 20):
            pass
    except BlockingIOError:
        pass
