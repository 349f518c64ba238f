"""The sequential test on recorded logprobs: what it must flag and how soon, and what it must leave alone."""

import random

import pytest

from router.policy.logprobs import Text
from router.policy.scoring import Basis, Paired, decode_gap, is_comparable, pair_gap, report
from router.policy.sequential import begin, excess, observe, tolerance_of
from tests.study.quality_study import gpu_pairs
from tests.study.recorded import pairs, positions, run, scores

STRICTEST = 0.01 / 4  # the share of a week's budget that the smallest family of probes gets


def texts_until_flagged(paired: tuple[Paired, ...], scheme: str, alpha: float, order: list[int]) -> list[str]:
    """The texts it took, or none where all of them did not suffice."""
    test = begin(0.0, alpha)
    used: list[str] = []
    for index in order:
        one = paired[index]
        test = observe(test, one.name, excess(one, tolerance_of(one.basis, scheme)))
        used.append(one.name)
        if test.is_worse:
            return used
    return []


def orders(count: int) -> list[list[int]]:
    """As recorded, then at random."""
    dice = random.Random(1)
    return [list(range(20)), *(dice.sample(range(20), 20) for _ in range(count))]


@pytest.mark.parametrize("name", ["again", "bf16b", "load8", "f32", "llama"])
def test_a_right_weight_only_build_is_never_flagged(name: str) -> None:
    """Re-runs, another process, eight streams beside it, another arithmetic, another server altogether."""
    paired = pairs(Basis.MUTUAL, name, "base")
    for order in orders(50):
        assert not texts_until_flagged(paired, "w16a16", 0.05, order)


@pytest.mark.parametrize(("name", "trusted"), [("w4a16_f32", "w4a16"), ("w4a4_f32", "w4a4"), ("w4a16", "w4a4")])
def test_a_right_nvfp4_build_is_never_flagged(name: str, trusted: str) -> None:
    paired = pairs(Basis.DISTANCE, f"nvfp4/{name}", f"nvfp4/{trusted}", "nvfp4/w16a16")
    for order in orders(50):
        assert not texts_until_flagged(paired, trusted, 0.05, order)


@pytest.mark.parametrize(
    "name",
    [
        "again",
        "batch of 20",
        "attention math",
        "attention flash",
        "attention cudnn",
        "compiled",
        "float16",
        "tf32",
        "float32",
        "nvfp4/w4a16_f32",
        "nvfp4/w4a16_compiled",
        "nvfp4/w4a4_f32",
        "nvfp4/w4a4_batch",
    ],
)
def test_another_kernel_or_arithmetic_on_a_gpu_is_never_flagged(name: str) -> None:
    paired, scheme = gpu_pairs(name)
    for order in orders(50):
        assert not texts_until_flagged(paired, scheme, 0.05, order)


@pytest.mark.parametrize(
    ("name", "most"), [("n0.02", 160), ("n0.05", 80), ("n0.1", 40), ("nvfp4/w4a16_swapped_scales_1layer", 160)]
)
def test_damage_on_a_gpu_is_flagged_within_so_many_positions(name: str, most: int) -> None:
    paired, scheme = gpu_pairs(name)
    used = texts_until_flagged(paired, scheme, STRICTEST, orders(0)[0])
    assert used
    assert positions(used) <= most


def test_what_a_scheme_costs_is_a_report_and_not_compared() -> None:
    mean, error = report(pairs(Basis.DISTANCE, "nvfp4/w4a4", "nvfp4/w4a16", "nvfp4/w16a16"))
    assert not is_comparable("w4a16", "w4a4")
    assert mean == pytest.approx(0.18, abs=0.02)
    assert error < 0.03


@pytest.mark.parametrize(("name", "most"), [("n0.02", 160), ("n0.05", 40), ("n0.1", 40), ("n0.2", 40)])
def test_noise_on_the_weights_is_flagged_within_so_many_positions(name: str, most: int) -> None:
    used = texts_until_flagged(pairs(Basis.MUTUAL, name, "base"), "w16a16", STRICTEST, orders(0)[0])
    assert used
    assert positions(used) <= most


