"""Whom a bench measures: by name, by URL, or everybody; and who stands beside them."""

from typing import Any

import pytest

from router.bench.found import Found, NobodyToMeasure, from_router, from_urls, same_twice, without

SPEED = {
    name: {"value": value}
    for name, value in (
        ("overhead_s", 0.1), ("prefill_rate", 3000.0), ("tpot_a", 0.01), ("tpot_b", 0.004), ("contention", 0.7),
    )
}  # fmt: skip


def view(name: str, host: str = "spark-1", models: tuple[str, ...] = ("nano",), **more: Any) -> dict[str, Any]:
    served = [{"model": one, "grade": "good", "grade_reason": "", "score": 0.1, "speed": SPEED} for one in models]
    return {
        "name": name, "url": f"http://{name}:8000", "hosts": [host], "observed_kernel": "marlin", "version": "0.33.0",
        "build": "abc", "health": "healthy", "health_reason": "", "intent": "active", "models": served, **more,
    }  # fmt: skip


def status(*views: dict[str, Any]) -> dict[str, Any]:
    return {"backends": list(views)}


def asked(status: dict[str, Any], names: list[str], model: str | None) -> Found:
    """As the router tells it, with thirty texts behind every grade."""
    quality = [
        {"backend": one["name"], "model": served["model"], "tests": {"prefill": {"texts": 20}, "decode": {"texts": 10}}}
        for one in status["backends"]
        for served in one["models"]
    ]
    return from_router(status, {"backends": quality}, names, model)


def test_without_names_everybody_who_is_ready_is_measured_and_the_others_are_named() -> None:
    off = view("c", models=(), health="off")
    found = asked(status(view("a"), view("b", "spark-2"), off), [], None)
    assert [one.name for one in found.subjects] == ["a", "b"]
    assert found.notes == ("c left out: it is off",)
    assert found.lost == {}


def test_a_backend_asked_for_by_name_that_is_down_is_reported_as_lost() -> None:
    down = view("b", health="ejected", health_reason="refused three times")
    found = asked(status(view("a"), down), ["a", "b"], None)
    assert [one.name for one in found.subjects] == ["a"]
    assert found.lost == {"b": "it is ejected (refused three times)"}


def test_siblings_are_those_on_the_same_host_measured_or_not() -> None:
    found = asked(status(view("a"), view("b"), view("c", "spark-2"), view("d", "spark-2")), ["a", "c"], None)
    assert [one.siblings for one in found.subjects] == [("b",), ("d",)]
    assert [one.name for one in found.beside] == ["b", "d"]


def test_a_sibling_of_another_model_stands_beside_with_its_own_model() -> None:
    found = asked(status(view("a"), view("b", models=("super",))), ["a"], None)
    assert [(one.name, one.model) for one in found.beside] == [("b", "super")]


def test_of_two_models_the_one_that_more_serve_is_meant_and_a_tie_is_asked_about() -> None:
    most = asked(status(view("a"), view("b"), view("c", models=("super",))), [], None)
    assert {one.model for one in most.subjects} == {"nano"}
    with pytest.raises(NobodyToMeasure, match="--model"):
        asked(status(view("a"), view("c", models=("super",))), [], None)
    with pytest.raises(NobodyToMeasure, match="--model"):
        asked(status(view("a"), view("c", models=("super",))), ["a", "c"], None)


def test_an_unknown_name_or_model_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(NobodyToMeasure, match="known: a, b"):
        asked(status(view("a"), view("b")), ["z"], None)
    with pytest.raises(NobodyToMeasure, match="served: nano"):
        asked(status(view("a")), [], "huge")


def test_a_grade_that_is_unknown_is_not_measured() -> None:
    unknown = view("a")
    unknown["models"][0]["grade"] = "unknown"
    assert asked(status(unknown), [], None).qualities["a"].grade == "not measured"


def test_quality_comes_with_its_score_and_the_texts_behind_it() -> None:
    found = asked(status(view("a")), [], None).qualities["a"]
    assert (found.grade, found.score, found.texts) == ("good", 0.1, 30)


def test_urls_need_no_router_and_share_a_host_by_name() -> None:
    urls = ["http://spark-1:8000/", "http://spark-1:8001", "http://spark-2:8000"]
    found = from_urls(urls, dict.fromkeys(urls, ("nano",)), None)
    assert [one.name for one in found.subjects] == ["spark-1:8000", "spark-1:8001", "spark-2:8000"]
    assert [one.siblings for one in found.subjects] == [("spark-1:8001",), ("spark-1:8000",), ()]


def test_a_url_of_several_models_needs_one_named_and_a_dead_one_is_lost() -> None:
    with pytest.raises(NobodyToMeasure, match="say which with --model"):
        from_urls(["http://a"], {"http://a": ("x", "y")}, None)
    with pytest.raises(NobodyToMeasure, match="does not serve z; it serves x, y"):
        from_urls(["http://a"], {"http://a": ("x", "y")}, "z")
    found = from_urls(["http://a", "http://b"], {"http://a": ("x",)}, None)
    assert list(found.lost) == ["b"]


def test_the_same_server_twice_is_noticed() -> None:
    urls = ["http://a:8000", "http://a:8000/"]
    assert same_twice(from_urls(urls, dict.fromkeys(urls, ("x",)), None).subjects) == "http://a:8000"


def test_whoever_does_not_answer_is_no_sibling_either() -> None:
    found = asked(status(view("a"), view("b"), view("c")), ["a", "b"], None)
    left = without(found, {"b": "refused", "c": "refused"})
    assert [(one.name, one.siblings) for one in left.subjects] == [("a", ())]
    assert left.lost == {"b": "refused"}
    assert any("c stands beside them" in one for one in left.notes)
