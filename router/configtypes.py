"""What a field of the fleet file may hold, as people write it: sizes, ports, addresses, names."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
MOST_PORTS = 1024  # a range wider than this is a typing mistake, and too many doors to knock at
SSH_TARGET = re.compile(r"ssh://(?P<target>(?:[A-Za-z0-9_][\w.-]*@)?[A-Za-z0-9_][\w.-]*)(?::(?P<port>\d{1,5}))?")


def to_bytes(value: object) -> object:
    """Read `100 MiB` or `64KB` as a number of bytes; a number passes as it is."""
    if not isinstance(value, str):
        return value
    match = SIZE.fullmatch(value)
    if match is None or match[2].lower() not in UNITS:
        raise ValueError("a size is a number of bytes, or one with a unit: 64 KiB, 100 MiB, 1 GiB")
    return int(float(match[1]) * UNITS[match[2].lower()])


def to_tuple(value: object) -> object:
    """Let one value stand for a list of one."""
    return (value,) if isinstance(value, str) else value


def to_ports(value: object) -> tuple[int, ...] | None:
    """Read `8000`, `8000-8010`, `8000, 8004`, or a list of either, as a tuple of ports."""
    if value is None:
        return None
    if isinstance(value, str):
        value = value.split(",")
    parts = value if isinstance(value, list | tuple) else [value]
    ports: list[int] = []
    for part in parts:
        match = re.fullmatch(r"\s*(\d{1,5})\s*(?:-\s*(\d{1,5})\s*)?", str(part))
        if match is None or isinstance(part, bool):
            raise ValueError("ports are a number, a range or a list of them: 8000, 8000-8010, [8000, 8004]")
        first = int(match[1])
        last = int(match[2] or first)
        if not 1 <= first <= last <= 65535 or last - first >= MOST_PORTS:
            raise ValueError(f"{part} is no range of ports from 1 to 65535 with at most {MOST_PORTS} of them")
        ports.extend(port for port in range(first, last + 1) if port not in ports)
    if not ports:
        raise ValueError("no port is given; leave the field out, or write 8000-8010")
    return tuple(ports)


def plain_url(url: str) -> str:
    """Return an address without a trailing slash or `/v1`, which people paste along.

    Raises:
        ValueError: it is no http, https or unix address, or has a path, a query, or a name and password.
    """
    url = url.strip()
    if url.startswith("unix:"):
        path = url.removeprefix("unix:").removeprefix("//")
        if not path.startswith("/"):
            raise ValueError("a unix socket is written with its whole path: unix:/run/vllm.sock")
        return f"unix:{path}"
    if "://" not in url:
        meant = "" if "@" in url else f" (meant: http://{url}?)"  # what stands before an @ may be a password
        raise ValueError(f"a url starts with http://, https:// or unix:/{meant}")
    parts = urlsplit(url)
    if parts.scheme.lower() not in ("http", "https"):
        raise ValueError(f"{parts.scheme}:// is not spoken here: http://, https:// or unix:/")
    if parts.username is not None or parts.password is not None:
        raise ValueError("no user name or password in a url: a key goes to api_key: ${NAME}")
    if re.search(r"[\s,;'\"<>\\]", url):
        raise ValueError("an address holds no blank, comma or quote; one entry of the list is one address")
    if not parts.hostname or parts.query or parts.fragment or parts.path.rstrip("/") not in ("", "/v1"):
        raise ValueError("a url is a server's root, without path or query: http://spark-1:8000")
    if port_of(parts) == 0:
        raise ValueError("the port is no number from 1 to 65535: http://spark-1:8000")
    return f"{parts.scheme.lower()}://{parts.netloc.lower()}"


def port_of(parts: SplitResult) -> int:
    """Return the port in an address, the scheme's own where none is given, 0 where it is none."""
    try:
        port = parts.port
    except ValueError:
        return 0
    return port if port is not None else 443 if parts.scheme.lower() == "https" else 80


def machine(value: str) -> str:
    """Return the name or address of a machine, if it is one and no more."""
    name = value.strip().removeprefix("[").removesuffix("]")
    if re.fullmatch(r"[\w.-]+", name):
        return name.lower()
    try:
        return str(ipaddress.IPv6Address(name))
    except ValueError:
        raise ValueError(
            "a host is a name or an address alone, as in spark-1; ports have a field of their own"
        ) from None


