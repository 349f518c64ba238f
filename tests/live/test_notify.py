"""The operator's phone hears of what matters, from a real process to a local receiver."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.live.processes import MODEL, free_port, router, sim, until

pytestmark = pytest.mark.live


def test_a_flag_reaches_a_webhook(tmp_path: Path) -> None:
    heard: list[Any] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    port = free_port()
    server = ThreadingHTTPServer(("127.0.0.1", port), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with sim(tmp_path, "a") as a:
            fleet = tmp_path / "fleet.yaml"
            fleet.write_text(
                f"backends:\n  - name: a\n    url: {a.url}\n"
                f"notify: {{url: 'http://127.0.0.1:{port}/hook', kind: webhook, min_interval_s: 0}}\n"
                "quality: {canary: false}\n"
            )
            with router(tmp_path, "--config", str(fleet)) as r:
                order = {"flagged": True, "why": "repeats itself", "model": MODEL}
                assert r.admin("POST", "/api/backends/a/grade", order).status_code == 200
                until(lambda: any("repeats itself" in json.dumps(one) for one in heard))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
