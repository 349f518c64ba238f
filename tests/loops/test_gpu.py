"""Reading GPUs: which command for which machine, and every way it can fail as a state."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from pydantic import ValidationError

from router.config import BackendConfig, FleetConfig
from router.events import Bus
from router.fleet import Fleet
from router.loops.command import Output
from router.loops.gpu import GpuLoop, GpuUnread, commands
from router.loops.unreadable import Reason, Unreadable
from router.vllm.gpu import QUERY, GpuReading

LINE = b"2405, [N/A], 61, 38.5, 0x4\n"


def installed(_: str) -> str | None:
    return "/usr/bin/nvidia-smi"


def missing(_: str) -> str | None:
    return None


def backend(url: str, **more: str) -> BackendConfig:
    return BackendConfig.model_validate({"url": url, **more})


class Programs:
    """Answers by the program's name; what is no answer is raised, and None never comes."""

    def __init__(self, answers: Mapping[str, Output | Exception | None]) -> None:
        self.answers = answers

    async def __call__(self, program: str, *words: str) -> Output:
        answer = self.answers[program]
        if answer is None:
            await asyncio.Event().wait()
            raise AssertionError
        if isinstance(answer, Exception):
            raise answer
        return answer


def loop_over(answers: Mapping[str, Output | Exception | None], *backends: BackendConfig) -> GpuLoop:
    fleet = Fleet(lambda: 0.0, Bus(), lambda config, whole: None)  # type: ignore[arg-type,return-value]
    fleet.apply(FleetConfig(backends=backends))
    return GpuLoop(fleet, Programs(answers), installed)


def test_auto_asks_this_machine_alone_and_says_how_to_read_another() -> None:
    found = commands([backend("http://127.0.0.1:8000"), backend("http://spark-2:8000")], installed)
    assert found["localhost"] == QUERY
    assert found["spark-2"] == GpuUnread("not read: spark-2 is another machine; write gpu: ssh://spark-2 to read it")


def test_auto_without_nvidia_smi_runs_nothing() -> None:
    found = commands([backend("http://127.0.0.1:8000")], missing)
    assert found == {"localhost": GpuUnread("not read: nvidia-smi is not installed here")}


def test_an_address_is_asked_over_ssh_without_a_prompt() -> None:
    words = commands([backend("http://spark-2:8000", gpu="ssh://me@spark-2:2222")], missing)["spark-2"]
    assert isinstance(words, tuple)
    assert words[0] == "ssh"
    assert "BatchMode=yes" in words
    assert words[-4:-1] == ("2222", "--", "me@spark-2")
    assert words[-1].startswith("nvidia-smi --query-gpu=")


def test_off_is_not_looked_at() -> None:
    assert commands([backend("http://127.0.0.1:8000", gpu="off")], installed) == {}


@pytest.mark.parametrize("gpu", ["ssh://", "ssh://-oProxyCommand=x", "ssh://a/b", "spark-2", "on"])
def test_another_way_of_writing_it_is_refused(gpu: str) -> None:
    with pytest.raises(ValidationError, match="a GPU is read by"):
        backend("http://spark-2:8000", gpu=gpu)


async def test_hosts_are_read_side_by_side_and_one_that_fails_spoils_no_other() -> None:
    answers = {"nvidia-smi": Output(LINE, "", 0), "ssh": Output(b"", "Permission denied (publickey).", 255)}
    far = backend("http://spark-2:8000", gpu="ssh://spark-2")
    loop = loop_over(answers, backend("http://127.0.0.1:8000"), far)
    await loop.look()
    assert loop.readings == {"localhost": GpuReading(2405, None, 61, 38.5, ("power cap",))}
    assert loop.unread == {"spark-2": GpuUnread("not read: ssh said 'Permission denied (publickey).'")}


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (None, "nvidia-smi took longer than 10 s"),
        (Unreadable(Reason.FAILED, "cannot run nvidia-smi: gone"), "cannot run nvidia-smi: gone"),
        (Output(b"NVIDIA-SMI has failed\n", "", 9), "NVIDIA-SMI has failed"),
        (Output(b"", "", 0), "nothing, exit code 0"),
    ],
)
async def test_a_look_that_fails_takes_the_old_reading_away(answer: Output | Exception | None, detail: str) -> None:
    answers: dict[str, Output | Exception | None] = {"nvidia-smi": Output(LINE, "", 0)}
    loop = loop_over(answers, backend("http://127.0.0.1:8000"))
    await loop.look()
    assert "localhost" in loop.readings
    answers["nvidia-smi"] = answer
    await loop.look()
    assert loop.readings == {}
    assert detail in loop.unread["localhost"].detail
