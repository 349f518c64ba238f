"""Sends a message to whatever listens at a URL, and tries again where that makes sense.

Payloads: ntfy (docs.ntfy.sh/publish), Discord (discord.com/developers/docs/resources/webhook, "Execute Webhook") and
plain JSON for anything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
import orjson
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

ATTEMPTS = 6
LONGEST_WAIT_S = 60.0  # between attempts
LONGEST_MESSAGE = 1_900  # characters; Discord takes 2,000, ntfy 4,096 bytes
TIMEOUT_S = 10.0  # of one attempt

Kind = Literal["ntfy", "discord", "webhook"]
_DISCORD = ("discord.com", "discordapp.com")


class NotSent(Exception):
    """The receiver did not take a message. `again` tells whether trying once more makes sense, `after_s` when."""

    def __init__(self, why: str, again: bool, after_s: float | None = None) -> None:
        super().__init__(why)
        self.again = again
        self.after_s = after_s


def kind_of(url: str) -> Kind:
    """What listens at a URL, told by its shape."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if host in _DISCORD or host.endswith(tuple(f".{name}" for name in _DISCORD)):
        return "discord"
    return "ntfy" if parts.scheme == "ntfy" or "ntfy" in host.split(".") else "webhook"


def payload(kind: Kind, lines: Sequence[str], alarm: bool) -> tuple[bytes, dict[str, str]]:
    """The body that says these lines, and its headers."""
    text = "\n".join(lines)[:LONGEST_MESSAGE]
    if kind == "ntfy":
        headers = {"title": "spark-router", "priority": "high" if alarm else "default"}
        return text.encode(errors="replace"), headers | ({"tags": "warning"} if alarm else {})
    if kind == "discord":  # names in a text must not ping people
        body: dict[str, Any] = {"username": "spark-router", "content": text, "allowed_mentions": {"parse": []}}
    else:
        body = {"source": "spark-router", "alarm": alarm, "text": text, "lines": list(lines)}
    return orjson.dumps(body), {"content-type": "application/json"}


class Sender:
    """One receiver.

    Args:
        url: where to; it may hold a secret, so errors name its host only. `ntfy://` means https.
        client: sends the requests.
        kind: what listens there; None tells by the URL.
    """

    def __init__(self, url: str, client: httpx.AsyncClient, kind: Kind | None = None) -> None:
        self._kind = kind or kind_of(url)
        self._url = url.replace("ntfy://", "https://", 1)
        self._client = client

    async def send(self, lines: Sequence[str], alarm: bool) -> None:
        """Send one message, again and again for about two minutes where the receiver cannot take it.

        Raises:
            NotSent: with the last reason.
        """
        retrying = AsyncRetrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=_patience,
            retry=retry_if_exception(lambda error: isinstance(error, NotSent) and error.again),
            sleep=asyncio.sleep,
            reraise=True,
        )
        await retrying(self._post, *payload(self._kind, lines, alarm))

    async def _post(self, body: bytes, headers: dict[str, str]) -> None:
        host = urlsplit(self._url).hostname
        try:
            answer = await self._client.post(self._url, content=body, headers=headers, timeout=TIMEOUT_S)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:  # the last: a URL that is none
            again = isinstance(error, httpx.TransportError)
            raise NotSent(f"{host}: {type(error).__name__}", again) from None  # its text may repeat the URL
        if answer.status_code == 429 or answer.status_code >= 500:
            raise NotSent(f"{host} said {answer.status_code}", again=True, after_s=_seconds(answer.headers))
        if answer.status_code >= 300:
            raise NotSent(f"{host} said {answer.status_code}", again=False)


def _patience(state: RetryCallState) -> float:
    """1, 2, 4, … seconds, or what the receiver asked for, up to the longest wait."""
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.after_s if isinstance(error, NotSent) else None
    return min(LONGEST_WAIT_S, asked if asked is not None else 2.0 ** (state.attempt_number - 1))


def _seconds(headers: httpx.Headers) -> float | None:
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):
        return None
