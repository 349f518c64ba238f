"""In-flight caps from what backends show: a look at each scrape, so nothing is asked of a call's way.

A look teaches only where it can be compared: the backend decoded alone on its hosts, nearly nobody else used it, and
prefill took little of the time. Else a knee would be read out of what the clients asked for.
"""

from __future__ import annotations

from router.backend import Backend
from router.policy.knee import Knee
from router.vllm.metrics import Rates, Scrape

_PREFILL_MOST = 0.25  # share of the time; what it took is taken out of the rate
_OTHERS_MOST = 1.0  # streams of somebody else
_SIBLINGS_MOST = 0.1  # mean busy backends beside it


def look(backend: Backend, before: Scrape, after: Scrape, rates: Rates, now: float) -> None:
    """Learn from two scrapes in a row, and set the cap that choice and admission read."""
    seen, backend.seen_load = backend.seen_load, load_of(backend, now)
    running, waiting = after.running or 0.0, after.waiting or 0.0
    # Whoever is in its batch without first content is being prefilled; the others may only wait for that.
    prefilling = running > backend.decoding.value
    backend.knee.observe_queue(now, int(running), 0 if prefilling else int(waiting))
    if seen is not None and rates.generation_tokens is not None and rates.seconds > 0.0:
        streams = (backend.seen_load[0] - seen[0]) / rates.seconds
        siblings = (backend.seen_load[1] - seen[1]) / rates.seconds
        others = max(running, before.running or 0.0) - len(backend.leases)
        share = _prefill_share(backend, rates)
        if siblings <= _SIBLINGS_MOST and others <= _OTHERS_MOST and share is not None and share <= _PREFILL_MOST:
            backend.knee.observe(now, round(streams), rates.generation_tokens / (1.0 - share))
    refresh(backend, now)


def load_of(backend: Backend, now: float) -> tuple[float, float]:
    """Integrals up to now: streams decoding there, and busy backends beside it."""
    busy = backend.busy.until(now)
    return backend.decoding.until(now), sum(host.busy.until(now) - busy for host in backend.hosts)


def refresh(backend: Backend, now: float) -> None:
    """The cap of this moment: never above the configured limit."""
    backend.cap = backend.knee.cap(now, backend.config.max_in_flight)


def lift(backend: Backend) -> None:
    """The router only observes from now on: no cap of its own. What was learned stays, for when it acts again."""
    backend.cap = backend.config.max_in_flight
    backend.seen_load = None


def forget(backend: Backend) -> None:
    """It started anew: what was learned of its knee was learned of another process."""
    backend.knee = Knee()
    backend.seen_load = None
    backend.cap = backend.config.max_in_flight


def _prefill_share(backend: Backend, rates: Rates) -> float | None:
    """Share of the time that prefill took, by the rate learned; None where it does not count prompts."""
    if rates.prompt_tokens is None:
        return None
    fastest = max((one.candidate.speed.prefill_rate for one in backend.serving.values()), default=0.0)
    cold = rates.prompt_tokens - (rates.cached_tokens or 0.0)
    return max(0.0, cold) / fastest if fastest > 0.0 else None
