"""A vLLM that speaks when told, and a client that reads strictly: what the router stands between in tests."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, Literal, cast

import h11
import httptools
import httpx

from router.config import BackendConfig, FleetConfig
from router.wire.client import Address
from tests.memory import MemoryTransport, Network

MODEL = "nemotron"


class FakeCall(asyncio.Protocol):
    """One connection to the fake backend, and the call on it."""

    def __init__(self, backend: "FakeBackend") -> None:
        self.backend = backend
        self.transport = cast(MemoryTransport, None)
        self.parser = httptools.HttpRequestParser(self)
        self.target = ""
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.closed = False
        self.left = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(MemoryTransport, transport)
        self.backend.connections.append(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.headers, self.body, self.target = [], b"", ""

    def on_url(self, url: bytes) -> None:
        self.target += url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode().lower(), value.decode("latin-1")))

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.backend.arrived(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.left.set()

    # --- what a test says ---

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    def raw(self, data: bytes) -> None:
        self.transport.write(data)

    def answer(self, status: int, document: Any, headers: str = "") -> None:
        body = document if isinstance(document, bytes) else json.dumps(document, separators=(",", ":")).encode()
        self.raw(
            f"HTTP/1.1 {status} X\r\nserver: uvicorn\r\ncontent-type: application/json\r\n{headers}"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )

    def chat(self, text: str = "hello", **usage: int) -> None:
        counts = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, **usage}
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        self.answer(200, {"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice], "usage": counts})

    def start(self) -> None:
        """A stream's head, as vLLM sends it: before prefill."""
        self.raw(
            b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )

    def chunk(self, data: bytes) -> None:
        self.raw(b"%x\r\n%b\r\n" % (len(data), data))

    def event(self, document: Any) -> None:
        data = document if isinstance(document, str) else json.dumps(document, separators=(",", ":"))
        self.chunk(f"data: {data}\n\n".encode())

    def delta(self, finish: str | None = None, **delta: Any) -> None:
        self.event(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": MODEL,
                "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
            }
        )

    def role(self) -> None:
        self.delta(role="assistant", content="")

    def say(self, text: str) -> None:
        self.delta(content=text)

    def usage(self, prompt: int = 5, completion: int = 3) -> None:
        counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        self.event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [], "usage": counts})

    def end(self, *, finish: str | None = "stop", usage: bool = True, done: bool = True) -> None:
        if finish is not None:
            self.delta(finish=finish, content="")
        if usage:
            self.usage()
        if done:
            self.event("[DONE]")
        self.raw(b"0\r\n\r\n")

    def stream(self, *texts: str) -> None:
        """A whole stream."""
        self.start()
        self.role()
        for text in texts:
            self.say(text)
        self.end()

    def close(self) -> None:
        self.transport.close()

    def reset(self) -> None:
        self.transport.abort()


class FakeBackend:
    """See the module. `script` answers each call as it comes; without one, a test takes calls by `await call()`."""

    def __init__(self, name: str, network: Network, port: int = 8000, models: tuple[str, ...] = (MODEL,)) -> None:
        self.name = name
        self.host, self.port = name, port
        self.network = network
        self.models = models
        self.cards: dict[str, Any] = {}
        self.kind: Literal["vllm", "openai"] = "vllm"
        self.calls: list[FakeCall] = []
        self.connections: list[FakeCall] = []
        self.waiting: asyncio.Queue[FakeCall] = asyncio.Queue()
        self.script: Callable[[FakeCall], Any] | None = None
        self.health_status = 200
        self.probes = 0
        self.metrics = ""
        self.up()

    def up(self) -> None:
        self.network.listeners[(self.host, self.port)] = lambda: FakeCall(self)

    def down(self) -> None:
        """Refuse new connections and cut the ones there are."""
        self.network.listeners.pop((self.host, self.port), None)
        for connection in self.connections:
            connection.transport.abort()

    @property
    def config(self) -> BackendConfig:
        return BackendConfig(name=self.name, url=f"http://{self.host}:{self.port}", host=(self.name,), kind=self.kind)

    def arrived(self, call: FakeCall) -> None:
        self.calls.append(call)
        if self.script is not None:
            self.script(call)
        else:
            self.waiting.put_nowait(call)

    async def call(self) -> FakeCall:
        """The next call that arrives."""
        return await self.waiting.get()

    @property
    def open_connections(self) -> int:
        return sum(not one.closed for one in self.connections)

    def control(self, request: httpx.Request) -> httpx.Response:
        """What probes see."""
        self.probes += 1
        if (self.host, self.port) not in self.network.listeners:
            raise httpx.ConnectError("connection refused")
        match request.url.path:
            case "/health":
                return httpx.Response(self.health_status)
            case "/v1/models":
                cards = [
                    {"id": model, "object": "model", "owned_by": "vllm", "max_model_len": 4096, **self.cards}
                    for model in self.models
                ]
                return httpx.Response(200, json={"object": "list", "data": cards})
            case "/metrics":
                return httpx.Response(200, text=self.metrics)
            case "/version":
                return httpx.Response(200, json={"version": "0.33.0"})
        return httpx.Response(404, json={"detail": "Not Found"})


