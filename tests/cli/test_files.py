"""Files that cannot be used: every command says which file, and what is wrong with it, without a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from router.cli.main import app

FLEET = str(Path(__file__).parents[2] / "config" / "fleets" / "two-sparks-two-kernels.yaml")
BINARY = bytes(range(256)) * 8


def ran(*words: str, stdin: bytes | None = None) -> Result:
    ended = CliRunner().invoke(app, list(words), input=stdin)
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return ended


def said(ended: Result) -> str:
    return "".join(ended.output.split())


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("nothere.csv", None, "No such file"),
        ("binary.csv", BINARY, "not UTF-8 text"),
        ("other.csv", b"timestamp,tokens\n1,2\n", "line 2: not a call of an Azure trace"),
        ("other.jsonl", b'{"timestamp": 1}\n', "line 1: not a call of a Mooncake trace"),
        ("empty.csv", b"", "no calls in it"),
    ],
)
def test_a_trace_that_cannot_be_used_is_named(name: str, content: bytes | None, fault: str, tmp_path: Path) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    ended = ran("simulate", FLEET, "--trace", str(file))
    assert ended.exit_code == 2
    assert said(ended).startswith(f"{file}:{''.join(fault.split())}")
    assert said(ended).count(name) == 1


@pytest.mark.parametrize(
    ("content", "fault"),
    [(None, "No such file"), (BINARY, "not UTF-8 text"), (b"a: [", "not YAML"), (b"3", "backends")],
)
def test_a_fleet_that_cannot_be_simulated_is_named(content: bytes | None, fault: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    if content is not None:
        file.write_bytes(content)
    ended = ran("simulate", str(file))
    assert ended.exit_code == 2
    assert said(ended).startswith(f"{file}:")
    assert "".join(fault.split()) in said(ended)


def test_a_page_that_could_not_be_written_is_refused_before_anything_is_simulated(tmp_path: Path) -> None:
    ended = ran("simulate", FLEET, "--html", str(tmp_path / "nodir" / "page.html"))
    assert ended.exit_code == 2
    assert "nosuchdirectory" in said(ended)
    assert "simulatedin" not in said(ended)


def test_the_doctor_says_that_a_binary_file_is_no_log(tmp_path: Path) -> None:
    file = tmp_path / "image.png"
    file.write_bytes(BINARY)
    for ended in (ran("doctor", str(file)), ran("doctor", stdin=BINARY)):
        assert ended.exit_code == 2
        assert "binarydata,nologofvLLM" in said(ended)


def test_the_doctor_gives_no_clean_bill_to_a_text_that_is_not_of_vllm(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("buy milk\n")
    assert "Nothingwrong" not in said(ran("doctor", str(file)))


def test_a_log_that_was_truncated_while_it_was_written_is_read_past_its_nuls(tmp_path: Path) -> None:
    file = tmp_path / "vllm.log"
    file.write_bytes(bytes(5000) + b"\nINFO 11-20 10:00:00 [api_server.py:1] vLLM API server version 0.12.0\n")
    ended = ran("doctor", str(file))
    assert ended.exit_code == 0
    assert "0.12.0" in ended.output
