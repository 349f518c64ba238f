"""The live state as plain JSON-able values: what `router status`, `router explain` and the dashboard show."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from router.backend import Backend, Serving
from router.dispatch import Decision, Explained
from router.events import CallEnded
from router.policy import choose
from router.policy.facts import Health
from router.policy.lengths import Calibration
from router.policy.outliers import Outlier

if TYPE_CHECKING:
    from router.app import App


def status(app: App) -> dict[str, Any]:
    """One screen: the router, every backend, every model."""
    fleet = app.fleet
    return {
        "version": app.front.version,
        "started_at": app.started_at,
        "now": app.outside.wall(),
        "ready": app.front.ready,
        "passive": fleet.passive,
        "generation": fleet.generation,
        "calls_open": len(app.front.open),
        "queued": app.front.dispatch.queued(),
        "history_ok": app.history_ok,
        "backends": [backend_view(app, backend) for backend in fleet.backends.values()],
        "leaving": [{"name": one.name, "in_flight": one.in_flight} for one in fleet.leaving],
        "models": [model_view(app, model) for model in fleet.pools],
        "aliases": {name: list(models) for name, models in fleet.config.aliases.items()},
    }


def backend_view(app: App, backend: Backend) -> dict[str, Any]:
    """Everything that is known of one backend."""
    now = app.fleet.clock()
    scrape = backend.scrape
    loading = backend.health.health is Health.STARTING and backend.loading_since is not None
    return {
        "name": backend.name,
        "address": str(backend.pool.address),
        "url": _url(backend),
        "hosts": [host.name for host in backend.hosts],
        "gpus": [gpu_view(app, host.name) for host in backend.hosts],
        "kind": backend.config.kind,
        "health": backend.health.health.value,
        "health_reason": backend.health.reason,
        "health_for_s": now - backend.health.since,
        "intent": backend.intent.value,
        "intent_reason": backend.intent_reason,
        "declared_kernel": backend.config.kernel,
        "observed_kernel": backend.kernel,
        "kernel_matches": backend.kernel_matches,
        "kernel_detail": backend.kernel_detail,
        "version": backend.version,
        "fingerprint": backend.fingerprint,
        "build": backend.build,
        "in_flight": backend.in_flight,
        "in_flight_cap": backend.cap,
        "in_flight_limit": backend.config.max_in_flight,
        "spec_acceptance": backend.spec_acceptance,
        "decoding": backend.decoding.value,
        "running": scrape.running if scrape else None,
        "waiting": scrape.waiting if scrape else None,
        "kv_usage": scrape.kv_usage if scrape else None,
        "loading_for_s": now - (backend.loading_since or now) if loading else None,
        "loading_eta_s": backend.load_eta_s if loading else None,
        "models": [serving_view(model, serving, now) for model, serving in backend.serving.items()],
    }


def gpu_view(app: App, host: str) -> dict[str, Any]:
    """The newest reading of a machine's GPU, or why there is none."""
    reading, unread = app.gpus.readings.get(host), app.gpus.unread.get(host)
    detail = unread.detail if unread is not None else ""
    return {"host": host, "reading": asdict(reading) if reading is not None else None, "detail": detail}


def _url(backend: Backend) -> str:
    """Where it is now, as a URL without path."""
    address = backend.pool.address
    return (
        str(address) if address.path is not None else f"http{'s' if address.tls else ''}://{address.authority.decode()}"
    )


def serving_view(model: str, serving: Serving, now: float) -> dict[str, Any]:
    """One model on one backend: quality and speed, with what is not learned said so."""
    return {
        "model": model,
        "in_flight": serving.in_flight,
        "grade": serving.grade.value,
        "grade_reason": serving.grade_reason,
        "evidence": list(serving.evidence),
        "flagged_by": serving.flagged_by,
        "gate": serving.gate,
        "score": serving.score,
        "max_prompt": serving.max_prompt,
        "cannot": sorted(serving.cannot),
        "calibration": {
            "ttft": calibration_view(serving.ttft_calibration),
            "end": calibration_view(serving.end_calibration),
        },
        "speed": {name: asdict(one) for name, one in serving.speed.estimates(now).items()},
        "outliers": {
            "counts": {kind.value: n for kind, n in serving.speed.outliers.counts.items()},
            "last": [outlier_view(one, now) for one in serving.speed.outliers.last],
        },
    }


def outlier_view(one: Outlier, now: float) -> dict[str, Any]:
    """Samples that did not fit the learned speed: which line, why, and how long ago."""
    return {
        "what": one.what,
        "kind": one.kind.value,
        "ratio": one.ratio,
        "samples": one.samples,
        "ago_s": now - one.at,
    }


def calibration_view(one: Calibration) -> dict[str, float] | None:
    """What came as a multiple of what was predicted, and how far off that usually is; None before the first answer."""
    return {"bias": one.bias, "error": one.error, "samples": one.samples} if one.samples else None


def model_view(app: App, model: str) -> dict[str, Any]:
    """One model over all its backends."""
    fleet = app.fleet
    pool = fleet.pools.get(model, ())
    return {
        "model": model,
        "backends": [backend.name for backend in pool],
        "usable": [backend.name for backend in pool if fleet.can_serve(backend, model)],
        "policy": fleet.model_settings(model).policy,
        "queued": app.front.dispatch.queued_by_model().get(model, 0),
    }


def call_view(call: CallEnded) -> dict[str, Any]:
    """A call that ended."""
    return asdict(call)


def explained_view(request_id: str, kept: Explained) -> dict[str, Any]:
    """Why a call went where it went: every decision with its candidates and the terms of their cost."""
    return {
        "request_id": request_id,
        "decisions": [_decision(one) for one in kept.decisions],
        "call": call_view(kept.ended) if kept.ended is not None else None,
    }


def _decision(decision: Decision) -> dict[str, Any]:
    facts = decision.facts
    return {
        "at": decision.at,
        "policy": decision.limits.policy,
        "call": {
            "model": facts.model,
            "prompt_tokens": facts.prompt_tokens,
            "output_tokens": facts.output_tokens,
            "session": facts.session is not None,
            "background": facts.background,
            "pinned": facts.pinned,
        },
        "chosen": decision.choice.name if decision.choice is not None else None,
        "reason": decision.choice.reason if decision.choice is not None else "nobody could take it",
        "candidates": choose.explain(facts, decision.candidates, decision.limits),
    }
