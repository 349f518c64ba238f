"""What the helper process does, and that baselines come back as they went in."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.helper import Helper
from router.policy.facts import Grade
from router.policy.logprobs import Fault, Position, Text, Unscorable
from router.policy.scoring import Basis
from router.quality.record import Baseline, Decoded, dump, load
from router.quality.work import Compared, compare_texts, pack, read_generation, read_scored, unpack

LOGPROBS = st.floats(-100.0, 0.0).map(lambda x: round(x, 5))
TOKENS = st.integers(0, 200_000) | st.text(max_size=8)
POSITIONS = st.builds(Position, TOKENS, st.none() | LOGPROBS, st.dictionaries(TOKENS, LOGPROBS, max_size=5))
TEXTS = st.builds(Text, st.text(max_size=20), st.lists(POSITIONS, max_size=6).map(tuple))
NAMES = st.text(max_size=12)
BASELINES = st.builds(
    Baseline,
    *[NAMES] * 8,
    st.floats(0, 2e9),
    st.sampled_from(Grade),
    texts=st.dictionaries(NAMES, st.binary(max_size=40), max_size=3),
    decoded=st.dictionaries(
        NAMES,
        st.builds(
            Decoded, st.lists(st.integers(0, 9), max_size=4).map(tuple), st.binary(max_size=9), st.none() | LOGPROBS
        ),
        max_size=3,
    ),
    right=st.frozensets(NAMES, max_size=3),
    vectors=st.dictionaries(NAMES, st.lists(st.floats(-1, 1), max_size=4).map(tuple), max_size=2),
)


@given(TEXTS)
def test_a_packed_text_comes_back(text: Text) -> None:
    assert unpack(pack(text)) == text


@given(BASELINES)
def test_a_dumped_baseline_comes_back(baseline: Baseline) -> None:
    assert load(dump(baseline)) == baseline


@given(st.binary(max_size=200))
def test_bytes_that_are_no_baseline_are_refused_in_words(data: bytes) -> None:
    with pytest.raises(ValueError, match="baseline"):
        load(data)


@given(BASELINES, BASELINES)
def test_what_a_baseline_holds_stays_when_more_is_added(first: Baseline, later: Baseline) -> None:
    joined = first.joined(later)
    assert first.texts.items() <= joined.texts.items()
    assert first.right | later.right == joined.right
    assert joined.at == later.at


def scored(*tops: dict[str, float]) -> bytes:
    entries = [None, *({t: {"logprob": v} for t, v in top.items()} for top in tops)]
    return json.dumps({"choices": [{"prompt_logprobs": entries}]}).encode()


def test_a_nan_in_an_answer_is_a_finding() -> None:
    found = read_scored("text", scored({"2": math.nan}), (1, 2), 20)
    assert isinstance(found, Unscorable)
    assert found.fault is Fault.NAN


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"choices":[]}', b'{"choices":[3]}', b"\xff"])
def test_a_broken_answer_is_no_evidence(body: bytes) -> None:
    for found in (read_scored("text", body, (1, 2), 20), read_generation("text", body, 20)):
        assert isinstance(found, Unscorable)
        assert not found.is_hard


def test_tokens_named_by_text_are_taken_by_the_ids_beside_them() -> None:
    logprobs = {"tokens": [" a", " b"], "token_logprobs": [-0.1, -0.2], "top_logprobs": [{" a": -0.1}, {" b": -0.2}]}
    body = json.dumps({"choices": [{"text": " a b", "logprobs": logprobs, "token_ids": [7, 8]}]}).encode()
    found = read_generation("text", body, 20)
    assert not isinstance(found, Unscorable)
    assert found.ids == (7, 8)


def test_two_kernels_that_round_activations_are_measured_from_a_third_build() -> None:
    trusted = read_scored("text", scored({"2": -0.1, "3": -2.5}), (1, 2), 20)
    candidate = read_scored("text", scored({"2": -0.3, "3": -1.5}), (1, 2), 20)
    third = read_scored("text", scored({"2": -0.05, "3": -3.2}), (1, 2), 20)
    assert isinstance(trusted, bytes)
    assert isinstance(candidate, bytes)
    assert isinstance(third, bytes)
    bases = {
        compare_texts(candidate, trusted, third, "w4a4", False): Basis.DISTANCE,
        compare_texts(candidate, trusted, None, "w4a4", False): Basis.NLL,
        compare_texts(candidate, trusted, None, "w4a4", True): Basis.MUTUAL,
        compare_texts(candidate, trusted, None, "w4a16", False): Basis.MUTUAL,
    }
    for compared, basis in bases.items():
        assert isinstance(compared, Compared)
        assert compared.paired.basis is basis
        assert compared.paired.difference > 0


@pytest.mark.realtime
async def test_work_is_done_in_another_process_and_it_ends() -> None:
    helper = Helper()
    assert await helper.run(math.factorial, 5) == 120
    with pytest.raises(ValueError, match="no packed text"):
        await helper.run(unpack, b"x")
    helper.close()
    assert await helper.run(math.factorial, 3) == 6
    helper.close()
