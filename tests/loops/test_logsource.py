"""Logs read from a container, a file and another machine; what cannot be read is a state with a reason."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.loops.dockerlog import Frames, image_of
from router.loops.logsource import LogAccess, LogText, LogUnavailable, parse_source
from router.loops.unreadable import Reason
from router.vllm.identity import Identity
from router.vllm.kernels import Kernel

LOGS = Path(__file__).parent.parent / "vllm" / "data"
MARLIN = (LOGS / "0.26.0-marlin.log").read_bytes()
CUTLASS = (LOGS / "0.19.1-cutlass.log").read_bytes()


@pytest.mark.parametrize(
    ("text", "name", "path", "target", "port", "unit"),
    [
        ("docker:vllm-1", "vllm-1", None, None, None, None),
        ("docker:vllm_1:/tmp/serve.log", "vllm_1", "/tmp/serve.log", None, None, None),
        ("file:/var/log/vllm.log", None, "/var/log/vllm.log", None, None, None),
        ("file:///var/log/vllm.log", None, "/var/log/vllm.log", None, None, None),
        ("journal:vllm@8000.service", None, None, None, None, "vllm@8000.service"),
        ("ssh://me@spark-2:2222/var/log/a b.log", None, "/var/log/a b.log", "me@spark-2", 2222, None),
        ("ssh+docker://spark-2/vllm", "vllm", None, "spark-2", None, None),
    ],
)
def test_a_source_says_where_a_log_is(
    text: str, name: str | None, path: str | None, target: str | None, port: int | None, unit: str | None
) -> None:
    source = parse_source(text)
    assert (source.name, source.path, source.target, source.port, source.unit) == (name, path, target, port, unit)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "docker:",
        "docker:-rm",
        "docker:a/b",
        "file:x",
        "ssh://-oProxyCommand=x/log",
        "ssh://a",
        "http://a/b",
        "file:/a\nb",
    ],
)
def test_what_is_no_source_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no log source"):
        parse_source(text)


@given(st.text(max_size=60))
def test_no_source_becomes_an_option_of_ssh(text: str) -> None:
    try:
        source = parse_source(f"ssh://{text}")
    except ValueError:
        return
    assert source.target
    assert not source.target.startswith("-")


def frame(payload: bytes, kind: int = 1) -> bytes:
    return bytes([kind, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(1, 30), max_size=20))
def test_frames_come_apart_however_they_are_cut(payloads: list[bytes], cuts: list[int]) -> None:
    stream, frames, out = b"".join(frame(payload, 1 + len(payload) % 2) for payload in payloads), Frames(), b""
    for cut in [*cuts, len(stream)]:
        out += frames.feed(stream[:cut])
        stream = stream[cut:]
    assert out + frames.rest() == b"".join(payloads)


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_frames_never_raise(parts: list[bytes]) -> None:
    frames = Frames()
    for part in parts:
        frames.feed(part)
    frames.rest()


@dataclass
class FakeDocker:
    """Docker's Engine API as far as logs go, on a unix socket."""

    path: Path
    log: bytes = b""
    files: dict[str, bytes] = field(default_factory=dict)
    tty: bool = False
    status: int = 200
    silent: bool = False
    asked: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[FakeDocker]:
        server = await asyncio.start_unix_server(self._serve, self.path)
        async with server:
            yield self
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                lengths = [int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length")]
                body = await reader.readexactly(lengths[0]) if lengths else b""
                method, target, _ = lines[0].split(" ")
                self.asked.append(f"{method} {target}")
                if self.silent:
                    await reader.read()
                    return
                writer.write(self._answer(target, body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, target: str, body: bytes) -> bytes:
        if self.status != 200:
            return http(self.status, json.dumps({"message": "said no"}).encode())
        if not target.startswith(("/containers/vllm/", "/exec/job/")):
            return http(404, b'{"message":"No such container"}')
        if target == "/containers/vllm/json":
            state = {"StartedAt": "2026-09-26T08:00:00.123456789Z", "Running": True}
            made = {"Image": "sha256:0f1e2d3c4b5a69788796a5b4", "Config": {"Image": "vllm/vllm-openai:nightly"}}
            return http(200, json.dumps({"State": state, **made}).encode())
        if target.startswith("/containers/vllm/logs"):
            return http(200, self.log if self.tty else b"".join(frame(line + b"\n") for line in self.log.split(b"\n")))
        if target == "/containers/vllm/exec":
            self.command = json.loads(body)["Cmd"]
            return http(201, b'{"Id":"job"}')
        if target == "/exec/job/start":
            return http(200, frame(self.files[self.command[-1]]) if self.command[-1] in self.files else b"")
        return http(200, json.dumps({"ExitCode": 0 if self.command[-1] in self.files else 44}).encode())


def http(status: int, body: bytes) -> bytes:
    return f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
def docker(tmp_path: Path) -> FakeDocker:
    return FakeDocker(tmp_path / "docker.sock")


async def identified(docker: FakeDocker, source: str, timeout_s: float = 20.0) -> Identity | LogUnavailable:
    async with docker.serving():
        return await LogAccess(docker_socket=str(docker.path), timeout_s=timeout_s).identify(source)


@pytest.mark.realtime
@pytest.mark.parametrize("tty", [False, True])
async def test_a_containers_log_is_read_from_its_last_start(docker: FakeDocker, tty: bool) -> None:
    docker.log, docker.tty = MARLIN, tty
    identity = await identified(docker, "docker:vllm")
    assert isinstance(identity, Identity)
    assert identity.linear == (Kernel.MARLIN,)
    assert docker.asked == ["GET /containers/vllm/json", "GET /containers/vllm/logs?stdout=1&stderr=1&since=1790409600"]


@pytest.mark.realtime
async def test_a_containers_image_is_told_with_its_digest(docker: FakeDocker) -> None:
    access = LogAccess(docker_socket=str(docker.path))
    async with docker.serving():
        assert await access.image("docker:vllm") == "vllm/vllm-openai:nightly@0f1e2d3c4b5a"
        assert await access.image("docker:vllm:/var/log/vllm.log") == "vllm/vllm-openai:nightly@0f1e2d3c4b5a"
        assert await access.image("docker:other") == "", "not there"
        assert await access.image("file:/var/log/vllm.log") == "", "no container"
        docker.status = 403
        assert await access.image("docker:vllm") == ""


@pytest.mark.parametrize(
    ("name", "digest", "said"),
    [
        ("vllm:nightly", "sha256:0f1e2d3c4b5a69", "vllm:nightly@0f1e2d3c4b5a"),
        ("vllm:nightly", "", "vllm:nightly"),
        ("sha256:0f1e2d3c4b5a69", "sha256:0f1e2d3c4b5a69", "sha256:0f1e2d3c4b5a69"),
    ],
)
def test_an_images_digest_stands_once(name: str, digest: str, said: str) -> None:
    assert image_of(name, digest) == said


@pytest.mark.realtime
async def test_a_container_that_logs_into_sparkruns_file_is_read_there(docker: FakeDocker) -> None:
    docker.log, docker.files = b"sleeping", {"/tmp/sparkrun_serve.log": CUTLASS}
    identity = await identified(docker, "docker:vllm")
    assert isinstance(identity, Identity)
    assert identity.linear == (Kernel.VLLM_CUTLASS,)


@pytest.mark.realtime
async def test_a_container_that_says_nothing_is_read_as_saying_nothing(docker: FakeDocker) -> None:
    docker.log = b"sleeping"
    identity = await identified(docker, "docker:vllm")
    assert isinstance(identity, Identity)
    assert identity.kernels == "unknown"


@pytest.mark.realtime
async def test_a_file_inside_a_container_is_named_as_an_argument_not_as_script(docker: FakeDocker) -> None:
    path = "/tmp/a'; rm -rf $(x).log"
    docker.files = {path: MARLIN}
    identity = await identified(docker, f"docker:vllm:{path}")
    assert isinstance(identity, Identity)
    assert identity.moe is Kernel.MARLIN
    assert docker.command[-1] == path
    assert path not in docker.command[2]


@pytest.mark.realtime
async def test_a_long_container_log_is_read_at_both_ends(docker: FakeDocker) -> None:
    chatter = b"x" * 200 + b"\n"
    docker.log = MARLIN + chatter * 50_000 + b"CUDA error: misaligned address"
    docker.tty = True
    identity = await identified(docker, "docker:vllm")
    assert isinstance(identity, Identity)
    assert identity.linear == (Kernel.MARLIN,)
    assert docker.asked[-1] == "GET /containers/vllm/logs?stdout=1&stderr=1&tail=5000"


@pytest.mark.realtime
@pytest.mark.parametrize(
    ("source", "status", "reason"),
    [
        ("docker:other", 200, Reason.NOT_FOUND),
        ("docker:vllm:/none.log", 200, Reason.NOT_FOUND),
        ("docker:vllm", 403, Reason.FORBIDDEN),
        ("docker:vllm:/x.log", 409, Reason.NOT_RUNNING),
        ("docker:vllm", 500, Reason.FAILED),
    ],
)
async def test_dockers_refusals_are_states(docker: FakeDocker, source: str, status: int, reason: Reason) -> None:
    docker.status = status
    found = await identified(docker, source)
    assert isinstance(found, LogUnavailable)
    assert found.reason is reason


@pytest.mark.realtime
async def test_a_docker_that_never_answers_is_given_up(docker: FakeDocker) -> None:
    docker.silent = True
    found = await identified(docker, "docker:vllm", timeout_s=0.2)
    assert isinstance(found, LogUnavailable)
    assert found.reason is Reason.TIMEOUT


@pytest.mark.realtime
async def test_a_missing_a_dead_and_a_forbidden_socket_are_told_apart(tmp_path: Path) -> None:
    gone = await LogAccess(docker_socket=str(tmp_path / "none.sock")).read("docker:vllm")
    assert isinstance(gone, LogUnavailable)
    assert gone.reason is Reason.NOT_FOUND

    async with FakeDocker(tmp_path / "dead.sock").serving():
        (tmp_path / "dead.sock").rename(tmp_path / "kept.sock")
    dead = await LogAccess(docker_socket=str(tmp_path / "kept.sock")).read("docker:vllm")
    assert isinstance(dead, LogUnavailable)
    assert dead.reason is Reason.REFUSED

    if os.geteuid() != 0:  # root may open everything
        async with FakeDocker(tmp_path / "locked.sock").serving():
            (tmp_path / "locked.sock").chmod(0)
            locked = await LogAccess(docker_socket=str(tmp_path / "locked.sock")).read("docker:vllm")
        assert isinstance(locked, LogUnavailable)
        assert locked.reason is Reason.FORBIDDEN


@pytest.mark.realtime
async def test_a_file_is_read_and_what_is_none_is_a_state(tmp_path: Path) -> None:
    path = tmp_path / "serve.log"
    path.write_bytes(MARLIN)
    identity = await LogAccess().identify(f"file:{path}")
    assert isinstance(identity, Identity)
    assert identity.linear == (Kernel.MARLIN,)
    for source, reason in [
        (f"file:{tmp_path}/none.log", Reason.NOT_FOUND),
        (f"file:{path}/x", Reason.NOT_FOUND),
        (f"file:{tmp_path}", Reason.FAILED),
        ("nonsense", Reason.BAD_SOURCE),
    ]:
        found = await LogAccess().read(source)
        assert isinstance(found, LogUnavailable)
        assert found.reason is reason


def fake_program(folder: Path, script: str) -> str:
    """A program, mostly an `ssh`, that runs what it is asked to here, or says what the script says."""
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


RUN_HERE = 'for last; do :; done; exec sh -c "$last"'


@pytest.mark.realtime
async def test_a_file_on_another_machine_is_read_with_ssh(tmp_path: Path) -> None:
    log = tmp_path / "it's a log.txt"
    log.write_bytes(b"noise\n" * 1000 + CUTLASS + MARLIN)
    access = LogAccess(ssh=fake_program(tmp_path, f'echo "$@" > {tmp_path}/asked; {RUN_HERE}'))
    text = await access.read(f"ssh://me@spark-2:2222{log}")
    assert isinstance(text, LogText)
    assert b"noise" not in text.data  # filtered over there
    identity = await access.identify(f"ssh://spark-2{log}")
    assert isinstance(identity, Identity)
    assert identity.linear == (Kernel.MARLIN,)
    await access.read(f"ssh://me@spark-2:2222{log}")
    asked = (tmp_path / "asked").read_text()
    assert asked.startswith("-T -o BatchMode=yes -o ConnectTimeout=5 -p 2222 -- me@spark-2 sh -c")


@pytest.mark.realtime
async def test_a_container_on_another_machine_is_read_with_its_docker(tmp_path: Path) -> None:
    (tmp_path / "vllm.log").write_bytes(MARLIN)
    docker = tmp_path / "docker"
    docker.write_text(
        f'#!/bin/sh\ncase "$3" in *Image*) echo "vllm/vllm-openai:nightly sha256:0f1e2d3c4b5a6978" ; exit ;; esac\n'
        f'case "$1" in inspect) [ "$4" = vllm ] && echo 2026-09-26T08:00:00Z || '
        f'{{ echo "Error: No such object: $4" >&2; exit 1; }} ;; logs) cat {tmp_path}/vllm.log ;; esac\n'
    )
    docker.chmod(0o755)
    ssh = fake_program(tmp_path, f"PATH={tmp_path}:$PATH; {RUN_HERE}")
    identity = await LogAccess(ssh=ssh).identify("ssh+docker://spark-2/vllm")
    assert isinstance(identity, Identity)
    assert identity.linear == (Kernel.MARLIN,)
    assert await LogAccess(ssh=ssh).image("ssh+docker://spark-2/vllm") == "vllm/vllm-openai:nightly@0f1e2d3c4b5a"
    missing = await LogAccess(ssh=ssh).read("ssh+docker://spark-2/other")
    assert isinstance(missing, LogUnavailable)
    assert missing.reason is Reason.NOT_FOUND


@pytest.mark.realtime
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'ssh: connect to host spark-2 port 22: Connection refused' >&2; exit 255", Reason.REFUSED),
        ("echo 'me@spark-2: Permission denied (publickey).' >&2; exit 255", Reason.FORBIDDEN),
        ("echo 'Host key verification failed.' >&2; exit 255", Reason.FORBIDDEN),
        ("echo 'ssh: Could not resolve hostname spark-2' >&2; exit 255", Reason.UNREACHABLE),
        ("exit 44", Reason.NOT_FOUND),
        ("exit 7", Reason.FAILED),
        (RUN_HERE, Reason.NOT_FOUND),
    ],
)
async def test_what_ssh_says_is_a_state(tmp_path: Path, script: str, reason: Reason) -> None:
    found = await LogAccess(ssh=fake_program(tmp_path, script)).read(f"ssh://spark-2{tmp_path}/none.log")
    assert isinstance(found, LogUnavailable)
    assert found.reason is reason