@pytest.mark.parametrize(
    ("name", "typical", "most"), [("n0.02", 3, 5), ("n0.05", 1, 3), ("n0.1", 1, 1), ("n0.2", 1, 1)]
)
def test_noise_is_flagged_as_soon_in_most_random_orders(name: str, typical: int, most: int) -> None:
    paired = pairs(Basis.MUTUAL, name, "base")
    needed = sorted(len(texts_until_flagged(paired, "w16a16", 0.01, order)) for order in orders(300))
    assert needed[len(needed) // 2] == typical
    assert 0 < needed[0] <= needed[int(0.99 * len(needed))] <= most


@pytest.mark.parametrize(
    ("name", "trusted", "most"),
    [
        ("w4a16_swapped_scales_1layer", "w4a16", 12),
        ("w4a16_bad_scale_1layer", "w4a16", 8),
        ("w4a4_swapped_act_1layer", "w4a4", 5),
        ("w4a4_bad_act_all", "w4a4", 3),
        ("w4a16_swapped_scales_all", "w4a16", 1),
    ],
)
def test_a_damaged_layer_is_flagged_in_every_order(name: str, trusted: str, most: int) -> None:
    paired = pairs(Basis.DISTANCE, f"nvfp4/{name}", f"nvfp4/{trusted}", "nvfp4/w16a16")
    for order in orders(100):
        used = texts_until_flagged(paired, trusted, STRICTEST, order)
        assert 0 < len(used) <= most


def test_likelihood_alone_finds_large_damage_and_leaves_right_builds_alone() -> None:
    """For servers that list no top tokens: the text's own NLL."""
    order = list(range(20))
    for right, trusted, scheme in (
        ("f32", "base", "w16a16"),
        ("nvfp4/w4a16_f32", "nvfp4/w4a16", "w4a16"),
        ("nvfp4/w4a4_f32", "nvfp4/w4a4", "w4a4"),
    ):
        assert not texts_until_flagged(pairs(Basis.NLL, right, trusted), scheme, 0.05, order)
    for wrong, trusted, scheme in (
        ("n0.1", "base", "w16a16"),
        ("nvfp4/w4a16_bad_scale_1layer", "nvfp4/w4a16", "w4a16"),
        ("nvfp4/w4a4_swapped_act_1layer", "nvfp4/w4a4", "w4a4"),
    ):
        assert texts_until_flagged(pairs(Basis.NLL, wrong, trusted), scheme, STRICTEST, order)


def test_garbage_is_far_away_although_it_shares_no_token_with_the_reference() -> None:
    assert min(s.kl for s in scores("nvfp4/w16a16", "nvfp4/w4a16_swapped_scales_all")) > 1.0


def test_a_run_against_itself_scores_nothing_at_all() -> None:
    assert max(s.kl for s in scores("base", "again")) == 0.0
    assert min(s.agreement for s in scores("base", "again")) == 1.0


@pytest.mark.parametrize(
    ("trusted", "kernels", "candidate", "scheme", "is_damaged"),
    [
        ("base", "f32", "llama", "w16a16", False),
        ("base", "f32", "n0.005", "w16a16", False),
        ("base", "f32", "n0.05", "w16a16", True),
        ("nvfp4/w4a16", "nvfp4/w4a16_f32", "nvfp4/w4a16_bad_scale_1layer", "w4a16", True),
        ("nvfp4/w4a4", "nvfp4/w4a4_f32", "nvfp4/w4a4_bad_act_all", "w4a4", True),
    ],
)
def test_a_decode_gap_flags_damage_and_not_another_kernel(
    trusted: str, kernels: str, candidate: str, scheme: str, is_damaged: bool
) -> None:
    """Two prefill runs stand in for decode and prefill: the same text, the kernel changed or damaged."""
    both = zip(run(trusted), run(kernels), run(candidate), strict=True)
    paired = [(t.name, gap(t, k), gap(t, c)) for t, k, c in both]
    used = texts_until_flagged(tuple(pair_gap(*p) for p in paired), scheme, STRICTEST, list(range(20)))
    assert bool(used) == is_damaged


def gap(prefilled: Text, decoded: Text) -> float:
    known = [i for i, p in enumerate(decoded.positions) if p.logprob is not None]
    result = decode_gap(*(Text(t.name, tuple(t.positions[i] for i in known)) for t in (decoded, prefilled)))
    assert isinstance(result, float)
    return result
