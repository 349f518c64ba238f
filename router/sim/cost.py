"""What one step of an engine costs: bytes it reads over bandwidth, operations over compute, nothing fitted to `n`."""

from __future__ import annotations

from dataclasses import dataclass

from router.sim.profiles import Profile

USABLE_SHARE = 0.9  # of the peak bandwidth, by all engines of a host together (assumed)


@dataclass(frozen=True, slots=True)
class StepCost:
    """A step alone on its host: seconds on memory and on compute, and its share of the bandwidth meanwhile."""

    memory_s: float
    compute_s: float
    memory_share: float
    usable_share: float


def step_cost(
    profile: Profile, bandwidth_gb_s: float, sequences: int, tokens: int, context: int, pairs: float
) -> StepCost:
    """Price a step over `tokens` new tokens of `sequences`, `context` tokens of KV and `pairs` (new token, context).

    Each token reaches `routed_share` of the experts; n tokens reach 1 - (1 - share)^n of them (independent routing), so
    a bigger batch reads more weights per step and fewer per token. Memory and compute are not overlapped: with that,
    short prompts prefill as much slower than long ones as was published (2766 against 6002 tok/s).
    """
    read_tokens = tokens + sequences * profile.draft_tokens
    reached = 1.0 - (1.0 - profile.routed_share) ** read_tokens
    routed_gb = profile.routed_gb * reached
    dense_gb = profile.always_read_gb + profile.state_gb * sequences + profile.kv_bytes_per_token * context / 1e9
    memory_s = dense_gb / (bandwidth_gb_s * profile.dense_efficiency)
    memory_s += routed_gb / (bandwidth_gb_s * profile.routed_efficiency)
    extra = tokens - sequences  # decode's own operations hide behind its reads
    compute_s = (extra * profile.flop_per_token + (pairs - context if extra else 0.0) * profile.attention_flop) / (
        profile.compute_flop_s
    )
    share = (routed_gb + dense_gb) / (memory_s * bandwidth_gb_s)
    return StepCost(memory_s, max(0.0, compute_s), share, max(USABLE_SHARE, share))
