"""Has the fleet file changed? `router reload`, SIGHUP and `--watch` are one path: parse, check, compare, apply.

A bad file changes nothing. New backends are asked before the change, so that a reload which would leave a served model
without anybody is refused (unless forced, or unless it is a swap: the new one takes the place of the old on a host that
holds one at a time, and calls wait while it loads).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from router.config import BackendConfig, FleetConfig
from router.configdiff import ConfigDiff, compare
from router.errors import ConfigFault
from router.events import Bus, Reloaded
from router.fleet import Fleet

WATCH_S = 1.0

AskModels = Callable[[BackendConfig, FleetConfig], Awaitable[frozenset[str] | None]]
"""What a backend that is not in the fleet yet serves; None where it does not answer."""


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """What a reload did, or would do.

    Attributes:
        applied: whether the new config is in force.
        generation: the one in force now.
        diff: what differs from before.
        lost: models that would be left without a backend, with what was done about it.
        answers: of each new or changed backend, whether it answered before the change.
        reason: why it was refused, "" where it was not.
    """

    applied: bool
    generation: int
    diff: ConfigDiff | None = None
    lost: tuple[str, ...] = ()
    answers: dict[str, bool] = field(default_factory=dict)
    reason: str = ""
    swap: bool = False


class Reloader:
    """The one path of every reload. Two at once are done one after the other."""

    def __init__(
        self,
        fleet: Fleet,
        bus: Bus,
        read: Callable[[], FleetConfig],
        apply: Callable[[FleetConfig], Reloaded],
        ask: AskModels,
        path: Path | None,
    ) -> None:
        self._fleet = fleet
        self._bus = bus
        self._read = read
        self._apply = apply
        self._ask = ask
        self.path = path
        self._one = asyncio.Lock()

    async def reload(self, *, dry_run: bool = False, force: bool = False) -> ReloadResult:
        """Read the file again and put it in force, or say why not. Never raises for what is in the file."""
        async with self._one:
            try:
                config = self._read()
            except ConfigFault as fault:
                return self._refused(fault.message, quiet=dry_run)
            return await self._change(config, dry_run=dry_run, force=force)

    async def _change(self, config: FleetConfig, *, dry_run: bool, force: bool) -> ReloadResult:
        fleet = self._fleet
        diff = compare(fleet.config, config)
        fresh = [one for one in config.backends if fleet.config.backend(one.name) != one]
        served = dict(zip([one.name for one in fresh], await self._ask_all(fresh, config), strict=True))
        answers = {name: models is not None for name, models in served.items()}
        lost = self._lost(config, served)
        swap = bool(lost) and self._is_swap(config)
        if lost and not force and not swap:
            reason = f"it would leave nobody to serve {', '.join(lost)}; use --force if that is meant"
            return self._refused(reason, quiet=dry_run, diff=diff, lost=lost, answers=answers)
        if dry_run:
            return ReloadResult(False, fleet.generation, diff, lost, answers, swap=swap)
        event = self._apply(config)
        if swap:
            fleet.begin_swap(lost, [name for name, answered in answers.items() if not answered])
        return ReloadResult(True, event.generation, diff, lost, answers, swap=swap)

    async def _ask_all(self, fresh: list[BackendConfig], config: FleetConfig) -> list[frozenset[str] | None]:
        return await asyncio.gather(*(self._ask(one, config) for one in fresh))

    def _lost(self, config: FleetConfig, served: dict[str, frozenset[str] | None]) -> tuple[str, ...]:
        """Models that somebody serves now and nobody would after the change."""
        fleet = self._fleet
        lost = []
        for model, pool in fleet.pools.items():
            now = [backend for backend in pool if fleet.can_serve(backend, model)]
            if not now:
                continue
            stays = any(config.backend(one.name) == one.config for one in now)
            comes = any(models is not None and model in models for models in served.values())
            if not stays and not comes:
                lost.append(model)
        return tuple(sorted(lost))

    def _is_swap(self, config: FleetConfig) -> bool:
        """Every host that loses a backend gets another one: a 120B fits once, so old and new cannot both be up."""
        old, new = self._fleet.config.backends, config.backends
        leaving = {host for one in old if config.backend(one.name) != one for host in one.host}
        coming = {host for one in new if self._fleet.config.backend(one.name) != one for host in one.host}
        return bool(leaving) and leaving <= coming

    def _refused(
        self,
        reason: str,
        *,
        quiet: bool,
        diff: ConfigDiff | None = None,
        lost: tuple[str, ...] = (),
        answers: dict[str, bool] | None = None,
    ) -> ReloadResult:
        if not quiet:
            self._bus.emit(Reloaded(self._fleet.generation, False, reason=reason))
        return ReloadResult(False, self._fleet.generation, diff, lost, answers or {}, reason)

    async def watch(self, every_s: float = WATCH_S) -> None:
        """Reload when the file on disk changes; a half-written one is refused and read again when it is whole."""
        if self.path is None:
            return
        seen = _stamp(self.path)
        while True:
            await asyncio.sleep(every_s)
            now = _stamp(self.path)
            if now != seen and now is not None:
                seen = now
                await self.reload()


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
