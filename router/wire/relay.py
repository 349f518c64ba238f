"""One attempt's answer on its way from a backend to a client: held until it may be committed, then passed through.

The relay is a sink for a backend's connection and a writer on a client's. It decides nothing: whoever runs the call
waits for it to move (`wait`), commits it or drops it. After the commit chunks flow by callback alone: one look by the
observer, one write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Final, Protocol

from router.errors import FailureKind
from router.wire.client import BackendConnection
from router.wire.head import ResponseHead
from router.wire.server import ClientConnection


class Observer(Protocol):
    """Watches an event stream: what may be forwarded, and how far it has come."""

    @property
    def committable(self) -> bool:
        """An event that is not an error has come."""

    @property
    def has_content(self) -> bool:
        """The first content has come."""

    @property
    def error(self) -> object | None:
        """An error event came; it is not forwarded."""

    @property
    def ended(self) -> bool:
        """The answer is whole, though the backend goes on."""

    @property
    def broken(self) -> str | None:
        """The stream ended, or said that it ended, before its terminal events."""

    def feed(self, piece: bytes) -> bytes:
        """What may be forwarded now."""

    def end(self) -> bytes:
        """The body has ended: what was held back and may still be forwarded."""


class Mode(Enum):
    """How far an answer has come."""

    WAITING = "waiting"  # nothing the client could use yet
    READY = "ready"  # may be committed
    COMMITTED = "committed"  # the client has bytes of it
    ENDED = "ended"
    FAILED = "failed"


# Bound once: before Python 3.12, every `Mode.X` is a function call.
WAITING: Final = Mode.WAITING
READY: Final = Mode.READY
COMMITTED: Final = Mode.COMMITTED
ENDED: Final = Mode.ENDED
FAILED: Final = Mode.FAILED


class Relay:
    """See the module.

    Args:
        observe: called with the head; an observer for an event stream, None for any other body.
        hold_bytes: a body that is no event stream is held up to this size, so that a half one can be tried again;
            0 commits it on its first byte.
    """

    __slots__ = (
        "_clock",
        "_loop",
        "_observe",
        "_waiter",
        "client",
        "connection",
        "content_at",
        "failure",
        "head",
        "held",
        "held_bytes",
        "hold_bytes",
        "kept",
        "kept_bytes",
        "last_at",
        "mode",
        "observer",
        "on_content",
        "sent_at",
        "whole",
    )

    def __init__(
        self,
        client: ClientConnection,
        loop: asyncio.AbstractEventLoop,
        observe: Callable[[ResponseHead], Observer | None],
        hold_bytes: int,
    ) -> None:
        self.client = client
        self.connection: BackendConnection | None = None
        self._loop = loop
        self._clock = loop.time
        self._observe = observe
        self._waiter: asyncio.Future[None] | None = None
        self.hold_bytes = hold_bytes
        self.head: ResponseHead | None = None
        self.observer: Observer | None = None
        self.mode = WAITING
        self.held: list[bytes] = []
        self.held_bytes = 0
        self.whole = False  # the body has ended within what is held
        self.failure: tuple[FailureKind, str] | None = None
        self.sent_at = self.last_at = loop.time()
        self.content_at: float | None = None
        self.on_content: Callable[[], None] | None = None
        self.kept: list[bytes] | None = None  # forwarded pieces, kept for a continuation
        self.kept_bytes = 0

    def begin(self, connection: BackendConnection) -> None:
        """A request goes out on this connection; its answer comes here."""
        self.connection = connection
        self.mode = WAITING
        self.failure = None
        self.sent_at = self.last_at = self._clock()

    def failed_with(self, kind: FailureKind) -> bool:
        """Whether the answer failed, and in this way."""
        return self.mode is FAILED and self.failure is not None and self.failure[0] is kind

    # --- the backend's side ---

    def on_head(self, head: ResponseHead) -> None:
        """The backend's status and headers."""
        self.last_at = self._clock()
        self.head = head
        self.observer = self._observe(head)

    def on_data(self, data: bytes) -> None:
        """A piece of body."""
        self.last_at = self._clock()
        observer = self.observer
        if observer is not None:
            self._forward(observer, observer.feed(data))
        elif self.mode is COMMITTED:
            self.client.write(data)
        else:
            self._hold(data)
            if self.held_bytes > self.hold_bytes:
                self._move(READY)

    def _forward(self, observer: Observer, out: bytes) -> None:
        if self.content_at is None and observer.has_content:
            self.content_at = self.last_at
            if self.on_content is not None:
                self.on_content()
        if self.mode is COMMITTED:
            if out:
                self.client.write(out)
                if self.kept is not None:
                    self.kept.append(out)
                    self.kept_bytes += len(out)
        elif out:
            self._hold(out)
        if observer.error is not None:
            self.fail(FailureKind.ERROR_EVENT, f"sent an error inside its stream: {observer.error}"[:500])
        elif observer.broken is not None:
            self.fail(FailureKind.TRUNCATED, observer.broken)
        elif observer.ended and not self.whole:
            self.whole = True
            self.drop()
            self._move(ENDED if self.mode is COMMITTED else READY)
        elif self.mode is WAITING and observer.committable:
            self._move(READY)

    def _hold(self, data: bytes) -> None:
        self.held.append(data)
        self.held_bytes += len(data)

    def on_end(self) -> None:
        """The body is whole as far as its framing tells; an event stream may know better."""
        if self.mode in (ENDED, FAILED):
            return
        self.connection = None
        self.whole = True
        observer = self.observer
        if observer is not None:
            self._forward(observer, observer.end())
            if self.failure is not None:
                return
        if self.mode is COMMITTED:
            self._move(ENDED)
        else:
            self._move(READY)

    def on_failure(self, kind: FailureKind, detail: str) -> None:
        """The backend's connection failed under the answer."""
        self.connection = None
        self.fail(kind, detail)

    # --- the call's side ---

    def fail(self, kind: FailureKind, detail: str) -> None:
        """Give this attempt up: by the backend's fault, a timeout, or a drain. The first reason stands."""
        if self.mode in (ENDED, FAILED):
            return
        self.failure = (kind, detail)
        self.drop()
        self._move(FAILED)

    def drop(self) -> None:
        """Close the backend's connection: that is how a vLLM is told to stop."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    def commit(self) -> None:
        """The client has the head: write what is held, pass on what comes."""
        if self.mode is FAILED:
            return
        held, self.held = self.held, []
        out = held[0] if len(held) == 1 else b"".join(held)
        self.held_bytes = 0
        self.client.write(out)
        if self.kept is not None and out:
            self.kept.append(out)
            self.kept_bytes += len(out)
        if self.whole:
            self.mode = ENDED
            return
        self.mode = COMMITTED
        self.client.on_pause = self._pause
        self.client.on_resume = self._resume
        if self.client.paused:
            self._pause()

    def _pause(self) -> None:
        if self.connection is not None:
            self.connection.pause()

    def _resume(self) -> None:
        self.last_at = self._clock()  # the silence was the client's, not the backend's
        if self.connection is not None:
            self.connection.resume()

    def body(self) -> bytes:
        """What is held, as one."""
        return self.held[0] if len(self.held) == 1 else b"".join(self.held)

    async def wait(self) -> Mode:
        """Wait until the answer moves on from its present mode."""
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        return self.mode

    def _move(self, mode: Mode) -> None:
        self.mode = mode
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