def control_client(backends: dict[str, FakeBackend]) -> Callable[[BackendConfig, Address], httpx.AsyncClient]:
    """What the prober makes its clients with."""

    def make(config: BackendConfig, address: Address) -> httpx.AsyncClient:
        def handle(request: httpx.Request) -> httpx.Response:
            for backend in backends.values():
                if (backend.host, backend.port) == (address.host, address.port):
                    return backend.control(request)
            raise httpx.ConnectError("connection refused")

        return httpx.AsyncClient(base_url=f"http://{address}", transport=httpx.MockTransport(handle))

    return make


class Answer:
    """What the client has of one answer, read by h11: framing mistakes raise."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.complete = False
        self.broken: str | None = None
        self.informational: list[int] = []
        self.changed = asyncio.Event()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        found = []
        for block in self.body.decode().split("\n\n"):
            data = [line.removeprefix("data:").strip() for line in block.split("\n") if line.startswith("data:")]
            if data:
                text = "\n".join(data)
                found.append(text if text == "[DONE]" else json.loads(text))
        return found

    @property
    def text(self) -> str:
        """The content of a chat stream."""
        return "".join(
            choice["delta"].get("content") or ""
            for event in self.events
            if isinstance(event, dict)
            for choice in event.get("choices", [])
        )

    async def until(self, condition: Callable[["Answer"], Any]) -> "Answer":
        while not condition(self):
            self.changed.clear()
            await self.changed.wait()
        return self

    async def whole(self) -> "Answer":
        return await self.until(lambda answer: answer.complete or answer.broken is not None)


class FakeClient(asyncio.Protocol):
    """One client connection; requests go out in order, answers are read in order."""

    def __init__(self) -> None:
        self.transport = cast(MemoryTransport, None)
        self.h11 = h11.Connection(h11.CLIENT)
        self.answers: list[Answer] = []
        self.closed = False
        self.raw = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(MemoryTransport, transport)

    def post(self, path: str, document: Any, headers: dict[str, str] | None = None, method: str = "POST") -> Answer:
        body = (
            document if isinstance(document, bytes) else json.dumps(document).encode() if document is not None else b""
        )
        answer = Answer()
        self.answers.append(answer)
        if self.h11.our_state is h11.DONE:
            self.h11.start_next_cycle()
        fields = {"host": "router", "content-type": "application/json", **(headers or {})}
        if body or method == "POST":
            fields["content-length"] = str(len(body))
        self.transport.write(self.h11.send(h11.Request(method=method, target=path, headers=list(fields.items()))))
        if body:
            self.transport.write(self.h11.send(h11.Data(data=body)))
        self.transport.write(self.h11.send(h11.EndOfMessage()))
        return answer

    def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        return self.post(path, None, headers, "GET")

    def data_received(self, data: bytes) -> None:
        self.raw += data
        if self.answers:
            self.h11.receive_data(data)
            self._read()

    def _read(self) -> None:
        answer = self.answers[-1]
        while True:
            event = self.h11.next_event()
            if isinstance(event, h11.InformationalResponse):
                answer.informational.append(event.status_code)
            elif isinstance(event, h11.Response):
                answer.status = event.status_code
                answer.headers = {key.decode(): value.decode("latin-1") for key, value in event.headers}
            elif isinstance(event, h11.Data):
                answer.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                answer.complete = True
                break
            else:
                break
        answer.changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        for answer in self.answers:
            if not answer.complete:
                try:
                    self.h11.receive_data(b"")
                    self._read()
                except h11.RemoteProtocolError as error:
                    answer.broken = str(error)
                if not answer.complete and answer.broken is None:
                    answer.broken = "closed"
            answer.changed.set()

    def leave(self) -> None:
        """Hang up."""
        self.transport.close()

    def stop_reading(self) -> None:
        self.transport.pause_reading()

    def read_again(self) -> None:
        self.transport.resume_reading()


def fleet_of(*backends: FakeBackend, **settings: Any) -> FleetConfig:
    return FleetConfig(backends=tuple(backend.config for backend in backends), **settings)
