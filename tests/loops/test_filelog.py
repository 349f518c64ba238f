"""Finding the last start in files of any size, while they rotate and shrink."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.loops import filelog
from router.loops.filelog import holds_start, read_last_start
from router.vllm.kernels import Kernel
from router.vllm.logs import read

LOGS = Path(__file__).parent.parent / "vllm" / "data"
MARLIN = (LOGS / "0.26.0-marlin.log").read_bytes()
CUTLASS = (LOGS / "0.19.1-cutlass.log").read_bytes()
CHATTER = b'(APIServer pid=1) INFO:     10.0.0.5:51234 - "POST /v1/chat/completions HTTP/1.1" 200 OK\n'


def test_a_small_log_is_read_from_its_last_start(tmp_path: Path) -> None:
    path = tmp_path / "serve.log"
    path.write_bytes(CUTLASS + CHATTER * 10 + MARLIN)
    assert read(read_last_start(path)).linear == (Kernel.MARLIN,)


def test_a_start_far_back_is_found_and_the_newest_lines_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "serve.log"
    with path.open("wb") as file:
        file.write(CUTLASS + MARLIN)
        file.seek(60 << 20, 1)  # a hole: as long as chatter, costs no disk
        file.write(b"\n(EngineCore pid=1) torch.AcceleratorError: CUDA error: misaligned address\n")
    text = read_last_start(path)
    identity = read(text)
    assert len(text) <= filelog.LEAD + filelog.HEAD + filelog.TAIL + 1
    assert identity.linear == (Kernel.MARLIN,)
    assert identity.kv_tokens == 301_056
    assert "misaligned_address" in {finding.kind for finding in identity.findings}


def test_ten_gigabytes_without_a_start_cost_a_bounded_search(tmp_path: Path) -> None:
    path = tmp_path / "serve.log"
    with path.open("wb") as file:
        file.write(MARLIN)
        file.truncate(10 << 30)
    text = read_last_start(path, scan=16 << 20)
    assert len(text) == filelog.TAIL
    assert read(text).kernels == "unknown"


def test_a_rotated_log_is_read_together_with_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "serve.log.1").write_bytes(MARLIN)
    (tmp_path / "serve.log").write_bytes(CHATTER + b"CUDA error: an illegal memory access was encountered\n")
    identity = read(read_last_start(tmp_path / "serve.log"))
    assert identity.linear == (Kernel.MARLIN,)
    assert "illegal_memory_access" in {finding.kind for finding in identity.findings}


def test_a_start_after_the_rotation_makes_the_old_file_moot(tmp_path: Path) -> None:
    (tmp_path / "serve.log.1").write_bytes(MARLIN)
    (tmp_path / "serve.log").write_bytes(CUTLASS)
    identity = read(read_last_start(tmp_path / "serve.log"))
    assert (identity.linear, identity.starts) == ((Kernel.VLLM_CUTLASS,), 0)


def test_an_old_file_without_a_start_adds_nothing(tmp_path: Path) -> None:
    (tmp_path / "serve.log.1").write_bytes(CHATTER)
    (tmp_path / "serve.log").write_bytes(b"new\n")
    assert read_last_start(tmp_path / "serve.log") == b"new\n"


def test_a_truncated_log_holds_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "serve.log"
    path.write_bytes(MARLIN)
    path.write_bytes(b"")
    assert read_last_start(path) == b""


def test_a_missing_log_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_last_start(tmp_path / "none.log")


@given(st.integers(0, 3 * filelog.BLOCK // 2))
def test_a_mark_on_the_border_of_two_blocks_is_found(tmp_path_factory: pytest.TempPathFactory, after: int) -> None:
    path = tmp_path_factory.getbasetemp() / "border.log"
    mark = b"vLLM API server version 0.26.0\n"
    with path.open("wb") as file:
        file.write(b"x\n")
        file.seek(1 << 20)
        file.write(mark)
        file.truncate(file.tell() + after)
    assert holds_start(read_last_start(path))
