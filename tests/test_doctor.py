"""`router doctor`: a pasted log in, advice and an exit code out."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from router.cli.doctor import doctor
from router.vllm.kernels import Kernel
from tests.vllm.test_logs import ROWS

LOGS = Path(__file__).parent / "vllm" / "data"


def run(*words: str, pasted: bytes = b"") -> Result:
    app = typer.Typer()
    app.command()(doctor)
    return CliRunner(env={"COLUMNS": "400"}).invoke(app, list(words), input=pasted)


def test_a_pasted_log_of_the_old_recipe_is_explained() -> None:
    result = run(
        "--backend", "spark-1", "--kernel", "marlin", "-", pasted=(LOGS / "0.24.0-old-recipe.log").read_bytes()
    )
    assert result.exit_code == 1
    assert "spark-1: declared marlin, but linear layers run flashinfer_cutlass" in result.output
    assert "unknown variable (VLLM_NVFP4_GEMM_BACKEND, VLLM_USE_FLASHINFER_MOE_FP4)" in result.output
    assert "from 0.24 on it does nothing" in result.output
    assert "--linear-backend marlin --moe-backend marlin" in result.output
    assert "VLLM_NVFP4_GEMM_BACKEND=marlin" not in result.output


@pytest.mark.parametrize(
    ("log", "code"),
    [
        ("0.17.1-auto", 1),
        ("0.19.1-cutlass", 0),
        ("0.26.0-marlin", 0),
        ("0.28.0-fallback", 1),
        ("0.33.0-batch-invariant", 1),
        ("died-misaligned", 1),
    ],
)
def test_the_exit_code_says_whether_there_is_something_to_do(log: str, code: int) -> None:
    assert run(str(LOGS / f"{log}.log")).exit_code == code


def test_a_healthy_log_is_said_to_be_healthy() -> None:
    result = run("--kernel", "cutlass", f"file:{LOGS}/0.19.1-cutlass.log")
    assert "runs vllm_cutlass as declared" in result.output
    assert "Nothing wrong was found" in result.output


def test_a_lying_label_alone_is_something_to_do() -> None:
    result = run("--kernel", "marlin", str(LOGS / "0.19.1-cutlass.log"))
    assert result.exit_code == 1


def test_a_flag_that_did_not_hold_is_told() -> None:
    result = run(str(LOGS / "0.28.0-fallback.log"))
    assert "linear flashinfer_cutlass was asked for, marlin runs" in result.output


@pytest.mark.parametrize("source", ["/nowhere/none.log", "file:/nowhere/none.log", "docker:-x"])
def test_a_log_that_cannot_be_read_is_its_own_exit_code(source: str) -> None:
    result = run(source)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_markup_in_a_log_is_shown_as_it_stands() -> None:
    log = b"vLLM API server version 0.30.0\nUnknown vLLM environment variable detected: VLLM_X [/bold][red]\n"
    result = run("-", pasted=log)
    assert result.exit_code == 0
    assert "[/bold][red]" in result.output


def test_nothing_pasted_is_no_start_up() -> None:
    result = run("-")
    assert result.exit_code == 0
    assert "no start-up of vLLM" in result.output


@pytest.mark.parametrize("row", ROWS, ids=[str(row[0]) for row in ROWS])
@pytest.mark.parametrize("how", ["as it is", "docker compose logs", "windows"])
def test_a_pasted_log_of_every_version_is_told_with_its_kernels_and_findings(
    row: tuple[str, str, str, str | None, str | None, str | None, str], how: str
) -> None:
    log, version, linear, moe, _, _, findings = row
    pasted = (LOGS / f"{log}.log").read_bytes()
    if how == "docker compose logs":
        pasted = b"".join(b"vllm-1  | " + line + b"\n" for line in pasted.splitlines())
    elif how == "windows":
        pasted = pasted.replace(b"\n", b"\r\n")
    result = run("--backend", "spark-1", "-", pasted=pasted)
    facts = [line.strip().split("  ", 1) for line in result.output.splitlines() if line.startswith("  ")]
    said = {name: value.strip() for name, value in (fact for fact in facts if len(fact) == 2)}
    assert (said["vLLM"], said["linear"], said.get("experts")) == (version, Kernel(linear), moe)
    for finding in findings.split():
        assert finding.replace("_", " ") in result.output
    assert result.exit_code in (0, 1)
    if not findings:
        assert "Nothing wrong was found" in result.output


@pytest.mark.parametrize("log", ["died-memory", "died-misaligned"])
def test_a_pasted_log_of_a_death_says_what_it_means_and_what_to_do(log: str) -> None:
    result = run("-", pasted=(LOGS / f"{log}.log").read_bytes())
    assert result.exit_code == 1
    assert "fault" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("pasted", [b"x" * 3_000_000, b"\n" * 10_000, b"data: {broken"])
def test_garbage_that_is_pasted_is_no_finding(pasted: bytes) -> None:
    result = run("-", pasted=pasted)
    assert result.exit_code == 0
    assert "no start-up of vLLM" in result.output
