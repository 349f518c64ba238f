"""The exit codes of docs/operating.md, one command for each."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from router.cli.main import app

DOCS = Path(__file__).parents[2] / "docs" / "operating.md"


def ended_with(*words: str) -> int:
    ended = CliRunner().invoke(app, list(words))
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return ended.exit_code


def test_what_was_done_ends_with_0() -> None:
    assert ended_with("recipe", "--list") == 0


def test_what_was_refused_ends_with_1(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("model_list: []")
    assert ended_with("recipe", "--from-litellm", str(file)) == 1


@pytest.mark.parametrize("words", [("status", "--nonsense"), ("simulate", "nothere.yaml"), ("doctor", "nothere.log")])
def test_bad_input_ends_with_2(words: tuple[str, ...]) -> None:
    assert ended_with(*words) == 2


@pytest.mark.parametrize("command", ["status", "top", "explain", "drain"])
def test_a_router_that_is_not_reached_ends_with_3(command: str) -> None:
    with socket.socket() as bound:  # bound and not listening: nobody answers there, and nobody else can take it
        bound.bind(("127.0.0.1", 0))
        admin = f"http://127.0.0.1:{bound.getsockname()[1]}"
        words = (command, "x") if command in ("explain", "drain") else (command,)
        assert ended_with(*words, "--admin", admin) == 3


def test_the_doctor_ends_with_3_where_nobody_listens_at_the_source(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        assert ended_with("doctor", "docker:vllm", "--docker-socket", str(path)) == 3


def test_the_table_in_the_docs_names_every_code() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for code in (0, 1, 2, 3, 130):
        assert f"| {code} |" in text
