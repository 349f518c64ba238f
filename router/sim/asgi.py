"""As much of a web framework as the simulated vLLM needs: routes, JSON, event streams, and who hung up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from router.sim.wish import Refusal, invalid

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Handler = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """One request and its answer."""

    def __init__(self, scope: Mapping[str, Any], send: Send, body: bytes) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self.transport: asyncio.Transport | None = scope.get("sim.transport")
        self.body = body
        self.status: int | None = None
        self._send = send

    def json(self) -> dict[str, Any]:
        """The body as a JSON object. Raises Refusal in vLLM's words."""
        if not self.body:
            raise invalid("missing", "body", "Field required", None)
        if not self.headers.get("content-type", "application/json").startswith("application/json"):
            said = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
            raise Refusal(400, said, "Bad Request")
        try:
            found = orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            more = ", 'ctx': {'error': 'Expecting value'}"
            raise invalid("json_invalid", f"body.{error.pos}", "JSON decode error", {}, more) from None
        if not isinstance(found, dict):
            raise invalid("dict_type", "body", "Input should be a valid dictionary", found)
        return found

    async def head(self, status: int, headers: list[tuple[str, str]], varies: bool = True) -> None:
        """Send status and headers; uvicorn puts date and server before them."""
        self.status = status
        pairs = [*headers, ("vary", "Origin")] if varies else headers
        encoded = [(name.encode(), value.encode()) for name, value in pairs]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    async def write(self, data: bytes, more: bool = True) -> None:
        """Send a piece of the body."""
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def answer(self, status: int, content: Any, kind: str = "application/json", **options: Any) -> None:
        """Send a whole answer: bytes as they are, anything else as JSON. `headers`, `varies` as for `head`."""
        data = content if isinstance(content, bytes) else orjson.dumps(content)
        headers = [("content-length", str(len(data)))]
        if data:
            headers.append(("content-type", kind))
        await self.head(status, [*options.get("headers", []), *headers], options.get("varies", True))
        await self.write(b"" if self.method == "HEAD" else data, more=False)

    async def stream(self) -> None:
        """Begin an event stream: vLLM sends this before the prompt is even looked at by the engine."""
        await self.head(200, [("content-type", "text/event-stream; charset=utf-8")])

    def reset(self) -> None:
        """Break the connection: the client sees a reset, as when a process is killed."""
        if self.transport is not None:
            self.transport.abort()


async def read_body(receive: Receive) -> bytes | None:
    """The whole body, None where the client left before its end."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def until_gone(handler: Awaitable[None], receive: Receive) -> None:
    """Run a handler; the client hanging up cancels it at once."""
    work = asyncio.ensure_future(handler)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if not work.done():
            work.cancel()
        results = await asyncio.gather(work, gone, return_exceptions=True)
    if isinstance(results[0], Exception):
        raise results[0]


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
