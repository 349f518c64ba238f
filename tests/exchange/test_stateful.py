"""Anything may happen between two steps of an answer, in any order, to many calls at once: a model watches.

Hypothesis plays the world: clients ask (one after the other, pipelined, streamed or not), read slowly and leave;
backends speak piece by piece, refuse, break, stall, die and come back; the operator drains and reloads; time passes.
The model knows of every call only what its answer would be, and that it ends once: whole, or visibly not. A failing run
is shrunk and printed as the steps to take. `FUZZ_EXAMPLES=2000` looks longer, and elsewhere each time.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import h11
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from router.config import FleetConfig
from router.events import CallEnded, Outcome
from router.policy.facts import Intent
from tests.conftest import tidy_runner
from tests.exchange.conftest import World
from tests.exchange.test_every_boundary import FAULTS, said, steps
from tests.fakes import MODEL, Answer, FakeCall
from tests.memory import MemoryTransport, connect
from tests.virtual_loop import VirtualLoop

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
NAMES = ("one", "two", "three")
LONGEST_S = 3 * 120 + 60  # three attempts that each stay silent for their first-byte timeout, and the queue
REFUSALS = {
    "a 500": (500, ""),
    "a 503": (503, ""),
    "a 429 for 5 s": (429, "retry-after: 5\r\n"),
    "a 400": (400, ""),
}
INDEX = st.integers(min_value=0, max_value=30)  # of whatever there is to choose from, modulo how many


def words(number: int) -> list[str]:
    """The answer to a call: no two calls have the same."""
    return [f"No. {number}", " quick", " brown", f" fox{number}"]


@dataclass
class Asked:
    """One call, as its client knows it."""

    number: int
    stream: bool
    answer: Answer
    parser: h11.Connection
    gone: bool = False  # the client has left: nobody judges what it saw

    @property
    def over(self) -> bool:
        return self.answer.complete or self.answer.broken is not None


class Caller(asyncio.Protocol):
    """A client that may send its next request before the last is answered; each answer has a parser of its own."""

    def __init__(self) -> None:
        self.transport = cast(MemoryTransport, None)
        self.asked: list[Asked] = []
        self.slow = False  # it has stopped reading at some time: it may be cut off for that

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(MemoryTransport, transport)

    def ask(self, number: int, stream: bool) -> Asked:
        parser = h11.Connection(h11.CLIENT)
        asked = Asked(number, stream, Answer(), parser)
        self.asked.append(asked)
        body = b'{"model":"%b","stream":%b,"messages":[{"role":"user","content":"%d"}]}' % (
            MODEL.encode(),
            b"true" if stream else b"false",
            number,
        )
        fields = [("host", "router"), ("content-type", "application/json"), ("content-length", str(len(body)))]
        request = h11.Request(
            method="POST", target="/v1/chat/completions", headers=[*fields, ("x-request-id", f"call-{number}")]
        )
        for event in (request, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(parser.send(event))
        return asked

    def data_received(self, data: bytes) -> None:
        for asked in self.asked:
            if asked.over:
                continue
            asked.parser.receive_data(data)
            read(asked)
            if not asked.answer.complete:
                return
            data = asked.parser.trailing_data[0]
            if not data:
                return
        assert not data, f"bytes that no call asked for: {data[:200]!r}"

    def connection_lost(self, exc: Exception | None) -> None:
        for asked in self.asked:
            if not asked.over:
                asked.answer.broken = str(exc or "closed")

    def leave(self, how: str) -> None:
        for asked in self.asked:
            asked.gone = asked.gone or not asked.over
        match how:
            case "closes":
                self.transport.close()
            case "resets":
                self.transport.abort()
            case "ends its side":
                self.transport.write_eof()


def read(asked: Asked) -> None:
    """Take what has come of an answer; framing mistakes raise."""
    answer = asked.answer
    while not answer.complete:
        event = asked.parser.next_event()
        if isinstance(event, h11.Response):
            assert not answer.status, f"two answers to call {asked.number}"
            answer.status = event.status_code
        elif isinstance(event, h11.Data):
            answer.body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            answer.complete = True
        else:
            return


@dataclass
class Speaking:
    """A backend's answer in progress: what it would say next, one step at a time."""

    call: FakeCall
    number: int
    left: list[Callable[[FakeCall], None]]
    begun: bool = False

    @property
    def live(self) -> bool:
        return bool(self.left) and not self.call.transport.is_closing() and not self.call.closed


