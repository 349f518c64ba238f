"""Real answers of vLLM 0.32 and llama.cpp, and real requests of Open WebUI and opencode, as recorded on the wire."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True, slots=True)
class Capture:
    """One recorded exchange: the request's body, the answer's status, and its body as it came, chunk by chunk."""

    request: bytes
    status: int
    chunks: tuple[bytes, ...]

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)


def capture(server: str, name: str) -> Capture:
    raw = (DATA / server / f"{name}.http").read_bytes()
    asked, answered = re.split(rb"### answer[^\n]*\n", raw, maxsplit=1)
    request = re.split(rb"\r?\n\r?\n", asked, maxsplit=1)[1].rstrip(b"\r\n")
    head, body = re.split(rb"\r?\n\r?\n", answered, maxsplit=1)
    chunks = tuple(_dechunked(body)) if b"chunked" in head.lower() else (body.rstrip(b"\r\n"),)
    return Capture(request, int(head.split()[1]), chunks)


def client_request(name: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((DATA / "clients" / f"{name}.json").read_text())["body"]
    return body


def _dechunked(body: bytes) -> list[bytes]:
    found: list[bytes] = []
    while body:
        size, _, rest = body.partition(b"\n")
        length = int(size.strip() or b"0", 16)
        if length == 0:
            break
        found.append(rest[:length])
        body = rest[length:].lstrip(b"\r\n")
    return found
