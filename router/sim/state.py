"""One simulated server: as what it was started, and what lives while it runs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from zlib import crc32

from router.sim.driver import Driver
from router.sim.engine import Engine
from router.sim.exposition import Histogram, histograms
from router.sim.faults import Fault, Faults
from router.sim.host import Host, HostLike
from router.sim.language import Flavour, LanguageModel
from router.sim.profiles import PROFILES, Profile


@dataclass(frozen=True, slots=True)
class Build:
    """What was started: the checkpoint's profile, and what was said about it on the command line.

    Attributes:
        model: served name.
        profile: how fast it is and what its kernels compute.
        declared: kernel in the launch arguments, which may be a lie: nothing but the log's first lines shows it.
        seed: of everything drawn.
        api_key: what `/v1` asks for as Bearer; None asks for nothing.
        damage: what is wrong with its answers from the start.
        max_logprobs: as `--max-logprobs`.
        reports_cached: as `--enable-prompt-tokens-details`.
        parses_tools: as `--enable-auto-tool-choice`.
    """

    model: str
    profile: Profile
    declared: str | None = None
    seed: int = 0
    api_key: str | None = None
    damage: Mapping[str, float] = field(default_factory=dict)
    max_logprobs: int = 20
    reports_cached: bool = True
    parses_tools: bool = True

    @property
    def flavour(self) -> Flavour:
        """Its numbers."""
        return replace(Flavour(self.profile.scheme, self.profile.moe_kernel), **self.damage)  # type: ignore[arg-type]

    @property
    def fingerprint(self) -> str:
        """`vllm-<version>-<hash of the arguments>`: changes when it is started as something else."""
        said = (
            f"{self.model} {self.profile.name} {self.profile.max_model_len} {self.declared} {self.profile.moe_kernel}"
        )
        return f"vllm-{self.profile.vllm_version}-{crc32(said.encode()):08x}"

    def restarted_as(self, fault: Fault) -> Build:
        """The build that a `restart` fault asks for."""
        profile = PROFILES[fault.profile] if fault.profile else self.profile
        return replace(self, profile=replace(profile, max_model_len=self.profile.max_model_len))


class Sim:
    """A running simulated server.

    Args:
        build: what it is.
        now: Unix time (s); the start time and `created` fields come from it.
        host: the Spark it shares; its own where None.
    """

    def __init__(self, build: Build, now: Callable[[], float], host: HostLike | None = None) -> None:
        self.now = now
        self.host = host or Host()
        self.faults = Faults()
        self.down = asyncio.Event()  # somebody wants it to stop listening; the listener waits for this
        self.down_for: Fault | None = None
        self.open_calls = 0
        self.start(build)

    def __repr__(self) -> str:
        return f"<Sim {self.build.model} {self.engine!r} faults={list(self.faults.active)}>"

    def start(self, build: Build) -> None:
        """Begin anew, as after a restart: nothing counted, nothing cached."""
        self.build = build
        self.started = self.now()
        self.dice = random.Random(f"{build.seed} {self.started}")
        self.finished: dict[str, int] = {}
        self.seen: dict[str, Histogram] = histograms()
        self.engine = Engine(build.profile, self.host, build.seed, key=f"{build.model} {id(self)}")
        self.driver = Driver(self.engine, self.faults, self._observe)

    def model_for(self, faults: Faults) -> LanguageModel:
        """The language model with everything that is wrong with it now."""
        return LanguageModel(faults.flavoured(self.build.flavour))

    def new_id(self) -> str:
        """16 hexadecimal digits, as vLLM's ids end in."""
        return f"{self.dice.getrandbits(64):016x}"

    def count_finish(self, reason: str) -> None:
        """One request ended by itself."""
        self.finished[reason] = self.finished.get(reason, 0) + 1

    def go_down(self, fault: Fault) -> None:
        """Stop listening and drop every connection; back after `fault.seconds`, as another build where it says so."""
        self.down_for = fault
        self.down.set()

    def _observe(self, name: str, value: float) -> None:
        self.seen[name].observe(value)
