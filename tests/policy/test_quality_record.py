"""A standing survives being written down, and a damaged record is no standing."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.policy.facts import Grade
from router.policy.quality import Family, Quality, Reference, flag, fresh, restarted, score_answers, score_texts
from router.policy.quality_record import dump, restore
from router.policy.scoring import Basis, Paired

TRUSTED = Reference("marlin", "w4a16", Grade.GOOD)
steps = st.sampled_from(["calm", "wild", "answers", "operator", "restart"])


def walked(walk: list[str]) -> Quality:
    quality = fresh("cutlass 0.33", 0.0)
    for number, step in enumerate(walk):
        now = float(number)
        if step in ("calm", "wild"):
            pairs = [Paired(f"t{number}.{i}", Basis.DISTANCE, 0.1, 0.001 if step == "calm" else 0.2) for i in range(6)]
            quality = score_texts(quality, Family.PREFILL, pairs, TRUSTED, "w4a16", now)
        elif step == "answers":
            quality = score_answers(quality, {f"q{number}": number % 2 == 0}, trusted=frozenset(), now=now)
        else:
            quality = flag(quality, "odd", now) if step == "operator" else restarted(quality, now)
    return quality


@given(st.lists(steps, max_size=10))
def test_a_standing_comes_back_as_it_was(walk: list[str]) -> None:
    quality = walked(walk)
    assert restore(json.loads(json.dumps(dump(quality), allow_nan=False))) == quality


@pytest.mark.parametrize(
    "damage",
    [
        {"version": 0},
        {"grade": "splendid"},
        {"since": None},
        {"tests": {"prefill": {}}},
        {"tests": []},
        {"evidence": [{"kind": "rumour"}]},
        {"cause": 7},
    ],
)
def test_a_damaged_record_is_no_standing(damage: dict[str, Any]) -> None:
    assert restore({**dump(walked(["calm", "wild"])), **damage}) is None
    assert restore({}) is None


def test_a_test_that_was_written_with_other_stakes_is_not_gone_on_with() -> None:
    record: Any = dump(walked(["calm"]))
    record["tests"]["prefill"]["stakes"].append(0.1)
    assert restore(record) is None
