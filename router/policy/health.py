"""The table of health states and what moves a backend between them.

Health is what we saw, never what the operator said. One state value per backend; evidence goes in, the next value
comes out with a reason. Busy is not dead: a probe that times out while the backend still hands out tokens is no
evidence, and 4xx never is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from router.policy.facts import Health


class Evidence(StrEnum):
    """What was seen of a backend."""

    PROBE_OK = "probe_ok"
    PROBE_FAILED = "probe_failed"
    REFUSED = "refused"  # by a probe or an attempt: nobody listens
    CALL_OK = "call_ok"
    CALL_FAILED = "call_failed"
    HUNG = "hung"  # the hang rule spoke


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """Thresholds. Times in seconds."""

    unhealthy_after: int = 3
    healthy_after: int = 2
    failures_to_eject: int = 3
    failure_rate: float = 0.5
    failure_rate_min_calls: int = 8
    ejection_s: float = 10.0
    ejection_max_s: float = 300.0
    trial_calls: int = 2
    ramp_s: float = 30.0
    rate_half_life_s: float = 30.0


@dataclass(frozen=True, slots=True)
class HealthState:
    """What is known of one backend's health.

    Attributes:
        health: the state.
        since: when it came into it (loop time).
        reason: what moved it there.
        seen: it was ready at least once, in this run or an earlier one.
        probe_fails, probe_oks: probes in a row.
        call_fails: failed calls in a row.
        good, bad: calls, halved every `rate_half_life_s`.
        rated_at: when these were last halved.
        ejections: how often in short order; each doubles the next ejection.
        until: an ejection's earliest end.
        trials: calls that went well in probation.
        ramp_from: when it came back into traffic; None where it never left.
    """

    health: Health = Health.OFF
    since: float = 0.0
    reason: str = "not seen yet"
    seen: bool = False
    probe_fails: int = 0
    probe_oks: int = 0
    call_fails: int = 0
    good: float = 0.0
    bad: float = 0.0
    rated_at: float = 0.0
    ejections: int = 0
    until: float = 0.0
    trials: int = 0
    ramp_from: float | None = None

    def ramp(self, now: float, limits: HealthLimits) -> float:
        """Share of a fair load it may have now, 0 to 1."""
        if self.ramp_from is None or limits.ramp_s <= 0:
            return 1.0
        return min(1.0, 0.1 + 0.9 * (now - self.ramp_from) / limits.ramp_s)


def observe(state: HealthState, evidence: Evidence, detail: str, now: float, limits: HealthLimits) -> HealthState:
    """The state after a piece of evidence. `detail` becomes the reason where the state changes."""
    state = _rated(state, evidence, now, limits)
    match evidence:
        case Evidence.PROBE_OK:
            return _probe_ok(state, now, limits)
        case Evidence.PROBE_FAILED:
            return _probe_failed(state, detail, now, limits)
        case Evidence.REFUSED:
            return _refused(state, detail, now)
        case Evidence.CALL_OK:
            return _call_ok(state, now, limits)
        case Evidence.CALL_FAILED:
            return _call_failed(state, detail, now, limits)
        case Evidence.HUNG:
            return _eject(state, detail, now, limits)


def _to(state: HealthState, health: Health, now: float, reason: str) -> HealthState:
    if state.health is health:
        return state
    return replace(state, health=health, since=now, reason=reason)


def _rated(state: HealthState, evidence: Evidence, now: float, limits: HealthLimits) -> HealthState:
    if evidence not in (Evidence.CALL_OK, Evidence.CALL_FAILED):
        return state
    keep = 0.5 ** ((now - state.rated_at) / limits.rate_half_life_s) if state.rated_at else 1.0
    ok = evidence is Evidence.CALL_OK
    return replace(state, good=state.good * keep + ok, bad=state.bad * keep + (not ok), rated_at=now)


def _probe_ok(state: HealthState, now: float, limits: HealthLimits) -> HealthState:
    oks = state.probe_oks + 1
    state = replace(state, probe_oks=oks, probe_fails=0)
    match state.health:
        case Health.OFF:
            return replace(_to(state, Health.HEALTHY, now, "answers its first probe"), seen=True)
        case Health.STARTING:
            # It was away: it comes back with a ramp, so that a cold prefix cache is not flooded.
            return replace(_to(state, Health.HEALTHY, now, "has loaded and answers"), seen=True, ramp_from=now)
        case Health.EJECTED if now >= state.until and oks >= limits.healthy_after:
            return replace(_to(state, Health.PROBATION, now, f"answers {oks} probes in a row"), trials=0)
        case Health.PROBATION if oks >= 4 * limits.healthy_after and state.call_fails == 0:
            # No traffic came to try it: enough good probes will do.
            return _readmit(state, now, "kept answering its probes")
        case Health.SUSPECT if oks >= limits.healthy_after:
            # Failed calls in a row stay counted: one more and it is suspect again, a few more and it is out.
            return _to(state, Health.HEALTHY, now, f"answers {oks} probes in a row")
    return state


def _probe_failed(state: HealthState, detail: str, now: float, limits: HealthLimits) -> HealthState:
    fails = state.probe_fails + 1
    state = replace(state, probe_fails=fails, probe_oks=0)
    if state.health in (Health.OFF, Health.STARTING):
        return replace(state, reason=detail)  # no alarm, but whoever looks sees why
    if fails >= limits.unhealthy_after:
        return _eject(state, f"{fails} probes failed: {detail}", now, limits)
    if state.health is Health.HEALTHY:
        return _to(state, Health.SUSPECT, now, f"a probe failed: {detail}")
    return state


def _refused(state: HealthState, detail: str, now: float) -> HealthState:
    """Nobody listens. A vLLM binds its port late, so that is `starting` for one that was here, `off` for one that
    never was; neither is an alarm by itself.
    """
    state = replace(state, probe_oks=0, probe_fails=state.probe_fails + 1)
    if not state.seen:
        return replace(state, reason=detail)
    return replace(_to(state, Health.STARTING, now, detail), call_fails=0, ejections=0, until=0.0)


def _call_ok(state: HealthState, now: float, limits: HealthLimits) -> HealthState:
    state = replace(state, call_fails=0)
    match state.health:
        case Health.SUSPECT:
            return _to(state, Health.HEALTHY, now, "a call went well")
        case Health.PROBATION:
            state = replace(state, trials=state.trials + 1)
            if state.trials >= limits.trial_calls:
                return _readmit(state, now, f"{state.trials} trial calls went well")
    return state


def _call_failed(state: HealthState, detail: str, now: float, limits: HealthLimits) -> HealthState:
    state = replace(state, call_fails=state.call_fails + 1, probe_oks=0)
    if state.health in (Health.OFF, Health.STARTING, Health.EJECTED):
        return state
    if state.health is Health.PROBATION:
        return _eject(state, f"a trial call failed: {detail}", now, limits)
    if state.call_fails >= limits.failures_to_eject:
        return _eject(state, f"{state.call_fails} calls in a row failed, the last: {detail}", now, limits)
    calls = state.good + state.bad
    if calls >= limits.failure_rate_min_calls and state.bad / calls > limits.failure_rate:
        return _eject(state, f"{state.bad / calls:.0%} of recent calls failed, the last: {detail}", now, limits)
    return _to(state, Health.SUSPECT, now, f"a call failed: {detail}")


def _eject(state: HealthState, reason: str, now: float, limits: HealthLimits) -> HealthState:
    if state.health is Health.EJECTED:
        return state
    # Growing: one that keeps falling over stays out longer; a long good time (see _readmit) forgives.
    length = min(limits.ejection_max_s, limits.ejection_s * 2.0**state.ejections)
    return replace(
        _to(state, Health.EJECTED, now, reason),
        ejections=state.ejections + 1,
        until=now + length,
        probe_oks=0,
        good=0.0,
        bad=0.0,
    )


def _readmit(state: HealthState, now: float, reason: str) -> HealthState:
    return replace(_to(state, Health.HEALTHY, now, reason), call_fails=0, ramp_from=now)


def forgive(state: HealthState, now: float, limits: HealthLimits) -> HealthState:
    """A backend that stayed healthy ten times its last ejection starts over with short ejections."""
    last = min(limits.ejection_max_s, limits.ejection_s * 2.0 ** max(0, state.ejections - 1))
    if state.ejections and state.health is Health.HEALTHY and now - state.since > 10 * last:
        return replace(state, ejections=0)
    return state


def barred(state: HealthState, in_flight: int, limits: HealthLimits) -> str | None:
    """Why health keeps a backend from new calls, None where it does not."""
    match state.health:
        case Health.HEALTHY | Health.SUSPECT:
            return None
        case Health.PROBATION:
            if in_flight < limits.trial_calls:
                return None
            return f"on probation with {in_flight} trial calls in flight"
        case Health.OFF:
            return "off: never seen"
        case _:
            return f"{state.health.value}: {state.reason}"


@dataclass(frozen=True, slots=True)
class Progress:
    """What the hang rule looks at, for one backend with calls in flight.

    Attributes:
        streams: streams that already had tokens, and for how long the *youngest* silence among them lasts (s).
        oldest_wait_s: the longest wait of a call that has had nothing yet.
        engine_still_s: how long tokens, iterations and KV use have not moved in its metrics; None: not reported.
        predicted_prefill_s: of the largest prompt waiting there.
    """

    streams: int
    silence_s: float
    oldest_wait_s: float
    engine_still_s: float | None
    predicted_prefill_s: float


def lost(silent_since: float, ran_dry_at: float | None, predicted_prefill_s: float, hang_s: float = 60.0) -> bool:
    """Whether a call without a token never reached the engine, or its answer never left it.

    An engine batches what it has, so one that works and then has nothing left to do does not have this call. Nothing
    else ends such a wait soon: the server is well, and a long silence alone may be a long prompt.

    Args:
        silent_since: when the call was sent, or its backend last sent a byte for it (s, the loop's clock).
        ran_dry_at: a moment after which the engine worked and then had nothing left to do; None: not seen.
        predicted_prefill_s: of its prompt. It may be read for long before the engine is given it.
        hang_s: the shortest silence that counts.
    """
    return ran_dry_at is not None and ran_dry_at - silent_since >= max(hang_s, 3 * predicted_prefill_s)


def hung(progress: Progress, hang_s: float = 60.0, stalled_streams_s: float = 30.0) -> str | None:
    """Why a backend counts as hung, None where it does not.

    A prefilling Spark is silent for a minute and right to be: silence counts only where streams that already had
    tokens stop together, or where neither a token nor KV use moved for longer than any prefill explains.
    """
    engine_moves = progress.engine_still_s is not None and progress.engine_still_s < stalled_streams_s
    if engine_moves:
        return None
    if progress.streams and progress.silence_s >= stalled_streams_s and progress.engine_still_s is not None:
        return f"all {progress.streams} streams that had tokens stopped together {progress.silence_s:.0f} s ago"
    bound = max(hang_s, 3 * progress.predicted_prefill_s)
    if progress.streams and progress.silence_s >= bound:
        return f"all {progress.streams} streams stopped {progress.silence_s:.0f} s ago"
    if progress.engine_still_s is not None and min(progress.oldest_wait_s, progress.engine_still_s) >= bound:
        return f"no token and no change in KV use for {progress.engine_still_s:.0f} s"
    return None
