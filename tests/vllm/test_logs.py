"""What a log says: one row per version, findings, several starts, and anything that is no log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.vllm.findings import Kind, Weight
from router.vllm.identity import Identity
from router.vllm.kernels import Kernel, Scheme
from router.vllm.logs import MARKS, LogReader, parsed_args, read

DATA = Path(__file__).parent / "data"
LOGS = {path.stem: path.read_bytes() for path in sorted(DATA.glob("*.log"))}

ROWS = [  # log, version, linear, moe, asked linear, asked moe, findings
    ("0.17.1-auto", "0.17.1", "flashinfer_cutlass", "flashinfer_cutlass", None, None, "tactics_skipped tma_ws_failed"),
    ("0.18.1-marlin", "0.18.1rc1.dev20+g3b1a2c4d5", "marlin", "marlin", None, None, "marlin_weight_only"),
    ("0.19.1-cutlass", "0.19.1", "vllm_cutlass", "vllm_cutlass", None, "vllm_cutlass", ""),
    ("0.20.2-auto", "0.20.2", "flashinfer_cutlass", "flashinfer_cutlass", None, None, "tactics_skipped"),
    ("0.22.1-marlin-by-variable", "0.22.1", "marlin", "marlin", None, None, "deprecated_variable marlin_weight_only"),
    ("0.23.1-mixed", "0.23.1rc1.dev531+ga65f93fb2", "marlin", None, None, None, "marlin_weight_only tactics_skipped"),
    ("0.24.0-old-recipe", "0.24.0", "flashinfer_cutlass", "flashinfer_cutlass", None, None, "unknown_variable"),
    ("0.26.0-marlin", "0.26.0", "marlin", "marlin", "marlin", "marlin", "marlin_weight_only"),
    ("0.28.0-fallback", "0.28.0", "marlin", "marlin", "flashinfer_cutlass", None, "linear_fallback marlin_weight_only"),
    (
        "0.30.0-flashinfer-b12x",
        "0.30.0",
        "flashinfer_b12x",
        "flashinfer_b12x",
        "flashinfer_b12x",
        "flashinfer_b12x",
        "",
    ),
    ("0.32.0-b12x-weight-only", "0.32.0", "b12x_w4a16", "b12x", "b12x", "b12x", ""),
    (
        "0.33.0-batch-invariant",
        "0.33.0",
        "vllm_cutlass",
        "flashinfer_cutlass",
        "marlin",
        None,
        "batch_invariant_override autotune_off",
    ),
    ("0.33.0-emulation", "0.33.0", "emulation", None, None, None, "emulation"),
]


@pytest.mark.parametrize(("log", "version", "linear", "moe", "asked_linear", "asked_moe", "findings"), ROWS)
def test_each_version_says_what_it_runs(
    log: str, version: str, linear: str, moe: str | None, asked_linear: str | None, asked_moe: str | None, findings: str
) -> None:
    identity = read(LOGS[log])
    assert (identity.version, identity.linear, identity.moe) == (version, (Kernel(linear),), moe)
    assert (identity.requested_linear, identity.requested_moe) == (asked_linear, asked_moe)
    assert {finding.kind.value for finding in identity.findings} == set(findings.split())
    assert identity.ready
    assert identity.kv_tokens
    assert identity.max_concurrency
    assert identity.unrecognised == ()


def disguised(log: bytes, how: str) -> bytes:
    lines = log.decode().splitlines()
    match how:
        case "docker timestamps":
            lines = [f"2026-09-26T08:09:41.123456789Z {line}" for line in lines]
        case "colours":
            lines = [f"\x1b[0;36m(EngineCore pid=392)\x1b[0;0m \x1b[32m{line}\x1b[0m" for line in lines]
        case "carriage returns":
            lines = [f"{line}\r" for line in lines]
        case "docker's JSON files":
            lines = [
                json.dumps({"log": f"{line}\n", "stream": "stdout", "time": "2026-09-26T08:09:41Z"}) for line in lines
            ]
        case "garbage between":
            return b"\n".join(b"\xff\xfe\x00" + line.encode() + b"\n\x80\x81\xc3\x28" for line in lines)
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    "how", ["docker timestamps", "colours", "carriage returns", "docker's JSON files", "garbage between"]
)
@pytest.mark.parametrize("log", [row[0] for row in ROWS])
def test_a_disguise_changes_nothing(log: str, how: str) -> None:
    plain, other = read(LOGS[log]), read(disguised(LOGS[log], how))
    assert other.kernels == plain.kernels
    assert (other.version, other.args, other.kv_tokens, other.ready) == (
        plain.version,
        plain.args,
        plain.kv_tokens,
        plain.ready,
    )
    assert [(f.kind, f.detail, f.count) for f in other.findings] == [
        (f.kind, f.detail, f.count) for f in plain.findings
    ]


def test_the_last_of_several_starts_wins() -> None:
    identity = read(LOGS["0.18.1-marlin"] + LOGS["0.24.0-old-recipe"] + LOGS["0.26.0-marlin"])
    assert (identity.version, identity.kernels, identity.starts) == ("0.26.0", "marlin", 2)
    assert {finding.kind for finding in identity.findings} == {Kind.MARLIN_WEIGHT_ONLY}
    assert identity.args["linear_backend"] == "marlin"


def test_a_start_without_a_banner_is_known_by_its_arguments_or_its_engine() -> None:
    lines = LOGS["0.26.0-marlin"].split(b"\n")
    without_banner = b"\n".join(line for line in lines if b"version 0.26.0" not in line)
    without_arguments = b"\n".join(line for line in without_banner.split(b"\n") if b"non-default" not in line)
    for second in (without_banner, without_arguments):
        identity = read(LOGS["0.33.0-emulation"] + second)
        assert (identity.version, identity.linear, identity.starts) == ("0.26.0", (Kernel.MARLIN,), 1)


def test_a_start_that_has_just_begun_knows_nothing_of_the_one_before() -> None:
    identity = read(LOGS["0.26.0-marlin"] + LOGS["0.18.1-marlin"].split(b"\n")[0])
    assert (identity.kernels, identity.kv_tokens, identity.ready, identity.findings) == ("unknown", None, False, ())


def test_two_engines_of_one_start_are_one_start() -> None:
    log = LOGS["0.26.0-marlin"].decode().splitlines()
    doubled = [
        line for text in log for line in ([text, text.replace("pid=392", "pid=393")] if "pid=392" in text else [text])
    ]
    identity = read("\n".join(doubled))
    assert (identity.starts, identity.linear, identity.moe) == (0, (Kernel.MARLIN,), Kernel.MARLIN)


def test_findings_of_a_dying_server_are_told_heaviest_first() -> None:
    identity = read(LOGS["died-misaligned"])
    assert [(finding.kind, finding.count) for finding in identity.findings] == [
        (Kind.CORRUPTED, 2),
        (Kind.ENGINE_DEAD, 2),
        (Kind.MISALIGNED_ADDRESS, 1),
        (Kind.MARLIN_WEIGHT_ONLY, 1),
    ]


def test_memory_troubles_have_their_own_names() -> None:
    first, _, _ = LOGS["died-memory"].partition(b"RuntimeError")
    (little,) = read(first).findings
    assert (little.kind, little.detail, little.weight) == (
        Kind.LITTLE_FREE_MEMORY,
        "(61.2/121.69 GiB)",
        Weight.FAULT,
    )
    assert {finding.kind for finding in read(LOGS["died-memory"]).findings} == {
        Kind.PROFILING_RACE,
        Kind.OUT_OF_MEMORY,
        Kind.KV_TOO_SMALL,
        Kind.ILLEGAL_ACCESS,
        Kind.STEP_TIMEOUT,
        Kind.NO_KERNEL,
        Kind.TACTIC_OOM,
    }


def test_variables_that_the_official_image_sets_itself_are_not_reported() -> None:
    details = [finding.detail for finding in read(LOGS["0.24.0-old-recipe"]).findings]
    assert details == ["VLLM_NVFP4_GEMM_BACKEND", "VLLM_USE_FLASHINFER_MOE_FP4"]


def test_a_clients_prompt_in_the_log_proves_nothing() -> None:
    said = "(APIServer pid=1) INFO Received request chatcmpl-1: prompt: \"Using 'VLLM_CUTLASS' NvFp4 MoE backend\""
    assert read(LOGS["0.26.0-marlin"] + said.encode()).moe is Kernel.MARLIN


def test_api_keys_and_tokens_are_not_kept() -> None:
    identity = read(LOGS["0.18.1-marlin"])
    assert identity.args["max_num_seqs"] == 1
    assert "sk-secret" not in repr(identity)


def test_arguments_with_objects_in_them_keep_their_plain_values() -> None:
    args = parsed_args(
        "{'model': '/m/x', 'compilation_config': CompilationConfig(mode=<Mode.A: 3>), 'moe_backend': 'marlin', "
        "'hf_token': 'hf_x', 'gpu_memory_utilization': 0.3, 'enforce_eager': True, "
        "'speculative_config': {'model': 'y'}}"
    )
    assert args == {"model": "/m/x", "moe_backend": "marlin", "gpu_memory_utilization": 0.3, "enforce_eager": True}


def test_a_weight_only_linear_layer_is_known_by_marlins_warning_alone() -> None:
    log = LOGS["0.23.1-mixed"]
    assert b"for NVFP4 GEMM" not in log
    assert read(log).linear == (Kernel.MARLIN,)


@pytest.mark.parametrize(
    ("line", "weight"),
    [
        ("[Autotuner]: Skipped 4 unsupported tactic(s) for fp4_gemm (enable debug logs)", Weight.NOTE),
        ("[Autotuner]: Skipped 80 unsupported tactic(s) for trtllm::fused_moe::gemm1", Weight.WARNING),
        ("[Autotuner]: Skipping tactic <MoERunner> 14, due to failure:", Weight.WARNING),
        ("--linear-backend=b12x was requested, but no b12x kernel exists for FP8 layers; falling back", Weight.NOTE),
        ("--linear-backend=b12x was requested, but no b12x kernel exists for NVFP4 layers; falling", Weight.WARNING),
        ("Unknown vLLM environment variable detected: VLLM_USE_V1", Weight.NOTE),
        ("Unknown vLLM environment variable detected: VLLM_USE_FLASHINFER_MOE_FP4", Weight.WARNING),
    ],
)
def test_only_what_changes_the_kernel_or_the_speed_weighs(line: str, weight: Weight) -> None:
    (finding,) = read(line).findings
    assert finding.weight is weight


def test_a_progress_bar_is_no_banner() -> None:
    bar = "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE): 24%|██▎  | 12/51 [00:01<00:05] version 9.9"
    assert read(LOGS["0.26.0-marlin"] + bar.encode()).version == "0.26.0"


def test_a_checkpoints_scheme_is_known_where_one_alone_is_named() -> None:
    assert read(LOGS["0.23.1-mixed"]).checkpoint is None
    assert (
        read("WARNING [compressed_tensors_w4a4_nvfp4.py:97] In NVFP4 linear, the global scale").checkpoint
        is Scheme.W4A4
    )
    assert read(LOGS["0.32.0-b12x-weight-only"]).checkpoint is Scheme.W4A16
    assert read(LOGS["0.32.0-b12x-weight-only"]).scheme == "w4a16"  # the b12x experts too
    assert read(LOGS["0.28.0-fallback"]).checkpoint is Scheme.W4A16
    assert read(LOGS["0.26.0-marlin"]).checkpoint is None


def test_a_kernel_that_is_not_known_is_named() -> None:
    log = LOGS["0.26.0-marlin"].replace(b"'MARLIN' NvFp4", b"'VERDICT_MOE' NvFp4")
    identity = read(log)
    assert (identity.moe, identity.unrecognised) == (None, ("VERDICT_MOE",))
    assert Kind.UNKNOWN_KERNEL in {finding.kind for finding in identity.findings}


def test_feeding_tells_new_findings_once() -> None:
    reader = LogReader()
    lines = LOGS["0.17.1-auto"].splitlines()
    first = reader.feed(lines)
    assert [finding.kind for finding in first] == [Kind.TACTICS_SKIPPED, Kind.TMA_WS_FAILED]
    assert reader.feed(lines[-3:]) == ()
    assert len(reader.feed(lines)) == 2  # a new start: what it says is new


def test_a_finding_is_as_heavy_as_its_heaviest_line() -> None:
    said = "--linear-backend=b12x was requested, but no b12x kernel exists for {} layers"
    (finding,) = read("\n".join(said.format(layers) for layers in ("FP8", "NVFP4", "FP8"))).findings
    assert (finding.weight, finding.count) == (Weight.WARNING, 3)


def test_memory_stays_bounded_whatever_is_said() -> None:
    reader = LogReader()
    reader.feed(f"Unknown vLLM environment variable detected: VLLM_X{n}" for n in range(1000))
    reader.feed(f"Using Kernel{n} for NVFP4 GEMM" for n in range(1000))
    identity = reader.identity
    assert len(identity.findings) < 25
    assert len(identity.unrecognised) <= 16
    assert sum(finding.count for finding in identity.findings) == 2000


def test_a_mark_can_stand_in_a_shells_quotes() -> None:
    assert not any("'" in mark for mark in MARKS)


LINES = [line for log in LOGS.values() for line in log.split(b"\n")]


@given(st.lists(st.binary(max_size=80) | st.sampled_from(LINES), max_size=30))
def test_reading_never_raises_on_bytes(lines: list[bytes]) -> None:
    assert isinstance(read(b"\n".join(lines)), Identity)


@given(
    st.lists(st.text(max_size=80) | st.sampled_from(["{'log':", '{"log":', "non-default args: {", "\x1b["]), max_size=9)
)
def test_reading_never_raises_on_text(parts: list[str]) -> None:
    assert isinstance(read("".join(parts)), Identity)


@given(st.sampled_from(LINES), st.integers(0, 400), st.binary(max_size=6))
def test_a_line_damaged_anywhere_never_raises(line: bytes, at: int, noise: bytes) -> None:
    read(line[:at] + noise + line[at:])


@given(st.lists(st.sampled_from(LINES), max_size=60), st.integers(0, 60))
def test_it_does_not_matter_in_which_pieces_a_log_comes(lines: list[bytes], at: int) -> None:
    whole, pieces = LogReader(), LogReader()
    whole.feed(lines)
    pieces.feed(lines[:at])
    pieces.feed(lines[at:])
    assert pieces.identity == whole.identity
