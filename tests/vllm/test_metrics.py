"""A backend's own metrics: real answers, renames, odd labels, restarts, garbage."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.vllm.metrics import COUNTERS, Rates, Scrape, delta, parse, restarted

DATA = Path(__file__).parent / "data"
VLLM = (DATA / "metrics-vllm-0.32.0.txt").read_text()
LLAMACPP = (DATA / "metrics-llamacpp.txt").read_bytes()


def test_a_real_vllm_is_read() -> None:
    scrape = parse(VLLM)
    assert scrape == Scrape(
        running=0.0,
        waiting=0.0,
        kv_usage=0.0,
        prompt_tokens=10853.0,
        cached_tokens=512.0,
        generation_tokens=6786.0,
        prefix_queries=8835.0,
        prefix_hits=512.0,
        iterations=2250.0,
        preemptions=0.0,
        kv_size_tokens=46592.0,
        block_size=128,
        max_concurrency=22.75,
        start_time_s=1795395549.02,
        admission_rejections=0.0,
        success_by_reason={"stop": 26.0, "length": 193.0, "abort": 0.0, "error": 0.0, "repetition": 0.0},
        model_name="smollm2-135m",
    )
    assert scrape.says_load


def test_llama_cpp_is_read_where_it_means_the_same() -> None:
    scrape = parse(LLAMACPP)
    assert (scrape.running, scrape.waiting, scrape.generation_tokens) == (0.0, 0.0, 693.0)
    assert scrape.prompt_tokens == 143 + 1281  # vLLM counts cached tokens in, llama.cpp beside
    assert scrape.cached_tokens == 1281.0
    assert scrape.iterations == 669.0
    assert scrape.kv_usage is None


def test_engines_add_up_and_their_kv_use_is_averaged() -> None:
    scrape = parse(
        'vllm:num_requests_running{engine="0",model_name="m"} 3.0\n'
        'vllm:num_requests_running{engine="1",model_name="m"} 5.0\n'
        'vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.2\n'
        'vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.4\n'
        'vllm:cache_config_info{engine="0",kv_cache_size_tokens="1000",block_size="16"} 1.0\n'
        'vllm:cache_config_info{engine="1",kv_cache_size_tokens="500",block_size="16"} 1.0\n'
    )
    assert (scrape.running, scrape.kv_usage, scrape.kv_size_tokens) == (8.0, pytest.approx(0.3), 1500.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vllm:gpu_cache_usage_perc 0.5", 0.5),
        ("vllm:gpu_cache_usage_perc 0.5\nvllm:kv_cache_usage_perc 0.25", 0.25),
        ("vllm:kv_cache_usage_perc 0.25\nvllm:gpu_cache_usage_perc 0.5", 0.25),
        ("llamacpp:kv_cache_usage_ratio 0.125", 0.125),
    ],
)
def test_an_old_name_counts_only_where_the_new_one_is_absent(text: str, expected: float) -> None:
    assert parse(text).kv_usage == expected


def test_a_counter_sent_under_both_names_is_counted_once() -> None:
    text = 'vllm:gpu_prefix_cache_hits_total{engine="0"} 7\nvllm:prefix_cache_hits_total{engine="0"} 9\n'
    assert parse(text).prefix_hits == 9.0
    assert parse(text.splitlines()[0]).prefix_hits == 7.0


def test_labels_may_hold_commas_braces_quotes_and_spaces() -> None:
    text = (
        'vllm:request_success_total{model_name="a, {b} \\"c\\"",finished_reason="too long, cut"} 4\n'
        'vllm:num_requests_running{model_name="a, {b} \\"c\\" \\\\ d\\ne"} 2 1795395549\n'
    )
    scrape = parse(text)
    assert scrape.success_by_reason == {"too long, cut": 4.0}
    assert scrape.running == 2.0
    assert scrape.model_name == 'a, {b} "c" \\ d\ne'


@pytest.mark.parametrize(("awake", "sleeping"), [("1.0", False), ("0.0", True)])
def test_a_backend_sleeps_when_an_engine_is_not_awake(awake: str, sleeping: bool) -> None:
    text = (
        f'vllm:engine_sleep_state{{engine="0",sleep_state="awake"}} {awake}\n'
        'vllm:engine_sleep_state{engine="0",sleep_state="discard_all"} 0.0\n'
    )
    assert parse(text).sleeping is sleeping


@pytest.mark.parametrize(
    ("labels", "tokens"),
    [
        ('block_size="16",num_gpu_blocks="100"', 1600.0),  # before 0.24
        ('block_size="832",num_gpu_blocks="745",kv_cache_size_tokens="619479"', 619479.0),
        ('block_size="16",num_gpu_blocks="100",kv_cache_size_tokens="None"', None),
        ('block_size="832",num_gpu_blocks="745",mamba_cache_mode="align"', None),  # the product would be wrong
        ('block_size="None",num_gpu_blocks="100"', None),
    ],
)
def test_kv_capacity_is_what_vllm_says_or_a_safe_product(labels: str, tokens: float | None) -> None:
    assert parse(f"vllm:cache_config_info{{{labels}}} 1.0").kv_size_tokens == tokens


def test_without_a_process_collector_the_first_counter_tells_the_start() -> None:
    assert parse('vllm:generation_tokens_created{engine="0"} 1.7e+09').start_time_s == 1.7e9


@pytest.mark.parametrize("text", ["", "# HELP", "<html>no</html>", "vllm:num_requests_running NaN", "\0\0", "a{b} c"])
def test_what_is_no_metric_is_not_reported(text: str) -> None:
    assert parse(text) == Scrape()
    assert not parse(text).says_load


@given(st.binary(max_size=300) | st.text(max_size=300))
def test_parsing_never_raises(text: bytes | str) -> None:
    parse(text)


@given(st.integers(0, len(VLLM)), st.integers(0, 200))
def test_a_scrape_cut_anywhere_never_raises(at: int, length: int) -> None:
    parse(VLLM[:at] + VLLM[at + length :])


def test_rates_are_per_second() -> None:
    before = Scrape(generation_tokens=100, prompt_tokens=1000, prefix_queries=10, prefix_hits=0, iterations=5)
    after = Scrape(generation_tokens=200, prompt_tokens=3000, prefix_queries=110, prefix_hits=25, iterations=5)
    rates = delta(before, after, 4.0)
    assert (rates.generation_tokens, rates.prompt_tokens, rates.iterations) == (25.0, 500.0, 0.0)
    assert rates.prefix_hit_share == 0.25
    assert rates.cached_tokens is None
    assert rates.spec_acceptance is None


def test_nothing_is_derived_across_a_restart_or_without_time() -> None:
    before = Scrape(generation_tokens=200, start_time_s=1000.0)
    after = Scrape(generation_tokens=300, start_time_s=2000.0)
    assert restarted(before, after)
    assert delta(before, after, 5.0) == Rates(5.0)
    assert delta(before, before, 0.0) == Rates(0.0)


@pytest.mark.parametrize("counter", COUNTERS)
def test_a_counter_that_falls_is_a_restart(counter: str) -> None:
    assert restarted(Scrape(**{counter: 2.0}), Scrape(**{counter: 1.0}))
    assert not restarted(Scrape(**{counter: 1.0}), Scrape(**{counter: 2.0}))
    assert not restarted(Scrape(**{counter: 1.0}), Scrape())


def test_a_scrape_is_no_restart_of_itself() -> None:
    scrape = parse(VLLM)
    assert not restarted(scrape, scrape)
    assert not restarted(scrape, dataclasses.replace(scrape, start_time_s=None))
