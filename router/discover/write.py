"""A fleet file from what was found, and what is new beside one that is there already. Text in, text out."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

import yaml

from router.config import FleetConfig
from router.discover.findings import Machine, Server, owner

_TOP_LEVEL = re.compile(r"[^\s#-]")
_ITEM = re.compile(r"(\s*)- ")
_ONE_LINE = re.compile(r"^(?:backends:[ \t]*)?[\[{]", re.MULTILINE)


def fleet(machines: Sequence[Machine]) -> str:
    """A whole fleet file; every server is a backend, what is not known stays open."""
    entries = [entry(machine, server) for machine in machines for server in machine.servers]
    return "# What `router discover` found; every field stands in config/fleet.yaml.\nbackends:\n" + "".join(entries)


def entry(machine: Machine, server: Server, indent: str = "  ") -> str:
    """One backend as an item of the list."""
    maker = f"{server.maker} {server.version}" if server.version else server.maker
    about = f"{maker}: {', '.join(server.models) or 'models unknown'}"
    about = "".join(letter if letter.isprintable() else " " for letter in about)  # a name may not end the comment
    lines = [f"# {about}"[:160], f"- name: {_quoted(name_of(server))}", f"  url: {server.url}"]
    if server.kind != "vllm":
        lines.append(f"  kind: {server.kind}")
    if server.wants_key:
        lines.append(f"  api_key: ${{{_variable(server)}}}  # it wants one; export it before the router starts")
    container = owner(server, machine.containers, machine.servers)
    if container is not None:
        lines.append(f"  log: {_quoted(machine.log + container.name)}")
    elif server.kind == "vllm":
        lines.append("  # log: docker:NAME   # or file:/path, ssh://HOST/path: without it the kernel stays unknown")
    return "".join(f"{indent}{line}\n" for line in lines)


def name_of(server: Server) -> str:
    """Host and port, as the fleet file names a bare URL itself."""
    return f"{re.sub(r'[^A-Za-z0-9._-]', '-', server.host).strip('-.')}-{server.port}"


def _variable(server: Server) -> str:
    return re.sub(r"\W", "_", name_of(server)).upper() + "_KEY"


def _quoted(text: str) -> str:
    return yaml.safe_dump(text, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()


def added(text: str, config: FleetConfig, machines: Sequence[Machine]) -> str:
    """The text of a fleet file with the servers that it does not know yet at the end of its backends.

    Raises:
        ValueError: its backends stand in one line, where no line can be added.
    """
    known = {(_plain(host), port) for host, port in addresses(config)}
    pairs = [(machine, server) for machine in machines for server in machine.servers]
    new = [(machine, server) for machine, server in pairs if (_plain(server.host), server.port) not in known]
    if not new:
        return text
    if _ONE_LINE.search(text):
        raise ValueError(
            f"its backends stand in one line: write them as a list of lines, or add {_listed(new)} by hand"
        )
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    at, indent = _end_of_backends(lines)
    entries = [entry(machine, server, indent) for machine, server in new]
    return "".join([*lines[:at], *entries, *lines[at:]])


def _plain(host: str) -> str:
    """One name for this machine."""
    return "localhost" if host in ("127.0.0.1", "::1") else host


def _listed(new: Iterable[tuple[Machine, Server]]) -> str:
    return ", ".join(server.url for _, server in new)


def gone(config: FleetConfig, machines: Sequence[Machine]) -> list[str]:
    """Backends of the file on these machines that did not answer where it says."""
    looked = {_plain(machine.host) for machine in machines}
    there = {(_plain(server.host), server.port) for machine in machines for server in machine.servers}
    missing = []
    for one in config.backends:
        if one.url is None:
            continue
        parts = urlsplit(str(one.url))
        host = _plain(parts.hostname or "")
        if host in looked and (host, parts.port) not in there:
            missing.append(f"{one.name} at {one.url} did not answer: off, or moved")
    return missing


def addresses(config: FleetConfig) -> Iterable[tuple[str, int]]:
    """Host and port of every backend, all of a range's."""
    for one in config.backends:
        for port in one.ports or ():
            yield from ((host, port) for host in one.host)
        if one.url is not None:
            parts = urlsplit(str(one.url))
            yield parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _end_of_backends(lines: list[str]) -> tuple[int, str]:
    """Where another item of `backends` goes, and how far in; a bare list of URLs is such a list itself."""
    begin = next((i for i, line in enumerate(lines) if line.startswith("backends:")), -1)
    end = next((i for i in range(begin + 1, len(lines)) if begin >= 0 and _TOP_LEVEL.match(lines[i])), len(lines))
    items = [match for line in lines[begin + 1 : end] if (match := _ITEM.match(line))]
    while end > begin + 1 and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
        end -= 1  # what stands before the next section belongs to it
    return end, items[0][1] if items else "  "


def difference(old: str, new: str, name: str) -> str:
    """What would change, as a unified diff; empty where nothing would."""
    return "".join(difflib.unified_diff(old.splitlines(True), new.splitlines(True), name, f"{name} (found)"))
