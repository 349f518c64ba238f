"""Read a container's log, or a file inside it, over docker's (or podman's) Engine API on its unix socket.

API as documented for version 1.41 and later: container inspect, container logs, exec create and start, and the
multiplexed stream of frames `[kind, 0, 0, 0, length big-endian]`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx

from router.errors import causes
from router.loops.unreadable import Reason, Unreadable, filtered_tail
from router.vllm.logs import START_MARKS

HEAD = 8 << 20  # bytes from the container's start on
TAIL_LINES = 5_000
FILE_LIMIT = 8 << 20  # bytes taken of a file inside, already filtered there

SPARKRUN_LOG = "/tmp/sparkrun_serve.log"
"""Where sparkrun's `docker exec` sends vLLM's output; the container's own log is then empty."""


class Docker:
    """One Engine API socket; opened per read, closed with it."""

    def __init__(self, socket: str, connect_s: float = 3.0, idle_s: float = 15.0) -> None:
        self._socket = socket
        self._timeout = httpx.Timeout(idle_s, connect=connect_s)

    def __repr__(self) -> str:
        return f"Docker({self._socket})"

    async def read(self, name: str, path: str | None = None) -> bytes:
        """Read a container's last start; with `path`, that file inside it.

        A container whose own log holds no start-up is asked for sparkrun's file.

        Raises:
            Unreadable: forbidden, refused, no such container or file, not running.
        """
        name = quote(name, safe="")
        transport = httpx.AsyncHTTPTransport(uds=self._socket)
        async with httpx.AsyncClient(transport=transport, base_url="http://docker", timeout=self._timeout) as client:
            try:
                if path is not None:
                    return await _file(client, name, path)
                text = await _own_log(client, name)
                if any(mark.encode() in text for mark in START_MARKS):
                    return text
                try:
                    return await _file(client, name, SPARKRUN_LOG)
                except Unreadable:
                    return text
            except httpx.HTTPError as error:
                raise _unreadable(error, self._socket) from error

    async def image(self, name: str) -> str:
        """What a container was made from, see `image_of`. Raises Unreadable."""
        name = quote(name, safe="")
        transport = httpx.AsyncHTTPTransport(uds=self._socket)
        async with httpx.AsyncClient(transport=transport, base_url="http://docker", timeout=self._timeout) as client:
            try:
                found = await _inspect(client, name)
            except httpx.HTTPError as error:
                raise _unreadable(error, self._socket) from error
        config = found.get("Config")
        return image_of(
            str(config.get("Image") or "") if isinstance(config, dict) else "", str(found.get("Image") or "")
        )


def image_of(name: str, digest: str) -> str:
    """An image's name and the beginning of its digest: the same `nightly` is another image next week."""
    short = digest.removeprefix("sha256:")[:12]
    return f"{name}@{short}" if short and short not in name else name


