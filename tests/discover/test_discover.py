"""What runs is found, named and written down; what cannot be reached is said with its reason; nothing is lost."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from router.cli.main import app
from router.config import FleetConfig
from router.discover import write
from router.discover.findings import (
    Answer,
    Container,
    Machine,
    Server,
    containers_of_api,
    containers_of_ps,
    owner,
    server_of,
)
from router.discover.look import Eyes, look
from router.fleetfile import parse

REFUSED = Answer(failure="refused")
NO_NAME = Answer(failure="has a name that does not resolve here: try its address, or mend /etc/hosts or DNS")


def cards(*names: str, owned_by: str = "vllm") -> Answer:
    return Answer(200, json.dumps({"data": [{"id": name, "owned_by": owned_by} for name in names]}).encode())


VLLM = {"/v1/models": cards("nano"), "/version": Answer(200, b'{"version":"0.33.0"}'), "/livez": Answer(404)}


class Network:
    """Machines with what answers on their ports."""

    def __init__(self, ports: dict[str, dict[int, dict[str, Answer]]], containers: object = ()) -> None:
        self.ports = ports
        self.listed = containers
        self.asked: list[str] = []

    async def get(self, url: str) -> Answer:
        self.asked.append(url)
        host, _, rest = url.removeprefix("http://").partition(":")
        port, _, path = rest.partition("/")
        if host not in self.ports:
            return NO_NAME
        return self.ports[host].get(int(port), {}).get(f"/{path}", REFUSED)

    async def containers(self, place: str) -> tuple[Container, ...] | str:
        return self.listed  # type: ignore[return-value]

    async def found(self, *places: str, ports: tuple[int, ...] = (8000, 8001, 8002)) -> list[Machine]:
        eyes = Eyes(self.get, self.containers, lambda host: host == "localhost")
        return await look(places, ports, eyes, lambda: None)


def config_of(text: str, environ: dict[str, str] | None = None) -> FleetConfig:
    return parse(text, "found.yaml", environ or {})


async def test_servers_of_several_machines_become_a_fleet_that_is_valid() -> None:
    llama = {"/v1/models": cards("gemma", owned_by="llamacpp"), "/version": Answer(404), "/livez": Answer(404)}
    network = Network({"spark-1": {8000: VLLM, 8001: VLLM}, "spark-2": {8002: llama}})
    config = config_of(write.fleet(await network.found("spark-1", "me@spark-2")))
    assert [(one.name, str(one.url), one.kind, one.host) for one in config.backends] == [
        ("spark-1-8000", "http://spark-1:8000", "vllm", ("spark-1",)),
        ("spark-1-8001", "http://spark-1:8001", "vllm", ("spark-1",)),
        ("spark-2-8002", "http://spark-2:8002", "openai", ("spark-2",)),
    ]


async def test_the_log_is_the_containers_here_by_docker_and_there_by_ssh() -> None:
    network = Network({"localhost": {8000: VLLM}, "spark-2": {8000: VLLM}}, (Container("vllm-nano", ports=(8000,)),))
    here, there = config_of(write.fleet(await network.found("localhost", "me@spark-2"))).backends
    assert here.log == "docker:vllm-nano"
    assert there.log == "ssh+docker://me@spark-2/vllm-nano"


async def test_what_could_not_be_reached_is_said_once_with_the_reason() -> None:
    network = Network({"spark-1": {8000: VLLM}, "spark-3": {}}, "spark-1: no ssh")
    one, lost, silent = await network.found("spark-1", "typo", "spark-3")
    assert one.missed == ("spark-1: no ssh",)
    assert lost.missed == (f"typo {NO_NAME.failure}",)
    assert "nobody listens on ports 8000 to 8002" in silent.missed[0]
    assert config_of(write.fleet([one, lost, silent])).backends[0].log is None


@pytest.mark.parametrize(
    ("models", "alive", "found"),
    [
        (cards("a"), Answer(200, b'{"status":"alive"}'), "is a router like this one"),
        (Answer(200, b"<html>"), Answer(404), "answers 200 on /v1/models: no server of models"),
        (Answer(404), Answer(404), "answers 404"),
        (Answer(failure="answers, but not in HTTP (x)"), Answer(), "not in HTTP"),
        (cards(), Answer(404), "no server of models, or it has none loaded"),
    ],
)
def test_who_listens_and_is_no_server_is_named(models: Answer, alive: Answer, found: str) -> None:
    said = server_of("spark-1", 8000, models, Answer(404), alive)
    assert isinstance(said, str)
    assert found in said


def test_a_server_that_wants_a_key_gets_a_place_for_it() -> None:
    server = server_of("spark-1", 8000, Answer(401), Answer(), Answer())
    assert isinstance(server, Server)
    text = write.fleet([Machine("spark-1", (server,))])
    assert config_of(text, {"SPARK_1_8000_KEY": "k"}).backends[0].api_key is not None


def test_docker_is_understood_over_its_api_and_over_ps() -> None:
    api = [
        {"Names": ["/a"], "Image": "vllm/vllm-openai", "Ports": [{"PublicPort": 8000}, {"PrivatePort": 1}]},
        {"Names": ["/b"], "HostConfig": {"NetworkMode": "host"}, "Command": "vllm serve x --port 8001"},
    ]
    ps = (
        '{"Names":"a","Image":"vllm/vllm-openai","Ports":"0.0.0.0:8000->8000/tcp, [::]:8000->8000/tcp"}\n'
        '{"Names":"b","Networks":"host","Command":"vllm serve x --port 8001"}\nnot json\n'
    )
    first, second = containers_of_api(json.dumps(api).encode())
    assert (first.name, first.ports, first.on_host_network) == ("a", (8000,), False)
    assert (second.name, second.ports, second.on_host_network) == ("b", (), True)
    assert containers_of_ps(ps) == (first, second)


def test_a_container_on_the_machines_network_is_known_by_its_port_or_by_being_the_last_one_left() -> None:
    one, two = Server("h", 8000), Server("h", 8001)
    said = Container("said", command="vllm serve x --port 8001", on_host_network=True)
    silent = Container("sparkrun-x", command="sleep infinity", on_host_network=True)
    other = Container("postgres", on_host_network=True)
    assert owner(two, (said, silent, other), (one, two)) is said
    assert owner(one, (said, silent, other), (one, two)) is silent
    assert owner(one, (silent, Container("vllm-2", on_host_network=True)), (one, two)) is None
    assert owner(one, (other,), (one,)) is None


FILE = """\
# my fleet
backends:
  - name: old        # keep me
    url: http://spark-1:8000
    kernel: marlin

  - http://spark-9:8000

