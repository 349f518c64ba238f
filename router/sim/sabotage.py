"""Answers that break on purpose: the place where faults of the wire are acted out."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from router.sim.asgi import Exchange
from router.sim.faults import Fault, Faults
from router.sim.wish import Refusal

DIED = "EngineCore encountered an issue. See stack trace (above) for the root cause."
BUSY = "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."
_WIRE = ("cut", "truncate", "bad_chunk", "error_event", "half_json", "missing_done")


class Broken(Exception):
    """The answer has ended in the way that the fault wanted."""


def died() -> dict[str, Any]:
    """The error object of a call whose engine died."""
    return {"error": {"message": DIED, "type": "InternalServerError", "param": None, "code": 500}}


async def refuse_early(exchange: Exchange, faults: Faults, draw: float) -> None:
    """Answer with an error status, or never, where a fault says so. Raises Broken after that."""
    if faults.own is not None and faults.own.kind == "hang":
        await asyncio.Event().wait()
    if faults.get("busy", draw):
        raise Refusal(503, BUSY, "Service Unavailable")
    fault = faults.get("status", draw)
    if fault is None:
        return
    headers = [] if fault.retry_after_s is None else [("retry-after", f"{fault.retry_after_s:.0f}")]
    body = died() if fault.status == 500 else {
        "error": {"message": "A fault was asked for.", "type": "SimulatedFault", "param": None, "code": fault.status}
    }  # fmt: skip
    await exchange.answer(fault.status, body, headers=headers)
    raise Broken


class Outlet:
    """Where an answer's events or its JSON go; breaks where the fault in force says so."""

    def __init__(self, exchange: Exchange, faults: Faults, draw: float) -> None:
        self._exchange = exchange
        self._fault: Fault | None = next((fault for kind in _WIRE if (fault := faults.get(kind, draw))), None)
        self._events = 0
        self._dirty = False

    async def event(self, data: bytes) -> None:
        """Send one event, blank line included. Raises Broken where the stream ends here."""
        fault = self._fault
        if fault is not None and self._events == fault.after and fault.kind != "missing_done":
            data = await self._break(fault, data)
        self._events += 1
        await self._exchange.write(data)

    async def json(self, value: Any) -> None:
        """Send one `data:` event."""
        await self.event(b"data: " + orjson.dumps(value) + b"\n\n")

    async def named(self, name: str, value: Any) -> None:
        """Send one event with a name, as the routes of other vendors have them."""
        await self.event(b"event: " + name.encode() + b"\ndata: " + orjson.dumps(value) + b"\n\n")

    async def done(self, marks: bool = True) -> None:
        """End the stream, with [DONE] where the route has it."""
        if marks and not (self._fault and self._fault.kind == "missing_done"):
            await self._exchange.write(b"data: [DONE]\n\n")
        await self._exchange.write(b"", more=False)

    async def whole(self, value: Any) -> None:
        """Send a whole JSON answer."""
        fault, exchange = self._fault, self._exchange
        data = orjson.dumps(value)
        if fault is None or fault.kind == "missing_done":
            await exchange.answer(200, data)
        elif fault.kind == "error_event":
            await exchange.answer(500, died())
        elif fault.kind == "half_json":
            await exchange.answer(200, data[: len(data) // 2])
        elif fault.kind == "bad_chunk":
            await exchange.head(200, [("content-type", "application/json")])
            await self._nonsense()
        else:
            await exchange.head(200, [("content-length", str(len(data))), ("content-type", "application/json")])
            await exchange.write(data[: len(data) // 2])
            self._hang_up(fault)

    async def _break(self, fault: Fault, data: bytes) -> bytes:
        if fault.kind == "half_json":
            return data[: len(data) // 2] + b"\n\n"
        if fault.kind == "error_event":
            spaced = str(died()).replace("'", '"').replace("None", "null")  # json.dumps with spaces, as captured
            await self._exchange.write(f"data: {spaced}\n\n".encode())
            await self._exchange.write(b"data: [DONE]\n\n")
            await self._exchange.write(b"", more=False)
            raise Broken
        if fault.kind == "bad_chunk":
            await self._nonsense()
        self._hang_up(fault)
        raise Broken

    async def _nonsense(self) -> None:
        """Bytes that are no chunk."""
        if self._exchange.transport is not None:
            self._exchange.transport.write(b"this is no chunk size\r\n{}\r\n")
            self._exchange.transport.close()
        raise Broken

    def _hang_up(self, fault: Fault) -> None:
        if fault.kind == "cut":
            self._exchange.reset()
        elif self._exchange.transport is not None:
            self._exchange.transport.close()
        raise Broken
