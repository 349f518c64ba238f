"""The only live state: each backend's health, intent, quality, speed and leases; gives out snapshots.

Every method is a plain `def`: no `await` between reading and writing, so no locks. Decisions live in `policy/`; here
their results are kept. A reload swaps the config and keeps every unchanged backend with all it learned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from router import caps
from router.backend import Backend, Host, Lease, Serving
from router.config import BackendConfig, FleetConfig, ModelConfig
from router.errors import ClientFault
from router.events import Bus, GateChanged, HealthChanged, IntentChanged, QualityChanged
from router.policy import health as health_policy
from router.policy.facts import CONTINUATION, MESSAGE_CONTINUATION, CallFacts, Candidate, Grade, Health, Intent
from router.policy.health import Evidence, HealthLimits, HealthState
from router.policy.retry import RetryBudget
from router.policy.speed import SpeedModel
from router.wire.client import Pool

OTHER = "other"
"""The label of a model name that nobody configured."""

_DOUBTFUL = frozenset({Health.SUSPECT, Health.EJECTED})
_CLEAR_GRADES = frozenset({Grade.UNKNOWN, Grade.PLAUSIBLE, Grade.GOOD})
_USABLE_GRADES = _CLEAR_GRADES | {Grade.SUSPECT}


@dataclass(slots=True)
class Fleet:
    """All backends. `clock` is the loop's; `make_pool` builds the connections of one backend."""

    clock: Callable[[], float]
    bus: Bus
    make_pool: Callable[[BackendConfig, FleetConfig], Pool]
    config: FleetConfig = field(default_factory=FleetConfig)
    generation: int = 0
    backends: dict[str, Backend] = field(default_factory=dict)
    leaving: set[Backend] = field(default_factory=set)  # removed by a reload, finishing what is in flight
    hosts: dict[str, Host] = field(default_factory=dict)
    pools: dict[str, tuple[Backend, ...]] = field(default_factory=dict)  # by served model
    settings: dict[str, ModelConfig] = field(default_factory=dict)
    promised: dict[str, float] = field(default_factory=dict)  # models of a swap under way, until this loop time
    budget: RetryBudget = field(default_factory=RetryBudget)
    limits: HealthLimits = field(default_factory=HealthLimits)
    passive: bool = False
    on_free: Callable[[str], None] | None = None  # a lease of this backend ended: somebody queued may go
    listeners: list[Callable[[], None]] = field(default_factory=list)  # told when what is served has changed

    # --- config ---

    def apply(self, config: FleetConfig) -> tuple[list[str], list[str], list[str]]:
        """Make a checked config the one in force; returns the names added, removed and changed.

        Unchanged backends keep everything. A changed one keeps what hangs on its name (intent, health, speed) and
        gets new connections. A removed one drains.
        """
        old = {name: backend.config for name, backend in self.backends.items()}
        new = {one.name: one for one in config.backends}
        added = [name for name in new if name not in old]
        removed = [name for name in old if name not in new]
        changed = [name for name, one in new.items() if name in old and old[name] != one]
        self.generation += 1
        self._take_limits(config)
        for name in removed:
            self._let_go(self.backends.pop(name))
        for name in changed:
            self._rebuild(self.backends[name], new[name])
        for name in added:
            self.backends[name] = Backend(new[name], self.make_pool(new[name], config), self._hosts(new[name]))
        self.backends = {name: self.backends[name] for name in new}
        for backend in self.backends.values():
            backend.generation = self.generation
            if config.passive:
                caps.lift(backend)
            else:
                caps.refresh(backend, self.clock())
        used = {host.name for backend in (*self.backends.values(), *self.leaving) for host in backend.hosts}
        self.hosts = {name: host for name, host in self.hosts.items() if name in used}
        self.models_changed()
        return added, removed, changed

    def _take_limits(self, config: FleetConfig) -> None:
        health, retry = config.health, config.retry
        self.config = config
        self.passive = config.passive
        self.settings = {}
        self.limits = HealthLimits(
            unhealthy_after=health.unhealthy_after,
            healthy_after=health.healthy_after,
            failures_to_eject=health.failures_to_eject,
            failure_rate=health.failure_rate,
            failure_rate_min_calls=health.failure_rate_min_calls,
            ejection_s=health.ejection_s,
            ejection_max_s=health.ejection_max_s,
            trial_calls=health.trial_calls,
            ramp_s=health.ramp_s,
        )
        self.budget.share, self.budget.floor_per_s, self.budget.burst = retry.share, retry.floor_per_s, retry.burst
        self.budget.balance = min(self.budget.balance, retry.burst)

    def _hosts(self, config: BackendConfig) -> tuple[Host, ...]:
        names = config.host or (config.name,)
        return tuple(self.hosts.setdefault(name, Host(name)) for name in names)

    def _rebuild(self, backend: Backend, config: BackendConfig) -> None:
        backend.pool.close()
        backend.pool = self.make_pool(config, self.config)
        active, busy, now = backend.in_flight, backend.busy.value, self.clock()
        for host in backend.hosts:
            host.active.add(-active, now)
            host.busy.add(-busy, now)
        backend.config, backend.hosts = config, self._hosts(config)
        backend.seen_load = None
        for host in backend.hosts:
            host.active.add(active, now)
            host.busy.add(busy, now)
        if config.kernel:
            backend.kernel_matches = None

    def _let_go(self, backend: Backend) -> None:
        backend.intent = Intent.DRAINING
        backend.drain_deadline = self.clock() + self.config.timeouts.drain_s
        backend.pool.close()
        if backend.leases:
            self.leaving.add(backend)

    # --- models ---

    def models_changed(self) -> None:
        """Work out anew which backends serve which model."""
        pools: dict[str, list[Backend]] = {}
        for backend in self.backends.values():
            backend.contexts = {card.id: card.max_model_len for card in backend.cards if card.max_model_len}
            wanted = set(backend.config.serves)
            served = [card.id for card in backend.cards if not wanted or card.id in wanted]
            for model in served:
                if model not in backend.serving:
                    backend.serving[model] = self._new_serving(backend)
                if backend.repeats_message is None:
                    backend.serving[model].cannot.add(MESSAGE_CONTINUATION)
                else:
                    backend.serving[model].cannot.discard(MESSAGE_CONTINUATION)
                pools.setdefault(model, []).append(backend)
            for model in [name for name in backend.serving if name not in served]:
                if not backend.serving[model].in_flight:
                    del backend.serving[model]
        self.pools = {model: tuple(backends) for model, backends in pools.items()}
        for listener in self.listeners:
            listener()

    def _new_serving(self, backend: Backend) -> Serving:
        hosts = tuple(host.model for host in backend.hosts)
        speed = SpeedModel.from_kernel_table(backend.config.kernel or backend.kernel, hosts)
        candidate = Candidate(
            name=backend.name,
            hosts=tuple(host.name for host in backend.hosts),
            barred=None,
            in_flight=0,
            decoding=0,
            prefill_backlog=0.0,
            waiting=0.0,
            siblings=0,
            cap=None,
            speed=speed.predict(self.clock()),
        )
        return Serving(speed, candidate)

    def model_settings(self, model: str) -> ModelConfig:
        """What holds for a model, with the defaults for all filled in; remembered until the next reload."""
        found = self.settings.get(model)
        if found is None:
            found = self.config.for_model(model)
            if len(self.settings) < 1024:
                self.settings[model] = found
        return found

    def resolve(self, asked: str) -> tuple[str, str | None]:
        """The served model that a name means, and the backend that it pins (`model@backend`).

        An alias of several models means the first that somebody can serve now, else the first that is known.

        Raises:
            ClientFault: 404, listing what there is.
        """
        if asked in self.pools:
            return asked, None
        if asked in self.config.aliases:
            names = self.config.aliases[asked]
            for name in names:
                if any(self.can_serve(backend, name) for backend in self.pools.get(name, ())):
                    return name, None
            return next((name for name in names if name in self.pools), names[0]), None
        if self.is_promised(asked):
            return asked, None
        model, at, backend = asked.rpartition("@")
        if at and backend in self.backends:
            return self.resolve(model)[0], backend
        there = ", ".join(sorted({*self.pools, *self.config.aliases})) or "none yet"
        raise ClientFault(
            f"The model `{asked[:200]}` does not exist here. There is: {there}.",
            status=404,
            code="model_not_found",
            param="model",
        )

    def is_promised(self, model: str) -> bool:
        """Whether nobody serves a model yet, but somebody should: a swap is under way, or the fleet file names it."""
        if self.promised.get(model, 0.0) > self.clock() or model in self.config.models:
            return True
        return any(model in backend.config.serves for backend in self.backends.values())

    def begin_swap(self, models: Iterable[str], names: Iterable[str]) -> None:
        """Old backends made way for new ones that still load: calls of these models wait instead of being unknown."""
        now = self.clock()
        for name in names:
            backend = self.backends[name]
            if backend.health.health is Health.OFF:
                backend.health = HealthState(Health.STARTING, now, "takes another one's place", seen=True)
                backend.loading_since = now
                for model in models:
                    self.promised[model] = now + backend.config.starts_within_s

    def label(self, model: str) -> str:
        """A name that may be a metric's label: served or configured, else `other`."""
        known = model in self.pools or model in self.config.models or model in self.config.aliases
        return model if known else OTHER

    def can_serve(self, backend: Backend, model: str) -> bool:
        """Whether a backend would be given a call of this model now, load aside."""
        return model in backend.serving and self._barred(backend, backend.serving[model], model) is None

    # --- candidates ---

    def candidates(self, call: CallFacts, tried: frozenset[str] | set[str] = frozenset()) -> list[Candidate]:
        """The pool of a call as values; each candidate object is reused until the next call of this method."""
        now = self.clock()
        found = []
        model, prefix, needs = call.model, call.prefix, call.needs
        for backend in self.pools.get(model, ()):
            serving = backend.serving[model]
            one = serving.candidate
            health = backend.health
            if (
                health.health is Health.HEALTHY
                and backend.intent is Intent.ACTIVE
                and serving.grade is not Grade.FLAGGED
                and serving.grade is not Grade.SUSPECT
                and not serving.gate
                and now >= backend.busy_until
                and serving.max_prompt is None
                and not needs & serving.cannot
                and call.pinned is None
                and not tried
            ):
                one.barred = None  # the common case; `_why_not` says the same at more length
                one.last_resort = False
            else:
                one.barred = self._why_not(backend, serving, call, tried, now)
                one.last_resort = self._ranks_last(serving, model) or health.health in _DOUBTFUL
            leases = len(backend.leases)
            one.in_flight = leases
            one.decoding = backend.decoding.value
            one.prefill_backlog = backend.prefill_backlog
            siblings = busy = 0
            own = backend.busy.value
            for host in backend.hosts:
                siblings += host.active.value - leases
                busy += host.busy.value - own
            one.siblings, one.busy_siblings = siblings, float(busy)
            one.remaining = 0.5 * backend.expected_tokens
            one.cap = backend.cap
            one.speed = serving.speed.predict(now)
            one.ramp = 1.0 if health.ramp_from is None else health.ramp(now, self.limits)
            one.warm_tokens = backend.prefixes.warm_tokens(prefix) if prefix else 0.0
            # Waiting in its own queue beyond what we sent there ourselves: somebody else uses it too.
            waiting = backend.scrape.waiting if backend.scrape is not None else None
            one.waiting = waiting - leases if waiting and waiting > leases else 0.0
            found.append(one)
        if found and all(one.barred is not None for one in found):
            self._let_somebody_say_it(call, found, tried, now)
        return found

    def _let_somebody_say_it(
        self, call: CallFacts, found: list[Candidate], tried: frozenset[str] | set[str], now: float
    ) -> None:
        """Nobody can, as far as was learned: who is otherwise free gets the call, and its own words reach the client.

        Better an old refusal repeated than a call that waits for what will not come. A broken answer is another
        matter: its client has the head already, and another refusal would tell nobody anything.
        """
        if CONTINUATION in call.needs:
            return
        for one in found:
            backend = self.backends[one.name]
            serving = backend.serving[call.model]
            unable = _unable(serving, call)
            if unable is not None and self._why_not(backend, serving, call, tried, now) == unable:
                one.barred, one.last_resort = None, True

    def _why_not(
        self, backend: Backend, serving: Serving, call: CallFacts, tried: frozenset[str] | set[str], now: float
    ) -> str | None:
        if backend.name in tried:
            return "was tried already"
        if call.pinned is not None and backend.name != call.pinned:
            return f"the call is pinned to {call.pinned}"
        reason = self._barred(backend, serving, call.model) or _unable(serving, call)
        if reason is None and serving.gate and call.pinned is None and self._others_usable(backend, call.model):
            reason = serving.gate
        if reason is None and now < backend.busy_until:
            reason = f"said it is full for another {backend.busy_until - now:.0f} s"
        return reason

    def _barred(self, backend: Backend, serving: Serving, model: str) -> str | None:
        if backend.intent is not Intent.ACTIVE:
            return f"{backend.intent.value} by the operator"
        reason = health_policy.barred(backend.health, len(backend.leases), self.limits)
        if reason is not None:
            # The last one is never ejected: where nobody else is left, trying it beats refusing. `passive` bars nobody
            # either. Refused connections are another matter: there is nothing to try.
            ejected = backend.health.health in (Health.EJECTED, Health.PROBATION)
            return None if ejected and (self.passive or not self._others_up(backend, model)) else reason
        if serving.grade is Grade.FLAGGED and not self.passive and self._flags_exclude(backend, model):
            return f"flagged: {serving.grade_reason}"
        if serving.grade is Grade.SUSPECT and not self.passive and self._suspicion_excludes(backend, model):
            return f"suspect: {serving.grade_reason}"
        return None

    def _others_up(self, backend: Backend, model: str) -> bool:
        return any(
            other is not backend
            and other.intent is Intent.ACTIVE
            and health_policy.barred(other.health, len(other.leases), self.limits) is None
            for other in self.pools.get(model, ())
        )

    def _flags_exclude(self, backend: Backend, model: str) -> bool:
        """A flag bars with at least two usable backends, so that one is left; else it is only shown."""
        flags = self.model_settings(model).flags
        if flags is not None:
            return flags == "exclude" and self._others_usable(backend, model)
        return self._others_usable(backend, model)

    def _suspicion_excludes(self, backend: Backend, model: str) -> bool:
        """By the operator's choice, and only while somebody who is not suspect can serve."""
        return self.model_settings(model).suspects == "exclude" and self._others_usable(backend, model, _CLEAR_GRADES)

    def _ranks_last(self, serving: Serving, model: str) -> bool:
        """A flagged backend that is not excluded comes last, unless that is only observed; a suspect one by choice."""
        settings = self.model_settings(model)
        if self.passive or serving.grade not in (Grade.FLAGGED, Grade.SUSPECT):
            return False
        return (settings.flags if serving.grade is Grade.FLAGGED else settings.suspects) != "observe"

    def _others_usable(self, backend: Backend, model: str, grades: frozenset[Grade] = _USABLE_GRADES) -> bool:
        return any(
            other is not backend
            and other.intent is Intent.ACTIVE
            and other.serving[model].grade in grades
            and not other.serving[model].gate
            and health_policy.barred(other.health, 0, self.limits) is None
            for other in self.pools.get(model, ())
        )

    # --- leases ---

    def lease(self, name: str, call: CallFacts) -> Lease:
        """Hold a backend for a call; end it with the returned lease (a context manager)."""
        backend = self.backends[name]
        return Lease(backend, backend.serving[call.model], call, self.clock, self.lease_ended)

    def lease_ended(self, backend: Backend) -> None:
        """Something became free."""
        if not backend.leases:
            self.leaving.discard(backend)
        if self.on_free is not None:
            self.on_free(backend.name)

    def in_flight(self, name: str) -> int:
        """Leases of a backend that are not ended."""
        return self.backends[name].in_flight

    # --- what was seen and said ---

    def observe(self, backend: Backend, evidence: Evidence, detail: str = "") -> None:
        """Take a piece of evidence about a backend's health."""
        now = self.clock()
        old = backend.health
        if backend.good_calls:
            old = replace(old, good=old.good + backend.good_calls)
            backend.good_calls = 0
        new = health_policy.observe(old, evidence, detail, now, self.limits)
        new = health_policy.forgive(new, now, self.limits)
        backend.health = new
        if new.health is not old.health:
            if new.health is Health.STARTING:
                backend.loading_since = now
            elif old.health is Health.STARTING:
                backend.loading_since = None
            self.bus.emit(HealthChanged(backend.name, old.health.value, new.health.value, new.reason))
            if self.on_free is not None:
                self.on_free(backend.name)

    def call_went_well(self, backend: Backend) -> None:
        """A call came to its end: the common case, so nothing is built where nothing changes."""
        state = backend.health
        if state.health is Health.HEALTHY and not state.call_fails:
            backend.good_calls += 1
            return
        self.observe(backend, Evidence.CALL_OK)

    def set_intent(self, name: str, intent: Intent, reason: str = "") -> None:
        """What the operator says of a backend. Draining has a deadline; what is in flight then moves on."""
        backend = self.backends[name]
        old = backend.intent
        backend.intent, backend.intent_reason = intent, reason
        backend.drain_deadline = (
            self.clock() + self.config.timeouts.drain_s if intent is Intent.DRAINING and backend.leases else None
        )
        if old is not intent:
            self.bus.emit(IntentChanged(name, old.value, intent.value, reason))
            if self.on_free is not None:
                self.on_free(name)

    def eject(self, name: str, reason: str) -> None:
        """The operator says that a backend is down."""
        self.observe(self.backends[name], Evidence.HUNG, f"ejected by the operator: {reason}")

    def readmit(self, name: str, reason: str) -> None:
        """The operator says that a backend is well: trials and waiting are skipped."""
        backend = self.backends[name]
        old = backend.health.health
        backend.health = replace(
            backend.health, health=Health.HEALTHY, since=self.clock(), reason=reason, call_fails=0, probe_fails=0
        )
        if old is not Health.HEALTHY:
            self.bus.emit(HealthChanged(name, old.value, Health.HEALTHY.value, reason))

    def set_grade(
        self, name: str, model: str, grade: Grade, reason: str, evidence: Iterable[str] = (), by: str = "canary"
    ) -> None:
        """What is thought of a backend's answers for a model."""
        serving = self.backends[name].serving.get(model)
        if serving is None:
            return
        old = serving.grade
        serving.grade, serving.grade_reason, serving.evidence = grade, reason, tuple(evidence)
        serving.flagged_by = by if grade is Grade.FLAGGED else ""
        if old is not grade:
            self.bus.emit(QualityChanged(name, model, old.value, grade.value, reason, serving.evidence))

    def set_gate(self, name: str, model: str, reason: str, why: str = "") -> None:
        """A new build waits for a check before its first calls (`reason`), or no longer does (`why`)."""
        backend = self.backends[name]
        serving = backend.serving.get(model)
        if serving is None or serving.gate == reason:
            return
        was_closed, serving.gate = bool(serving.gate), reason
        if was_closed and not reason:
            backend.health = replace(backend.health, ramp_from=self.clock())
            if self.on_free is not None:
                self.on_free(name)
        if was_closed != bool(reason):
            self.bus.emit(GateChanged(name, model, bool(reason), reason or why))

    def close(self) -> None:
        """Close every connection kept."""
        for backend in (*self.backends.values(), *self.leaving):
            backend.pool.close()


def _unable(serving: Serving, call: CallFacts) -> str | None:
    if serving.max_prompt is not None and call.prompt_tokens > serving.max_prompt:
        return f"prompts beyond about {serving.max_prompt} tokens are too long for it"
    missing = call.needs & serving.cannot
    if missing:
        return f"cannot do {', '.join(sorted(missing))}"
    return None
