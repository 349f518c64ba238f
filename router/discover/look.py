"""Look at machines: which ports answer, which containers run. Bounded in time and connections; asks, never changes."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import httpx

from router.discover.findings import Answer, Container, Machine, Server, containers_of_api, containers_of_ps, server_of
from router.errors import causes
from router.loops import command
from router.loops.logsource import DOCKER_SOCKET
from router.loops.unreadable import Unreadable

AT_ONCE = 32  # ports asked at the same time
_BODY = 1 << 20

Get = Callable[[str], Awaitable[Answer]]
"""GET a URL; never raises."""
ListContainers = Callable[[str], Awaitable[tuple[Container, ...] | str]]
"""The containers of a machine, given as `[user@]host`; a sentence where they cannot be listed."""


@dataclass(frozen=True, slots=True)
class Eyes:
    """How machines are looked at; `here` says whether a name means this very machine."""

    get: Get
    containers: ListContainers | None
    here: Callable[[str], bool]


async def look(places: Sequence[str], ports: Sequence[int], eyes: Eyes, seen: Callable[[], None]) -> list[Machine]:
    """Look at every machine, `[user@]host` each; `seen` is called after each port."""
    gate = asyncio.Semaphore(AT_ONCE)
    return list(await asyncio.gather(*(_machine(place, ports, eyes, gate, seen) for place in places)))


async def _machine(
    place: str, ports: Sequence[int], eyes: Eyes, gate: asyncio.Semaphore, seen: Callable[[], None]
) -> Machine:
    host = place.rpartition("@")[2]
    answers = await asyncio.gather(*(_server(host, port, eyes.get, gate, seen) for port in ports))
    servers = tuple(one for one in answers if isinstance(one, Server))
    missed = list(dict.fromkeys(one for one in answers if isinstance(one, str)))
    containers: tuple[Container, ...] = ()
    if eyes.containers is not None and servers:
        listed = await eyes.containers(place)
        if isinstance(listed, str):
            missed.append(listed)
        else:
            containers = listed
    if not servers and not missed:
        missed.append(f"{host}: nobody listens on ports {ports[0]} to {ports[-1]}; give others with --ports")
    here = eyes.here(host)
    return Machine(host, servers, containers, "docker:" if here else f"ssh+docker://{place}/", tuple(missed))


async def _server(
    host: str, port: int, get: Get, gate: asyncio.Semaphore, seen: Callable[[], None]
) -> Server | str | None:
    base = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    async with gate:
        models = await get(f"{base}/v1/models")
        version = alive = info = Answer()
        if models.status == 200:
            version, alive = await get(f"{base}/version"), await get(f"{base}/livez")
        elif models.status == 404:
            info = await get(f"{base}/info")
    seen()
    found = server_of(host, port, models, version, alive, info)
    if isinstance(found, str) and models.failure.startswith(("has a name", "did not answer", "cannot be reached")):
        return f"{host} {models.failure}"  # said once for the machine, not for each port
    return found


def getter(client: httpx.AsyncClient) -> Get:
    """GETs over HTTP, with their failures in words."""

    async def get(url: str) -> Answer:
        try:
            async with client.stream("GET", url) as answer:
                body = b""
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > _BODY:
                        break
                return Answer(answer.status_code, body)
        except httpx.ConnectTimeout:
            return Answer(failure="did not answer in time: is it on, is a firewall in between?")
        except httpx.ConnectError as error:
            return Answer(failure=_why(error))
        except httpx.HTTPError as error:
            return Answer(failure=f"answers, but not in HTTP ({type(error).__name__})")

    return get


def _why(error: httpx.ConnectError) -> str:
    for cause in causes(error):
        if isinstance(cause, socket.gaierror):
            return "has a name that does not resolve here: try its address, or mend /etc/hosts or DNS"
        if isinstance(cause, ConnectionRefusedError):
            return "refused"
    # httpx gives the word of anyio or asyncio only in its text
    if "refused" in str(error) or "All connection attempts failed" in str(error):
        return "refused"
    if "not known" in str(error) or "resolve" in str(error) or "getaddrinfo" in str(error):
        return "has a name that does not resolve here: try its address, or mend /etc/hosts or DNS"
    return f"cannot be reached: {error}"


def is_here(host: str) -> bool:
    """Whether a name means this machine."""
    if host in ("localhost", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def containers(place: str) -> tuple[Container, ...] | str:
    """The machine's running containers: over docker's socket here, over ssh elsewhere."""
    if is_here(place.rpartition("@")[2]):
        return await _local()
    words = ["-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "--", place]
    try:
        async with asyncio.timeout(20):
            output = await command.run("ssh", *words, "docker ps --no-trunc --format '{{json .}}'")
    except (Unreadable, TimeoutError) as error:
        return _no_ssh(place, str(error) or "no answer within 20 s")
    if output.code:
        return _no_ssh(place, output.complaint.splitlines()[-1] if output.complaint else f"exit code {output.code}")
    return containers_of_ps(output.text.decode("utf-8", "replace"))


def _no_ssh(place: str, why: str) -> str:
    return (
        f"{place}: its containers cannot be listed over ssh ({why[:200]}): `ssh {place} docker ps` must work without a "
        "password; until then name each backend's log by hand"
    )


async def _local() -> tuple[Container, ...] | str:
    transport = httpx.AsyncHTTPTransport(uds=DOCKER_SOCKET)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://docker", timeout=5) as client:
            answer = await client.get("/containers/json")
            answer.raise_for_status()
            return containers_of_api(answer.content)
    except (httpx.HTTPError, ValueError) as error:
        return f"docker here cannot be asked ({DOCKER_SOCKET}: {error}): without it name each backend's log by hand"
