"""The cap of calls in flight: falls with what a backend gets done, comes back, and leaves a healthy engine alone."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.policy.knee import Knee
from router.sim.engine import Engine
from router.sim.host import Host
from router.sim.profiles import PROFILES, Profile

LOOK_S = 5.0


def collapsing(streams: int, most: float = 200.0, at: int = 6) -> float:
    """Tokens per second that rise up to `at` streams and fall beyond."""
    return most * (streams / at if streams <= at else at / streams)


def after(rates: dict[int, float], looks: int = 12, noise: float = 0.0, seed: int = 0) -> Knee:
    """A knee that saw these rates in turn, each as many times."""
    knee, dice, now = Knee(), random.Random(seed), 0.0
    for _ in range(looks):
        for streams, rate in rates.items():
            now += 1.0
            knee.observe(now, streams, rate * dice.gauss(1.0, noise))
    return knee


def test_the_cap_is_where_more_streams_lower_what_gets_done() -> None:
    knee = after({streams: collapsing(streams) for streams in range(1, 11)}, noise=0.02)
    assert knee.cap(120.0) == 6
    assert knee.cap(120.0, limit=4) == 4


def test_the_cap_comes_back_when_what_was_seen_has_faded() -> None:
    knee = after({streams: collapsing(streams) for streams in range(1, 11)})
    assert knee.cap(120.0) == 6
    assert knee.cap(120.0 + 3 * knee.half_life_s) is None


def test_a_backend_that_no_longer_falls_gets_its_places_back_one_after_the_other() -> None:
    knee = after({streams: collapsing(streams) for streams in range(1, 11)})
    now, caps = 120.0, []
    for _ in range(400):  # it works at its cap now, and is well
        cap = knee.cap(now, 10) or 10
        caps.append(cap)
        now += LOOK_S
        knee.observe(now, cap, 200.0 * cap / 6)
    assert caps[0] == 6
    assert caps[-1] == 10


@pytest.mark.parametrize("seed", range(20))
def test_a_plateau_however_noisy_is_no_knee(seed: int) -> None:
    knee = after({streams: min(streams, 5) * 40.0 for streams in range(1, 17)}, looks=20, noise=0.15, seed=seed)
    cap = knee.cap(320.0)
    assert cap is None or cap >= 5  # what it gets done at five is all there is


@given(
    st.lists(st.tuples(st.integers(1, 40), st.floats(0.0, 500.0), st.integers(0, 3)), max_size=80),
    st.one_of(st.none(), st.integers(1, 32)),
)
def test_the_cap_never_passes_the_limit_nor_falls_below_the_best(
    seen: list[tuple[int, float, int]], limit: int | None
) -> None:
    knee = Knee(least=1.0)
    for now, (streams, rate, waiting) in enumerate(seen):
        knee.observe(float(now), streams, rate)
        knee.observe_queue(float(now), streams, waiting)
    now = float(len(seen))
    cap = knee.cap(now, limit)
    assert cap is None or (cap >= 1 and (limit is None or cap <= limit))
    if cap is not None and knee.places is None and limit is None:
        spoken = {n: level for n, level in knee.levels.items() if level.weight_at(now, knee.half_life_s) >= knee.least}
        assert cap >= max(spoken, key=lambda one: (spoken[one].rate, -one))


def test_a_queue_of_its_own_is_believed_when_it_stays_and_forgotten_when_it_goes() -> None:
    knee = Knee()
    knee.observe_queue(0.0, 4, 3)
    knee.observe_queue(5.0, 4, 3)
    assert knee.cap(5.0) is None
    knee.observe_queue(10.0, 4, 3)
    assert knee.cap(10.0) == 5  # one waits there, so that no place stays empty
    assert knee.cap(10.0 + 3 * knee.half_life_s) == 8


def test_one_call_that_waits_there_is_no_queue() -> None:
    knee = Knee()
    for now in range(20):
        knee.observe_queue(5.0 * now, 4, 1)
    assert knee.cap(100.0) is None


# --- on the engine's model ---


def rate_of(profile: Profile, streams: int, seed: int = 0) -> float:
    """Tokens per second of an engine that always has so many calls."""
    engine, now, sent = Engine(profile, Host(), seed=seed), 0.0, 0
    for _ in range(3000):
        while engine.running + engine.waiting < streams:
            engine.submit(str(sent), 200, 300)
            sent += 1
        now += engine.step(now).duration_s or 0.001
    return engine.counters.generation_tokens / now


def throughputs(profile: Profile, most: int = 10) -> dict[int, float]:
    return {streams: rate_of(profile, streams) for streams in range(1, most + 1)}


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_a_healthy_engine_never_loses_throughput_to_its_cap(name: str) -> None:
    rates = throughputs(PROFILES[name])
    for seed in range(5):
        cap = after(rates, noise=0.1, seed=seed).cap(120.0)
        got = rates[min(cap, 10)] if cap is not None else rates[10]
        assert got >= 0.97 * rates[10]


def test_an_engine_of_four_places_has_its_queue_here_and_loses_nothing_by_it() -> None:
    scarce = replace(PROFILES["fast"], max_num_seqs=4)
    engine, knee, now, sent, next_look = Engine(scarce, Host()), Knee(), 0.0, 0, 0.0
    while sent < 400:
        while engine.running + engine.waiting < 10:
            engine.submit(str(sent), 200, 300)
            sent += 1
        now += engine.step(now).duration_s or 0.001
        if now >= next_look:
            knee.observe_queue(now, engine.running, engine.waiting)
            next_look = now + 1.0
    cap = knee.cap(now)
    assert cap is not None
    assert cap == 5  # one ready to take the place of whoever ends
    assert rate_of(scarce, cap) >= 0.97 * rate_of(scarce, 10)
