"""Files of LiteLLM and sparkrun: what becomes of them, and that nothing is left out without a word."""

from __future__ import annotations

import contextlib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from router.errors import ConfigFault
from router.fleetfile import FleetFault, parse
from router.recipes.imports import Imported
from router.recipes.litellm import from_litellm
from router.recipes.sparkrun import from_sparkrun

LITELLM = """\
model_list:
  - model_name: fast
    litellm_params: {model: hosted_vllm/nvidia/Nano, api_base: http://spark-1:8000/v1, api_key: none, rpm: 60}
  - model_name: fast
    litellm_params: {model: hosted_vllm/nvidia/Nano, api_base: http://spark-1:8001/v1, api_key: os.environ/SPARK_KEY}
  - model_name: nvidia/Nano
    litellm_params: {model: hosted_vllm/nvidia/Nano, api_base: http://spark-1:8001/v1, max_parallel_requests: 4}
  - model_name: llama
    litellm_params: {model: ollama/llama3, api_base: "http://desk:11434", api_key: sk-in-the-open}
    model_info: {mode: chat}
  - model_name: gpt-4o
    litellm_params: {model: azure/gpt-4o, api_base: https://x.azure.com}
  - model_name: gpt-4
    litellm_params: {model: openai/gpt-4, api_key: os.environ/OPENAI_API_KEY}
  - model_name: "*"
    litellm_params: {model: openai/*, api_base: http://a:1}
  - model_name: deep
    litellm_params: {model: openai/deep, api_base: http://a:1/some/path}
  - just a text
litellm_settings: {drop_params: true, num_retries: 2, fallbacks: [{fast: [llama]}, {nope: [x]}]}
router_settings:
  routing_strategy: least-busy
  model_group_alias: {gpt-3.5: fast, nvidia/Nano: llama}
  cooldown_time: 30
  allowed_fails: 3
general_settings: {master_key: sk-1234, database_url: postgres://me:secret@x}
something_new: 1
"""


def litellm(text: str = LITELLM) -> Imported:
    return from_litellm(text, "config.yaml")


def left(out: Imported) -> dict[str, str]:
    return {one.path: one.why for one in out.left_out}


def test_servers_of_ones_own_become_backends_and_names_become_aliases() -> None:
    config = parse(litellm().text, "fleet", {"SPARK_KEY": "k", "DESK_11434_KEY": "k"})
    assert [(one.url, one.kind, one.serves) for one in config.backends] == [
        ("http://spark-1:8000", "vllm", ("nvidia/Nano",)),
        ("http://spark-1:8001", "vllm", ("nvidia/Nano",)),
        ("http://desk:11434", "openai", ("llama3",)),
    ]
    assert config.backends[1].max_in_flight == 4
    assert config.targets("fast") == ("nvidia/Nano", "llama3")
    assert config.targets("gpt-3.5") == ("nvidia/Nano", "llama3")
    assert config.retry.max_attempts == 3
    assert (config.health.ejection_s, config.health.failures_to_eject) == (30, 3)
    assert config.routing.policy == "least-in-flight"
    assert len(config.access.client_keys) == 1


def test_what_was_left_out_is_said_with_its_place_and_reason() -> None:
    said = left(litellm())
    assert "rate limits" in said["model_list[0].litellm_params.rpm"]
    assert "azure" in said["model_list[4]"]
    assert "no api_base" in said["model_list[5]"]
    assert "any model" in said["model_list[6]"]
    assert "not a server's root" in said["model_list[7]"]
    assert "no mapping" in said["model_list[8]"]
    assert said["litellm_settings.drop_params"] == "calls pass unchanged"
    assert "nope" in said["litellm_settings.fallbacks"]
    assert "hide" in said["model_group_alias.nvidia/Nano"]
    assert "general_settings.database_url" in said
    assert said["something_new"] == "has no counterpart"


def test_no_key_passes_into_the_fleet_file_or_the_report() -> None:
    out = litellm()
    everything = out.text + "\n".join(map(str, [*out.left_out, *out.to_do]))
    assert "sk-in-the-open" not in everything
    assert "sk-1234" not in everything
    assert "secret" not in everything
    assert "${SPARK_KEY}" in out.text
    assert any("DESK_11434_KEY" in line for line in out.to_do)