class Frames:
    """Takes docker's multiplexed stream apart; a stream of a terminal (TTY) has no frames and passes as it is."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._is_raw: bool | None = None

    def feed(self, data: bytes) -> bytes:
        """Give back the payload of all frames that are complete."""
        self._buffer += data
        if self._is_raw is None and len(self._buffer) >= 4:
            self._is_raw = self._buffer[0] > 2 or self._buffer[1:4] != b"\0\0\0"
        if self._is_raw:
            payload = bytes(self._buffer)
            self._buffer.clear()
            return payload
        return b"".join(self._frames())

    def rest(self) -> bytes:
        """What is left of a frame that was cut off."""
        rest = bytes(self._buffer if self._is_raw is not False else self._buffer[8:])
        self._buffer.clear()
        return rest

    def _frames(self) -> list[bytes]:
        payloads, at = [], 0
        while len(self._buffer) - at >= 8:
            length = int.from_bytes(self._buffer[at + 4 : at + 8], "big")
            if len(self._buffer) - at - 8 < length:
                break
            payloads.append(bytes(self._buffer[at + 8 : at + 8 + length]))
            at += 8 + length
        del self._buffer[:at]
        return payloads


async def _own_log(client: httpx.AsyncClient, name: str) -> bytes:
    """From its last start on; where that is more than HEAD, the newest lines too."""
    state = (await _inspect(client, name)).get("State")
    both = {"stdout": "1", "stderr": "1"}
    head, is_whole = await _stream(
        client,
        "GET",
        f"/containers/{name}/logs",
        HEAD,
        params=both | {"since": str(_started(state if isinstance(state, dict) else {}))},
    )
    if is_whole:
        return head
    tail, _ = await _stream(client, "GET", f"/containers/{name}/logs", HEAD, params=both | {"tail": str(TAIL_LINES)})
    return head + b"\n" + tail


async def _file(client: httpx.AsyncClient, name: str, path: str) -> bytes:
    """A file inside, filtered there: only lines that say something are sent."""
    command = {"AttachStdout": True, "AttachStderr": False, "Cmd": filtered_tail(path)}
    answer = await client.post(f"/containers/{name}/exec", json=command)
    _check(answer, name)
    job = str(_object(answer).get("Id", ""))
    start = {"Detach": False, "Tty": False}
    text, is_whole = await _stream(client, "POST", f"/exec/{job}/start", FILE_LIMIT, json=start)
    if is_whole and not text:
        ended = _object(await client.get(f"/exec/{job}/json"))
        if ended.get("ExitCode") not in (0, 1, None):  # 1: grep found nothing
            raise Unreadable(Reason.NOT_FOUND, f"{path} in container {name} is not there or not readable")
    return text


async def _inspect(client: httpx.AsyncClient, name: str) -> dict[str, Any]:
    answer = await client.get(f"/containers/{name}/json")
    _check(answer, name)
    return _object(answer)


async def _stream(client: httpx.AsyncClient, method: str, url: str, limit: int, **more: Any) -> tuple[bytes, bool]:
    """Read a stream of frames up to `limit` payload bytes; say whether that was all of it."""
    frames, parts, size = Frames(), [], 0
    async with client.stream(method, url, **more) as answer:
        if answer.is_error:
            await answer.aread()
            _check(answer, url)
        async for data in answer.aiter_raw():
            parts.append(frames.feed(data))
            size += len(parts[-1])
            if size >= limit:
                return b"".join(parts), False
    return b"".join([*parts, frames.rest()]), True


def _started(state: dict[str, Any]) -> int:
    """Unix second of the last start; 0 (all of the log) where docker does not say."""
    try:
        return max(int(datetime.fromisoformat(str(state.get("StartedAt"))).timestamp()), 0)
    except (ValueError, OverflowError):
        return 0


def _object(answer: httpx.Response) -> dict[str, Any]:
    try:
        document = answer.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _check(answer: httpx.Response, name: str) -> None:
    """Turn docker's refusals into reasons."""
    if not answer.is_error:
        return
    said = str(_object(answer).get("message") or answer.reason_phrase)[:200]
    if answer.status_code == 404:
        raise Unreadable(Reason.NOT_FOUND, f"no such container: {name}")
    if answer.status_code == 409:
        raise Unreadable(Reason.NOT_RUNNING, f"container {name} is not running: {said}")
    if answer.status_code in (401, 403):
        raise Unreadable(Reason.FORBIDDEN, f"docker refuses to tell: {said}")
    raise Unreadable(Reason.FAILED, f"docker answered {answer.status_code}: {said}")


def _unreadable(error: httpx.HTTPError, socket: str) -> Unreadable:
    """Find the operating system's word in the chain of causes."""
    for cause in causes(error):
        if isinstance(cause, PermissionError):
            return Unreadable(Reason.FORBIDDEN, f"{socket}: permission denied; let the router's user into its group")
        if isinstance(cause, FileNotFoundError):
            return Unreadable(Reason.NOT_FOUND, f"{socket}: no such socket; is docker running, is the socket mounted?")
        if isinstance(cause, ConnectionRefusedError):
            return Unreadable(Reason.REFUSED, f"{socket}: nobody listens")
    if isinstance(error, httpx.TimeoutException):
        return Unreadable(Reason.TIMEOUT, f"{socket}: no answer in time")
    return Unreadable(Reason.FAILED, f"{socket}: {type(error).__name__}: {error}"[:300])
