"""What /server_info?config_format=json says: what was asked for, not what was resolved.

vLLM has this route only with VLLM_SERVER_DEV_MODE=1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from router.vllm.findings import OLD_VARIABLES
from router.vllm.kernels import Requested, heeds, requested_from_args, requested_from_env, version_of


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A server's own configuration. None: it does not say.

    Attributes:
        version: vLLM's version.
        requested: kernels asked for by flag, else by the old variables where this version still heeds them.
        ignored_variables: old kernel variables that are set and do nothing on this version.
        model: what was loaded.
        quantization: vLLM's name of the checkpoint's method.
        max_model_len: context window in tokens.
        max_logprobs: the most logprobs a call may ask for.
        max_num_seqs: the most requests in one batch.
        scheduling: "fcfs" or "priority": whether `priority` in a call means anything.
        kv_tokens: KV cache size in tokens.
    """

    version: str | None = None
    requested: Requested = field(default_factory=Requested)
    ignored_variables: tuple[str, ...] = ()
    model: str | None = None
    quantization: str | None = None
    max_model_len: int | None = None
    max_logprobs: int | None = None
    max_num_seqs: int | None = None
    scheduling: str | None = None
    kv_tokens: int | None = None


def parse_server_info(body: bytes | str) -> ServerInfo:
    """Read the JSON form of /server_info.

    Raises:
        ValueError: the body is no such answer; the message says why.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"/server_info is not JSON: {error}") from error
    config = document.get("vllm_config") if isinstance(document, dict) else None
    if not isinstance(config, dict):
        raise ValueError("/server_info has no object 'vllm_config' (ask for config_format=json)")
    model, cache, scheduler = (_part(config, f"{name}_config") for name in ("model", "cache", "scheduler"))
    version = _text(_part(document, "system_env").get("vllm_version"))
    variables = _variables(document)
    by_flag = requested_from_args(_part(config, "kernel_config"))
    release = version_of(version)
    by_variable = requested_from_env(variables, release)
    return ServerInfo(
        version=version,
        requested=Requested(by_flag.linear or by_variable.linear, by_flag.moe or by_variable.moe),
        ignored_variables=tuple(sorted(name for name in variables if not heeds(release, name))),
        model=_text(model.get("model")),
        quantization=_text(model.get("quantization")),
        max_model_len=_count(model.get("max_model_len")),
        max_logprobs=_count(model.get("max_logprobs")),
        max_num_seqs=_count(scheduler.get("max_num_seqs")),
        scheduling=_text(scheduler.get("policy")),
        kv_tokens=_count(cache.get("kv_cache_size_tokens")),
    )


def _variables(document: Mapping[str, Any]) -> dict[str, Any]:
    """Old kernel variables: those vLLM knows are in vllm_env with their defaults, those it ignores only in env_vars."""
    known = {name: value for name, value in _part(document, "vllm_env").items() if name in OLD_VARIABLES and value}
    text = _part(document, "system_env").get("env_vars")
    pairs = (line.partition("=") for line in text.split("\n")) if isinstance(text, str) else ()
    return {name: value for name, _, value in pairs if name in OLD_VARIABLES} | known


def _part(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = document.get(name)
    return part if isinstance(part, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