# where it may go
aliases:
  chat: [nano]
"""


async def test_what_is_new_is_added_and_every_other_line_stays() -> None:
    machines = await Network({"spark-1": {8000: VLLM, 8001: VLLM}}).found("spark-1")
    text = write.added(FILE, config_of(FILE), machines)
    kept = text.splitlines()
    assert [line for line in FILE.splitlines() if line not in kept] == []
    assert [one.name for one in config_of(text).backends] == ["old", "spark-9-8000", "spark-1-8001"]
    assert config_of(text).aliases == config_of(FILE).aliases
    assert write.added(text, config_of(text), machines) == text
    assert write.difference(FILE, text, "fleet.yaml").count("\n+  - name: ") == 1


async def test_backends_in_one_line_are_left_alone_with_advice() -> None:
    machines = await Network({"spark-1": {8001: VLLM}}).found("spark-1")
    for text in ("backends: [http://spark-1:8000]\n", "[http://spark-1:8000]\n"):
        with pytest.raises(ValueError, match="add http://spark-1:8001 by hand"):
            write.added(text, config_of(text), machines)


async def test_this_machine_has_one_name() -> None:
    text = "backends:\n  - http://127.0.0.1:8000\n"
    machines = await Network({"localhost": {8000: VLLM}}).found("localhost", ports=(8000,))
    assert write.added(text, config_of(text), machines) == text
    assert write.gone(config_of(text), machines) == []


async def test_a_bare_list_of_urls_grows_too() -> None:
    text = "- http://spark-1:8000\n- http://spark-1:8002"
    machines = await Network({"spark-1": {8001: VLLM}}).found("spark-1")
    assert len(config_of(write.added(text, config_of(text), machines)).backends) == 3
    assert [one.split(" at ")[0] for one in write.gone(config_of(text), machines)] == ["spark-1-8000", "spark-1-8002"]


@given(st.text(min_size=1, max_size=30), st.lists(st.text(max_size=20), max_size=3), st.integers(1, 65535))
def test_whatever_servers_say_of_themselves_the_file_stays_one(maker: str, models: list[str], port: int) -> None:
    server = Server("10.0.0.7", port, models=tuple(models), maker=maker)
    assert len(config_of(write.fleet([Machine("10.0.0.7", (server,))])).backends) == 1


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(FILE)
    done = CliRunner().invoke(app, ["discover", "127.0.0.1", "--ports", "1", "--no-docker", "--out", str(path)])
    assert done.exit_code == 1
    assert "--force" in done.output
    assert path.read_text() == FILE


def test_where_nobody_listens_it_says_so(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["discover", "127.0.0.1", "--ports", "1", "--no-docker"], env=dict(os.environ))
    assert done.exit_code == 1
    assert "nobody listens" in done.output


TEI = b'{"model_id":"BAAI/bge-m3","model_type":{"embedding":{"pooling":"cls"}},"max_input_length":8192}'


async def test_an_embeddings_server_that_lists_no_models_is_named_and_left_out_with_the_reason() -> None:
    network = Network({"spark": {8000: VLLM, 8001: {"/v1/models": Answer(404), "/info": Answer(200, TEI)}}})
    (machine,) = await network.found("spark")
    assert [server.port for server in machine.servers] == [8000]
    assert "spark:8001 is text-embeddings-inference with BAAI/bge-m3: left out" in machine.missed[0]


@given(
    st.binary()
    | st.recursive(
        st.none() | st.text(), lambda x: st.dictionaries(st.sampled_from(["model_id", "model_type"]), x)
    ).map(lambda x: json.dumps(x).encode())
)
def test_any_answer_on_info_is_read_without_an_error(body: bytes) -> None:
    assert isinstance(server_of("spark", 8001, Answer(404), Answer(), Answer(), Answer(200, body)), str)


@pytest.mark.parametrize("name", ["sparkrun_ab12_solo", "vllm_node"])
def test_a_container_that_sleeps_while_another_command_serves_in_it_is_written_as_the_log(name: str) -> None:
    container = Container(name, "some/image", "sleep infinity", on_host_network=True)
    server = Server("spark-2", 8000, models=("nano",))
    machine = Machine("spark-2", (server,), (container,), "ssh+docker://spark-2/")
    assert f"    log: ssh+docker://spark-2/{name}\n" in write.entry(machine, server)
