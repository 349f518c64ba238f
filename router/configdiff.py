"""What changes from one fleet config to the next: what a reload will do, before it does it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel

from router.config import FleetConfig


@dataclass(frozen=True, slots=True)
class ConfigDiff:
    """The difference of two configs.

    Attributes:
        added: names of new backends.
        removed: names of backends that are gone.
        changed: the changed fields of each backend that stays.
        settings: paths of everything else that changed, as in `timeouts.queue_s` or `aliases.fast`.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    settings: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Say whether anything changes."""
        return bool(self.added or self.removed or self.changed or self.settings)

    def __str__(self) -> str:
        """Return one line for each change, as `router reload --dry-run` shows it."""
        lines = [f"+ backend {name}" for name in self.added]
        lines += [f"- backend {name}" for name in self.removed]
        lines += [f"~ backend {name}: {', '.join(fields)}" for name, fields in self.changed.items()]
        lines += [f"~ {path}" for path in self.settings]
        return "\n".join(lines) or "nothing changes"


def compare(old: FleetConfig, new: FleetConfig) -> ConfigDiff:
    """Return what changes from `old` to `new`. A backend is its name: another address under it is a change."""
    before = {one.name: one for one in old.backends}
    after = {one.name: one for one in new.backends}
    fields = {name: tuple(differing(before[name], one)) for name, one in after.items() if name in before}
    others = set(FleetConfig.model_fields) - {"backends"}
    settings = (path for name in others for path in changes(name, getattr(old, name), getattr(new, name)))
    return ConfigDiff(
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed={name: names for name, names in fields.items() if names},
        settings=tuple(sorted(settings)),
    )


def differing(old: BaseModel, new: BaseModel) -> Iterator[str]:
    """Yield the names of the fields that differ, in the order of the model."""
    return (name for name in type(old).model_fields if getattr(old, name) != getattr(new, name))


def changes(path: str, old: object, new: object) -> Iterator[str]:
    """Yield the path of each setting that differs, as deep as the two can be told apart."""
    if old == new:
        return
    if isinstance(old, BaseModel) and isinstance(new, BaseModel):
        for name in differing(old, new):
            yield from changes(f"{path}.{name}", getattr(old, name), getattr(new, name))
    elif isinstance(old, dict) and isinstance(new, dict):
        for name in old.keys() | new.keys():
            yield from changes(f"{path}.{name}", old.get(name), new.get(name))
    else:
        yield path
