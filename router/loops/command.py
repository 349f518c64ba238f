"""Run a program that prints a log: no input, bounded output, and nothing left behind however it ends."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from dataclasses import dataclass

from router.loops.unreadable import Reason, Unreadable

LIMIT = 16 << 20  # bytes taken, already filtered at the source
_COMPLAINT = 4096
_LAST_WORDS_S = 1.0


@dataclass(frozen=True, slots=True)
class Output:
    """What a program printed; its exit code is None where it was cut off because it printed too much."""

    text: bytes
    complaint: str
    code: int | None


async def run(program: str, *words: str) -> Output:
    """Run a program to its end, or until it has printed LIMIT bytes.

    Raises:
        Unreadable: the program cannot be run at all.
    """
    try:
        process = await asyncio.create_subprocess_exec(program, *words, stdin=DEVNULL, stdout=PIPE, stderr=PIPE)
    except OSError as error:
        raise Unreadable(Reason.FAILED, f"cannot run {program}: {error.strerror or error}") from error
    complaint = asyncio.create_task(_drained(process.stderr))
    try:
        text, is_whole = await _bounded(process.stdout)
        code = await process.wait() if is_whole else None
    finally:
        await _end(process)
        said = await complaint  # ends with the program
    return Output(text, said.decode("utf-8", "replace").strip(), code)


async def _bounded(stream: asyncio.StreamReader | None) -> tuple[bytes, bool]:
    """Read at most LIMIT bytes; say whether that was all."""
    parts, size = [], 0
    while stream is not None and (part := await stream.read(65_536)):
        parts.append(part)
        size += len(part)
        if size >= LIMIT:
            return b"".join(parts), False
    return b"".join(parts), True


async def _drained(stream: asyncio.StreamReader | None) -> bytes:
    """Read all there is, keep the beginning: a full pipe would stop the program."""
    kept = b""
    while stream is not None and (part := await stream.read(65_536)):
        kept = (kept + part)[:_COMPLAINT]
    return kept


async def _end(process: Process) -> None:
    """Leave no program behind, and no pipe: one that was not read to its end stays open (seen on Python 3.14).

    Its pipes are read first: what fills them keeps asyncio from seeing their end, and until then it says of no program
    that it has ended (up to Python 3.12).
    """
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
    with suppress(TimeoutError):  # a child of its own may hold the other end
        async with asyncio.timeout(_LAST_WORDS_S):
            while process.stdout is not None and await process.stdout.read(65_536):
                pass
            await process.wait()
