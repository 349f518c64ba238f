"""What only thousands of real sockets show: nobody is starved, nothing piles up, nothing is left behind."""

import asyncio
import json
import os
import resource
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

import pytest

from tests.live.processes import MODEL, Process, router, until

pytestmark = pytest.mark.realtime(limit_s=240)
MANY = 2_000
EVENT = (
    b'data: {"id":"1","object":"chat.completion.chunk","choices":'
    b'[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n'
)
LAST = b'data: {"id":"1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass
class Backend:
    """One model that streams as its prompt says: `every 0.5` seconds an event, or `bytes 1000000` at once."""

    open: int = 0
    sent: int = 0
    ending: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
                )
                body = await reader.readexactly(length)
                if head.startswith(b"POST"):
                    await self.stream(writer, json.loads(body)["messages"][0]["content"].split())
                else:
                    await self.page(writer, head.split(b" ")[1])
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def page(self, writer: asyncio.StreamWriter, path: bytes) -> None:
        body = (
            b'{"object":"list","data":[{"id":"%b","object":"model"}]}' % MODEL.encode() if b"models" in path else b"{}"
        )
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()

    async def stream(self, writer: asyncio.StreamWriter, wish: list[str]) -> None:
        self.open += 1
        try:
            writer.write(STREAM)
            if wish[0] == "every":
                await self.pace(writer, float(wish[1]))
            else:
                piece = EVENT % (b"x" * 4_000)
                for _ in range(int(wish[1]) // len(piece)):
                    await self.write(writer, piece)
            await self.write(writer, LAST)
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        finally:
            self.open -= 1

    async def pace(self, writer: asyncio.StreamWriter, every_s: float) -> None:
        while not self.ending.is_set():
            await self.write(writer, EVENT % b"x")
            try:
                async with asyncio.timeout(every_s):
                    await self.ending.wait()
            except TimeoutError:
                continue

    async def write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if writer.is_closing():
            raise ConnectionResetError
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.sent += len(data)
        await writer.drain()


@dataclass
class Client(asyncio.Protocol):
    """One streaming call on a connection of its own."""

    wish: str
    events: int = 0
    at: list[float] = field(default_factory=list)
    tail: bytes = b""
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    transport: asyncio.Transport = field(init=False)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        body = json.dumps(
            {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": self.wish}]}
        ).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body)
        transport.write(head + body)

    def data_received(self, data: bytes) -> None:
        self.events += data.count(b'"content"')
        self.at.append(time.monotonic())
        self.tail = (self.tail + data)[-64:]
        self.begun.set()
        if self.tail.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"):
            self.over.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.over.set()

    @property
    def is_whole(self) -> bool:
        return self.tail.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


@asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[tuple[Backend, Process]]:
    """A backend in this process and a router beside it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    backend = Backend()
    server = await asyncio.start_server(backend.serve, "127.0.0.1", 0, backlog=4096, limit=1 << 20)
    port = server.sockets[0].getsockname()[1]
    (folder / "fleet.yaml").write_text(f"backends:\n  - http://127.0.0.1:{port}\nquality: {{canary: false}}\n")
    served = router(folder, "--config", str(folder / "fleet.yaml"))
    process = await asyncio.to_thread(served.__enter__)
    try:
        await asyncio.to_thread(until, lambda: MODEL in process.admin("GET", "/api/status").text, 60)
        yield backend, process
    finally:
        backend.ending.set()
        await asyncio.to_thread(served.__exit__, None, None, None)
        server.close()


async def call(process: Process, wish: str) -> Client:
    _, client = await asyncio.get_running_loop().create_connection(lambda: Client(wish), "127.0.0.1", process.port)
    return client


async def calls(process: Process, count: int, wish: str) -> list[Client]:
    """So many calls, each with its first event here."""
    found: list[Client] = []
    while len(found) < count:
        found += await asyncio.gather(*(call(process, wish) for _ in range(min(100, count - len(found)))))
    await asyncio.gather(*(client.begun.wait() for client in found))
    return found


def sockets(process: Process) -> int:
    return len(os.listdir(f"/proc/{process.popen.pid}/fd"))


def memory_mb(process: Process) -> float:
    pages = int(Path(f"/proc/{process.popen.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def is_idle(process: Process, backend: Backend, files: int) -> bool:
    status = process.admin("GET", "/api/status").json()
    busy = [one["in_flight"] for one in status["backends"]]
    return status["calls_open"] == 0 and not any(busy) and backend.open == 0 and sockets(process) <= files + 10


async def test_thousands_of_quiet_streams_stay_and_end_well_or_leave_without_a_trace(tmp_path: Path) -> None:
    async with stage(tmp_path) as (backend, process):
        files, before = sockets(process), memory_mb(process)
        clients = await calls(process, MANY, "every 2")
        open_mb = memory_mb(process)
        await asyncio.sleep(5)
        assert min(client.events for client in clients) >= 2
        staying, leaving = clients[: MANY // 2], clients[MANY // 2 :]
        began = time.monotonic()
        for client in leaving:
            client.transport.abort()
        left_s = time.monotonic() - began
        await asyncio.to_thread(until, lambda: backend.open <= len(staying), 60)
        knew_s = time.monotonic() - began
        print(f"{len(leaving)} left within {left_s:.2f} s; their backend knew {knew_s:.2f} s after the first")
        backend.ending.set()
        await asyncio.gather(*(client.over.wait() for client in staying))
        assert all(client.is_whole for client in staying)
        for client in staying:
            client.transport.close()
        await asyncio.to_thread(until, lambda: is_idle(process, backend, files), 60)
        print(f"memory: {before:.0f} MB before, {open_mb:.0f} with {MANY} streams, {memory_mb(process):.0f} after")
        assert open_mb - before < MANY * 0.1  # a stream may cost 100 kB at the very most


async def test_a_flood_of_calls_that_are_given_up_leaves_nothing_behind(tmp_path: Path) -> None:
    async with stage(tmp_path) as (backend, process):
        files = sockets(process)
        began = time.monotonic()
        for _ in range(MANY // 100):
            given_up = await asyncio.gather(*(call(process, "every 1") for _ in range(100)))
            for number, client in enumerate(given_up):
                if number % 3 == 0:
                    await client.begun.wait()
                client.transport.abort()
        print(f"{MANY} calls given up in {time.monotonic() - began:.1f} s")
        await asyncio.to_thread(until, lambda: is_idle(process, backend, files), 60)
        (whole,) = await calls(process, 1, "bytes 10000")
        await whole.over.wait()
        assert whole.is_whole


async def test_who_reads_slowly_stops_its_backend_and_holds_no_memory(tmp_path: Path) -> None:
    size = 60_000_000
    async with stage(tmp_path) as (backend, process):
        before = memory_mb(process)
        client = await call(process, f"bytes {size}")
        socket_ = client.transport.get_extra_info("socket")
        socket_.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        await client.begun.wait()
        client.transport.pause_reading()
        sent = -1
        while sent != backend.sent:
            sent = backend.sent
            await asyncio.sleep(1)
        held_mb = memory_mb(process) - before
        print(f"stopped after {sent / 1e6:.1f} MB, most of it in kernel buffers; the router grew by {held_mb:.1f} MB")
        client.transport.abort()
        assert sent < size / 2
        assert held_mb < size / 3e6  # what is held without bound is all of it; young processes grow by some MB anyway
        await asyncio.to_thread(until, lambda: backend.open == 0, 60)


async def test_one_fast_stream_does_not_starve_the_others(tmp_path: Path) -> None:
    async with stage(tmp_path) as (_, process):
        others = await calls(process, 255, "every 0.2")
        alone = await gaps(others, 3)
        fast = asyncio.create_task(floods(process))
        beside = await gaps(others, 3)
        fast.cancel()
        print(f"p99 gap of 255 streams at 5 events/s: {alone:.3f} s alone, {beside:.3f} s beside a flood")
        assert beside < 2.0  # ten events late would be starving


async def floods(process: Process) -> None:
    while True:
        client = await call(process, "bytes 20000000")
        try:
            await client.over.wait()
        finally:
            client.transport.abort()


async def gaps(clients: list[Client], seconds: float) -> float:
    """The p99 of the gaps between reads, over all clients."""
    for client in clients:
        client.at.clear()
    await asyncio.sleep(seconds)
    found = [b - a for client in clients for a, b in zip(client.at, client.at[1:], strict=False)]
    assert min(len(client.at) for client in clients) >= 2
    return quantiles(found, n=100)[98]
