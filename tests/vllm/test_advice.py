"""Every finding has its two sentences, right for the version at hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.vllm.advice import advise, how_to_ask
from router.vllm.findings import OLD_VARIABLES, Finding, Kind, Weight
from router.vllm.kernels import Kernel, Version

VERSIONS = st.none() | st.builds(Version, st.just(0), st.integers(10, 50), st.integers(0, 3))


def finding(kind: Kind, detail: str = "") -> Finding:
    return Finding(kind, Weight.WARNING, detail, 1, "line")


@given(st.sampled_from(Kind), VERSIONS, st.sampled_from(["", "marlin", *sorted(OLD_VARIABLES)]))
def test_every_finding_is_explained_on_every_version(kind: Kind, version: Version | None, detail: str) -> None:
    advice = advise(finding(kind, detail), version)
    assert advice.meaning.endswith(".")
    assert advice.action.endswith(".")


@given(VERSIONS, st.sampled_from(sorted(OLD_VARIABLES)))
def test_from_0_24_on_nobody_is_told_to_set_an_old_variable(version: Version | None, name: str) -> None:
    advice = advise(finding(Kind.UNKNOWN_VARIABLE, name), version)
    if version is None or version >= Version(0, 24):
        assert "--linear-backend marlin --moe-backend marlin" in advice.action
        assert not any(variable in advice.action for variable in OLD_VARIABLES)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("VLLM_NVFP4_GEMM_BACKEND", "up to vLLM 0.23"),
        ("VLLM_TEST_FORCE_FP8_MARLIN", "up to vLLM 0.28"),
        ("VLLM_TYPO", "does not know"),
    ],
)
def test_a_dead_variable_is_told_with_the_version_it_died_in(name: str, says: str) -> None:
    assert says in advise(finding(Kind.UNKNOWN_VARIABLE, name), Version(0, 30)).meaning


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (Version(0, 18, 1), "VLLM_NVFP4_GEMM_BACKEND=marlin --moe-backend marlin"),
        (Version(0, 33), "--linear-backend marlin --moe-backend marlin"),
        (None, "--linear-backend marlin --moe-backend marlin"),
    ],
)
def test_marlin_is_asked_for_in_the_words_of_the_version(version: Version | None, words: str) -> None:
    assert how_to_ask(Kernel.MARLIN, version) == words
