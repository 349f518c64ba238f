"""Read a log on another machine with the `ssh` that the operator already uses: no password, no prompt, bounded."""

from __future__ import annotations

import asyncio
import shlex
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress

from router.loops.dockerlog import SPARKRUN_LOG
from router.loops.unreadable import FILTER, Reason, Unreadable, filtered_tail

LIMIT = 16 << 20  # bytes taken, already filtered there
CONNECT_S = 5
NO_FILE = 44  # exit codes of ours on the far side
NO_CONTAINER = 45

_DOCKER_SCRIPT = f"""
since=$(docker inspect -f '{{{{.State.StartedAt}}}}' "$1") || exit {NO_CONTAINER}
found=$(docker logs --since "$since" "$1" 2>&1 | {FILTER})
case "$found" in *'LLM engine (v'*|*'non-default args'*) ;; *)
found=$found$(docker exec "$1" sh -c 'test -r "$1" && cat "$1"' sh "$2" 2>/dev/null | {FILTER}) ;; esac
printf '%s\\n' "$found"
"""

_SAID = (  # what ssh and docker say, in their words
    ("Host key verification failed", Reason.FORBIDDEN),
    ("Permission denied", Reason.FORBIDDEN),
    ("permission denied", Reason.FORBIDDEN),
    ("Connection refused", Reason.REFUSED),
    ("timed out", Reason.TIMEOUT),
    ("Could not resolve", Reason.UNREACHABLE),
    ("No route to host", Reason.UNREACHABLE),
    ("Network is unreachable", Reason.UNREACHABLE),
    ("No such container", Reason.NOT_FOUND),
    ("No such object", Reason.NOT_FOUND),
    ("No such file", Reason.NOT_FOUND),
)


async def read_file(ssh: str, target: str, port: int | None, path: str) -> bytes:
    """Read the lines that count of a file over there. Raises Unreadable."""
    return await _run(ssh, target, port, filtered_tail(path), f"{path} on {target}")


async def read_container(ssh: str, target: str, port: int | None, name: str) -> bytes:
    """Read the lines that count of a container's log over there, or of sparkrun's file in it. Raises Unreadable."""
    command = ["sh", "-c", _DOCKER_SCRIPT, "sh", name, SPARKRUN_LOG]
    return await _run(ssh, target, port, command, f"container {name} on {target}")


async def _run(ssh: str, target: str, port: int | None, command: list[str], what: str) -> bytes:
    options = ["-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_S}"]
    if port is not None:
        options += ["-p", str(port)]
    words = [*options, "--", target, shlex.join(command)]
    try:
        process = await asyncio.create_subprocess_exec(ssh, *words, stdin=DEVNULL, stdout=PIPE, stderr=PIPE)
    except OSError as error:
        raise Unreadable(Reason.FAILED, f"cannot run {ssh}: {error.strerror or error}") from error
    try:
        async with asyncio.TaskGroup() as both:
            out = both.create_task(_bounded(process.stdout, LIMIT))
            err = both.create_task(_bounded(process.stderr, 4096))
        if not out.result()[1]:
            return out.result()[0]  # more than is wanted: what came is enough, the rest is cut off
        code = await process.wait()
    finally:
        await _end(process)
    if code == 0 or (code == 1 and not err.result()[0]):  # 1: nothing found
        return out.result()[0]
    raise _unreadable(code, err.result()[0].decode("utf-8", "replace").strip(), what)


async def _bounded(stream: asyncio.StreamReader | None, limit: int) -> tuple[bytes, bool]:
    """Read at most `limit` bytes; say whether that was all."""
    parts, size = [], 0
    while stream is not None and (part := await stream.read(65_536)):
        parts.append(part)
        size += len(part)
        if size >= limit:
            return b"".join(parts), False
    return b"".join(parts), True


async def _end(process: Process) -> None:
    """Leave no ssh behind, however the read ended."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _unreadable(code: int, said: str, what: str) -> Unreadable:
    last = said.splitlines()[-1][:200] if said else f"exit code {code}"
    if code == NO_FILE:
        return Unreadable(Reason.NOT_FOUND, f"{what} is not there or not readable")
    for words, reason in _SAID:
        if words in said:
            return Unreadable(reason, f"{what}: {last}")
    if code == NO_CONTAINER:
        return Unreadable(Reason.NOT_FOUND, f"{what}: {last}")
    return Unreadable(Reason.FAILED, f"{what}: {last}")
