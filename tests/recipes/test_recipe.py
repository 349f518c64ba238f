"""What fits one Spark, with which switches, and what is refused with its reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.recipes.models import MODELS, Model, find, near
from router.recipes.recipe import (
    LEAST_KV_GIB,
    OUTSIDE_GIB,
    SYSTEM_GIB,
    VISIBLE_GIB,
    WORKING_GIB,
    Recipe,
    RecipeRefused,
    Wish,
    most,
    plan,
)
from router.vllm.kernels import Kernel, Scheme, Version

NANO, SUPER, QWEN, LIGHTNING = MODELS
NEWEST = Version(0, 33)
THREE = (Kernel.MARLIN, Kernel.VLLM_CUTLASS, Kernel.FLASHINFER_CUTLASS)


def wish(
    model: Model = NANO,
    kernels: tuple[Kernel | None, ...] = (Kernel.MARLIN,),
    version: Version = NEWEST,
    ports: tuple[int, ...] | None = None,
    memory_gib: float | None = None,
    context: int | None = None,
) -> Wish:
    given = tuple(range(8000, 8000 + len(kernels))) if ports is None else ports
    return Wish(model, kernels, version, given, memory_gib, context)


def reasons(asked: Wish) -> str:
    with pytest.raises(RecipeRefused) as caught:
        plan(asked)
    return " | ".join(caught.value.reasons)


def option(recipe: Recipe, name: str, server: int = 0) -> str:
    words = recipe.servers[server].arguments
    return words[words.index(name) + 1]


def test_three_kernels_of_the_30b_fit_one_spark() -> None:
    recipe = plan(wish(kernels=THREE))
    assert [one.name for one in recipe.servers] == ["marlin", "vllm-cutlass", "flashinfer-cutlass"]
    assert recipe.total_gib + SYSTEM_GIB <= VISIBLE_GIB
    assert [option(recipe, "--linear-backend", i) for i in range(3)] == ["marlin", "cutlass", "flashinfer_cutlass"]


def test_servers_beside_each_other_have_their_kv_cache_pinned() -> None:
    recipe = plan(wish(kernels=THREE))
    assert int(option(recipe, "--kv-cache-memory-bytes")) == int(recipe.kv_gib * 2**30)
    assert "--kv-cache-memory-bytes" not in plan(wish()).servers[0].arguments


def test_a_server_that_vllm_chooses_the_kernel_of_gets_no_switches() -> None:
    (server,) = plan(wish(kernels=(None,))).servers
    assert server.name == "auto"
    assert not {"--linear-backend", "--moe-backend"} & set(server.arguments)


def test_one_server_leaves_memory_that_it_has_no_use_for() -> None:
    assert plan(wish()).utilization < 0.5
    assert plan(wish(SUPER)).utilization == 0.85


@pytest.mark.parametrize(("version", "flag"), [(Version(0, 19, 1), False), (Version(0, 23), True), (NEWEST, True)])
def test_switches_are_right_for_the_version_they_are_written_for(version: Version, flag: bool) -> None:
    (server,) = plan(wish(version=version)).servers
    assert ("--linear-backend" in server.arguments) is flag
    assert (("VLLM_NVFP4_GEMM_BACKEND", "marlin") in server.environment) is not flag


def test_what_an_old_vllm_needs_is_told_beside_new_flags() -> None:
    assert plan(wish()).servers[0].old == ("VLLM_NVFP4_GEMM_BACKEND=marlin", "--moe-backend marlin")
    assert plan(wish(version=Version(0, 19, 1))).servers[0].old == ()
    assert plan(wish(QWEN)).servers[0].old == ()  # no old vLLM serves it


def test_two_servers_of_the_120b_do_not_fit_and_the_way_out_is_said() -> None:
    said = reasons(wish(SUPER, (Kernel.MARLIN, Kernel.FLASHINFER_CUTLASS)))
    assert "1 fits: run them one after the other" in said


def test_a_weight_only_checkpoint_cannot_have_cutlass() -> None:
    assert "weight-only (W4A16) checkpoint cannot use vllm_cutlass" in reasons(wish(QWEN, (Kernel.VLLM_CUTLASS,)))


def test_a_model_needs_its_version() -> None:
    assert "needs vLLM 0.27.1" in reasons(wish(LIGHTNING, version=Version(0, 26)))


def test_a_model_too_big_for_any_spark_takes_two() -> None:
    assert "it takes two of them" in reasons(wish(Model("huge", 200, Scheme.W4A4, Version(0, 17))))


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        (wish(kernels=(), ports=()), "No kernel is named"),
        (wish(kernels=(Kernel.MARLIN, Kernel.MARLIN)), "marlin is named twice"),
        (wish(ports=()), "1 servers need as many ports"),
        (wish(kernels=THREE[:2], ports=(8000, 8000)), "Port 8000 is given twice"),
        (wish(ports=(8080,)), "the router's clients"),
        (wish(ports=(70000,)), "no port from 1 to 65535"),
        (wish(context=100), "too short"),
        (wish(memory_gib=10), "10 GiB are too few"),
        (wish(kernels=THREE, memory_gib=60), "do not fit"),
        (wish(version=Version(0, 18, 1), kernels=(Kernel.B12X,)), "no b12x yet"),
    ],
)
def test_what_cannot_work_is_refused_with_its_reason(asked: Wish, part: str) -> None:
    assert part in reasons(asked)


def test_every_reason_is_said_at_once() -> None:
    said = reasons(wish(QWEN, (Kernel.VLLM_CUTLASS, Kernel.B12X), Version(0, 23), (8080, 8080)))
    assert said.count(" | ") >= 4


def test_memory_is_what_was_asked_for() -> None:
    recipe = plan(wish(memory_gib=60))
    assert 59 <= recipe.utilization * VISIBLE_GIB + OUTSIDE_GIB <= 60


@given(
    st.floats(1, 150),
    st.integers(1, 5),
    st.none() | st.floats(1, 200),
)
def test_whatever_is_planned_fits_and_leaves_room(weights_gib: float, count: int, memory_gib: float | None) -> None:
    kernels = (Kernel.MARLIN, Kernel.VLLM_CUTLASS, Kernel.FLASHINFER_CUTLASS, Kernel.HUMMING, None)[:count]
    model = Model("m", weights_gib, Scheme.W4A4, Version(0, 17))
    try:
        recipe = plan(wish(model, kernels, memory_gib=memory_gib))
    except RecipeRefused:
        return
    assert recipe.utilization * count <= most(count) + 0.005
    assert recipe.total_gib + SYSTEM_GIB <= VISIBLE_GIB + 1
    needed = weights_gib + WORKING_GIB + LEAST_KV_GIB
    assert recipe.utilization * VISIBLE_GIB >= needed - 1e-6


def test_a_model_is_found_by_any_part_that_only_one_has() -> None:
    assert find("nvidia/nvidia-nemotron-3-nano-30b-a3b-nvfp4") is NANO
    assert find("qwen3.6") is QWEN
    assert find("nemotron") is None
    assert near("nemotron-3-nan0-30b-a3b")[0] == NANO.name


def test_every_known_model_has_sources_and_fits_alone() -> None:
    for model in MODELS:
        assert model.sources
        assert plan(wish(model)).kv_gib > LEAST_KV_GIB
