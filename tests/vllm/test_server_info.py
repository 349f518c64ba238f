"""/server_info: what was asked for."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from router.vllm.kernels import Kernel, Requested
from router.vllm.server_info import parse_server_info

BODY = (Path(__file__).parent / "data" / "server_info-vllm-0.32.0.json").read_bytes()


def test_a_real_answer_is_read() -> None:
    info = parse_server_info(BODY)
    assert (info.version, info.requested, info.ignored_variables) == ("0.32.0", Requested(), ())
    assert (info.max_model_len, info.max_logprobs, info.max_num_seqs) == (2048, 50, 16)
    assert (info.scheduling, info.kv_tokens, info.quantization) == ("fcfs", 46592, None)


def altered(version: str, env: str, **kernel: str) -> bytes:
    document = orjson.loads(BODY)
    document["vllm_config"]["kernel_config"] |= kernel
    document["system_env"] |= {"vllm_version": version, "env_vars": env}
    return orjson.dumps(document)


def test_flags_come_first_and_old_variables_count_only_where_they_are_heeded() -> None:
    env = "VLLM_NVFP4_GEMM_BACKEND=cutlass\nVLLM_TEST_FORCE_FP8_MARLIN=1\nOTHER=x"
    old = parse_server_info(altered("0.22.1", env, moe_backend="b12x"))
    assert old.requested == Requested(Kernel.VLLM_CUTLASS, Kernel.B12X)
    assert old.ignored_variables == ()
    new = parse_server_info(altered("0.33.0", env, linear_backend="marlin"))
    assert new.requested == Requested(Kernel.MARLIN, None)
    assert new.ignored_variables == ("VLLM_NVFP4_GEMM_BACKEND", "VLLM_TEST_FORCE_FP8_MARLIN")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"vllm_config":"text form"}', b'{"detail":"Not Found"}'])
def test_what_is_no_server_info_says_why(body: bytes) -> None:
    with pytest.raises(ValueError, match="/server_info"):
        parse_server_info(body)