def speaking(call: FakeCall) -> Speaking:
    """Work out what there is to say: all of the answer, or the rest of one that was begun elsewhere."""
    messages = call.json["messages"]
    number = int(messages[0]["content"])
    if not call.json["stream"]:
        return Speaking(call, number, [lambda call: call.chat("".join(words(number)))])
    had = messages[-1]["content"] if messages[-1]["role"] == "assistant" else ""
    whole = "".join(words(number))
    assert whole.startswith(had), f"asked to continue what was never said: {had!r}"
    return Speaking(call, number, steps([whole.removeprefix(had)] if had else words(number)))


@dataclass
class File:
    """A fleet file in memory."""

    config: FleetConfig

    def read(self) -> FleetConfig:
        return self.config


class Calls(RuleBasedStateMachine):
    """The world, the model of it, and what may happen next."""

    def __init__(self) -> None:
        super().__init__()
        self.exits = ExitStack()
        self.runner = self.exits.enter_context(tidy_runner(VirtualLoop, generation=1))
        self.world = World(self.runner.get_loop())
        self.callers: list[Caller] = []
        self.said: list[Speaking] = []
        self.next_number = 0
        self.broken_off: set[int] = set()  # calls that a backend did not answer to the end, once at least

    def play(self, work: Coroutine[Any, Any, None], for_s: float = 0.01) -> None:
        """Do something and let what follows from it happen."""

        async def both() -> None:
            await work
            await asyncio.sleep(for_s)

        self.runner.run(both())

    @property
    def asked(self) -> list[Asked]:
        return [asked for caller in self.callers for asked in caller.asked]

    @property
    def live(self) -> list[Speaking]:
        return [one for one in self.said if one.live]

    @property
    def reachable(self) -> list[Caller]:
        return [one for one in self.callers if not one.transport.is_closing() and not any(a.gone for a in one.asked)]

    @initialize(
        count=st.integers(min_value=1, max_value=3),
        policy=st.sampled_from(["predictive", "least-in-flight"]),
        seed=INDEX,
    )
    def begin(self, count: int, policy: str, seed: int) -> None:
        for name in NAMES[:count]:
            self.world.backend(name).script = lambda call: self.said.append(speaking(call))
        self.file = File(
            self.world.config(
                routing={"policy": policy},
                retry={"share": 1.0, "burst": 100},
                health={"interval_s": 20, "ejection_s": 5, "ejection_max_s": 20},
                timeouts={"first_byte_s": 120, "inter_chunk_s": 20, "queue_s": 15, "drain_s": 10, "slow_reader_s": 30},
            )
        )
        self.all_backends = self.file.config.backends
        self.play(self._begin(random.Random(seed)))

    async def _begin(self, dice: random.Random) -> None:
        await self.world.start(self.file.config, dice.random)
        self.world.app.reloads_from(Path("fleet.yaml"), self.file.read, watch=False)

    # --- clients ---

    @rule(stream=st.booleans(), count=st.integers(min_value=1, max_value=3))
    def ask(self, stream: bool, count: int) -> None:
        """A new client; more than one request goes out without waiting for an answer."""
        self.play(self._ask(Caller(), stream, count))

    @precondition(lambda self: self.reachable)
    @rule(which=INDEX, stream=st.booleans())
    def ask_again(self, which: int, stream: bool) -> None:
        """The same connection again, whether or not its last answer is through."""
        self.play(self._ask(self.reachable[which % len(self.reachable)], stream, 1))

    async def _ask(self, caller: Caller, stream: bool, count: int) -> None:
        if caller not in self.callers:
            self.callers.append(caller)
            connect(self.world.loop, caller, self.world.app.server.protocol(), ("10.9.9.9", 5))
        for _ in range(count):
            caller.ask(self.next_number, stream)
            self.next_number += 1

    @precondition(lambda self: self.reachable)
    @rule(which=INDEX, how=st.sampled_from(["closes", "resets", "ends its side"]))
    def leave(self, which: int, how: str) -> None:
        async def go() -> None:
            self.reachable[which % len(self.reachable)].leave(how)

        self.play(go())

    @precondition(lambda self: self.reachable)
    @rule(which=INDEX, reads=st.booleans())
    def read_or_not(self, which: int, reads: bool) -> None:
        async def do() -> None:
            caller = self.reachable[which % len(self.reachable)]
            caller.slow = caller.slow or not reads
            caller.transport.resume_reading() if reads else caller.transport.pause_reading()

        self.play(do())

    # --- backends ---

    @precondition(lambda self: self.live)
    @rule(which=INDEX, count=st.integers(min_value=1, max_value=12), at_once=st.booleans())
    def speak(self, which: int, count: int, at_once: bool) -> None:
        async def go_on(one: Speaking) -> None:
            one.begun = True
            for _ in range(min(count, len(one.left))):
                if one.live:
                    one.left.pop(0)(one.call)
                    await asyncio.sleep(0 if at_once else 0.01)

        self.play(go_on(self.live[which % len(self.live)]))

    @precondition(lambda self: self.live)
    @rule(which=INDEX, fault=st.sampled_from(sorted(FAULTS)), then_close=st.booleans())
    def break_off(self, which: int, fault: str, then_close: bool) -> None:
        async def go_wrong(one: Speaking) -> None:
            one.left, one.begun = [], True
            self.broken_off.add(one.number)
            FAULTS[fault](one.call)
            await asyncio.sleep(0.01)
            if then_close and not one.call.closed:
                one.call.close()

        self.play(go_wrong(self.live[which % len(self.live)]))

    @precondition(lambda self: any(not one.begun for one in self.live))
    @rule(which=INDEX, refusal=st.sampled_from(sorted(REFUSALS)))
    def refuse(self, which: int, refusal: str) -> None:
        status, more = REFUSALS[refusal]

        async def say_no(one: Speaking) -> None:
            one.left = []
            error = {"message": f"no. {refusal}", "type": "Error", "param": None, "code": status}
            one.call.answer(status, {"error": error}, more)

        fresh = [one for one in self.live if not one.begun]
        self.play(say_no(fresh[which % len(fresh)]))

    @rule(which=INDEX, comes=st.booleans())
    def a_machine_goes_or_comes(self, which: int, comes: bool) -> None:
        backend = list(self.world.backends.values())[which % len(self.world.backends)]

        async def change() -> None:
            backend.up() if comes else backend.down()

        self.play(change())

    # --- the operator, and time ---

    @rule(which=INDEX, intent=st.sampled_from(Intent))
    def decide(self, which: int, intent: Intent) -> None:
        async def order() -> None:
            names = list(self.world.app.fleet.backends)
            self.world.app.fleet.set_intent(names[which % len(names)], intent, "for a test")

        self.play(order())

    @rule(without=st.sets(st.sampled_from(NAMES), max_size=2), slower=st.booleans())
    def reload(self, without: set[str], slower: bool) -> None:
        """Another fleet file: backends go and come, and those that stay may have another limit."""
        kept = [one for one in self.all_backends if one.name not in without] or list(self.all_backends[:1])
        limit = {"max_in_flight": 2} if slower else {}
        backends = tuple(one.model_copy(update=limit) for one in kept)
        self.file.config = self.file.config.model_copy(update={"backends": backends})

        async def apply() -> None:
            result = await self.world.app.reloader.reload(force=True)  # type: ignore[union-attr]
            assert result.applied, result.reason

        self.play(apply())

    @rule(seconds=st.sampled_from([0.3, 2.0, 11.0, 25.0, 130.0]))
    def time_passes(self, seconds: float) -> None:
        self.play(asyncio.sleep(seconds))

    # --- the model ---

    @invariant()
    def no_client_sees_what_is_not_its_answer(self) -> None:
        for asked in self.asked:
            answer, whole = asked.answer, "".join(words(asked.number))
            if answer.status != 200 or asked.gone:
                continue
            if asked.stream:
                assert whole.startswith(said(answer)), asked
                assert answer.body.count(b"[DONE]") <= 1, asked
            elif answer.complete:
                assert answer.json["choices"][0]["message"]["content"] == whole, asked

    @invariant()
    def no_call_is_at_work_twice(self) -> None:
        at_work = Counter(one.number for one in self.live)
        assert all(count == 1 for count in at_work.values()), at_work

    @invariant()
    def every_call_that_ended_ended_once(self) -> None:
        ended = Counter(event.request_id for event in self.world.of(CallEnded))
        assert all(count == 1 for count in ended.values()), ended

    @invariant()
    def what_is_lent_belongs_to_an_open_call(self) -> None:
        if self.world.app is None:
            return
        fleet, front = self.world.app.fleet, self.world.app.front
        lent = sum(backend.in_flight for backend in {*fleet.backends.values(), *fleet.leaving})
        assert 0 <= lent <= len(front.open)
        for backend in fleet.backends.values():
            assert 0 <= backend.decoding.value <= backend.in_flight
            assert sum(serving.in_flight for serving in backend.serving.values()) <= backend.in_flight

    def teardown(self) -> None:
        """Let everything come to its end, and look at what is left."""
        with self.exits:
            if self.world.app is None:
                return
            try:
                self.runner.run(self._come_to_rest())
                self._judge()
            finally:
                self.runner.run(self.world.stop())

    async def _come_to_rest(self) -> None:
        app, loop = self.world.app, self.world.loop
        for caller in self.callers:
            caller.transport.resume_reading()
        deadline = loop.time() + LONGEST_S * (len(self.asked) + 1)  # pipelined calls wait for each other
        while app.front.open:
            assert loop.time() < deadline, f"calls that never end: {app.front.open}"
            await asyncio.sleep(5.0)
            for one in self.live:  # those that broke off stay silent: only a timeout ends them
                while one.left:
                    one.left.pop(0)(one.call)
        await asyncio.sleep(10.0)  # kept connections expire, drained backends go
        assert all(one.open_connections == 0 for one in self.world.backends.values())
        for caller in self.callers:
            caller.transport.close()
        await asyncio.sleep(0.1)
        assert app.server.connections == set()
        assert app.fleet.leaving == set()
        assert app.front.dispatch.queued() == 0
        self.world.assert_idle()

    def _judge(self) -> None:
        ended = {event.request_id: event for event in self.world.of(CallEnded)}
        for caller in self.callers:
            cut = caller.slow  # or an answer here broke: what was asked behind it is visibly not answered
            for asked in caller.asked:
                event = ended.get(f"call-{asked.number}")
                if not asked.gone:
                    self._judge_one(asked, event, cut)
                cut = cut or asked.gone or asked.answer.broken is not None

    def _judge_one(self, asked: Asked, event: CallEnded | None, cut: bool) -> None:
        answer, whole = asked.answer, "".join(words(asked.number))
        assert asked.over, f"call {asked.number} never ended"
        if not answer.status:
            assert cut, f"call {asked.number} got nothing, not even a refusal"
            return
        assert event is not None, f"call {asked.number} was answered and never recorded"
        if answer.status == 200 and answer.complete:
            assert event.outcome is Outcome.OK
            if asked.stream:
                finishes = [c for e in answer.events if isinstance(e, dict) for c in e["choices"] if c["finish_reason"]]
                assert (answer.text, len(finishes)) == (whole, 1)
                assert answer.events[-1] == "[DONE]" or asked.number in self.broken_off
        elif answer.status == 200:
            assert event.outcome in (Outcome.BROKEN, Outcome.CLIENT_LEFT), event.outcome
        else:
            assert event.outcome not in (Outcome.OK, Outcome.BROKEN)
            assert event.status == answer.status
            assert set(answer.json["error"]) >= {"message", "type", "code"}


def test_whatever_happens_every_call_ends_once_and_everything_is_given_back() -> None:
    run_state_machine_as_test(
        Calls,
        settings=settings(
            max_examples=EXAMPLES or 60,
            stateful_step_count=40,
            deadline=None,
            derandomize=not EXAMPLES,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        ),
    )
