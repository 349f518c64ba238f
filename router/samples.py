"""What an attempt that is over teaches: speed, lengths, health, and what a backend cannot do."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from router.backend import Backend, Lease
from router.errors import BackendFault
from router.openai.call import Call
from router.openai.errors import ErrorKind
from router.policy.facts import CONTINUATION, Candidate
from router.policy.speed import SHORTEST_DECODE
from router.wire.relay import ENDED, Relay

if TYPE_CHECKING:
    from router.exchange import Exchange
    from router.front import Front


def take(front: Front, exchange: Exchange, lease: Lease, relay: Relay, failure: BackendFault | None) -> None:
    """Learn from one attempt. Only an answer that came to its end says anything about speed or lengths."""
    if failure is not None or relay.mode is not ENDED:
        return
    front.fleet.call_went_well(lease.backend)
    usage, facts = exchange.usage, exchange.facts
    if usage is None or facts is None or exchange.call is None:
        return
    now = front.clock()
    lengths = front.lengths.get(facts.model)
    if lengths is not None and usage.prompt_tokens:
        lengths.observe_prompt(exchange.call.prompt_bytes, usage.prompt_tokens)
        if usage.completion_tokens is not None:
            lengths.observe_output(exchange.session, exchange.call.thinking, usage.completion_tokens)
    if facts.prefix and usage.prompt_tokens:
        prefixes = lease.backend.prefixes
        if usage.cached_tokens is not None:
            prefixes.correct(facts.prefix, usage.cached_tokens)
        prefixes.add(facts.prefix, usage.prompt_tokens)
    if relay.content_at is None:
        return
    predicted = exchange.predicted
    if predicted is not None:
        lease.serving.ttft_calibration.observe(predicted.ttft_s, relay.content_at - relay.sent_at)
        lease.serving.end_calibration.observe(predicted.end_s, relay.last_at - relay.sent_at)
    # What the prefix index believed is used where the server does not report cached tokens.
    cached = usage.cached_tokens if usage.cached_tokens is not None else lease.warm_tokens
    speed = lease.serving.speed
    speed.observe_first_token(
        now,
        relay.content_at - relay.sent_at,
        max(0.0, (usage.prompt_tokens or facts.prompt_tokens) - cached),
        lease.backlog_at_send,
    )
    tokens = (usage.completion_tokens or 0) - 1
    seconds = relay.last_at - relay.content_at
    if tokens >= SHORTEST_DECODE and seconds > 0:
        streams, siblings = lease.mean_load(relay.last_at)
        speed.observe_decode(now, tokens, seconds, streams, siblings)


Row = tuple[Any, ...]
"""A candidate's fields, in their order."""


def row_of(one: Candidate) -> Row:
    """A candidate as it is now: the fleet reuses its own object for the next decision."""
    return (
        one.name,
        one.hosts,
        one.barred,
        one.in_flight,
        one.decoding,
        one.prefill_backlog,
        one.waiting,
        one.siblings,
        one.cap,
        one.speed,
        one.remaining,
        one.warm_tokens,
        one.sticky,
        one.ramp,
        one.last_resort,
        one.busy_siblings,
    )


def learn_inability(backend: Backend, exchange: Exchange, call: Call, said: ErrorKind | None) -> None:
    """A refusal that another backend might not give: remember what this one cannot do. It counts against nobody."""
    serving = backend.serving.get(exchange.model)
    if serving is None or exchange.facts is None:
        return
    match said:
        case ErrorKind.CONTINUATION | ErrorKind.CLIENT if exchange.resumed_at:
            serving.cannot.add(CONTINUATION)
        case ErrorKind.TOO_LONG:
            longest = int(0.98 * exchange.facts.prompt_tokens)
            serving.max_prompt = longest if serving.max_prompt is None else min(serving.max_prompt, longest)
        case ErrorKind.NO_MODALITY:
            serving.cannot |= call.needs & {"vision", "audio"}
        case ErrorKind.NO_TOOL_PARSER:
            serving.cannot |= call.needs & {"tools"}
        case ErrorKind.NO_ROUTE:
            serving.cannot.add(call.route.kind.value)


@lru_cache(256)
def rejects_sum(version: str | None) -> bool:
    """Whether this vLLM rejects prompt + max_tokens beyond the context: 0.18 and older; later ones clamp."""
    if version is None:
        return False
    major, _, rest = version.partition(".")
    minor = rest.partition(".")[0]
    return major == "0" and minor.isdigit() and int(minor) <= 18
