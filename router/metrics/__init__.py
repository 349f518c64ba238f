"""Prometheus families, fed by events and by cheap reads at scrape time."""

from router.metrics.core import Metrics
from router.metrics.families import FAMILIES, Family
from router.metrics.snapshot import BackendGauges, GpuGauges, ModelGauges, Names, Snapshot, SnapshotSource
from router.metrics.text import CONTENT_TYPE

__all__ = [
    "CONTENT_TYPE",
    "FAMILIES",
    "BackendGauges",
    "Family",
    "GpuGauges",
    "Metrics",
    "ModelGauges",
    "Names",
    "Snapshot",
    "SnapshotSource",
]
