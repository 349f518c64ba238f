"""A fleet as a file describes it: hosts, backends by engine profile, traffic, and what was promised to clients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from router.sim.host import SPARK_BANDWIDTH_GB_S
from router.sim.profiles import PROFILES, Profile


@dataclass(frozen=True, slots=True)
class Promise:
    """What a call is promised: goodput counts those that got it."""

    tpot_s: float = 0.1
    ttft_s: float = 2.0
    ttft_s_per_1k_prompt: float = 0.5

    def ttft_of(self, prompt_tokens: int) -> float:
        """The longest wait for the first content that a prompt of this length may have (s)."""
        return self.ttft_s + self.ttft_s_per_1k_prompt * prompt_tokens / 1000.0


@dataclass(frozen=True, slots=True)
class DescribedBackend:
    """One engine: its name, the host it runs on, how it behaves and which model it serves."""

    name: str
    host: str
    profile: Profile
    model: str


@dataclass(frozen=True, slots=True)
class DescribedFleet:
    """See the module."""

    name: str
    hosts: Mapping[str, float]  # GB/s
    backends: tuple[DescribedBackend, ...]
    traffic: Mapping[str, float]
    promise: Promise = field(default_factory=Promise)


def read_fleet(path: Path) -> DescribedFleet:
    """A fleet file.

    Raises:
        OSError: it cannot be read.
        ValueError: it says something that cannot be simulated; the message names the place.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as fault:
        raise ValueError(f"{path}: not YAML ({fault})") from fault
    if not isinstance(document, dict) or not document.get("backends"):
        raise ValueError(f"{path}: a fleet needs `backends`")
    hosts = {
        name: float((row or {}).get("bandwidth_gb_s", SPARK_BANDWIDTH_GB_S))
        for name, row in (document.get("hosts") or {}).items()
    }
    backends = tuple(_backend(path, name, row, hosts) for name, row in document["backends"].items())
    models = {one.model for one in backends}
    traffic = {str(model): float(share) for model, share in (document.get("traffic") or {}).items()}
    unknown = sorted(set(traffic) - models)
    if unknown:
        raise ValueError(f"{path}: traffic for {', '.join(unknown)}, which no backend serves")
    try:
        promise = Promise(**(document.get("promise") or {}))
    except TypeError as fault:
        raise ValueError(f"{path}: promise: {fault}") from fault
    return DescribedFleet(path.stem, hosts, backends, traffic or dict.fromkeys(sorted(models), 1.0), promise)


def _backend(path: Path, name: str, row: Any, hosts: Mapping[str, float]) -> DescribedBackend:
    if not isinstance(row, dict):
        raise ValueError(f"{path}: backend {name}: host, profile and model are needed")
    fields = dict(row)
    try:
        host, profile, model = fields.pop("host"), PROFILES[fields.pop("profile")], fields.pop("model")
        profile = replace(profile, **fields)
    except KeyError as fault:
        there = ", ".join(PROFILES)
        raise ValueError(f"{path}: backend {name}: {fault} is missing or unknown (profiles: {there})") from fault
    except TypeError as fault:
        raise ValueError(f"{path}: backend {name}: {fault}") from fault
    if host not in hosts:
        raise ValueError(f"{path}: backend {name}: no host {host}")
    return DescribedBackend(name, host, profile, str(model))
