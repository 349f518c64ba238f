"""What a backend answers on /v1/models and /version, as values: vLLM's shape, llama.cpp's, and their kin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One served model.

    Attributes:
        id: the name that calls use.
        max_model_len: context window in tokens, None where the server does not say.
        root: what it was loaded from (path or hub name).
        parent: the base model of a LoRA adapter.
        owned_by: "vllm", "llamacpp", …
        raw: the entry as it was sent, unknown fields included.
    """

    id: str
    max_model_len: int | None = None
    root: str | None = None
    parent: str | None = None
    owned_by: str | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)


def parse_models(body: bytes | str) -> tuple[ModelCard, ...]:
    """Read a /v1/models answer.

    Entries without a usable id are left out, a repeated id counts once.

    Raises:
        ValueError: the body is not a list of models; the message says why.
    """
    document = _document(body, "/v1/models")
    entries = document.get("data") if isinstance(document, dict) else document
    if not isinstance(entries, list):
        raise ValueError(f"/v1/models has no list under 'data'{_told(document)}")
    cards = {card.id: card for card in map(_card, entries) if card is not None}
    if entries and not cards:
        raise ValueError("/v1/models lists entries, but none with an id")
    return tuple(cards.values())


def parse_version(body: bytes | str) -> str:
    """Read a /version answer: `{"version":"0.32.0"}`.

    Raises:
        ValueError: it holds no version; the message says why.
    """
    document = _document(body, "/version")
    version = document.get("version") if isinstance(document, dict) else None
    if not isinstance(version, str) or not version.strip():
        raise ValueError(f"/version holds no version{_told(document)}")
    return version.strip()


def _document(body: bytes | str, path: str) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def _card(entry: object) -> ModelCard | None:
    if not isinstance(entry, dict):
        return None
    name = entry.get("id")
    if not isinstance(name, str) or not name:
        return None
    return ModelCard(
        id=name,
        max_model_len=_context(entry),
        root=_text(entry.get("root")),
        parent=_text(entry.get("parent")),
        owned_by=_text(entry.get("owned_by")),
        raw=entry,
    )


def _context(entry: Mapping[str, Any]) -> int | None:
    """Context window: vLLM says max_model_len, llama.cpp meta.n_ctx, others context_length or context_window."""
    meta = entry.get("meta")
    spelt = [entry.get(key) for key in ("max_model_len", "context_length", "context_window")]
    spelt.append(meta.get("n_ctx") if isinstance(meta, dict) else None)
    for value in spelt:
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _told(document: object) -> str:
    """Quote what a server said instead, if it sent an error object."""
    error = document.get("error") if isinstance(document, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return f": {message[:200]}" if isinstance(message, str) else ""
