"""What was found on one machine, as values: servers, containers, what could not be reached; and who belongs to whom."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import orjson

from router.vllm.models import parse_models, parse_version

PORTS = (*range(8000, 8011), 8080, 1234, 5000, 11434, 30000)
"""Where such servers listen by default: vLLM and its siblings, llama.cpp, LM Studio, TGI, Ollama, SGLang."""

_PUBLISHED = re.compile(r"(?:[\d.]+|\[[0-9a-f:]*\]|):?(\d+)(?:-(\d+))?->")
_PORT_FLAG = re.compile(r"--port[= ]+(\d{1,5})\b")
_SERVES = re.compile(r"(?<![a-z])(?:vllm|sglang|llama-server|sparkrun|api_server)(?![a-z])")  # vllm_node too


@dataclass(frozen=True, slots=True)
class Answer:
    """What a GET gave: a status and a body, or why there was neither."""

    status: int = 0
    body: bytes = b""
    failure: str = ""  # "refused" where nobody listens


@dataclass(frozen=True, slots=True)
class Server:
    """One server that speaks the API."""

    host: str
    port: int
    kind: str = "vllm"
    models: tuple[str, ...] = ()
    version: str | None = None
    maker: str = "vLLM"
    wants_key: bool = False

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Container:
    """A running container: its ports on the machine, or none where it uses the machine's own network."""

    name: str
    image: str = ""
    command: str = ""
    ports: tuple[int, ...] = ()
    on_host_network: bool = False

    @property
    def could_serve(self) -> bool:
        """Its image, name or command speaks of a server of models."""
        return _SERVES.search(f"{self.image} {self.name} {self.command}".lower()) is not None


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything found on one machine. `log` is the prefix of its containers' logs, as in `docker:`."""

    host: str
    servers: tuple[Server, ...] = ()
    containers: tuple[Container, ...] = ()
    log: str = "docker:"
    missed: tuple[str, ...] = ()  # sentences: what could not be reached, why, what to do


def server_of(
    host: str, port: int, models: Answer, version: Answer, alive: Answer, info: Answer | None = None
) -> Server | str | None:
    """What listens there, from its answers on /v1/models, /version and /livez, and on /info where it has no models.

    Returns:
        A server; a sentence where somebody listens who is none; None where nobody does.
    """
    if models.status == 0:
        return None if models.failure == "refused" else f"{host}:{port} {models.failure}"
    if b'"alive"' in alive.body:
        return f"{host}:{port} is a router like this one: left out"
    if models.status in (401, 403):
        return Server(host, port, wants_key=True, maker="a server that wants a key")
    try:
        cards = parse_models(models.body) if models.status == 200 else ()
    except ValueError:
        cards = ()
    if not cards and info is not None and (model := _embedded(info)) is not None:
        return (
            f"{host}:{port} is text-embeddings-inference with {model}: left out, as it has no /v1/models to say "
            "what it serves; vLLM serves embedding models too (vllm serve MODEL --runner pooling)"
        )
    if not cards:
        return f"{host}:{port} answers {models.status} on /v1/models: no server of models, or it has none loaded"
    names, owners = tuple(card.id for card in cards), {card.owned_by or "" for card in cards}
    if "vllm" in owners:
        try:
            return Server(host, port, models=names, version=parse_version(version.body))
        except ValueError:
            return Server(host, port, models=names)
    maker = next((known for word, known in _MAKERS.items() if word in owners), "an OpenAI-compatible server")
    return Server(host, port, "openai", names, None, maker)


def _embedded(info: Answer) -> str | None:
    """The model of a text-embeddings-inference server, from its /info; None where that is none of its."""
    try:
        said = orjson.loads(info.body) if info.status == 200 else None
    except ValueError:
        return None
    if not isinstance(said, dict) or "model_type" not in said or not isinstance(said.get("model_id"), str):
        return None
    return "".join(letter if letter.isprintable() else " " for letter in said["model_id"])[:120]


_MAKERS = {"llamacpp": "llama.cpp", "sglang": "SGLang", "library": "Ollama", "organization_owner": "LM Studio"}


def containers_of_api(body: bytes) -> tuple[Container, ...]:
    """What docker's Engine API says on /containers/json.

    Raises:
        ValueError: it is not that.
    """
    entries = orjson.loads(body)
    if not isinstance(entries, list):
        raise ValueError("docker's answer is no list of containers")
    found = []
    for one in entries:
        ports = {port.get("PublicPort") for port in one.get("Ports") or () if port.get("PublicPort")}
        network = (one.get("HostConfig") or {}).get("NetworkMode")
        name = str((one.get("Names") or ["?"])[0]).removeprefix("/")
        command = str(one.get("Command") or "")
        found.append(Container(name, str(one.get("Image") or ""), command, tuple(sorted(ports)), network == "host"))
    return tuple(found)


def containers_of_ps(text: str) -> tuple[Container, ...]:
    """What `docker ps --no-trunc --format '{{json .}}'` prints, a line for each; other lines are passed over."""
    found = []
    for line in text.splitlines():
        try:
            one = json.loads(line)
        except ValueError:
            continue
        if isinstance(one, dict) and one.get("Names"):
            networks = str(one.get("Networks") or "")
            ports = _published(str(one.get("Ports") or ""))
            image, command = str(one.get("Image") or ""), str(one.get("Command") or "")
            found.append(Container(str(one["Names"]), image, command, ports, networks == "host"))
    return tuple(found)


def _published(text: str) -> tuple[int, ...]:
    ports: set[int] = set()
    for first, last in _PUBLISHED.findall(text):
        ports.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(ports))


def owner(server: Server, containers: Sequence[Container], others: Iterable[Server]) -> Container | None:
    """The container that a server probably runs in, None where that is not clear.

    A published port says it. On the machine's own network the command's --port does; and where one container is left
    that could be it and one server is left that has none, they belong together.
    """
    for one in containers:
        if server.port in one.ports:
            return one
    on_host = [one for one in containers if one.on_host_network]
    for one in on_host:
        said = _PORT_FLAG.search(one.command)
        if said is not None and int(said[1]) == server.port:
            return one
    taken = {port for one in containers for port in one.ports}
    taken |= {int(said[1]) for one in on_host if (said := _PORT_FLAG.search(one.command))}
    left = [one for one in on_host if one.could_serve and not _PORT_FLAG.search(one.command)]
    alone = all(other.port in taken for other in others if other.port != server.port)
    return left[0] if len(left) == 1 and alone else None
