"""What can be made to go wrong on a simulated server while it runs: `POST /sim/fault {"kind": …}`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import orjson

from router.sim.language import Flavour

KINDS = {
    "refuse": "connections are reset, and refused for `seconds`",
    "hang": "/health says 200, no token comes",
    "status": "every call gets `status` (500, 503, 429 …), with Retry-After where `retry_after_s` is given",
    "busy": "503 as vLLM says it when its queue is full",
    "cut": "the connection breaks after `after` events",
    "error_event": "an error event after `after` events (0: before any content), then [DONE]",
    "truncate": "the connection is closed in good order after `after` events, without the last chunk",
    "half_json": "a JSON answer breaks off in the middle; in a stream one event does, after `after` events",
    "bad_chunk": "bytes that break HTTP's own framing after `after` events",
    "missing_done": "the stream ends without [DONE]",
    "slow": "every step takes `factor` times as long",
    "garbage": "fluent nonsense",
    "ignorant": "it knows no answer any more and says so; every distribution stays right",
    "nan": "NaN logits: `!!!!`, logprobs null",
    "damage": "weights damaged by `amount` (logits)",
    "decode_damage": "only decode damaged, by `amount`",
    "long_damage": "answers degenerate after `after` tokens, by `amount`",
    "restart": "gone for `seconds`, back as another build (`profile`, `kernel`)",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault and its sizes; which of them count depends on the kind (`KINDS`)."""

    kind: str
    seconds: float = 10.0
    status: int = 500
    retry_after_s: float | None = None
    after: int = 3
    factor: float = 3.0
    amount: float = 2.0
    probability: float = 1.0  # of a call being hit
    profile: str | None = None
    kernel: str | None = None

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> Fault:
        """A fault from JSON. Raises ValueError that names what is unknown."""
        if body.get("kind") not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}")
        known = {one.name for one in fields(cls)}
        if unknown := set(body) - known:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
        return cls(**body)

    def sizes(self) -> dict[str, Any]:
        """Everything that it says, as JSON values."""
        return asdict(self)


@dataclass(slots=True)
class Faults:
    """The faults in force, one of each kind; `own` is the one that a single call brought along."""

    active: dict[str, Fault] = field(default_factory=dict)
    own: Fault | None = None

    def set(self, fault: Fault) -> None:
        """Put a fault in force; one of the same kind gives way."""
        self.active[fault.kind] = fault

    def clear(self, kind: str | None = None) -> None:
        """Lift one fault, or all."""
        if kind is None:
            self.active.clear()
        else:
            self.active.pop(kind, None)

    def get(self, kind: str, draw: float = 0.0) -> Fault | None:
        """The fault of that kind if it hits the call that drew `draw` (0 to 1)."""
        fault = self.active.get(kind)
        return fault if fault is not None and draw < fault.probability else None

    def for_call(self, header: str | None) -> Faults:
        """The faults that one call meets: those in force, and what its `x-sim-fault` header asks for (a kind or JSON).

        Raises ValueError that names what is unknown.
        """
        if header is None:
            return self
        own = Fault.read(orjson.loads(header) if header.startswith("{") else {"kind": header})
        return Faults({**self.active, own.kind: own}, own)

    def flavoured(self, flavour: Flavour) -> Flavour:
        """The numbers of a server under the faults in force."""
        amount = {kind: fault.amount for kind, fault in self.active.items()}
        if late := self.active.get("long_damage"):
            flavour = replace(flavour, long_damage=late.amount, long_after=late.after)
        return replace(
            flavour,
            damage=amount.get("damage", flavour.damage),
            decode_damage=amount.get("decode_damage", flavour.decode_damage),
            is_garbage=flavour.is_garbage or "garbage" in self.active,
            is_nan=flavour.is_nan or "nan" in self.active,
            is_ignorant=flavour.is_ignorant or "ignorant" in self.active,
        )
