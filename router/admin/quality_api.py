"""The admin API about quality: standings with their evidence, checks asked for, baselines in and out."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
from fastapi import Body, FastAPI, Query, Response

from router.errors import ClientFault
from router.policy.quality_record import dump_evidence
from router.quality.plan import Plan, Size
from router.quality.record import Baseline, dump, load
from router.quality.subject import Subject

if TYPE_CHECKING:
    from router.app import App


def add_quality(api: FastAPI, app: App) -> None:
    """Add the routes under /api/quality."""

    @api.get("/api/quality")
    async def quality() -> Response:
        return _json(view(app))

    @api.post("/api/quality/run")
    async def run(
        backend: Annotated[str, Body()],
        model: Annotated[str | None, Body()] = None,
        size: Annotated[Literal[Size.QUICK, Size.FULL], Body()] = Size.QUICK,
        keep: Annotated[bool, Body()] = False,
        dry_run: Annotated[bool, Body()] = False,
    ) -> Response:
        served = _served(app, backend, model)
        plans = {m: app.quality.ask(backend, m, size, keep=keep, dry_run=dry_run) for m in served}
        return _json({"backend": backend, "checks": [plan_view(m, plan) for m, plan in plans.items()]})

    @api.post("/api/quality/allow")
    async def allow(backend: Annotated[str, Body(embed=True)]) -> Response:
        _served(app, backend, None)
        return _json({"backend": backend, "allowed": sorted(app.quality.guardian.allow(backend))})

    _add_baselines(api, app)


def _add_baselines(api: FastAPI, app: App) -> None:
    @api.get("/api/quality/baselines")
    async def baselines() -> Response:
        return _json([baseline_view(one) for one in app.quality.shelf])

    @api.get("/api/quality/baseline")
    async def export(model: Annotated[str, Query()], build: Annotated[str | None, Query()] = None) -> Response:
        found = [b for b in app.quality.shelf if b.model == model and build in (None, b.build)]
        if not found:
            raise ClientFault(f"no baseline of {model} is kept", status=404, code="baseline_not_found")
        best = max(found, key=lambda b: (b.grade == "good", b.at))
        data = await app.helper.run(dump, best)
        return _json({**baseline_view(best), "data": base64.b64encode(data).decode("ascii")})

    @api.post("/api/quality/baseline")
    async def import_one(data: Annotated[str, Body(embed=True)]) -> Response:
        try:
            baseline = await app.helper.run(load, base64.b64decode(data, validate=True))
        except (ValueError, binascii.Error) as problem:
            raise ClientFault(f"the file cannot be taken: {problem}", code="bad_baseline") from problem
        await app.quality.shelf.keep(baseline)
        return _json(baseline_view(baseline))


def view(app: App) -> dict[str, Any]:
    """Everything about quality as it is now."""
    running = app.quality.inspector.running
    document: dict[str, Any] = {
        "running": None,
        "backends": [
            subject_view(app, app.quality.subject(backend.name, model))
            for backend in app.fleet.backends.values()
            for model in backend.serving
        ],
    }
    if running is not None:
        subject, check = running
        document["running"] = {
            "backend": subject.backend,
            "model": subject.model,
            "size": check.plan.size.value,
            "steps": len(check.plan.items),
            "left": len(check.left),
            "now": check.left[0].name if check.left else "judging",
            "spent_s": check.spent_s,
            "cost_s": check.plan.cost_s,
        }
    return document


def subject_view(app: App, subject: Subject) -> dict[str, Any]:
    """One model on one backend: where it stands, why, and what it waits for."""
    quality, now = subject.quality, app.fleet.clock()
    own = app.quality.shelf.get(subject.model, quality.build)
    return {
        "backend": subject.backend,
        "model": subject.model,
        "build": quality.build,
        "grade": quality.grade.value,
        "reason": subject.reason,
        "since": quality.since,
        "held_by_operator": quality.held,
        "evidence": [dump_evidence(one) for one in quality.evidence],
        "tests": {
            family.value: {
                "texts": test.texts,
                "e_value": test.e_value,
                "flags_at": 1.0 / test.alpha,
                "mean_excess": test.mean_excess,
            }
            for family, test in quality.tests.items()
        },
        "checks": subject.checks,
        "checked_ago_s": None if subject.checked_at is None else now - subject.checked_at,
        "due": None if subject.want is None else f"{subject.want.size} check: {subject.want.why}",
        "waits_for": subject.waits_for,
        "interrupted": subject.rest is not None,
        "budget_left_s": app.quality.ledger.budget(subject.backend).left_s,
        "not_asked": sorted(app.quality.guardian.blocked(subject.backend)),
        "scores_prompts": subject.talents.scores,
        "baseline": None if own is None else baseline_view(own),
    }


def plan_view(model: str, plan: Plan) -> dict[str, Any]:
    """What a check asks, and what it costs at the measured speed."""
    families = [item.family.value for item in plan.items]
    counts = {family: families.count(family) for family in dict.fromkeys(families)}
    return {"model": model, "size": plan.size.value, "cost_s": plan.cost_s, "steps": len(families), "of": counts}


def baseline_view(baseline: Baseline) -> dict[str, Any]:
    """What a baseline is of, and how much it holds."""
    return {
        "model": baseline.model,
        "backend": baseline.backend,
        "build": baseline.build,
        "scheme": baseline.scheme,
        "checkpoint": baseline.checkpoint,
        "tokenizer": baseline.tokenizer,
        "kernels": baseline.kernels,
        "version": baseline.version,
        "at": baseline.at,
        "grade": baseline.grade.value,
        "texts": len(baseline.texts),
        "generated": len(baseline.decoded),
        "known_answers": len(baseline.right),
        "embeddings": len(baseline.vectors),
    }


def _served(app: App, name: str, model: str | None) -> list[str]:
    backend = app.fleet.backends.get(name)
    if backend is None:
        known = ", ".join(app.fleet.backends) or "none"
        raise ClientFault(f"there is no backend {name}; known: {known}", status=404, code="backend_not_found")
    if model is not None and model not in backend.serving:
        raise ClientFault(f"{name} does not serve {model}", status=404, code="model_not_found")
    return [model] if model is not None else list(backend.serving)


def _json(document: Any) -> Response:
    return Response(orjson.dumps(document, default=str), media_type="application/json")