def key_hash(value: str) -> str:
    """Return a key's SHA-256 in one spelling: `sha256:` and 64 lower-case hex digits."""
    digits = value.removeprefix("sha256:").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ValueError("not a hash: write sha256:<64 hex digits>, from: printf %s KEY | sha256sum")
    return f"sha256:{digits}"


def log_source(value: str) -> str:
    """Return where a log is, if it is written in one of the ways that can be read."""
    if not re.match(r"(docker:|file:/|ssh://|ssh\+docker://).", value):
        raise ValueError(
            "a log is docker:NAME, docker:NAME:/path, file:/path, ssh://HOST/path or ssh+docker://HOST/NAME"
        )
    return value


def gpu_source(value: str) -> str:
    """Return where a GPU is read, if it is written in one of the ways that can be read."""
    if value not in ("auto", "off") and SSH_TARGET.fullmatch(value) is None:
        raise ValueError("a GPU is read by auto, off or ssh://[user@]HOST[:port]")
    return value


def is_loopback(host: str) -> bool:
    """Say whether a host of the fleet is this machine by its very name."""
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


def host_of(url: object) -> str | None:
    """Return the machine in an address, None where it has none; this machine is `localhost` however it is written."""
    if not isinstance(url, str):
        return None
    if url.startswith("unix:"):
        return "localhost"
    try:
        host = machine(urlsplit(url).hostname or "")
    except ValueError:
        return None
    return "localhost" if host in ("127.0.0.1", "::1") else host


def web_address(value: str) -> str:
    """Return the address of a page or a hook, if it is one; it is not repeated in messages, as it may hold a secret."""
    if not re.fullmatch(r"https?://[^\s/]+\S*", value):
        raise ValueError("an address on the web starts with http:// or https://")
    return value


def bracketed(host: str) -> str:
    """Return a host as it stands in a url: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def default_name(raw: Mapping[str, Any]) -> str:
    """Return host and port as a name, as in `spark-1-8000`; `backend` where there is no address to take it from."""
    url = raw.get("url")
    if isinstance(url, str) and url.startswith("unix:"):
        return as_name(url.rsplit("/", 1)[-1])
    if isinstance(url, str):
        try:
            parts = urlsplit(url)
            return as_name(f"{parts.hostname or 'backend'}-{port_of(parts)}")
        except ValueError:
            return "backend"
    hosts = to_tuple(raw.get("host"))
    first = hosts[0] if isinstance(hosts, list | tuple) and hosts else "backend"
    try:
        ports = to_ports(raw.get("ports"))
    except ValueError:
        ports = None
    return as_name(f"{first}-{ports[0]}" if ports else f"{first}")


def as_name(text: str) -> str:
    """Return text with what a backend's name may not hold replaced by dashes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:63] or "backend"


Positive = Annotated[float, Field(gt=0, strict=True)]
NotNegative = Annotated[float, Field(ge=0, strict=True)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
Risk = Annotated[float, Field(gt=0, lt=0.5, strict=True)]
Count = Annotated[int, Field(ge=1, strict=True)]
CountOrNone = Annotated[int, Field(ge=0, strict=True)]
Bytes = Annotated[int, Field(strict=True), BeforeValidator(to_bytes, json_schema_input_type=int | str)]
Names = Annotated[tuple[str, ...], BeforeValidator(to_tuple, json_schema_input_type=str | list[str])]
Machines = Annotated[
    tuple[Annotated[str, AfterValidator(machine)], ...],
    BeforeValidator(to_tuple, json_schema_input_type=str | list[str]),
]
Ports = Annotated[tuple[int, ...], BeforeValidator(to_ports, json_schema_input_type=int | str | list[int | str])]
Address = Annotated[str, AfterValidator(plain_url)]
KeyHash = Annotated[str, AfterValidator(key_hash)]
LogSource = Annotated[str, AfterValidator(log_source)]
GpuSource = Annotated[str, AfterValidator(gpu_source)]
WebAddress = Annotated[str, AfterValidator(web_address)]
