"""`router doctor`: read a vLLM log and say what the server really runs, what is wrong, and what to do about it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from router.loops.filelog import read_last_start
from router.loops.logsource import DOCKER_SOCKET, LogAccess, LogText
from router.loops.unreadable import Reason
from router.vllm.advice import Advice, advise
from router.vllm.findings import Finding, Weight
from router.vllm.identity import Identity, compare
from router.vllm.kernels import Version, version_of
from router.vllm.logs import LogReader

_STYLE = {Weight.NOTE: "dim", Weight.WARNING: "yellow", Weight.FAULT: "bold red"}
_PIECE = 1 << 20  # bytes of a pasted log at a time: a 10 GB one is never held whole
_LOOKED_AT = 4096  # bytes at the beginning that tell text from binary
_NOT_REACHED = (Reason.REFUSED, Reason.UNREACHABLE, Reason.TIMEOUT)

SCHEMES = ("docker:", "file:", "journal:", "ssh:", "ssh+docker:")


class CannotRead(Exception):
    """The log could not be read; carries one sentence and the exit code: 2, or 3 where its machine was not reached."""

    def __init__(self, said: str, code: int = 2) -> None:
        super().__init__(said)
        self.code = code


def doctor(
    log: Annotated[
        str, typer.Argument(help="- for stdin, a file, or a source: docker:NAME, file:/PATH, ssh://HOST/PATH, …")
    ] = "-",
    backend: Annotated[str, typer.Option(help="Name to show for this server.")] = "",
    declared: Annotated[str, typer.Option("--kernel", help="The kernel it is supposed to run.")] = "",
    docker_socket: Annotated[str, typer.Option(help="Docker's Engine API socket.")] = DOCKER_SOCKET,
) -> None:
    """Explain a vLLM log: which kernels run, what is wrong, what to do on this version.

    Exit code 0: nothing of weight. 1: something to act on. 2: the log could not be read. 3: not reached.

    Examples:

        docker logs vllm-marlin 2>&1 | router doctor

        router doctor docker:vllm-marlin --kernel marlin
    """
    console = Console(highlight=False)
    try:
        with Console(stderr=True).status(f"reading {escape(log)}") if log != "-" else contextlib.nullcontext():
            identity = examine(log, LogAccess(docker_socket=docker_socket))
    except CannotRead as error:
        console.print(f"[red]{escape(str(error))}[/]")
        raise typer.Exit(error.code) from error
    raise typer.Exit(report(console, identity, backend, declared))


def examine(log: str, access: LogAccess) -> Identity:
    """Read a log from stdin, a path or a source string.

    Raises:
        CannotRead: it could not be read.
    """
    reader = LogReader()
    if log == "-":
        _feed_stdin(reader, "what was piped in")
        return reader.identity
    if log.startswith(SCHEMES):
        text = asyncio.run(access.read(log))
        if not isinstance(text, LogText):
            raise CannotRead(f"{text.reason}: {text.detail}", 3 if text.reason in _NOT_REACHED else 2)
        data = text.data
    else:
        try:
            data = read_last_start(Path(log))
        except OSError as error:
            raise CannotRead(f"{log}: {error.strerror or error}") from error
    reader.feed(data.split(b"\n"))
    _refuse_binary(data, reader, log)
    return reader.identity


def report(console: Console, identity: Identity, backend: str = "", declared: str = "") -> int:
    """Print what was found; give back the exit code."""
    verdict = compare(declared or None, identity)
    version = version_of(identity.version)
    colour = {True: "green", False: "bold red", None: "yellow"}[verdict.matches]
    console.print(
        f"[bold]{escape(backend or identity.model or 'this server')}[/]: [{colour}]{escape(verdict.detail)}[/]"
    )
    console.print(_facts(identity))
    for advice, findings in _by_advice(identity, version).items():
        _print_findings(console, advice, findings)
    ignored = _ignored_flags(identity)
    if ignored:
        console.print(f"[yellow]{escape(ignored)}[/]")
    weighty = [finding for finding in identity.findings if finding.weight >= Weight.WARNING]
    if not identity.findings and _speaks(identity):
        console.print("[green]Nothing wrong was found in this log.[/]")
    return 1 if weighty or ignored or verdict.matches is False else 0


def _refuse_binary(beginning: bytes, reader: LogReader, name: str) -> None:
    """Refuse what begins with NULs and says nothing of vLLM; a log that was truncated while written begins so too."""
    if b"\0" in beginning[:_LOOKED_AT] and not _speaks(reader.identity):
        raise CannotRead(f"{name}: binary data, no log of vLLM; give the text that `docker logs NAME` prints")


def _speaks(identity: Identity) -> bool:
    """Whether anything in the text came from a vLLM."""
    return bool(identity.version or identity.linear or identity.moe or identity.ready or identity.findings)


def _feed_stdin(reader: LogReader, name: str) -> None:
    if sys.stdin.isatty():
        raise CannotRead(
            "nothing is piped in; try: router doctor docker:NAME, or docker logs NAME 2>&1 | router doctor -"
        )
    rest = beginning = b""
    while piece := sys.stdin.buffer.read(_PIECE):
        beginning = beginning or piece[:_LOOKED_AT]
        lines = (rest + piece).split(b"\n")
        rest = lines.pop()[-_PIECE:]
        reader.feed(lines)
    reader.feed([rest])
    _refuse_binary(beginning, reader, name)


def _facts(identity: Identity) -> Table:
    """The numbers beside the verdict, one line each."""
    table = Table.grid(padding=(0, 2))
    rows = (
        ("vLLM", identity.version),
        ("model", identity.model),
        ("checkpoint", identity.quantization),
        ("linear", ", ".join(identity.linear) or None),
        ("experts", identity.moe),
        ("computes in", identity.scheme),
        ("other layers", ", ".join(identity.others) or None),
        ("KV cache", f"{identity.kv_tokens:,} tokens" if identity.kv_tokens else None),
        ("start-up", "complete" if identity.ready else "not complete in this log"),
    )
    for name, value in rows:
        if value:
            table.add_row(f"  [dim]{name}[/]", escape(str(value)))
    return table


def _by_advice(identity: Identity, version: Version | None) -> dict[Advice, list[Finding]]:
    """Findings with the same advice belong together: twenty skipped tactics need it once."""
    groups: dict[Advice, list[Finding]] = {}
    for finding in identity.findings:
        groups.setdefault(advise(finding, version), []).append(finding)
    return groups


def _print_findings(console: Console, advice: Advice, findings: list[Finding]) -> None:
    first = findings[0]
    details = ", ".join(finding.detail for finding in findings if finding.detail)
    count = sum(finding.count for finding in findings)
    title = first.kind.replace("_", " ") + (f" ({details})" if details else "") + (f" × {count}" if count > 1 else "")
    weight = max(finding.weight for finding in findings)
    console.print(f"\n[{_STYLE[weight]}]{weight.name.lower():8}[/][bold]{escape(title)}[/]")
    console.print(f"  {escape(advice.meaning)}\n  {escape(advice.action)}\n  [dim]{escape(first.line[:160])}[/]")


def _ignored_flags(identity: Identity) -> str | None:
    """A kernel that was asked for by flag and is not what runs."""
    wrong = []
    if identity.requested_linear and identity.linear:
        others = [kernel for kernel in identity.linear if kernel.family is not identity.requested_linear.family]
        if others:
            wrong.append(f"linear {identity.requested_linear} was asked for, {' and '.join(others)} runs")
    if identity.requested_moe and identity.moe and identity.moe.family is not identity.requested_moe.family:
        wrong.append(f"moe {identity.requested_moe} was asked for, {identity.moe} runs")
    return "; ".join(wrong) or None
