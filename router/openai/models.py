"""One `/v1/models` for the whole fleet, merged from what the backends say of themselves.

Fields that nobody here knows stay. Added is what clients look for under their own names: opencode and Open WebUI
read the context size as `context_length`, `context_window` or `max_input_tokens`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import orjson

from router.errors import ClientFault

Card = dict[str, Any]
_CONTEXT_NAMES = ("context_length", "context_window", "max_input_tokens", "max_output_tokens")


def merge(
    cards: Iterable[Card],
    aliases: Mapping[str, Sequence[str] | str] | None = None,
    starting: Collection[str] = (),
) -> dict[str, Card]:
    """Merge the backends' cards into one per model, in order of first sight, then the aliases.

    Args:
        cards: the entries of every backend's `data`, as parsed.
        aliases: what each alias stands for, best first; it shows the card of the first model that is listed.
        starting: models that no backend lists yet because it still loads; an alias of one is listed all the same.
    """
    found: dict[str, Card] = {}
    for card in cards:
        name = card.get("id")
        if isinstance(name, str):
            found[name] = _joined(found[name], card) if name in found else dict(card)
    for card in found.values():
        _name_context(card)
    for alias, targets in (aliases or {}).items():
        names = (targets,) if isinstance(targets, str) else tuple(targets)
        target = next((name for name in names if name in found), None)
        if alias not in found and target is not None:
            found[alias] = {**found[target], "id": alias, "root": target}
        elif alias not in found and any(name in starting for name in names):
            found[alias] = {"id": alias, "object": "model", "created": 0, "owned_by": "vllm", "root": names[0]}
    return found


def render_list(models: Mapping[str, Card]) -> bytes:
    """Write the answer of `GET /v1/models`."""
    return orjson.dumps({"object": "list", "data": list(models.values())})


def render_one(models: Mapping[str, Card], name: str) -> bytes:
    """Write the answer of `GET /v1/models/{name}`.

    Raises:
        ClientFault: 404, with what there is.
    """
    card = models.get(name)
    if card is None:
        raise unknown_model(name, models)
    return orjson.dumps(card)


def unknown_model(name: str, known: Iterable[str]) -> ClientFault:
    """Say that nobody serves a model, and what there is instead; long lists are cut."""
    names = sorted(known)
    listed = ", ".join(names[:50]) + (f" and {len(names) - 50} more" if len(names) > 50 else "")
    return ClientFault(
        f"The model `{name[:200]}` does not exist. Available: {listed or 'none yet'}.",
        status=404,
        code="model_not_found",
        param="model",
    )


def context_of(card: Card) -> int | None:
    """Return a model's context in tokens: vLLM's `max_model_len`, llama.cpp's `meta.n_ctx`, or a common name."""
    meta = card.get("meta")
    for value in (
        card.get("max_model_len"),
        meta.get("n_ctx") if isinstance(meta, dict) else None,
        card.get("context_length"),
        card.get("context_window"),
    ):
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _joined(first: Card, other: Card) -> Card:
    """Join two cards of one model: the first one's fields, the other's where it has more, the larger context.

    The larger, because a call that is too long for one backend goes to one that takes it.
    """
    joined = {**other, **first}
    lengths = [length for length in (context_of(first), context_of(other)) if length is not None]
    if lengths and "max_model_len" in joined:
        joined["max_model_len"] = max(lengths)
    return joined


def _name_context(card: Card) -> None:
    context = context_of(card)
    if context is not None:
        for name in _CONTEXT_NAMES:
            card.setdefault(name, context)
