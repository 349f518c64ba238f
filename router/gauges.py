"""What a scrape reads of the live state: the fleet as values for the metrics page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.backend import Backend
from router.fleet import Fleet
from router.metrics import BackendGauges, GpuGauges, ModelGauges, Names, Snapshot
from router.vllm.gpu import GpuReading

if TYPE_CHECKING:
    from router.app import App


def names_of(fleet: Fleet, routes: frozenset[str]) -> Names:
    """The only values that labels may take: configured backends, served or configured models, routes."""
    models = {*fleet.pools, *fleet.config.models, *fleet.config.aliases}
    return Names(frozenset(fleet.backends), frozenset(models), routes)


def snapshot_of(app: App) -> Snapshot:
    """Every gauge of this moment."""
    fleet = app.fleet
    return Snapshot(
        backends=tuple(_backend(backend) for backend in fleet.backends.values()),
        gpus=tuple(_gpu(host, reading) for host, reading in app.gpus.readings.items()),
        usable={model: sum(fleet.can_serve(backend, model) for backend in pool) for model, pool in fleet.pools.items()},
        queued=app.front.dispatch.queued_by_model(),
        connections={
            "client": len(app.server.connections),
            "backend": sum(len(backend.pool.open) for backend in fleet.backends.values()),
        },
        generation=fleet.generation,
        history_ok=app.history_ok,
        events_lost=app.bus.lost,
        log_lines_dropped=app.logs.dropped if app.logs is not None else 0,
    )


def _gpu(host: str, reading: GpuReading) -> GpuGauges:
    hertz = reading.clock_mhz * 1e6 if reading.clock_mhz is not None else None
    return GpuGauges(host, hertz, reading.temperature_c, reading.power_w, reading.is_capped)


def _backend(backend: Backend) -> BackendGauges:
    scrape = backend.scrape
    return BackendGauges(
        name=backend.name,
        health=backend.health.health,
        intent=backend.intent,
        models=tuple(
            ModelGauges(model, serving.in_flight, serving.grade, serving.candidate.speed, bool(serving.gate))
            for model, serving in backend.serving.items()
        ),
        kernel=backend.kernel,
        version=backend.version or "unknown",
        build=backend.build or "unknown",
        running=scrape.running if scrape else None,
        waiting=scrape.waiting if scrape else None,
        kv_usage=scrape.kv_usage if scrape else None,
        cap=backend.cap,
        spec_acceptance=backend.spec_acceptance,
    )
