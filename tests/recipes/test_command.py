"""`router recipe`: what it writes and prints, and what it says when it cannot."""

from __future__ import annotations

from pathlib import Path

import typer
from click.testing import Result
from typer.testing import CliRunner

from router.cli.recipe import recipe
from router.fleetfile import load


def run(*words: str) -> Result:
    app = typer.Typer()
    app.command()(recipe)
    return CliRunner().invoke(app, list(words))


def test_files_are_written_and_not_overwritten(tmp_path: Path) -> None:
    words = ("nemotron-3-nano", "--kernel", "marlin", "--kernel", "fi-cutlass", "--out", str(tmp_path))
    assert run(*words).exit_code == 0
    assert (tmp_path / "compose.yaml").is_file()
    assert len(load(tmp_path / "fleet" / "fleet.yaml", {}).backends) == 2
    again = run(*words)
    assert again.exit_code == 1
    assert "--force" in again.stderr
    assert run(*words, "--force").exit_code == 0


def test_units_are_printed_where_no_directory_is_named() -> None:
    done = run("qwen3.6", "--kernel", "marlin", "--systemd")
    assert "# ---- vllm-marlin.service" in done.stdout
    assert "# ---- fleet.yaml" in done.stdout


def test_what_cannot_work_is_said_and_nothing_is_written(tmp_path: Path) -> None:
    done = run("qwen3.6", "--kernel", "cutlass", "--out", str(tmp_path))
    assert done.exit_code == 1
    assert "weight-only" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_not_known_needs_its_size() -> None:
    assert "Did you mean" in run("nemotron-nan").stderr
    assert "Which model?" in run().stderr
    assert run("my/model", "--weights-gib", "40", "--scheme", "w4a4", "--kernel", "marlin").exit_code == 0


def test_words_that_are_no_kernel_version_or_port_are_named() -> None:
    done = run("nemotron-3-nano", "--kernel", "foo", "--vllm", "new")
    assert "foo is no NVFP4 kernel" in done.stderr
    assert "new is no version" in done.stderr
    assert "range" in run("nemotron-3-nano", "--ports", "x").stderr


def test_the_known_models_are_listed() -> None:
    assert "Qwen3.6-35B-A3B-NVFP4" in run("--list").stdout.replace("\n", "")


def test_a_litellm_file_is_taken_over_with_a_report(tmp_path: Path) -> None:
    source = tmp_path / "config.yaml"
    source.write_text(
        "model_list:\n- {model_name: m, litellm_params: {model: hosted_vllm/m, api_base: 'http://a:1', rpm: 1}}\n"
    )
    done = run("--from-litellm", str(source), "--out", str(tmp_path / "fleet"))
    assert done.exit_code == 0
    assert "1 backend taken over" in done.stderr
    assert "left out model_list[0].litellm_params.rpm" in done.stderr
    assert load(tmp_path / "fleet" / "fleet.yaml", {}).backends[0].serves == ("m",)


def test_a_sparkrun_recipe_is_taken_over(tmp_path: Path) -> None:
    source = tmp_path / "recipe.yaml"
    source.write_text("model: m\n")
    assert "http://spark-2:8000" in run("--from-sparkrun", str(source), "--host", "spark-2").stdout
    assert run("--from-sparkrun", str(tmp_path / "none")).exit_code == 1
