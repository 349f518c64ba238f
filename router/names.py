"""Why a host name does not resolve where the router runs, and what to do: container, mDNS, Tailscale."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

Resolver = Callable[[str], tuple[str, ...]]

CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv")  # written by Docker and Podman


@dataclass(frozen=True, slots=True)
class Name:
    """A host name and what became of it.

    Attributes:
        host: the name.
        addresses: what it resolves to; empty where it doesn't.
        hint: what is wrong and what to do, the same for all names with the same trouble (the name stands as HOST).
    """

    host: str
    addresses: tuple[str, ...] = ()
    hint: str = ""


def system_resolver(host: str) -> tuple[str, ...]:
    """Return the addresses of a host as this machine sees it.

    Raises:
        OSError: it has none.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


def runs_in_container() -> bool:
    """Say whether this process is in a container, by the marks that Docker and Podman leave."""
    return any(Path(mark).exists() for mark in CONTAINER_MARKS)


def look_up(hosts: Iterable[str], resolver: Resolver, in_container: bool) -> tuple[Name, ...]:
    """Resolve every host once, side by side; a slow name server takes its time only once."""
    names = list(dict.fromkeys(hosts))
    with ThreadPoolExecutor(max_workers=16, thread_name_prefix="resolve") as pool:
        return tuple(pool.map(lambda host: resolved(host, resolver, in_container), names))


def resolved(host: str, resolver: Resolver, in_container: bool) -> Name:
    """Resolve one host, and say what to do if that fails or misleads."""
    try:
        addresses = resolver(host)
    except (OSError, UnicodeError):
        return Name(host, (), why_not(host, in_container))
    if in_container and any(one == "::1" or one.startswith("127.") for one in addresses):
        return Name(host, addresses, f"inside a container HOST is the container itself: {MACHINE}")
    return Name(host, addresses)


MACHINE = (
    "for the machine around it write host.docker.internal, "
    'with extra_hosts: ["host.docker.internal:host-gateway"] in compose, or use network_mode: host'
)
BY_ADDRESS = {
    True: 'write its address instead, or extra_hosts: ["HOST:192.168.1.10"] in compose (--add-host for docker run)',
    False: "write its address instead, or add it to /etc/hosts: 192.168.1.10 HOST",
}
MAGIC = {
    True: "give the container dns: [100.100.100.100] (docker run --dns), or write what `tailscale ip -4 HOST` prints",
    False: "run `tailscale set --accept-dns=true`, or write what `tailscale ip -4 HOST` prints",
}
NO_MDNS = {
    True: "an image has no mDNS resolver, and multicast does not cross Docker's bridge",
    False: "the system needs libnss-mdns and a running avahi-daemon",
}


def why_not(host: str, in_container: bool) -> str:
    """Return why a name has no address here, and what to do about it."""
    where = "inside this container" if in_container else "here"
    instead, magic = BY_ADDRESS[in_container], MAGIC[in_container]
    if host.endswith(".local"):
        return f"a .local name is found by mDNS, which does not work {where} ({NO_MDNS[in_container]}): {instead}"
    if host.endswith(".ts.net"):
        return f"a Tailscale name is known only to MagicDNS, which is not asked {where}: {magic}"
    if host == "host.docker.internal":
        return f"Linux does not define it by itself: {MACHINE}"
    if "." in host:
        return f"no name server that is asked {where} knows it: {instead}"
    if in_container:
        return (
            "a short name from the machine's /etc/hosts, from mDNS or from Tailscale does not reach into a container, "
            f"and a compose service only within its own network: {instead}; for a Tailscale machine {magic}"
        )
    return f"not in /etc/hosts, and no search domain completes it: {instead}"
