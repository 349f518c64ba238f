"""TLS for clients and to backends, and unix sockets: real sockets, real handshakes, an authority of the test's own."""

import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from tests.live.processes import MODEL, router, until

pytestmark = pytest.mark.live

TEXT = "x" * 200_000  # several TLS records, several reads


GO_ON = threading.Event()  # what a stream that was asked to wait in the middle waits for


class Backend(BaseHTTPRequestHandler):
    """A server of one model that answers whole or in a stream of 20 events."""

    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        if self.request.family is not socket.AF_UNIX:
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().setup()

    def do_GET(self) -> None:
        card = {"id": MODEL, "object": "model", "owned_by": "vllm", "max_model_len": 4096}
        pages: dict[str, Any] = {"/v1/models": {"object": "list", "data": [card]}, "/version": {"version": "0.32.0"}}
        self._send(200 if self.path in pages or self.path == "/health" else 404, json.dumps(pages.get(self.path, "")))

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not asked.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
            self._send(200, json.dumps({"id": "1", "choices": [choice]}))
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number in range(20):
            if number == 10 and asked.get("user") == "waits":
                GO_ON.wait(60)
            self._event({"index": 0, "delta": {"content": f"{number} "}, "finish_reason": None})
        self._event({"index": 0, "delta": {}, "finish_reason": "stop"})
        self._chunk("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, choice: dict[str, Any]) -> None:
        self._chunk(f"data: {json.dumps({'id': '1', 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n")

    def _chunk(self, text: str) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(text), text.encode()))
        self.wfile.flush()

    def _send(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *args: Any) -> None:
        pass


class UnixServer(socketserver.ThreadingUnixStreamServer):
    """The same on a socket file."""

    daemon_threads = True


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return ca


@pytest.fixture
def plain() -> Iterator[str]:
    """Return the URL of a backend without TLS."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    server.daemon_threads = True
    with serving(server):
        yield f"http://localhost:{server.server_address[1]}"


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[str]:
    """Return the URL of a backend with a certificate for `localhost`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    server.daemon_threads = True
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server):
        yield f"https://localhost:{server.server_address[1]}"


def fleet(folder: Path, backend: str, more: str = "") -> tuple[str, ...]:
    path = folder / "fleet.yaml"
    path.write_text(f"backends:\n  - name: spark\n{backend}quality: {{canary: false}}\n{more}")
    return ("--config", str(path))


def assert_answers(url: str, **options: Any) -> None:
    """A whole answer and a streamed one come through, byte for byte."""
    ask: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
    with httpx.Client(base_url=url, timeout=60, trust_env=False, **options) as client:
        until(lambda: client.get(f"/v1/models/{MODEL}").status_code == 200, 60)
        whole = client.post("/v1/chat/completions", json=ask)
        assert whole.status_code == 200, whole.text
        assert whole.json()["choices"][0]["message"]["content"] == TEXT
        streamed = client.post("/v1/chat/completions", json={**ask, "stream": True}).text
        events = [line.removeprefix("data: ") for line in streamed.splitlines() if line.startswith("data: {")]
        assert "".join(json.loads(event)["choices"][0]["delta"].get("content", "") for event in events) == "".join(
            f"{number} " for number in range(20)
        )
        assert streamed.endswith("data: [DONE]\n\n")


def test_a_backend_behind_tls_is_reached_with_its_own_authority(tmp_path: Path, secure: str) -> None:
    backend = f"    url: {secure}\n    tls_ca: {tmp_path / 'ca.pem'}\n"
    with router(tmp_path, *fleet(tmp_path, backend)) as process:
        assert_answers(process.url)


def test_a_backend_whose_certificate_nobody_vouches_for_is_named_with_the_reason(tmp_path: Path, secure: str) -> None:
    with router(tmp_path, *fleet(tmp_path, f"    url: {secure}\n    serves: [{MODEL}]\n")) as process:
        until(lambda: "certificate verify failed" in process.admin("GET", "/api/status").text.lower(), 60)
        assert httpx.get(f"{process.url}/health", trust_env=False).status_code == 503


def test_a_backend_with_a_certificate_for_another_name_is_refused(tmp_path: Path, secure: str) -> None:
    url = secure.replace("localhost", "127.0.0.1")
    backend = f"    url: {url}\n    tls_ca: {tmp_path / 'ca.pem'}\n"
    with router(tmp_path, *fleet(tmp_path, backend)) as process:
        until(lambda: "certificate verify failed" in process.admin("GET", "/api/status").text.lower(), 60)


def test_clients_are_served_over_tls(tmp_path: Path, authority: trustme.CA, secure: str) -> None:
    own = authority.issue_cert("localhost")
    own.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    own.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    backend = f"    url: {secure}\n    tls_verify: false\n"
    access = f"access:\n  tls_cert: {tmp_path / 'cert.pem'}\n  tls_key: {tmp_path / 'key.pem'}\n"
    trusted = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    with router(tmp_path, *fleet(tmp_path, backend, access), verify=trusted) as process:
        assert_answers(process.url, verify=trusted)


