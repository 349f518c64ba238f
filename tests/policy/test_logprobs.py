"""Reading logprobs: the three shapes, and every way in which they are not numbers to average over."""

import math

import pytest

from router.policy.logprobs import (
    LEAST_LOGPROB,
    Fault,
    Text,
    Unscorable,
    judge_error,
    read_chat_logprobs,
    read_completion_logprobs,
    read_prompt_logprobs,
)

IDS = [504, 3575, 282]


def entry(**logprobs: float | None) -> dict[str, dict[str, object]]:
    return {key[1:]: {"logprob": value, "rank": 1, "decoded_token": "x"} for key, value in logprobs.items()}


def prompt(*entries: object) -> list[object]:
    return [None, *entries]


GOOD = prompt(entry(_3575=-11.7, _29=-0.8, _28=-2.5), entry(_282=-0.3, _2240=-2.3))


def fault_of(answer: Text | Unscorable) -> Fault:
    assert isinstance(answer, Unscorable)
    return answer.fault


def test_prompt_logprobs_become_positions_most_likely_first_and_without_the_added_own_token() -> None:
    text = read_prompt_logprobs("t", GOOD, IDS, top=2)
    assert isinstance(text, Text)
    assert text.tokens == (3575, 282)
    assert text.positions[0].logprob == -11.7
    assert list(text.positions[0].top.items()) == [(29, -0.8), (28, -2.5)]
    assert text.positions[1].best == 282


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (None, Fault.IGNORED),
        ({"prompt_logprobs": []}, Fault.MALFORMED),
        (GOOD[:2], Fault.OTHER_TOKENS),
        (prompt(GOOD[1], entry(_1=-0.5)), Fault.OTHER_TOKENS),
        (prompt(GOOD[1], None), Fault.NULL),
        (prompt(GOOD[1], entry(_282=None)), Fault.NULL),
        (prompt(GOOD[1], entry(_282=math.nan)), Fault.NAN),
        (prompt(GOOD[1], entry(_282=math.inf)), Fault.NOT_A_PROBABILITY),
        (prompt(GOOD[1], entry(_282=0.7)), Fault.NOT_A_PROBABILITY),
        (prompt(GOOD[1], {"282": {"logprob": "low"}}), Fault.MALFORMED),
        (prompt(GOOD[1], {"282": {"logprob": True}}), Fault.MALFORMED),
        (prompt(GOOD[1], 7), Fault.MALFORMED),
    ],
)
def test_prompt_logprobs_that_cannot_be_used_say_why(answer: object, fault: Fault) -> None:
    assert fault_of(read_prompt_logprobs("t", answer, IDS)) is fault


def test_only_what_a_right_kernel_never_writes_is_hard() -> None:
    hard = {fault for fault in Fault if Unscorable(fault, "").is_hard}
    assert hard == {Fault.NAN, Fault.NULL, Fault.NOT_A_PROBABILITY}


def test_a_prompt_of_one_token_has_nothing_to_score() -> None:
    assert fault_of(read_prompt_logprobs("t", [None], [504])) is Fault.MALFORMED


def test_minus_infinity_counts_as_a_bounded_surprise() -> None:
    for least in (-9999.0, -math.inf):
        text = read_prompt_logprobs("t", prompt(entry(_2=least)), [1, 2])
        assert isinstance(text, Text)
        assert text.positions[0].logprob == LEAST_LOGPROB


def test_a_logprob_a_rounding_above_zero_is_zero() -> None:
    text = read_prompt_logprobs("t", prompt(entry(_2=1e-6)), [1, 2])
    assert isinstance(text, Text)
    assert text.positions[0].logprob == 0.0


def chat(*content: object) -> dict[str, object]:
    return {"logprobs": {"content": list(content)}}


def item(token: str, logprob: object, top: object) -> dict[str, object]:
    return {"token": token, "logprob": logprob, "bytes": [], "top_logprobs": top}


