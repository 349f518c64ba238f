"""Read a backend's log from wherever it is: a container, a file, or either of them on another machine.

Sources are written as `docker:NAME`, `docker:NAME:/path/inside`, `file:/path`, `journal:UNIT`,
`ssh://[user@]host[:port]/path` and `ssh+docker://[user@]host[:port]/NAME`. What goes wrong is a state to show; it
never stalls or fails the router.
"""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from router.loops import dockerlog, filelog, sshlog
from router.loops.unreadable import Reason, Unreadable
from router.vllm import logs
from router.vllm.identity import Identity

DOCKER_SOCKET = "/var/run/docker.sock"

_NAME = r"[A-Za-z0-9][\w.-]{0,200}"
_HOST = r"(?P<target>(?:[A-Za-z0-9_][\w.-]*@)?[A-Za-z0-9_][\w.-]*)(?::(?P<port>\d{1,5}))?"
_JOURNAL = re.compile(r"journal:(?P<unit>[A-Za-z0-9_][\w.@:\\-]{0,200})")
_DOCKER = re.compile(rf"docker:(?P<name>{_NAME})(?::(?P<path>/.+))?")
_FILE = re.compile(r"file:(?://)?(?P<path>/.+)")
_SSH = re.compile(rf"ssh://{_HOST}(?P<path>/.+)")
_SSH_DOCKER = re.compile(rf"ssh\+docker://{_HOST}/(?P<name>{_NAME})")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a log is: a file or a container, here or over ssh."""

    text: str
    name: str | None = None  # container
    path: str | None = None
    target: str | None = None  # [user@]host
    port: int | None = None
    unit: str | None = None  # of systemd


@dataclass(frozen=True, slots=True)
class LogText:
    """What counts of a log, bounded: the last start and the newest lines."""

    source: str
    data: bytes


@dataclass(frozen=True, slots=True)
class LogUnavailable:
    """A log that could not be read: why, in one word and one sentence."""

    source: str
    reason: Reason
    detail: str


def parse_source(text: str) -> Source:
    """Read a source as it stands in the config.

    Raises:
        ValueError: it is none of the forms; the message names them.
    """
    for pattern in (_DOCKER, _FILE, _JOURNAL, _SSH, _SSH_DOCKER):
        match = pattern.fullmatch(text.strip())
        if match and "\0" not in text and "\n" not in text:
            parts = match.groupdict()
            port = int(parts["port"]) if parts.get("port") else None
            return Source(
                text.strip(), parts.get("name"), parts.get("path"), parts.get("target"), port, parts.get("unit")
            )
    raise ValueError(
        f"{text[:100]!r} is no log source; write docker:NAME, docker:NAME:/path, file:/path, journal:UNIT, "
        "ssh://host/path or ssh+docker://host/NAME"
    )


@dataclass(frozen=True, slots=True)
class LogAccess:
    """How logs are reached from here.

    Attributes:
        docker_socket: the Engine API's unix socket (podman's works too).
        ssh: the ssh program.
        journalctl: the program that prints systemd's journal.
        timeout_s: the longest that one read may take.
    """

    docker_socket: str = DOCKER_SOCKET
    ssh: str = "ssh"
    journalctl: str = "journalctl"
    timeout_s: float = 30.0

    async def read(self, source: str) -> LogText | LogUnavailable:
        """Read a log's last start, bounded in bytes and time. Raises nothing but cancellation."""
        try:
            async with asyncio.timeout(self.timeout_s):
                return LogText(source, await self._read(parse_source(source)))
        except Unreadable as error:
            return LogUnavailable(source, error.reason, error.detail)
        except ValueError as error:
            return LogUnavailable(source, Reason.BAD_SOURCE, str(error))
        except TimeoutError:
            return LogUnavailable(source, Reason.TIMEOUT, f"{source} took longer than {self.timeout_s:g} s")
        except Exception as error:  # a state, whatever it is: reading a log may not end a loop
            return LogUnavailable(source, Reason.FAILED, f"{source}: {type(error).__name__}: {error}"[:300])

    async def identify(self, source: str, executor: Executor | None = None) -> Identity | LogUnavailable:
        """Read a log and what it says; the parsing (up to 0.5 s of CPU) runs in `executor`, off the loop."""
        text = await self.read(source)
        if isinstance(text, LogUnavailable):
            return text
        return await asyncio.get_running_loop().run_in_executor(executor, logs.read, text.data)

    async def image(self, source: str) -> str:
        """The image of the container that a source names; empty where there is none or it cannot be asked."""
        try:
            async with asyncio.timeout(self.timeout_s):
                match parse_source(source):
                    case Source(target=None, name=str(name)):
                        return await dockerlog.Docker(self.docker_socket).image(name)
                    case Source(target=str(target), name=str(name), port=port):
                        return await sshlog.read_image(self.ssh, target, port, name)
        except (Unreadable, ValueError, TimeoutError):
            pass
        return ""

    async def _read(self, source: Source) -> bytes:
        match source:
            case Source(unit=str(unit)):
                return await sshlog.read_journal(self.journalctl, unit)
            case Source(target=None, name=None, path=str(path)):
                return await _local(Path(path))
            case Source(target=None, name=str(name), path=path):
                return await dockerlog.Docker(self.docker_socket).read(name, path)
            case Source(target=str(target), name=str(name)):
                return await sshlog.read_container(self.ssh, target, source.port, name)
            case Source(target=str(target), path=str(path)):
                return await sshlog.read_file(self.ssh, target, source.port, path)
        raise Unreadable(Reason.BAD_SOURCE, f"{source.text} names nothing to read")


async def _local(path: Path) -> bytes:
    """Read a local file in a thread."""
    try:
        return await asyncio.to_thread(filelog.read_last_start, path)
    except PermissionError as error:
        raise Unreadable(Reason.FORBIDDEN, f"{path}: permission denied") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Unreadable(Reason.NOT_FOUND, f"{path}: no such file") from error
    except OSError as error:
        raise Unreadable(Reason.FAILED, f"{path}: {error.strerror or error}") from error
