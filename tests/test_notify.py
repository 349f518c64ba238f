"""Which events reach the operator, how often, and in what shape."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from router.events import (
    BuildChanged,
    CallEnded,
    CanaryEnded,
    Event,
    HealthChanged,
    IntentChanged,
    KernelObserved,
    Notice,
    Outcome,
    QualityChanged,
    Reloaded,
)
from router.notify import Notifier, Sender, kind_of
from router.notify.core import MOST_WAITING

FLAG = QualityChanged("spark-1", "smol", "suspect", "flagged", "text 4 is 0.9 nats off")
CLEAR = QualityChanged("spark-1", "smol", "flagged", "good", "cleared by the operator")
MISMATCH = KernelObserved("spark-1", "flashinfer_cutlass", "marlin", False, "log")
DOWN = HealthChanged("spark-1", "healthy", "ejected", "refused 3 times")
NEW_BUILD = BuildChanged("spark-1", "old", "new", restarted_only=False)
GOOD = CanaryEnded("spark-1", "smol", "quick", "good", 0.01, 20, 30.0)

Answer = Callable[[httpx.Request], httpx.Response]


@dataclass
class Receiver:
    """What listens at the other end, in this process: keeps each request with the moment it came."""

    answers: list[httpx.Response | Exception] = field(default_factory=list)  # the next ones; then 200
    requests: list[httpx.Request] = field(default_factory=list)
    at: list[float] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.at.append(asyncio.get_running_loop().time())
        answer = self.answers.pop(0) if self.answers else httpx.Response(200)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def lines(self) -> list[list[str]]:
        return [json.loads(request.content)["lines"] for request in self.requests]


@dataclass
class Stage:
    """A notifier that runs, its receiver, and the fleet it may ask."""

    notifier: Notifier
    receiver: Receiver
    usable: dict[str, int]
    told: list[Notice]

    def see(self, *events: Event) -> None:
        for event in events:
            self.notifier.on_event(event)


@asynccontextmanager
async def stage(
    url: str = "https://example.org/hook/s3cret", *answers: httpx.Response | Exception
) -> AsyncIterator[Stage]:
    receiver, told, usable = Receiver(list(answers)), list[Notice](), {"smol": 2}
    async with httpx.AsyncClient(transport=httpx.MockTransport(receiver)) as client:
        clock = asyncio.get_running_loop().time

        async def compare(backend: str, old: str, new: str) -> str:
            if old == "unheard":
                raise KeyError(old)
            return f"+9 % decode against {old}"

        notifier = Notifier(Sender(url, client), clock, lambda: usable, compare=compare, tell=told.append)
        task = asyncio.create_task(notifier.run())
        await asyncio.sleep(0)
        try:
            yield Stage(notifier, receiver, usable, told)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_what_happens_within_a_moment_is_one_message() -> None:
    async with stage() as s:
        s.see(FLAG, MISMATCH)
        await asyncio.sleep(10)
        assert s.receiver.lines == [
            [
                "spark-1 is flagged for smol: text 4 is 0.9 nats off",
                "spark-1: declared flashinfer_cutlass, runs marlin",
            ]
        ]


async def test_the_same_thing_is_said_once_an_interval_with_its_last_word() -> None:
    async with stage() as s:
        s.see(FLAG)
        await asyncio.sleep(10)
        s.see(CLEAR, FLAG, CLEAR)
        await asyncio.sleep(30)
        assert len(s.receiver.requests) == 1
        await asyncio.sleep(60)
        assert s.receiver.lines[1] == [
            "spark-1 is no longer flagged for smol (good): cleared by the operator (changed 3 times)"
        ]
        assert s.receiver.at[1] - s.receiver.at[0] >= 60


async def test_a_mismatch_is_said_again_only_when_it_is_another_or_came_back() -> None:
    async with stage() as s:
        for _ in range(5):
            s.see(MISMATCH)
            await asyncio.sleep(100)
        assert len(s.receiver.requests) == 1
        s.see(KernelObserved("spark-1", "flashinfer_cutlass", "flashinfer_cutlass", True, "log"), MISMATCH)
        await asyncio.sleep(100)
        assert len(s.receiver.requests) == 2


async def test_the_last_backend_of_a_model_down_and_back_are_two_lines() -> None:
    async with stage() as s:
        s.usable["smol"] = 0
        s.see(DOWN)
        await asyncio.sleep(100)
        s.usable["smol"] = 1
        s.see(HealthChanged("spark-1", "ejected", "healthy", ""))
        await asyncio.sleep(100)
        assert s.receiver.lines == [
            ["no backend left for smol: spark-1 is ejected: refused 3 times"],
            ["smol is served again"],
        ]


async def test_a_blip_and_a_model_that_never_had_a_backend_are_no_news() -> None:
    async with stage() as s:
        s.usable["smol"] = 0
        s.see(DOWN)
        s.usable["smol"] = 1
        s.usable["gpt"] = 0
        s.see(IntentChanged("spark-2", "active", "draining", ""), Reloaded(2, True, removed=("spark-3",)))
        await asyncio.sleep(100)
        assert s.receiver.requests == []


async def test_a_new_build_is_announced_when_its_answers_proved_good() -> None:
    async with stage() as s:
        s.see(GOOD, BuildChanged("spark-1", "old", "old", restarted_only=True), GOOD)
        s.see(BuildChanged("spark-1", "old", "known better", restarted_only=False, completed=True), GOOD)
        await asyncio.sleep(10)
        assert s.receiver.requests == []
        s.see(NEW_BUILD, GOOD, GOOD)
        await asyncio.sleep(10)
        s.see(
            BuildChanged("spark-2", "unheard", "new", restarted_only=False),
            CanaryEnded("spark-2", "smol", "quick", "good", None, 3, 1.0),
        )
        await asyncio.sleep(10)
        assert s.receiver.lines == [
            ["spark-1: new build ready, answers good: +9 % decode against old"],
            ["spark-2: new build ready, answers good"],
        ]
        s.see(
            BuildChanged("spark-3", "old", "new", False), QualityChanged("spark-3", "smol", "unknown", "plausible", "")
        )
        await asyncio.sleep(10)
        assert s.receiver.lines[-1] == ["spark-3: new build ready, answers plausible: +9 % decode against old"]


async def test_alarms_are_passed_on_and_small_notices_and_calls_are_not() -> None:
    call = CallEnded(
        "r", 0.0, "/v1/models", "smol", "smol", False, Outcome.OK, 200, "", (), 0.1, 0.0, None, None, None, None, 0, 0
    )
    async with stage() as s:
        s.see(call, Notice("history", "fine again"), Notice("history", "disk\nfull", alarm=True))
        await asyncio.sleep(10)
        assert s.receiver.lines == [["history: disk full"]]


async def test_a_flood_of_subjects_is_bounded_and_counted() -> None:
    async with stage() as s:
        for n in range(MOST_WAITING + 7):
            s.see(QualityChanged(f"spark-{n}", "smol", "good", "flagged", ""))
        await asyncio.sleep(10)
        (lines,) = s.receiver.lines
        assert len(lines) == MOST_WAITING + 1
        assert lines[-1] == "and 7 more"


async def test_a_busy_receiver_is_tried_again_when_it_asked_for_it() -> None:
    busy = httpx.Response(429, headers={"retry-after": "7"})
    async with stage("https://example.org/hook", busy, httpx.ConnectError("refused"), httpx.Response(500)) as s:
        s.see(FLAG)
        await asyncio.sleep(60)
        waits = [later - sooner for sooner, later in zip(s.receiver.at, s.receiver.at[1:], strict=False)]
        assert waits == pytest.approx([7.0, 2.0, 4.0])
        assert s.told == []


async def test_a_receiver_that_stays_away_costs_the_message_not_the_next_one() -> None:
    async with stage("https://example.org/hook/s3cret", *[httpx.ReadTimeout("slow")] * 6) as s:
        s.see(FLAG)
        await asyncio.sleep(120)
        s.see(MISMATCH)
        await asyncio.sleep(10)
        assert len(s.receiver.requests) == 7
        assert s.told == [Notice("notify", "1 lines were not sent: example.org: ReadTimeout")]


async def test_a_refusal_is_not_repeated_and_tells_no_secret() -> None:
    async with stage("https://example.org/hook/s3cret", httpx.Response(403)) as s:
        s.see(FLAG)
        await asyncio.sleep(100)
        assert len(s.receiver.requests) == 1
        assert "403" in s.told[0].message
        assert "s3cret" not in s.told[0].message
        s.see(s.told[0], Notice("notify", "loud", alarm=True))
        await asyncio.sleep(100)
        assert len(s.receiver.requests) == 1


async def test_a_url_that_is_none_is_said_and_nothing_breaks() -> None:
    async with stage("not a url") as s:
        s.see(FLAG)
        await asyncio.sleep(100)
        assert len(s.told) == 1


async def test_ntfy_gets_plain_text_with_a_priority() -> None:
    async with stage("ntfy://ntfy.sh/my-spark") as s:
        s.see(FLAG)
        await asyncio.sleep(10)
        (request,) = s.receiver.requests
        assert str(request.url) == "https://ntfy.sh/my-spark"
        assert request.headers["priority"] == "high"
        assert request.content.decode() == "spark-1 is flagged for smol: text 4 is 0.9 nats off"


async def test_discord_gets_content_that_pings_nobody() -> None:
    async with stage("https://discord.com/api/webhooks/1/x") as s:
        s.see(QualityChanged("spark-1", "smol", "good", "flagged", "@everyone " + "x" * 5_000))
        await asyncio.sleep(10)
        body = json.loads(s.receiver.requests[0].content)
        assert body["allowed_mentions"] == {"parse": []}
        assert len(body["content"]) <= 2_000


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://ntfy.sh/topic", "ntfy"),
        ("https://ntfy.example.org/topic", "ntfy"),
        ("ntfy://push.example.org/topic", "ntfy"),
        ("https://discord.com/api/webhooks/1/x", "discord"),
        ("https://canary.discord.com/api/webhooks/1/x", "discord"),
        ("https://notdiscord.com/api/webhooks/1/x", "webhook"),
        ("http://127.0.0.1:9000/hook", "webhook"),
        ("", "webhook"),
    ],
)
def test_what_listens_is_told_by_the_url(url: str, kind: str) -> None:
    assert kind_of(url) == kind
