"""A TCP proxy that misbehaves on order: refuse, reset, cut at a byte, stall, blackhole, slow."""

import asyncio
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field


@dataclass
class Fault:
    """What is wrong now. `after` counts bytes of answers on one connection."""

    kind: str = "none"  # none, refuse, reset, cut, stall, blackhole, slow
    after: int = 0


@dataclass
class FaultProxy:
    """Sits between the router and one backend. `fault` may change at any time; it holds for bytes from then on."""

    target_port: int
    port: int = 0
    fault: Fault = field(default_factory=Fault)
    _server: asyncio.Server | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)  # set when the fault in force ends
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self) -> None:
        """Listen on loopback; the port stays the same over refusals."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def set(self, fault: Fault) -> None:
        """Be broken in this way from now on."""
        if fault.kind == "refuse" and self._server is not None:
            self._server.close()
            self._server = None
            for writer in tuple(self._writers):
                reset(writer)
        elif fault.kind != "refuse" and self._server is None:
            await self.start()
        self.fault = fault
        self._changed.set()
        self._changed = asyncio.Event()
        if fault.kind == "reset":
            for writer in tuple(self._writers):
                reset(writer)

    async def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        for writer in tuple(self._writers):
            writer.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            reset(writer)
            self._writers.discard(writer)
            return
        self._writers.add(back)
        pumps = [asyncio.ensure_future(self._up(reader, back)), asyncio.ensure_future(self._down(there, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for one in (writer, back):
                self._writers.discard(one)
                with suppress(OSError):
                    one.close()

    async def _up(self, reader: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self.fault.kind == "blackhole":
                continue
            back.write(data)
            await back.drain()

    async def _down(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed = 0
        while data := await there.read(65536):
            kind, after = self.fault.kind, self.fault.after
            if kind == "blackhole":
                continue
            if kind == "stall":
                await self._changed.wait()
            elif kind == "slow":
                for byte in range(0, len(data), 16):
                    writer.write(data[byte : byte + 16])
                    await writer.drain()
                    await asyncio.sleep(0.002)
                passed += len(data)
                continue
            elif kind == "cut" and passed + len(data) > after:
                writer.write(data[: max(0, after - passed)])
                with suppress(OSError):
                    await writer.drain()
                writer.close()
                return
            writer.write(data)
            await writer.drain()
            passed += len(data)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    with suppress(OSError):
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
