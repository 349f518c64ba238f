"""`python -m tests.bench.tls`: what TLS and unix sockets cost the router's process, beside plain TCP in the same run.

One connection, one call after the other, ten rounds of every way in turn; CPU time is the router's own.
"""

import http.client
import json
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from statistics import median

import trustme
from rich.console import Console
from rich.table import Table

from tests.bench import machine
from tests.live.processes import MODEL, Process, router, until
from tests.live.test_tls import Backend, UnixServer, fleet, serving

ROUNDS, CALLS = 10, 100
ASK = json.dumps({"model": MODEL, "max_tokens": 16, "stream": True, "messages": [{"role": "user", "content": "hi"}]})


def main() -> None:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        ways = {way: stack.enter_context(target(Path(name) / str(at), way)) for at, way in enumerate(WAYS)}
        trusted = {
            way: ssl.create_default_context(cafile=str(Path(name) / str(at) / "ca.pem")) for at, way in enumerate(WAYS)
        }
        spent: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(ROUNDS + 1):
            for way, process in ways.items():
                cost = cpu_of(process, trusted[way]) / CALLS * 1e6
                if number:  # the first round warms up
                    spent[way].append(cost)
    table = Table(box=None, title="The router's CPU for a stream of 21 events", title_justify="left")
    for heading in ("way", "µs a call", "beside plain"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    plain = median(spent["plain"])
    for way, costs in spent.items():
        table.add_row(way, f"{median(costs):.0f}", f"{median(costs) / plain:.2f} ×")
    Console().print(table)


WAYS = ("plain", "TLS for the client", "TLS to the backend", "TLS on both sides", "unix socket to the backend")


@contextmanager
def target(folder: Path, way: str) -> Iterator[Process]:
    """Start a backend and a router that meet, and meet us, in this way."""
    folder.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    client = way in ("TLS for the client", "TLS on both sides")
    backend = way in ("TLS to the backend", "TLS on both sides")
    with ExitStack() as stack:
        if way == "unix socket to the backend":
            stack.enter_context(serving(UnixServer(str(folder / "vllm.sock"), Backend)))
            url = f"    url: unix:{folder / 'vllm.sock'}\n"
        else:
            server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
            server.daemon_threads = True
            if backend:
                context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
                authority.issue_cert("localhost").configure_cert(context)
                server.socket = context.wrap_socket(server.socket, server_side=True)
            stack.enter_context(serving(server))
            url = f"    url: http{'s' * backend}://localhost:{server.server_address[1]}\n"
            url += f"    tls_ca: {folder / 'ca.pem'}\n" if backend else ""
        access, verify = "", None
        if client:
            own = authority.issue_cert("localhost")
            own.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
            own.private_key_pem.write_to_path(str(folder / "key.pem"))
            access = f"access:\n  tls_cert: {folder / 'cert.pem'}\n  tls_key: {folder / 'key.pem'}\n"
            verify = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        yield stack.enter_context(router(folder, *fleet(folder, url, access), verify=verify))


def cpu_of(process: Process, trusted: ssl.SSLContext) -> float:
    """Return the CPU seconds that the router's process spends on a round of calls over one connection."""
    if process.secure:
        connection = http.client.HTTPSConnection("localhost", process.port, timeout=60, context=trusted)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=60)
    until(lambda: ask(connection), 60)
    before = machine.cpu_s(process.popen.pid)
    for _ in range(CALLS):
        assert ask(connection)
    spent = machine.cpu_s(process.popen.pid) - before
    connection.close()
    return spent


def ask(connection: http.client.HTTPConnection) -> bool:
    connection.request("POST", "/v1/chat/completions", ASK, {"content-type": "application/json"})
    answer = connection.getresponse()
    return answer.read().endswith(b"data: [DONE]\n\n") and answer.status == 200


if __name__ == "__main__":
    main()
