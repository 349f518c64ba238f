"""Whom `router bench` measures: asks the router for names, and every server what it serves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.markup import escape

from router.bench import found as finding
from router.bench.client import HttpTarget, http_client
from router.bench.found import Found, NobodyToMeasure
from router.bench.outcome import CallFailed
from router.bench.plan import Subject
from router.cli.ask import Admin, fail

NOT_USABLE = 2


def look(names: Sequence[str], model: str | None, api_key: str | None, admin: str | None) -> tuple[Admin | None, Found]:
    """The router, None for bare URLs, and whoever can be measured. Ends the command where that is nobody."""
    bare = bool(names) and all(map(finding.is_url, names))
    if not bare and any(map(finding.is_url, names)):
        fail("name backends of the router, or give URLs, not both", NOT_USABLE)
    router = None if bare else Admin(admin)
    try:
        if router is None:
            found = asyncio.run(_look(names, model, api_key))
        else:
            known = finding.from_router(router.get("/api/status"), router.get("/api/quality"), names, model)
            found = asyncio.run(_looked(known, api_key))
        twice = finding.same_twice(found.subjects)
        if twice is not None:
            raise NobodyToMeasure(f"{twice} stands there twice: it would be compared with itself")
        if not found.subjects:
            raise NobodyToMeasure("nobody can be measured: " + _told(found.lost))
    except NobodyToMeasure as fault:
        fail(escape(str(fault)), NOT_USABLE)
    return router, found


def _told(lost: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {why}" for name, why in lost.items()) or "the router knows no backend that is ready"


async def _look(urls: Sequence[str], model: str | None, api_key: str | None) -> Found:
    """Ask bare URLs what they serve."""
    models: dict[str, list[str]] = {}
    why: dict[str, str] = {}
    for url in urls:
        async with http_client(url, api_key) as client:
            try:
                cards = await HttpTarget(url, "", client, time.monotonic).cards()
                models[url] = [card.id for card in cards if card.parent is None]
            except CallFailed as fault:
                why[url] = str(fault)
    found = finding.from_urls(urls, models, model)
    lost = {name: next((said for url, said in why.items() if name in url), told) for name, told in found.lost.items()}
    return await _looked(replace(found, lost=lost), api_key)


async def _looked(found: Found, api_key: str | None) -> Found:
    """Everybody as they say of themselves: context and KV cache; without those that do not answer."""
    gone: dict[str, str] = {}
    known: dict[str, Subject] = {}
    for one in (*found.subjects, *found.beside):
        async with http_client(one.url, api_key) as client:
            target = HttpTarget(one.name, one.model, client, time.monotonic)
            try:
                cards = await target.cards()
            except CallFailed as fault:
                gone[one.name] = str(fault)
                continue
            context = next((card.max_model_len for card in cards if card.id == one.model), None)
            kv_tokens, version = (await target.load()).kv_tokens, one.version or await target.version()
            known[one.name] = replace(one, context=context, kv_tokens=kv_tokens, version=version)
    subjects = tuple(known.get(one.name, one) for one in found.subjects)
    return finding.without(replace(found, subjects=subjects), gone)
