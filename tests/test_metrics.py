"""What a scrape shows of the events that came by."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from router.errors import FailureKind, Phase
from router.events import (
    Attempt,
    AttemptFailed,
    BuildChanged,
    CallEnded,
    CanaryEnded,
    HealthChanged,
    KernelObserved,
    Notice,
    Outcome,
    QualityChanged,
    Reloaded,
)
from router.metrics import FAMILIES, BackendGauges, GpuGauges, Metrics, ModelGauges, Names, Snapshot
from router.metrics.counters import MOST_SERIES, Counters
from router.metrics.families import SUSPICIONS, TTFT_BUCKETS
from router.metrics.text import Histogram, series, slices
from router.policy.facts import Grade, Health, Intent, Speed

NOW = 1_700_000_000.0
NAMES = Names(frozenset({"spark-1", "spark-2"}), frozenset({"smol", "gpt"}), frozenset({"/v1/chat/completions"}))
CALL = CallEnded(
    request_id="r-1",
    at=NOW,
    route="/v1/chat/completions",
    model="smol",
    asked="smol",
    stream=True,
    outcome=Outcome.OK,
    status=200,
    code="",
    attempts=(Attempt("spark-1", "marlin", "only one", duration_s=2.2, ttft_s=0.2),),
    duration_s=2.3,
    queued_s=0.1,
    ttft_s=0.3,
    prompt_tokens=50,
    completion_tokens=101,
    cached_tokens=32,
    bytes_in=100,
    bytes_out=2000,
    predicted_ttft_s=0.1,
    predicted_end_s=2.2,
)
SNAPSHOT = Snapshot(
    backends=(
        BackendGauges(
            "spark-1",
            Health.HEALTHY,
            Intent.ACTIVE,
            (ModelGauges("smol", grade=Grade.GOOD, speed=Speed(0.1, 2000.0, 0.02, 0.001, 0.0, 0.1, 50)),),
            running=1.0,
            waiting=0.0,
            kv_usage=0.25,
        ),
        BackendGauges("spark-2", Health.OFF, Intent.DRAINING, (ModelGauges("smol"),)),
    ),
    gpus=(GpuGauges("box-1", 1.4e9, 88.0, None, True), GpuGauges("box-2")),
    usable={"smol": 1, "gpt": 0},
    queued={"smol": 0, "gpt": 0},
    connections={"client": 0, "backend": 0},
    generation=3,
)


def metrics(snapshot: Snapshot = SNAPSHOT, names: Names = NAMES) -> Metrics:
    return Metrics(names, lambda: snapshot, lambda: NOW, "1.2.3")


def scrape(source: Metrics) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(source.render().decode())}


def value(source: Metrics, name: str, **labels: str) -> float | None:
    for family in text_string_to_metric_families(source.render().decode()):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


def test_a_call_is_counted_by_its_model_route_outcome_and_status_class() -> None:
    m = metrics()
    m.on_event(CALL)
    m.on_event(replace(CALL, outcome=Outcome.CLIENT_LEFT, status=499))
    route = "/v1/chat/completions"
    assert value(m, "router_calls_total", model="smol", route=route, outcome="ok", status="2xx") == 1
    assert value(m, "router_calls_total", model="smol", route=route, outcome="client_left", status="4xx") == 1
    assert value(m, "router_attempts_total", backend="spark-1", model="smol", result="client_left") == 1
    assert value(m, "router_bytes_total", model="smol", direction="out") == 4000


def test_speed_is_what_the_one_attempt_that_answered_showed() -> None:
    m = metrics()
    m.on_event(CALL)
    pair = {"backend": "spark-1", "model": "smol"}
    assert value(m, "router_ttft_seconds_bucket", **pair, le="0.15") == 0
    assert value(m, "router_ttft_seconds_bucket", **pair, le="0.2") == 1
    assert math.isclose(value(m, "router_tpot_seconds_sum", **pair) or 0, 0.02)
    assert value(m, "router_tokens_total", **pair, direction="completion") == 101
    assert value(m, "router_cached_tokens_total", **pair) == 32
    assert value(m, "router_prediction_ratio_sum", **pair, figure="ttft") == 2.0
    assert value(m, "router_prediction_ratio_sum", **pair, figure="end") == 1.0


def test_a_second_attempt_is_a_retry_and_a_resumed_one_a_continuation() -> None:
    m = metrics()
    refused = Attempt("spark-2", "b12x", "first", 0.01, failure=FailureKind.REFUSED, phase=Phase.CONNECT)
    broke = Attempt("spark-2", "b12x", "first", 1.0, 0.2, failure=FailureKind.RESET, phase=Phase.COMMITTED)
    resumed = Attempt("spark-1", "marlin", "continues", 1.0, 0.2, resumed_at=120)
    m.on_event(replace(CALL, attempts=(refused, *CALL.attempts)))
    m.on_event(replace(CALL, attempts=(broke, resumed)))
    assert value(m, "router_retries_total", model="smol") == 1
    assert value(m, "router_continuations_total", result="ok") == 1
    assert value(m, "router_attempts_total", backend="spark-2", model="smol", result="refused") == 1
    assert value(m, "router_tpot_seconds_count", backend="spark-1", model="smol") == 0


def test_a_call_without_an_attempt_touches_no_backend() -> None:
    m = metrics()
    m.on_event(replace(CALL, attempts=(), outcome=Outcome.SHED, status=503))
    assert value(m, "router_call_duration_seconds_count", model="smol") == 1
    assert value(m, "router_queue_seconds_count", model="smol") == 0
    assert not scrape(m)["router_attempts"].samples


def test_ten_thousand_unknown_model_names_add_one_series_per_family() -> None:
    m = metrics()
    m.on_event(CALL)
    before = m.render().count(b"\n")
    m.on_event(replace(CALL, model="made-up-0"))
    with_one = m.render().count(b"\n")
    for n in range(1, 10_000):
        m.on_event(replace(CALL, model=f"made-up-{n}"))
    assert with_one > before
    assert m.render().count(b"\n") == with_one
    assert len([s for s in scrape(m)["router_calls"].samples if s.name == "router_calls_total"]) == 2


def test_an_unknown_backend_or_route_is_shown_as_other() -> None:
    m = metrics()
    m.on_event(replace(CALL, route="/nowhere", attempts=(replace(CALL.attempts[0], backend="gone"),)))
    assert value(m, "router_calls_total", model="smol", route="other", outcome="ok", status="2xx") == 1
    assert value(m, "router_attempts_total", backend="other", model="smol", result="ok") == 1


def test_at_idle_every_gauge_of_load_reads_zero() -> None:
    m = metrics()
    assert value(m, "router_in_flight", backend="spark-1", model="smol") == 0
    assert value(m, "router_in_flight", backend="spark-2", model="smol") == 0
    assert value(m, "router_queued", model="gpt") == 0
    assert value(m, "router_connections", side="client") == 0


def test_states_are_sets_in_which_exactly_one_is_on() -> None:
    families = scrape(metrics())
    for name in ("router_backend_health", "router_backend_intent", "router_quality"):
        on: dict[str, float] = {}
        for sample in families[name].samples:
            on[sample.labels["backend"]] = on.get(sample.labels["backend"], 0) + sample.value
        assert on == {"spark-1": 1, "spark-2": 1}, name
    m = metrics()
    assert value(m, "router_backend_up", backend="spark-1") == 1
    assert value(m, "router_backend_up", backend="spark-2") == 0
    assert value(m, "router_backend_health", backend="spark-2", state="off") == 1
    assert value(m, "router_usable_backends", model="gpt") == 0


def test_what_a_backend_did_not_say_is_absent_not_zero() -> None:
    m = metrics()
    assert value(m, "router_vllm_kv_usage_ratio", backend="spark-1") == 0.25
    assert value(m, "router_vllm_kv_usage_ratio", backend="spark-2") is None
    assert value(m, "router_speed_tpot_base_seconds", backend="spark-1", model="smol") == 0.02
    assert value(m, "router_speed_tpot_base_seconds", backend="spark-2", model="smol") is None


def test_a_gpu_shows_what_it_tells_in_base_units() -> None:
    m = metrics()
    assert value(m, "router_gpu_clock_hertz", host="box-1") == 1.4e9
    assert value(m, "router_gpu_temperature_celsius", host="box-1") == 88.0
    assert value(m, "router_gpu_power_watts", host="box-1") is None
    assert value(m, "router_gpu_clock_capped", host="box-1") == 1
    assert value(m, "router_gpu_clock_capped", host="box-2") == 0


def test_a_kernel_mismatch_is_one_series_a_backend_and_goes_when_mended() -> None:
    m = metrics()
    m.on_event(KernelObserved("spark-1", "flashinfer_cutlass", "marlin", False, "log line"))
    labels = {"backend": "spark-1", "declared": "flashinfer_cutlass"}
    assert value(m, "router_kernel_mismatch", **labels, observed="marlin") == 1
    m.on_event(KernelObserved("spark-1", "flashinfer_cutlass", "flashinfer_cutlass", True, "log line"))
    assert value(m, "router_kernel_mismatch", **labels, observed="flashinfer_cutlass") == 0
    assert value(m, "router_kernel_mismatch", **labels, observed="marlin") is None
    m.on_event(KernelObserved("spark-1", "flashinfer_cutlass", "unknown", None, "no log"))
    assert not scrape(m)["router_kernel_mismatch"].samples


def test_changes_reloads_canaries_and_alarms_are_counted() -> None:
    m = metrics()
    m.on_event(HealthChanged("spark-1", "healthy", "ejected", "refused"))
    m.on_event(AttemptFailed("r", "spark-1", "smol", FailureKind.RESET, Phase.SENT, True, True, ""))
    m.on_event(QualityChanged("spark-1", "smol", "good", "flagged", "canary"))
    m.on_event(BuildChanged("spark-1", "a", "b", restarted_only=False))
    m.on_event(BuildChanged("spark-1", "b", "b", restarted_only=True))
    m.on_event(BuildChanged("spark-1", "b", "c", restarted_only=False, completed=True))
    m.on_event(CanaryEnded("spark-1", "smol", "quick", "good", 0.01, 20, 30.0))
    m.on_event(CanaryEnded("spark-1", "smol", "quick", "aborted", None, 2, 3.0))
    m.canary_time("spark-1", 30.0)
    m.canary_time("spark-1", 3.0)
    m.on_event(Notice("history", "disk full", alarm=True))
    m.on_event(Notice("history", "fine again"))
    m.suspicion("spark-1", "smol", "repeats")
    assert value(m, "router_health_changes_total", backend="spark-1", to="ejected") == 1
    assert value(m, "router_attempt_failures_total", backend="spark-1", kind="reset", phase="sent") == 1
    assert value(m, "router_quality_changes_total", backend="spark-1", model="smol", to="flagged") == 1
    assert value(m, "router_build_changes_total", backend="spark-1", change="build") == 1
    assert value(m, "router_build_changes_total", backend="spark-1", change="restart") == 1
    assert value(m, "router_canary_seconds_total", backend="spark-1") == 33
    assert value(m, "router_quality_score", backend="spark-1", model="smol") == 0.01
    assert value(m, "router_canary_last_run_timestamp_seconds", backend="spark-1", model="smol") == NOW
    assert value(m, "router_sentinel_suspicions_total", backend="spark-1", model="smol", sign="repeats") == 1
    assert value(m, "router_alarms_total") == 1


def test_a_refused_reload_leaves_the_time_of_the_applied_one() -> None:
    m = metrics()
    assert value(m, "router_last_reload_ok") is None
    m.on_event(Reloaded(3, ok=True))
    m.on_event(Reloaded(3, ok=False, reason="line 4"))
    assert value(m, "router_last_reload_ok") == 0
    assert value(m, "router_last_reload_timestamp_seconds") == NOW
    assert value(m, "router_reloads_total", result="refused") == 1
    assert value(m, "router_generation") == 3


def test_series_of_a_removed_backend_and_model_disappear() -> None:
    m = metrics(replace(SNAPSHOT, backends=SNAPSHOT.backends[:1], usable={}, queued={}))
    m.on_event(replace(CALL, attempts=(replace(CALL.attempts[0], backend="spark-2"),)))
    m.on_event(replace(CALL, model="gpt"))
    m.on_event(KernelObserved("spark-2", "marlin", "b12x", False, ""))
    m.on_event(HealthChanged("spark-2", "healthy", "ejected", ""))
    m.forget("spark-2")
    assert b"spark-2" not in m.render()
    m.allow(Names(frozenset({"spark-1"}), frozenset({"smol"}), NAMES.routes))
    assert b'"gpt"' not in m.render()
    m.on_event(replace(CALL, attempts=(replace(CALL.attempts[0], backend="spark-2"),)))
    assert value(m, "router_attempts_total", backend="other", model="smol", result="ok") == 1


def test_process_figures_and_the_build_are_shown() -> None:
    families = scrape(metrics())
    assert "process_resident_memory_bytes" in families
    assert "process_open_fds" in families
    assert families["router_build_info"].samples[0].labels["version"] == "1.2.3"


def test_every_family_of_the_table_is_rendered_with_help_and_no_other() -> None:
    m = metrics()
    m.loop_lag(0.002)
    text = m.render().decode()
    shown = {line.split()[2] for line in text.splitlines() if line.startswith("# HELP router_")}
    assert shown == set(FAMILIES)
    for family in FAMILIES.values():
        assert family.help.endswith(".") or ":" in family.help or ";" in family.help, family.name
        assert family.name.endswith("_total") == (family.kind == "counter"), family.name
        assert list(family.buckets) == sorted(set(family.buckets)), family.name


def test_slices_are_bounded_whole_series_and_together_the_same_scrape() -> None:
    m = metrics()
    m.on_event(CALL)
    pieces = list(m.render_slices(lines=50))
    assert len(pieces) > 3
    assert all(piece.endswith(b"\n") and piece.count(b"\n") < 50 + 60 for piece in pieces[:-1])
    own = b"".join(pieces).split(b"# HELP process_")[0]
    assert own == m.render().split(b"# HELP process_")[0]


def test_a_family_never_grows_past_its_bound() -> None:
    counters = Counters(SUSPICIONS)
    for n in range(MOST_SERIES + 10):
        counters.add("b", "m", f"sign-{n}")
    assert len(list(counters.rows())) == MOST_SERIES + 1
    assert counters.values[("other", "other", "other")] == 10


@given(st.lists(st.floats(0, 1000)))
def test_a_histogram_counts_each_value_once_in_the_bucket_that_holds_it(values: list[float]) -> None:
    histogram = Histogram(TTFT_BUCKETS)
    for v in values:
        histogram.observe(v)
    family = FAMILIES["router_ttft_seconds"]
    parsed = next(
        iter(
            text_string_to_metric_families(
                "".join(piece.decode() for piece in slices([(family, [(("b", "m"), histogram)])]))
            )
        )
    )
    buckets = {s.labels["le"]: s.value for s in parsed.samples if s.name.endswith("_bucket")}
    assert buckets["+Inf"] == len(values)
    for bound in TTFT_BUCKETS:
        assert buckets[repr(bound)] == sum(v <= bound for v in values)


@given(st.text(), st.floats())
def test_any_label_and_value_survive_the_text_format(label: str, number: float) -> None:
    line = series(FAMILIES["router_queued"], (label.replace("\r", ""),), number)
    family = next(iter(text_string_to_metric_families(f"# TYPE router_queued gauge\n{line}")))
    sample = family.samples[0]
    assert sample.labels["model"] == label.replace("\r", "")
    assert sample.value == number or math.isnan(number)
