"""The engine: every token once, never more KV than there is, nobody starves, and it is as slow as what it reads."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.sim.blocks import BLOCK_TOKENS, block_hashes
from router.sim.engine import Engine, StepResult
from router.sim.host import Host
from router.sim.profiles import MARLIN, PROFILES, QWEN, Profile

SMALL = replace(PROFILES["fast"], kv_tokens=64 * BLOCK_TOKENS, max_num_seqs=4, max_batched_tokens=100)
requests = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 80), st.integers(0, 3)), min_size=1, max_size=12)


def run_out(engine: Engine, now: float = 0.0) -> list[StepResult]:
    steps = []
    while engine.is_busy():
        steps.append(engine.step(now))
        now += steps[-1].duration_s
        assert engine.blocks.used <= engine.blocks.capacity
        assert len(steps) < 20_000, "the engine makes no progress"
    return steps


def throughput(profile: Profile, streams: int, siblings: int = 0) -> float:
    """Tokens per second of `streams` answers in steady decode, beside busy siblings on the same host."""
    host = Host()
    engines = [Engine(profile, host, seed=n, key=str(n)) for n in range(1 + siblings)]
    for engine in engines:
        for n in range(streams):
            engine.submit(str(n), 200, 200)
    clock = [0.0 for _ in engines]
    marks: list[tuple[float, int]] = []
    while engines[0].running or engines[0].waiting:
        turn = clock.index(min(clock))
        step = engines[turn].step(clock[turn])
        clock[turn] += step.duration_s or 1.0
        if turn == 0 and len(step.tokens) == streams:
            marks.append((clock[0], sum(step.tokens.values())))
    return sum(tokens for _, tokens in marks[1:]) / (marks[-1][0] - marks[0][0])


@given(requests)
def test_every_token_is_emitted_once_and_nothing_stays_behind(wanted: list[tuple[int, int, int]]) -> None:
    engine = Engine(SMALL, Host())
    for n, (prompt, output, prefix) in enumerate(wanted):
        engine.submit(str(n), prompt, output, block_hashes([prefix] * prompt))
    steps = run_out(engine)
    got = {str(n): sum(step.tokens.get(str(n), 0) for step in steps) for n in range(len(wanted))}
    assert got == {str(n): output for n, (_, output, _) in enumerate(wanted)}
    assert sorted(done for step in steps for done in step.finished) == sorted(got)
    assert engine.blocks.used == 0
    assert engine.counters.generation_tokens == sum(got.values())


@given(requests, st.integers(0, 11))
def test_whoever_is_aborted_gives_everything_back(wanted: list[tuple[int, int, int]], victim: int) -> None:
    engine = Engine(SMALL, Host())
    for n, (prompt, output, prefix) in enumerate(wanted):
        engine.submit(str(n), prompt, output, block_hashes([prefix] * (prompt + output)))
    engine.step(0.0)
    was_here = engine.abort(str(victim))
    steps = run_out(engine)
    assert engine.blocks.used == 0
    assert not (was_here and any(str(victim) in step.finished for step in steps))
    assert not engine.abort(str(victim))


@given(requests)
def test_requests_get_their_first_token_in_the_order_they_came(wanted: list[tuple[int, int, int]]) -> None:
    engine = Engine(replace(SMALL, kv_tokens=1_000 * BLOCK_TOKENS), Host())
    for n, (prompt, output, _) in enumerate(wanted):
        engine.submit(str(n), prompt, output)
    first: list[str] = []
    for step in run_out(engine):
        first.extend(sorted((one for one in step.tokens if one not in first), key=int))
    assert first == [str(n) for n in range(len(wanted))]


def test_a_seed_decides_everything() -> None:
    runs = []
    for seed in (3, 3, 4):
        engine = Engine(MARLIN, Host(), seed)
        for n in range(5):
            engine.submit(str(n), 100 + n, 20)
        runs.append([step.duration_s for step in run_out(engine)])
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize(
    ("profile", "published"),
    [(MARLIN, {1: 63.1, 5: 150.5, 10: 206.1}), (QWEN, {1: 42.6, 5: 133.4, 10: 196.1})],
    ids=["nemotron-nano", "qwen3.6-35b"],
)
def test_published_decode_speeds_come_out_of_bytes_and_bandwidth(profile: Profile, published: dict[int, float]) -> None:
    for streams, tokens_s in published.items():
        assert throughput(profile, streams) == pytest.approx(tokens_s, rel=0.10), streams


@pytest.mark.parametrize(("tokens", "published"), [(512, 2766), (8192, 6002)])
def test_published_prefill_speeds_come_out_of_operations_and_weights(tokens: int, published: float) -> None:
    engine = Engine(replace(MARLIN, jitter=0.0, first_touch=1.0), Host())
    engine.submit("one", tokens, 1)
    assert tokens / engine.step(0.0).duration_s == pytest.approx(published, rel=0.10)


def test_more_streams_are_slower_each_and_faster_together() -> None:
    together = [throughput(MARLIN, streams) for streams in (1, 2, 4, 8, 16)]
    assert together == sorted(together)
    each = [rate / streams for rate, streams in zip(together, (1, 2, 4, 8, 16), strict=True)]
    assert each == sorted(each, reverse=True)


def test_busy_siblings_on_one_host_slow_each_other() -> None:
    alone, beside_one, beside_two = (throughput(MARLIN, 4, siblings) for siblings in (0, 1, 2))
    assert alone > 1.3 * beside_one > 1.3 * beside_two


def test_a_long_context_makes_decode_slower() -> None:
    durations = []
    for prompt in (100, 8_000):
        engine = Engine(replace(MARLIN, jitter=0.0), Host())
        engine.submit("one", prompt, 3)
        durations.append(run_out(engine)[-1].duration_s)
    assert durations[1] > durations[0]


def test_a_known_prefix_is_not_computed_again() -> None:
    engine = Engine(PROFILES["fast"], Host())
    ids = list(range(160))
    engine.submit("first", 160, 1, block_hashes(ids))
    run_out(engine)
    engine.submit("again", 160, 1, block_hashes(ids))
    step = engine.step(0.0)
    assert step.prefilled_tokens == BLOCK_TOKENS  # the last block is computed: it gives the logits
    assert (engine.counters.prefix_hits, engine.counters.prefix_queries) == (144, 320)


def test_marlin_takes_longer_over_a_prompt_shape_it_never_saw() -> None:
    engine = Engine(replace(MARLIN, jitter=0.0), Host())
    times = []
    for name in ("first", "second"):
        engine.submit(name, 2000, 1)
        times.append(engine.step(0.0).duration_s)
    assert times[0] > 2.5 * times[1]


def test_draft_tokens_bring_more_than_one_token_a_step() -> None:
    engine = Engine(replace(MARLIN, draft_tokens=3, draft_accepted=0.7), Host())
    engine.submit("one", 50, 200)
    steps = run_out(engine)
    assert len(steps) < 120
    assert sum(step.tokens.get("one", 0) for step in steps) == 200


def test_what_can_never_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="exceed the KV cache"):
        Engine(SMALL, Host()).submit("huge", 1_000, 100)
