"""The admin API about benches: what `router bench` measured becomes what the speed model begins with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import orjson
from fastapi import Body, FastAPI, Response
from pydantic import BaseModel, Field, model_validator

from router.policy.speed import SpeedModel

if TYPE_CHECKING:
    from router.app import App

_MOST = 64  # results of one bench


class BenchLine(BaseModel, extra="forbid"):
    """A line as the speed model learns it: seconds over tokens, or seconds per token over streams."""

    p: float
    q: float
    pp: float
    pq: float
    qq: float
    noise: float


class BenchResult(BaseModel, extra="forbid"):
    """What was measured of one model on one backend, alone on its host."""

    backend: str
    model: str
    build: str
    """As `GET /api/status` named it when the bench began."""
    prefill: BenchLine
    decode: BenchLine
    contention: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    samples: int = 0

    @model_validator(mode="after")
    def is_a_speed(self) -> BenchResult:
        """Refuse numbers that no speed has."""
        self.speed()
        return self

    def speed(self) -> SpeedModel:
        """As a model that has learned nothing yet. Raises ValueError where it is none."""
        return SpeedModel.from_bench(self.prefill.model_dump(), self.decode.model_dump())


def add_bench(api: FastAPI, app: App) -> None:
    """Add the route under /api/bench."""

    @api.post("/api/bench")
    async def bench(
        results: Annotated[list[BenchResult], Body(embed=True, min_length=1, max_length=_MOST)],
    ) -> Response:
        taken = [{"backend": one.backend, "model": one.model, **_take(app, one)} for one in results]
        return Response(orjson.dumps({"results": taken}), media_type="application/json")


def _take(app: App, one: BenchResult) -> dict[str, Any]:
    """Put one result in force and keep it with its build; or say why not."""

    def refused(reason: str) -> dict[str, Any]:
        return {"in_force": False, "kept": False, "reason": reason}

    backend = app.fleet.backends.get(one.backend)
    if backend is None:
        return refused(f"there is no backend {one.backend} any more")
    serving = backend.serving.get(one.model)
    if serving is None:
        return refused(f"{one.backend} does not serve {one.model} now")
    if backend.build != one.build:
        return refused(f"{one.backend} runs build {backend.build or 'unknown'} now, {one.build} was measured")
    hosts = tuple(host.model for host in backend.hosts)
    prefill, decode = one.prefill.model_dump(), one.decode.model_dump()
    serving.speed = SpeedModel.from_bench(prefill, decode, hosts)
    if one.contention is not None:
        for host in hosts:
            host.begin_with(one.contention)
    if app.memory is None:
        return {"in_force": True, "kept": False, "reason": "this router keeps no history"}
    kept = app.memory.keep_bench(backend, one.model, prefill, decode)
    return {"in_force": True, "kept": kept, "reason": "" if kept else "its build is not known yet"}
