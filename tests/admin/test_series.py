"""The last hour in steps: bounded, and true to what was seen."""

from hypothesis import given
from hypothesis import strategies as st

from router.admin.series import SAID_AGAIN_S, STEP_S, STEPS, Series
from router.events import (
    Attempt,
    BuildChanged,
    CallEnded,
    CanaryEnded,
    Event,
    HealthChanged,
    KernelObserved,
    Outcome,
    QualityChanged,
    Reloaded,
    Scraped,
)


class Clock:
    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def call(tokens: int | None = 101, ttft: float | None = 0.5, duration: float = 2.5, backend: str = "a") -> CallEnded:
    attempt = Attempt(backend, "marlin", "soonest end", duration, ttft)
    return CallEnded(
        "id", 0.0, "/v1/chat/completions", "m", "m", True, Outcome.OK, 200, "", (attempt,), duration, 0.0, ttft,
        10, tokens, None, 10, 10,
    )  # fmt: skip


def test_a_call_gives_its_first_token_its_pace_and_its_tokens() -> None:
    series = Series(Clock())
    series.on_event(call())
    newest = {name: column[-1] for name, column in series.since()["backends"]["a"].items()}
    assert newest == {"tokens_per_s": 101 / STEP_S, "ttft_s": 0.5, "tpot_s": 2.0 / 100, "score": None}


@given(tokens=st.integers(2, 100_000), seconds=st.floats(0.1, 3000.0))
def test_a_long_answers_tokens_are_spread_over_its_time_and_none_is_lost(tokens: int, seconds: float) -> None:
    series = Series(Clock())
    series.on_event(call(tokens, 0.1, seconds + 0.1))
    rates = [rate for rate in series.since()["backends"]["a"]["tokens_per_s"] if rate is not None]
    assert abs(sum(rates) * STEP_S - tokens) < 1e-6 * tokens
    assert len(rates) == min(int(seconds / STEP_S) + 1, STEPS)


def test_what_the_backend_says_itself_counts_before_our_own_sum() -> None:
    series = Series(Clock())
    series.on_event(call())
    series.on_event(Scraped("a", 1, 0, 0.1, 40.0, None))
    series.on_event(Scraped("a", 1, 0, 0.1, 60.0, None))
    assert series.since()["backends"]["a"]["tokens_per_s"][-1] == 50.0


@given(gaps=st.lists(st.floats(0.0, 4000.0), min_size=1, max_size=60))
def test_it_never_holds_more_than_an_hour(gaps: list[float]) -> None:
    clock = Clock()
    series = Series(clock)
    for gap in gaps:
        clock.now += gap
        for _ in range(3):
            series.on_event(call())
    found = series.since()
    assert found["count"] <= STEPS
    assert len(found["backends"]["a"]["ttft_s"]) == found["count"]
    assert found["first"] > clock.now - (STEPS + 1) * STEP_S


def test_a_backend_that_is_gone_for_an_hour_is_forgotten() -> None:
    clock = Clock()
    series = Series(clock)
    series.on_event(call())
    clock.now += STEPS * STEP_S + 10
    assert series.since()["backends"] == {}


def test_only_what_is_new_is_given_to_who_asks_since() -> None:
    clock = Clock()
    series = Series(clock)
    series.on_event(call())
    clock.now += 100
    series.on_event(call())
    found = series.since(clock.now - 10)
    assert found["count"] <= 3
    assert found["first"] <= clock.now - 5


def test_calls_that_never_reached_a_backend_leave_no_trace() -> None:
    series = Series(Clock())
    shed = call()
    shed.attempts = ()
    series.on_event(shed)
    series.on_event(call(ttft=None))
    assert series.since()["backends"] == {}


def test_marks_tell_good_news_from_bad() -> None:
    clock = Clock()
    series = Series(clock)
    events: list[tuple[Event, str, bool]] = [
        (QualityChanged("a", "m", "good", "flagged", "drifts"), "flag", True),
        (QualityChanged("a", "m", "flagged", "unknown", "cleared"), "clear", False),
        (Reloaded(2, True, added=("b",)), "reload", False),
        (Reloaded(2, False, reason="line 3"), "reload", True),
        (BuildChanged("a", "x", "x", restarted_only=True), "restart", False),
        (BuildChanged("a", "x", "y", restarted_only=False), "build", False),
        (KernelObserved("a", "cutlass", "marlin", False, ""), "kernel", True),
        (HealthChanged("a", "healthy", "ejected", "refused"), "health", True),
        (HealthChanged("a", "probation", "healthy", "trials passed"), "health", False),
    ]
    for event, kind, bad in events:
        series.on_event(event)
        assert (series.marks[-1].kind, series.marks[-1].bad) == (kind, bad)
    series.on_event(BuildChanged("a", "x", "y", restarted_only=False, completed=True))
    assert len(series.since()["marks"]) == len(events), "a build that is only known better bends no line"


def test_what_is_said_again_at_once_is_one_mark() -> None:
    clock = Clock()
    series = Series(clock)
    mismatch = KernelObserved("a", "cutlass", "marlin", False, "")
    series.on_event(mismatch)
    series.on_event(mismatch)
    assert len(series.marks) == 1
    clock.now += SAID_AGAIN_S + 1
    series.on_event(mismatch)
    assert len(series.marks) == 2


def test_a_score_stands_where_it_was_taken() -> None:
    series = Series(Clock())
    series.on_event(CanaryEnded("a", "m", "quick", "good", 0.02, 8, 3.0))
    series.on_event(CanaryEnded("b", "m", "quick", "unknown", None, 0, 3.0))
    found = series.since()["backends"]
    assert found["a"]["score"][-1] == 0.02
    assert "b" not in found