def test_a_backend_on_a_unix_socket_is_reached(tmp_path: Path) -> None:
    path = tmp_path / "vllm.sock"
    with (
        serving(UnixServer(str(path), Backend)),
        router(tmp_path, *fleet(tmp_path, f"    url: unix:{path}\n")) as process,
    ):
        assert_answers(process.url)


def shown_to_clients(folder: Path, authority: trustme.CA) -> None:
    """Put a fresh certificate for `localhost` where the router reads its own."""
    own = authority.issue_cert("localhost")
    own.private_key_pem.write_to_path(str(folder / "key.pem"))
    own.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))


def serial_of(url: str, trusted: ssl.SSLContext) -> str:
    """The serial number of the certificate that a new connection is shown."""
    host, port = url.removeprefix("https://").split(":")
    with (
        socket.create_connection((host, int(port)), timeout=30) as plain,
        trusted.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        return str((secured.getpeercert() or {})["serialNumber"])


def test_a_renewed_certificate_is_shown_after_a_reload_and_open_connections_go_on(
    tmp_path: Path, authority: trustme.CA, secure: str
) -> None:
    shown_to_clients(tmp_path, authority)
    backend = f"    url: {secure}\n    tls_verify: false\n"
    access = f"access:\n  tls_cert: {tmp_path / 'cert.pem'}\n  tls_key: {tmp_path / 'key.pem'}\n"
    trusted = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    with (
        router(tmp_path, *fleet(tmp_path, backend, access), verify=trusted) as process,
        httpx.Client(base_url=process.url, timeout=60, trust_env=False, verify=trusted) as before,
    ):
        until(lambda: before.get(f"/v1/models/{MODEL}").status_code == 200, 60)
        old = serial_of(process.url, trusted)
        shown_to_clients(tmp_path, authority)
        assert serial_of(process.url, trusted) == old, "nothing changes before a reload"
        assert process.admin("POST", "/api/reload", {}).json()["applied"]
        assert serial_of(process.url, trusted) != old
        assert before.get("/v1/models").status_code == 200, "the connection from before"
        (tmp_path / "cert.pem").write_text("no certificate")
        refused = process.admin("POST", "/api/reload", {}).json()
        assert not refused["applied"]
        assert str(tmp_path / "cert.pem") in refused["reason"]
        assert_answers(process.url, verify=trusted)


def test_a_backends_renewed_authority_counts_after_a_reload(tmp_path: Path, authority: trustme.CA, secure: str) -> None:
    """The file first holds another authority; then, under the same name, the right one."""
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "backend-ca.pem"))
    backend = f"    url: {secure}\n    tls_ca: {tmp_path / 'backend-ca.pem'}\n    serves: [{MODEL}]\n"
    with router(tmp_path, *fleet(tmp_path, backend)) as process:
        until(lambda: "certificate verify failed" in process.admin("GET", "/api/status").text.lower(), 60)
        authority.cert_pem.write_to_path(str(tmp_path / "backend-ca.pem"))
        assert process.admin("POST", "/api/reload", {}).json()["applied"]
        until(lambda: "certificate verify failed" not in process.admin("GET", "/api/status").text.lower(), 60)
        assert_answers(process.url)


@pytest.mark.parametrize("begins", ["http", "https"])
def test_a_stream_outlives_a_reload_that_turns_its_backends_tls_on_or_off(
    tmp_path: Path, plain: str, secure: str, begins: str
) -> None:
    ca = f"    tls_ca: {tmp_path / 'ca.pem'}\n"
    entries = {"http": f"    url: {plain}\n", "https": f"    url: {secure}\n{ca}"}
    ask = {"model": MODEL, "messages": [], "stream": True, "user": "waits"}
    GO_ON.clear()
    with (
        router(tmp_path, *fleet(tmp_path, entries.pop(begins))) as process,
        httpx.Client(base_url=process.url, timeout=60, trust_env=False) as client,
    ):
        until(lambda: client.get(f"/v1/models/{MODEL}").status_code == 200, 60)
        with client.stream("POST", "/v1/chat/completions", json=ask) as answer:
            lines = answer.iter_lines()
            heard = [next(line for line in lines if line.startswith("data: "))]
            (after,) = entries.values()
            fleet(tmp_path, after)
            assert process.admin("POST", "/api/reload", {}).json()["applied"]
            assert_answers(process.url)  # by the new way, while the old stream is open
            GO_ON.set()
            heard += [line for line in lines if line.startswith("data: ")]
        said = [json.loads(line[6:])["choices"][0]["delta"].get("content", "") for line in heard[:-1]]
        assert "".join(said) == "".join(f"{number} " for number in range(20))
        assert heard[-1] == "data: [DONE]"
