"""Importing what cannot be imported: a sentence that names the file, exit code 1, and nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from router.cli.main import app


@pytest.mark.parametrize(
    ("kind", "content", "said"),
    [
        ("litellm", b"\xff\xfe\x00", "not UTF-8 text"),
        ("sparkrun", b"\xff\xfe\x00", "not UTF-8 text"),
        ("litellm", None, "no such file"),
        ("litellm", b"garbage: [", "one mistake"),
        ("litellm", b"model_list: 7", "no backend is left"),
        ("litellm", b"model_list: [3, {model_name: x}]", "left out model_list[1]: x"),
        ("litellm", b"model_list: [3, {model_name: x}]", "left out model_list[0]: is no mapping (int)"),
        ("sparkrun", b"model: [1]", "its model is no name"),
        ("sparkrun", b"model: ''", "its model is no name"),
        ("sparkrun", b"- a", "no model in it"),
    ],
)
def test_a_file_that_gives_no_backend_is_refused_by_name_and_nothing_is_written(
    kind: str, content: bytes | None, said: str, tmp_path: Path
) -> None:
    file, out = tmp_path / "given.yaml", tmp_path / "out"
    if content is not None:
        file.write_bytes(content)
    ended = CliRunner().invoke(app, ["recipe", f"--from-{kind}", str(file), "--out", str(out)])
    assert (ended.exit_code, isinstance(ended.exception, SystemExit)) == (1, True), ended.output
    assert said in ended.output
    assert "given.yaml" in ended.output
    assert not out.exists()


def test_sections_that_hold_something_else_are_reported_and_the_rest_is_taken_over(tmp_path: Path) -> None:
    file, out = tmp_path / "given.yaml", tmp_path / "out"
    file.write_text(
        "model_list:\n- {model_name: a, litellm_params: {model: hosted_vllm/a, api_base: 'http://h:8000/v1'}}\n"
        "router_settings: 3\nlitellm_settings: [1]\ngeneral_settings: text\n"
    )
    ended = CliRunner().invoke(app, ["recipe", "--from-litellm", str(file), "--out", str(out)])
    assert ended.exit_code == 0, ended.output
    said = " ".join(ended.output.split())
    for name, kind in (("router_settings", "int"), ("litellm_settings", "list"), ("general_settings", "str")):
        assert f"{name}: is no mapping ({kind})" in said
    assert "http://h:8000" in "".join(one.read_text() for one in out.iterdir())