@pytest.mark.realtime
async def test_an_ssh_that_is_given_up_is_ended(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    os.mkfifo(pid)
    hung = fake_program(tmp_path, f"echo $$ > {pid}; exec sleep 600")
    reading = asyncio.create_task(LogAccess(ssh=hung).read("ssh://spark-2/x.log"))
    process = int(await asyncio.to_thread(pid.read_text))
    reading.cancel()
    await asyncio.wait([reading])
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


@pytest.mark.realtime
async def test_an_ssh_that_floods_is_cut_off(tmp_path: Path) -> None:
    flood = await LogAccess(ssh=fake_program(tmp_path, "exec yes vLLM"), timeout_s=55).read("ssh://spark-2/x.log")
    assert isinstance(flood, LogText)
    assert len(flood.data) < 17 << 20


@pytest.mark.realtime
async def test_a_missing_ssh_is_a_state(tmp_path: Path) -> None:
    found = await LogAccess(ssh=str(tmp_path / "none")).read("ssh://spark-2/x.log")
    assert isinstance(found, LogUnavailable)
    assert found.reason is Reason.FAILED


@pytest.mark.realtime
async def test_a_units_journal_is_read(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b"noise\n" + MARLIN)
    journalctl = fake_program(tmp_path, f'[ "$7" = vllm@1 ] && cat {tmp_path}/journal')
    identity = await LogAccess(journalctl=journalctl).identify("journal:vllm@1")
    assert isinstance(identity, Identity)
    assert identity.linear == (Kernel.MARLIN,)


@pytest.mark.realtime
@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("No journal files were opened due to insufficient permissions.", Reason.FORBIDDEN),
        ("sh: 1: journalctl: not found", Reason.NOT_FOUND),
    ],
)
async def test_a_journal_that_cannot_be_read_is_a_state(tmp_path: Path, said: str, reason: Reason) -> None:
    journalctl = fake_program(tmp_path, f"echo '{said}' >&2")
    found = await LogAccess(journalctl=journalctl).read("journal:vllm")
    assert isinstance(found, LogUnavailable)
    assert found.reason is reason