def test_chat_logprobs_are_keyed_by_text_and_special_tokens_stay_apart() -> None:
    top = [{"token": "1", "logprob": -0.1}, {"token": "", "logprob": -5.0}, {"token": "", "logprob": -6.0}]
    text = read_chat_logprobs("a", chat(item("1", -0.1, top)))
    assert isinstance(text, Text)
    assert text.tokens == ("1",)
    assert sorted(text.positions[0].top.values()) == [-6.0, -5.0, -0.1]


def test_tokens_asked_for_as_ids_are_ids() -> None:
    text = read_chat_logprobs("a", chat(item("token_id:42", -0.1, [{"token": "token_id:42", "logprob": -0.1}])))
    assert isinstance(text, Text)
    assert text.tokens == (42,)
    assert text.positions[0].best == 42


@pytest.mark.parametrize(
    ("choice", "fault"),
    [
        ({}, Fault.IGNORED),
        ({"logprobs": None}, Fault.IGNORED),
        ({"logprobs": {"content": None}}, Fault.IGNORED),
        ({"logprobs": {"content": []}}, Fault.MALFORMED),
        (chat({"logprob": -1.0}), Fault.MALFORMED),
        (chat(item("a", None, [])), Fault.NULL),
        (chat(item("a", math.nan, [])), Fault.NAN),
        (chat(item("a", -1.0, None)), Fault.NULL),
        (chat(item("a", -1.0, 3)), Fault.MALFORMED),
        (chat(item("a", -1.0, [{"token": "a", "logprob": None}])), Fault.NULL),
        (chat(item("a", -1.0, [{"logprob": -1.0}])), Fault.MALFORMED),
    ],
)
def test_chat_logprobs_that_cannot_be_used_say_why(choice: dict[str, object], fault: Fault) -> None:
    assert fault_of(read_chat_logprobs("a", choice)) is fault


def completion(tokens: object, own: object, tops: object) -> dict[str, object]:
    return {"logprobs": {"tokens": tokens, "token_logprobs": own, "top_logprobs": tops}}


def test_completion_logprobs_skip_the_first_echoed_token() -> None:
    text = read_completion_logprobs(
        "c", completion(["The", " sea"], [None, -2.0], [None, {" sea": -2.0, " cat": -1.0}])
    )
    assert isinstance(text, Text)
    assert text.tokens == (" sea",)
    assert text.positions[0].best == " cat"


@pytest.mark.parametrize(
    ("choice", "fault"),
    [
        ({"logprobs": None}, Fault.IGNORED),
        ({"logprobs": []}, Fault.MALFORMED),
        (completion(None, [-1.0], []), Fault.MALFORMED),
        (completion(["a"], [-1.0, -2.0], [{}, {}]), Fault.MALFORMED),
        (completion(["a"], [-1.0], 5), Fault.MALFORMED),
        (completion(["a", "b"], [-1.0, None], [{"a": -1.0}, {"b": -1.0}]), Fault.NULL),
        (completion(["a", "b"], [-1.0, -1.0], [{"a": -1.0}, None]), Fault.NULL),
        (completion(["a"], [-1.0], [{"a": math.nan}]), Fault.NAN),
        (completion(["a"], [None], [None]), Fault.MALFORMED),
    ],
)
def test_completion_logprobs_that_cannot_be_used_say_why(choice: dict[str, object], fault: Fault) -> None:
    assert fault_of(read_completion_logprobs("c", choice)) is fault


@pytest.mark.parametrize(
    ("status", "message", "fault"),
    [
        (500, "Out of range float values are not JSON compliant: nan", Fault.NAN),
        (400, "Out of range float values are not JSON compliant", Fault.NAN),
        (400, "Requested prompt logprobs of 20, which is greater than max allowed: 5", Fault.TOO_MANY),
        (400, "This model's maximum context length is 2048 tokens. However, your prompt has 2049", Fault.TOO_LONG),
        (500, "EngineCore encountered an issue. See stack trace (above) for the root cause.", Fault.ERROR),
        (503, "", Fault.ERROR),
    ],
)
def test_an_error_on_a_logprob_request_is_read_for_what_it_says(status: int, message: str, fault: Fault) -> None:
    assert judge_error(status, message).fault is fault
