"""Whom to measure: backends by name from what the router says of them, or bare URLs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from router.bench.plan import Pace, Subject
from router.bench.verdict import Quality

_SCHEMES = ("http://", "https://", "unix:")


class NobodyToMeasure(Exception):
    """The command line does not say whom to measure; says what it could be."""


@dataclass(frozen=True, slots=True)
class Found:
    """Who is measured, who stands beside them, and what was left out.

    Attributes:
        subjects: their `siblings` name others, subjects or not.
        beside: siblings that are not measured themselves.
        qualities: what the router thinks of the subjects' answers.
        lost: who was asked for and cannot be measured, and why.
        notes: who was left out without being asked for.
    """

    subjects: tuple[Subject, ...]
    beside: tuple[Subject, ...]
    qualities: Mapping[str, Quality]
    lost: Mapping[str, str]
    notes: tuple[str, ...] = ()


def is_url(text: str) -> bool:
    """Whether this is an address and not a backend's name."""
    return text.startswith(_SCHEMES)


def from_urls(urls: Sequence[str], models: Mapping[str, Sequence[str]], model: str | None) -> Found:
    """Bare URLs; `models` are what each serves, empty where it cannot be asked.

    Raises:
        NobodyToMeasure: one serves several models, or not the one that was asked for.
    """
    subjects, lost = [], {}
    for url in urls:
        served = models.get(url, ())
        name = url.removeprefix("http://").removeprefix("https://").rstrip("/")
        if not served:
            lost[name] = "it serves nothing, or cannot be asked"
            continue
        if model is not None and model not in served:
            raise NobodyToMeasure(f"{name} does not serve {model}; it serves {', '.join(served)}")
        if model is None and len(served) > 1:
            raise NobodyToMeasure(f"{name} serves {', '.join(served)}: say which with --model")
        host = urlsplit(url).hostname or "localhost"
        subjects.append(Subject(name, url.rstrip("/"), model or served[0], (host,)))
    return Found(_with_siblings(subjects, subjects), (), {}, lost)


def from_router(
    status: Mapping[str, Any], quality: Mapping[str, Any], names: Sequence[str], model: str | None
) -> Found:
    """Backends of a running router, by name; all that serve the model where none is named.

    Args:
        status: as `GET /api/status` answers.
        quality: as `GET /api/quality` answers.
        names: backends that were asked for.
        model: that was asked for, None where there is only one to mean.

    Raises:
        NobodyToMeasure: a name is unknown, or which model is meant cannot be told.
    """
    views = {view["name"]: view for view in status["backends"]}
    unknown = [name for name in names if name not in views]
    if unknown:
        raise NobodyToMeasure(f"there is no backend {', '.join(unknown)}; known: {', '.join(views) or 'none'}")
    usable = {name: view for name, view in views.items() if _why_not(view) is None}
    asked = {name: usable[name] for name in names if name in usable} if names else usable
    chosen = _model(asked, model, named=bool(names))
    lost = {name: why for name in names if (why := _why_not(views[name])) is not None}
    notes = [] if names else [f"{name} left out: {why}" for name, view in views.items() if (why := _why_not(view))]
    texts = {
        (one["backend"], one["model"]): sum(test["texts"] for test in one["tests"].values())
        for one in quality["backends"]
    }
    subjects, qualities = [], {}
    for name, view in asked.items():
        served = next((one for one in view["models"] if one["model"] == chosen), None)
        if served is None:
            if names:
                lost[name] = f"it does not serve {chosen}"
            continue
        subjects.append(_subject(view, served))
        qualities[name] = _quality(served, texts.get((name, served["model"]), 0))
    everybody = [_subject(view, view["models"][0]) for view in usable.values() if view["models"]]
    complete = _with_siblings(subjects, everybody)
    needed = {sibling for one in complete for sibling in one.siblings} - {one.name for one in complete}
    beside = tuple(one for one in everybody if one.name in needed)
    return Found(complete, beside, qualities, lost, tuple(notes))


def same_twice(subjects: Sequence[Subject]) -> str | None:
    """An address that stands there twice: it would be compared with itself, in its own cache."""
    counts = Counter(one.url for one in subjects)
    return next((url for url, count in counts.items() if count > 1), None)


def without(found: Found, gone: Mapping[str, str]) -> Found:
    """The same without those that turned out not to answer."""
    subjects = tuple(
        replace(one, siblings=tuple(name for name in one.siblings if name not in gone))
        for one in found.subjects
        if one.name not in gone
    )
    beside = tuple(one for one in found.beside if one.name not in gone)
    lost = {one.name: gone[one.name] for one in found.subjects if one.name in gone}
    notes = [f"{one.name} stands beside them and cannot be asked: {gone[one.name]}" for one in found.beside
             if one.name in gone]  # fmt: skip
    return Found(subjects, beside, found.qualities, {**found.lost, **lost}, (*found.notes, *notes))


def _why_not(view: Mapping[str, Any]) -> str | None:
    if view["health"] in ("off", "starting", "ejected"):
        return f"it is {view['health']}" + (f" ({view['health_reason']})" if view["health_reason"] else "")
    if view["intent"] == "disabled":
        return "it is disabled"
    return None if view["models"] else "it serves no model"


def _model(views: Mapping[str, Mapping[str, Any]], model: str | None, *, named: bool) -> str | None:
    counts = Counter(one["model"] for view in views.values() for one in view["models"])
    if model is not None:
        if not counts[model]:
            raise NobodyToMeasure(f"nobody serves {model}; served: {', '.join(counts) or 'nothing'}")
        return model
    if not counts:
        return None
    shared = [name for name, count in counts.items() if count == len(views)] if named else list(counts)
    if len(shared) > 1:
        shared = [name for name in shared if counts[name] == max(counts.values())]
    if len(shared) != 1:
        raise NobodyToMeasure(f"they serve several models: {', '.join(counts)}; say which with --model")
    return str(shared[0])


def _subject(view: Mapping[str, Any], served: Mapping[str, Any]) -> Subject:
    speed = {name: one["value"] for name, one in served["speed"].items()}
    return Subject(
        name=view["name"],
        url=view["url"],
        model=served["model"],
        hosts=tuple(view["hosts"]),
        kernel=view["observed_kernel"],
        version=view["version"] or "",
        build=view["build"],
        pace=Pace(
            speed["overhead_s"], speed["prefill_rate"], speed["tpot_a"], speed["tpot_b"], speed.get("contention", 0.7)
        ),
    )


def _quality(served: Mapping[str, Any], texts: int) -> Quality:
    grade = served["grade"]
    return Quality("not measured" if grade == "unknown" else grade, served["grade_reason"], served["score"], texts)


def _with_siblings(subjects: Sequence[Subject], everybody: Sequence[Subject]) -> tuple[Subject, ...]:
    return tuple(
        replace(
            one,
            siblings=tuple(
                other.name for other in everybody if other.name != one.name and set(one.hosts) & set(other.hosts)
            ),
        )
        for one in subjects
    )
