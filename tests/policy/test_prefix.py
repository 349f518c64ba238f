"""Prefix warmth: equal leading bytes are equal leading hashes, and what a backend holds is bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.policy.prefix import BLOCK_BYTES, PrefixIndex, hashes

TEXT = bytes(range(256)) * 64  # 16 blocks


@given(st.integers(0, len(TEXT) - 1), st.integers(1, 255))
def test_prompts_agree_exactly_in_the_blocks_before_their_first_difference(at: int, change: int) -> None:
    other = bytearray(TEXT)
    other[at] = (other[at] + change) % 256
    mine, theirs = hashes(TEXT, 0, b"m"), hashes(bytes(other), 0, b"m")
    equal = at // BLOCK_BYTES
    assert mine[:equal] == theirs[:equal]
    assert not set(mine[equal:]) & set(theirs[equal:])


@given(st.binary(max_size=4 * BLOCK_BYTES), st.integers(0, 100))
def test_a_longer_conversation_starts_with_the_hashes_of_the_shorter_one(more: bytes, start: int) -> None:
    short = hashes(TEXT, start, b"m")
    assert hashes(TEXT + more, start, b"m")[: len(short)] == short


def test_a_prompt_shorter_than_one_block_has_no_hashes() -> None:
    assert hashes(b"x" * (BLOCK_BYTES - 1), 0, b"m") == []
    assert len(hashes(b"x" * BLOCK_BYTES, 0, b"m")) == 1
    assert hashes(b"x" * BLOCK_BYTES, 1, b"m") == []


def test_the_same_bytes_for_another_model_are_another_prefix() -> None:
    assert not set(hashes(TEXT, 0, b"m")) & set(hashes(TEXT, 0, b"n"))


def test_what_was_computed_is_warm_up_to_where_a_prompt_departs_from_it() -> None:
    index = PrefixIndex()
    mine = hashes(TEXT, 0, b"m")
    index.add(mine, 1600.0)
    assert index.warm_tokens(mine) == pytest.approx(1600.0)
    assert index.warm_tokens(mine[:4]) == pytest.approx(400.0)
    assert index.warm_tokens([*mine[:4], 1, 2]) == pytest.approx(400.0)
    assert index.warm_tokens([1, *mine]) == 0.0


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 30), st.floats(1.0, 9000.0)), max_size=60))
def test_the_index_never_holds_more_than_the_cache(prompts: list[tuple[int, int, float]]) -> None:
    index = PrefixIndex(10_000)
    for first, blocks, tokens in prompts:
        prefix = [first * 1000 + number for number in range(blocks)]
        index.add(prefix, tokens)
        held = sum(index.warm_tokens([block]) for base in range(21) for block in range(base * 1000, base * 1000 + 30))
        assert held <= 10_000 + 1e-6
        assert index.warm_tokens(prefix) == pytest.approx(tokens)


def test_the_oldest_conversation_is_forgotten_first_and_its_end_before_its_beginning() -> None:
    index = PrefixIndex(1000)
    index.add([1, 2, 3, 4], 400.0)
    index.add([11, 12, 13, 14, 15], 500.0)
    index.add([21, 22], 200.0)
    assert index.warm_tokens([1, 2, 3, 4]) == pytest.approx(300.0)
    assert index.warm_tokens([11, 12, 13, 14, 15]) == pytest.approx(500.0)


def test_the_servers_own_word_corrects_what_was_believed() -> None:
    index = PrefixIndex()
    index.add([1, 2, 3, 4, 5, 6], 600.0)
    index.correct([1, 2, 3, 4, 5, 6], 200)
    assert 200.0 <= index.warm_tokens([1, 2, 3, 4, 5, 6]) <= 300.0
    index.correct([1, 2, 3, 4, 5, 6], 0)
    assert index.warm_tokens([1, 2, 3, 4, 5, 6]) <= 100.0


def test_a_restart_empties_it_and_a_smaller_cache_holds_less() -> None:
    index = PrefixIndex()
    index.add([1, 2], 200.0)
    index.resize(100)
    assert index.warm_tokens([1, 2]) == pytest.approx(100.0)
    index.clear()
    assert len(index) == 0
    assert index.warm_tokens([1, 2]) == 0.0
