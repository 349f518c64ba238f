"""The router as a process: serve, reload by signal, drain on SIGTERM, say who has the port."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live.processes import LIMIT_S, MODEL, Process, router, sim, until

pytestmark = pytest.mark.live


def chat(url: str, count: int = 10, **more: Any) -> httpx.Response:
    body = {"model": MODEL, "messages": [{"role": "user", "content": f"count to {count}"}], **more}
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=LIMIT_S, trust_env=False)


def streamed(url: str, count: int) -> tuple[str, bool]:
    """The text of a stream, and whether it ended well."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": f"count to {count}"}], "stream": True}
    body["max_tokens"] = 4 * count
    text, done = "", False
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=LIMIT_S, trust_env=False) as answer:
        for line in answer.iter_lines():
            if line == "data: [DONE]":
                done = True
            elif line.startswith("data:"):
                for choice in json.loads(line.removeprefix("data:")).get("choices", []):
                    text += choice["delta"].get("content") or ""
    return text.strip(), done


def numbers(count: int) -> str:
    return " ".join(str(number) for number in range(1, count + 1))


def test_two_backends_without_a_file(tmp_path: Path) -> None:
    with (
        sim(tmp_path, "a") as a,
        sim(tmp_path, "b") as b,
        router(tmp_path, "--backend", a.url, "--backend", b.url) as r,
    ):
        answer = chat(r.url)
        assert answer.status_code == 200
        assert answer.json()["choices"][0]["message"]["content"].strip() == numbers(10)
        assert answer.headers["x-router-backend"]
        explained = r.admin("GET", f"/api/explain/{answer.headers['x-request-id']}").json()
        assert len(explained["decisions"][0]["candidates"]) == 2
        a.end(signal.SIGKILL)
        for _ in range(5):
            assert chat(r.url).status_code == 200


def test_a_backend_killed_in_the_middle_of_an_answer_is_continued(tmp_path: Path) -> None:
    with (
        sim(tmp_path, "a", profile="marlin") as a,
        sim(tmp_path, "b", profile="marlin") as b,
        router(tmp_path, "--backend", a.url, "--backend", b.url) as r,
    ):
        found: list[tuple[str, bool]] = []
        thread = threading.Thread(target=lambda: found.append(streamed(r.url, 200)))
        thread.start()
        busy: list[Process] = []

        def one_is_busy() -> bool:
            backends = r.admin("GET", "/api/status").json()["backends"]
            decoding = [one["address"] for one in backends if one["decoding"]]
            busy.extend(a if address.endswith(f":{a.port}") else b for address in decoding)
            return bool(busy)

        until(one_is_busy)
        busy[0].end(signal.SIGKILL)
        thread.join(LIMIT_S)
        assert found == [(numbers(200), True)]


def test_sighup_reloads_and_sigterm_lets_streams_finish(tmp_path: Path) -> None:
    with sim(tmp_path, "a", profile="marlin") as a, sim(tmp_path, "b", profile="marlin") as b:
        fleet = tmp_path / "fleet.yaml"
        fleet.write_text(f"backends:\n  - name: a\n    url: {a.url}\n")
        with router(tmp_path, "--config", str(fleet)) as r:
            fleet.write_text(f"backends:\n  - name: a\n    url: {a.url}\n  - name: b\n    url: {b.url}\n")
            r.popen.send_signal(signal.SIGHUP)
            until(lambda: len(r.admin("GET", "/api/status").json()["backends"]) == 2)
            found: list[tuple[str, bool]] = []
            thread = threading.Thread(target=lambda: found.append(streamed(r.url, 150)))
            thread.start()
            until(lambda: r.admin("GET", "/api/status").json()["calls_open"] == 1)
            code = r.end(signal.SIGTERM)
            thread.join(LIMIT_S)
            assert found == [(numbers(150), True)], r.text[-2000:]
            assert code == 0


def test_a_taken_port_names_its_owner_and_the_flag(tmp_path: Path) -> None:
    with sim(tmp_path, "a") as a, router(tmp_path, "--backend", a.url) as r:
        args = ["serve", "--host", "127.0.0.1", "--port", str(r.port), "--admin-port", "0", "--backend", a.url]
        second = subprocess.run(
            [sys.executable, "-m", "router", *args], capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        assert second.returncode == 3
        assert f"port {r.port} is taken" in second.stderr
        assert str(r.popen.pid) in second.stderr
        assert "--port" in second.stderr


def decode_rate(r: Process) -> dict[str, Any]:
    models = r.admin("GET", "/api/status").json()["backends"][0]["models"]
    return dict(models[0]["speed"]["decode_rate"]) if models else {"source": "nothing yet"}


def test_what_was_learned_survives_a_restart(tmp_path: Path) -> None:
    with sim(tmp_path, "a", profile="marlin") as a:
        with router(tmp_path, "--backend", a.url) as r:
            for _ in range(3):
                assert streamed(r.url, 30)[1]
            before = decode_rate(r)
            assert before["source"] == "learned"
        with router(tmp_path, "--backend", a.url) as r:
            until(lambda: decode_rate(r)["source"] == "learned")  # once its build is known again, and before any call
            assert decode_rate(r)["value"] == pytest.approx(before["value"], rel=0.05)
