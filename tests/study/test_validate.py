"""The validation of the simulator judges fairly: its fit finds what is true, and an engine it cannot fit shows."""

import math
from dataclasses import astuple, replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.study.engine_fit import Machine, compare, fit, predict, solve, split
from tests.study.sweep import CONCURRENCIES, PROMPT_TOKENS, Bursts, cells
from tests.study.validate import median_error, render, repeat_error


def made_by(machine: Machine) -> Bursts:
    """A sweep whose answers are the engine's own."""
    return {
        cell: [predict(machine, cell.prompt_tokens, [0.001 * number for number in range(cell.concurrency)])]
        for cell in cells()
    }


@settings(max_examples=5, deadline=None)
@given(st.tuples(*[st.floats(-0.7, 0.7)] * 4))
@example((0.5, 0.0, 0.0, -0.625))  # where steps of one size alone get stuck
@example((-0.7, -0.7, -0.7, -0.7))
def test_the_fit_recovers_the_machine_that_made_the_data(shifts: tuple[float, ...]) -> None:
    true = Machine(*(value * math.exp(shift) for value, shift in zip(astuple(Machine()), shifts, strict=True)))
    shown, hidden = split(made_by(true))
    found = fit(shown)
    assert astuple(found) == pytest.approx(astuple(true), rel=0.05)
    assert median_error(compare(found, hidden))[0] < 0.01


def test_what_was_not_shown_has_every_concurrency_and_length_and_nothing_of_what_was() -> None:
    shown, hidden = split({cell: [] for cell in cells()})
    assert not shown.keys() & hidden.keys()
    for part in (shown, hidden):
        assert {cell.concurrency for cell in part} == set(CONCURRENCIES)
        assert {cell.prompt_tokens for cell in part} == set(PROMPT_TOKENS)


def test_a_page_about_an_engine_that_behaves_otherwise_says_that_the_goal_is_missed() -> None:
    bursts = made_by(Machine())
    assert "reached" in render(bursts, "nowhere")
    for cell, found in split(bursts)[1].items():
        bursts[cell] = [tuple(replace(call, ttft_s=call.ttft_s * 2, tpot_s=call.tpot_s * 2) for call in found[0])]
    assert "missed" in render(bursts, "nowhere")


def test_the_page_says_how_far_the_real_engine_is_from_itself_or_that_nobody_knows() -> None:
    bursts = made_by(Machine())
    assert repeat_error(bursts) is None
    assert "no cell was measured twice" in render(bursts, "nowhere")
    for found in bursts.values():
        slower = [replace(call, ttft_s=call.ttft_s * 1.25, tpot_s=call.tpot_s * 1.25) for call in found[0]]
        found.append(tuple(slower))
    assert repeat_error(bursts) == pytest.approx(0.2)
    assert "beside itself: 20%" in render(bursts, "nowhere")


def test_elimination_solves_a_system_whose_first_pivot_is_zero() -> None:
    assert solve([[0.0, 2.0], [4.0, 1.0]], [6.0, 11.0]) == pytest.approx([2.0, 3.0])