def test_an_address_from_the_environment_stays_there() -> None:
    text = "model_list: [{model_name: m, litellm_params: {model: hosted_vllm/m, api_base: os.environ/URL}}]"
    assert parse(litellm(text).text, "fleet", {"URL": "http://a:1"}).backends[0].url == "http://a:1"


@pytest.mark.parametrize("text", ["", "[]", "a: b: c", "model: x", "42"])
def test_another_kind_of_file_is_refused(text: str) -> None:
    with pytest.raises(FleetFault):
        litellm(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("abc/*:$", max_size=6),
    lambda child: st.lists(child, max_size=3) | st.dictionaries(st.text("abc", max_size=3), child, max_size=3),
    max_leaves=6,
)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "model_name": VALUES,
        "litellm_params": VALUES
        | st.fixed_dictionaries(
            {},
            optional={
                "model": VALUES | st.sampled_from(["hosted_vllm/m", "openai/n"]),
                "api_base": VALUES | st.just("http://a:1/v1"),
                "api_key": VALUES,
            },
        ),
    },
)
FILE = st.fixed_dictionaries(
    {"model_list": VALUES | st.lists(ENTRY, max_size=3)},
    optional={
        "router_settings": VALUES | st.dictionaries(st.sampled_from(["fallbacks", "model_group_alias"]), VALUES),
        "general_settings": VALUES,
        "litellm_settings": VALUES,
    },
)


@given(FILE)
def test_any_litellm_file_is_taken_or_refused_and_never_a_crash(raw: object) -> None:
    assert litellm(yaml.safe_dump(raw)).text


SPARKRUN = """\
recipe_version: "1"
name: Nemotron-3-Nano-NVFP4
model: nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-NVFP4
container: vllm-node
solo_only: true
defaults: {port: 8000, host: 0.0.0.0, tensor_parallel: 1, gpu_memory_utilization: 0.7, max_model_len: 262144}
command: |
  vllm serve {model} \\
     --moe-backend cutlass \\
     --port {port} --host {host} --served-model-name nano \\
     --trust-remote-code
"""


def test_a_sparkrun_recipe_becomes_one_backend_with_its_kernel() -> None:
    out = from_sparkrun(SPARKRUN, "nano.yaml", ["spark-7"])
    config = parse(out.text, "fleet", {})
    (backend,) = config.backends
    assert (backend.url, backend.host, backend.serves) == ("http://spark-7:8000", ("spark-7",), ("nano",))
    assert backend.kernel == "vllm_cutlass"
    assert config.targets("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-NVFP4") == ("nano",)
    assert "sparkrun goes on" in left(out)["defaults.gpu_memory_utilization"]
    assert "sparkrun goes on" in left(out)["container"]


def test_a_kernel_asked_for_by_dead_variables_is_not_believed() -> None:
    text = "model: m\nenv: {VLLM_NVFP4_GEMM_BACKEND: marlin}\ndefaults: {port: 9000}\n"
    out = from_sparkrun(text, "m.yaml", ["spark-1"])
    assert parse(out.text, "fleet", {}).backends[0].kernel is None
    assert any("asks for marlin by variables" in line for line in out.to_do)


def test_a_recipe_over_two_sparks_needs_both_names() -> None:
    text = "model: m\ndefaults: {tensor_parallel: 2}\n"
    with pytest.raises(ConfigFault, match="runs over 2 Sparks"):
        from_sparkrun(text, "m.yaml", ["spark-1"])
    out = from_sparkrun(text, "m.yaml", ["spark-1", "spark-2"])
    assert parse(out.text, "fleet", {}).backends[0].host == ("spark-1", "spark-2")


def test_another_engine_is_asked_only_what_it_has() -> None:
    out = from_sparkrun("model: m\nruntime: sglang\n", "m.yaml", ["spark-1"])
    assert parse(out.text, "fleet", {}).backends[0].kind == "openai"


FIELDS = st.dictionaries(st.sampled_from(["name", "runtime", "defaults", "env", "command", "container", "abc"]), VALUES)


@given(FIELDS, st.fixed_dictionaries({}, optional={"port": VALUES, "tensor_parallel": VALUES, "moe_backend": VALUES}))
def test_any_recipe_is_taken_or_refused_and_never_a_crash(raw: dict[str, object], defaults: dict[str, object]) -> None:
    text = yaml.safe_dump({"model": "m", "defaults": defaults, **raw})
    with contextlib.suppress(ConfigFault):
        assert from_sparkrun(text, "m.yaml", ["spark"] * 12).text
