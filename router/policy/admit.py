"""Take a call, let it wait, or shed it.

`Queue` keeps those who wait, one per model; `admit` decides. Both without a clock: time is handed in. How many calls a
backend should have at once stands in `knee.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from router.policy.facts import CallFacts, Candidate, Wait

BACKGROUND_SHARE = 0.75  # of the queue that background calls may fill
CLIENT_SHARE = 0.5  # of the queue that one client may fill
BACKGROUND_TURN = 8  # background waits behind interactive calls, but every eighth turn is its own: nobody starves
LONGEST_RETRY_S = 600.0


@dataclass(frozen=True, slots=True)
class Admit:
    """A backend is free for it."""


@dataclass(frozen=True, slots=True)
class Shed:
    """No room: why, and after how many seconds trying again makes sense."""

    reason: str
    retry_after_s: float


@dataclass(slots=True)
class _Waiting:
    client: str
    background: bool
    since: float
    deadline: float


_Line = OrderedDict[str, OrderedDict[Hashable, None]]  # clients in turn, each with its calls in order


class Queue:
    """The calls of one model that wait, bounded.

    Interactive before background (but for every eighth turn), clients in turn, each client's calls in order. A ticket
    is any hashable that names a call; it is in the queue once, from `offer` until `next`, `leave` or `expire` gives it
    back.
    """

    __slots__ = ("_background_in", "_entries", "_interval_s", "_last_next", "_lines", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._entries: dict[Hashable, _Waiting] = {}
        self._lines: tuple[_Line, _Line] = (OrderedDict(), OrderedDict())  # interactive, background
        self._background_in = BACKGROUND_TURN
        self._interval_s = 1.0  # mean time between two that went
        self._last_next: float | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, ticket: Hashable) -> bool:
        return ticket in self._entries

    def offer(
        self, now: float, ticket: Hashable, deadline: float, client: str = "", background: bool = False
    ) -> Wait | Shed:
        """Queue a call until `deadline`, or say that there is no room for it.

        Raises:
            ValueError: the ticket is queued already.
        """
        if ticket in self._entries:
            raise ValueError(f"{ticket!r} waits already")
        line = self._lines[background]
        if len(self._entries) >= self.limit:
            return Shed(f"the queue is full ({self.limit} calls)", self.retry_after_s())
        if background and sum(map(len, line.values())) >= max(1.0, BACKGROUND_SHARE * self.limit):
            return Shed("the queue's share of background calls is full", self.retry_after_s())
        own = sum(len(one[client]) for one in self._lines if client in one)
        if own >= max(1.0, CLIENT_SHARE * self.limit) and len(self._entries) > own:
            return Shed(f"this client has {own} calls in the queue already", self.retry_after_s())
        self._entries[ticket] = _Waiting(client, background, now, deadline)
        line.setdefault(client, OrderedDict())[ticket] = None
        return Wait(f"every backend is full: position {self.position(ticket)} in the queue")

    def next(self, now: float) -> Hashable | None:
        """Take out whose turn it is, None where nobody waits. Those past their deadline are left for `expire`."""
        interactive, background = self._lines
        if self._background_in <= 1 and background:
            order = (background, interactive)
        else:
            order = (interactive, background)
        for line in order:
            ticket = self._take(line, now)
            if ticket is not None:
                if line is background:
                    self._background_in = BACKGROUND_TURN
                elif background:
                    self._background_in = max(1, self._background_in - 1)
                self._went(now)
                return ticket
        return None

    def _take(self, line: _Line, now: float) -> Hashable | None:
        for client, calls in line.items():
            for ticket in calls:
                if self._entries[ticket].deadline > now:
                    self._remove(ticket)
                    if client in line:
                        line.move_to_end(client)
                    return ticket
        return None

    def _remove(self, ticket: Hashable) -> _Waiting:
        entry = self._entries.pop(ticket)
        line = self._lines[entry.background]
        calls = line[entry.client]
        del calls[ticket]
        if not calls:
            del line[entry.client]
        return entry

    def _went(self, now: float) -> None:
        if self._last_next is not None:
            self._interval_s += 0.2 * (min(now - self._last_next, 60.0) - self._interval_s)
        self._last_next = now

    def leave(self, ticket: Hashable) -> bool:
        """Its client left, or it was tried elsewhere; says whether it was here."""
        if ticket not in self._entries:
            return False
        self._remove(ticket)
        return True

    def expire(self, now: float) -> list[Hashable]:
        """Take out everybody whose deadline has come, oldest first."""
        due = [ticket for ticket, entry in self._entries.items() if entry.deadline <= now]
        for ticket in due:
            self._remove(ticket)
        return due

    def position(self, ticket: Hashable) -> int:
        """How many go before it if nobody else comes, plus one; an estimate, since background has turns of its own."""
        entry = self._entries[ticket]
        line = self._lines[entry.background]
        place = list(line[entry.client]).index(ticket)
        before = sum(min(len(calls), place + 1) for client, calls in line.items() if client != entry.client)
        if entry.background:
            before += sum(map(len, self._lines[0].values()))
        return place + before + 1

    def oldest_wait_s(self, now: float) -> float:
        """How long the one that came first has waited, 0 where nobody waits."""
        return max((now - entry.since for entry in self._entries.values()), default=0.0)

    def retry_after_s(self) -> float:
        """When there will probably be room: the time in which those who wait now will have gone."""
        return min(LONGEST_RETRY_S, max(1.0, self._interval_s * len(self._entries)))


def admit(
    call: CallFacts, candidates: Sequence[Candidate], queued: int, queue_limit: int, retry_after_s: float = 1.0
) -> Admit | Wait | Shed:
    """Whether a call goes now, waits, or is shed. Caps (the configured limit and the knee) stand in the candidates.

    Who comes while others wait goes behind them. A call that nobody could take even when idle is admitted: the choice
    then says why it is refused.

    Args:
        call: the call; a background one yields the last free place of a pool to interactive calls.
        candidates: its pool.
        queued: how many wait for this model already.
        queue_limit: how many may.
        retry_after_s: the queue's own estimate, for whom there is no room.
    """
    able = [one for one in candidates if one.barred is None]
    if not able:
        return Admit()
    places = 0
    for one in able:
        if one.cap is None:
            places = 2
            break
        places += max(0, one.cap - one.in_flight)
    keeps_back = call.background and sum(one.cap or 0 for one in able) > 1
    if not queued and places > (1 if keeps_back else 0):
        return Admit()
    full = ", ".join(f"{one.name} {one.in_flight} of {one.cap}" for one in able if one.cap is not None)
    if queued >= queue_limit:
        return Shed(f"every backend is full ({full}) and {queued} calls wait", retry_after_s)
    return Wait(f"every backend is full: {full}" if full else f"{queued} calls wait already")
