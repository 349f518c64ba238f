"""One call from first byte to last: admit, choose, send, commit, relay, record.

One coroutine per call decides and waits; the bytes flow below it by callback (`wire/relay.py`). What an attempt takes
hangs on one lease and one relay, given back however the block ends. Until the commit another backend may still answer;
after it the answer is continued elsewhere as another attempt with a resume point, or fails visibly.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from router import headers
from router.backend import Backend
from router.continuation import Emitted, Spliced
from router.errors import BackendFault, FailureKind, NoBackend, Phase, RouterError, settled
from router.events import Attempt, AttemptFailed, CallEnded, Outcome
from router.openai import errors as shapes
from router.openai.answer import read_answer
from router.openai.call import Call, read_call
from router.openai.errors import ErrorKind
from router.openai.routes import Route, RouteKind
from router.openai.stream import EventStream
from router.openai.usage import Usage
from router.policy import retry
from router.policy.facts import CallFacts, Choice
from router.policy.health import Evidence
from router.policy.retry import Remedy
from router.wire.head import ResponseHead, header_lines
from router.wire.relay import COMMITTED, ENDED, FAILED, WAITING, Observer, Relay
from router.wire.server import ClientConnection, Request

if TYPE_CHECKING:
    from router.front import Front

log = logging.getLogger(__name__)


class Answered(Exception):
    """A backend's own refusal, whole: passed on unchanged where nobody else can do better."""

    def __init__(self, fault: BackendFault, said: ErrorKind, head: ResponseHead, body: bytes) -> None:
        super().__init__(fault.message)
        self.fault = fault
        self.said = said
        self.head = head
        self.body = body


class Exchange:
    """One call. `front` holds what all calls share."""

    __slots__ = (
        "_clock",
        "answered",
        "attempts",
        "call",
        "client",
        "code",
        "commented_at",
        "emitted",
        "facts",
        "finish_reasons",
        "front",
        "last_fault",
        "model",
        "outcome",
        "predicted",
        "queued_s",
        "relay",
        "request",
        "request_id",
        "resumed_at",
        "route",
        "session",
        "started_at",
        "status",
        "stopped",
        "stream",
        "task",
        "tried",
        "ttft_s",
        "usage",
    )

    def __init__(self, front: Front, client: ClientConnection, request: Request, route: Route, request_id: str) -> None:
        self.front = front
        self._clock = front.clock
        self.client = client
        self.request = request
        self.route = route
        self.request_id = request_id
        self.started_at = request.received_at
        self.task: asyncio.Task[None] | None = None
        self.call: Call | None = None
        self.model = ""
        self.facts: CallFacts | None = None
        self.session: str | None = None
        self.relay: Relay | None = None
        self.stream: EventStream | None = None  # of the attempt in progress, or the last one
        self.emitted: Emitted | None = None  # what the client has of an answer that may have to be continued
        self.resumed_at: int | None = None  # characters with the client when the attempt in progress took over
        self.attempts: list[Attempt] = []
        self.tried: set[str] = set()
        self.last_fault: BackendFault | None = None
        self.answered: Answered | None = None
        self.outcome = Outcome.CLIENT_LEFT
        self.status = 499
        self.code = ""
        self.queued_s = 0.0
        self.ttft_s: float | None = None
        self.usage: Usage | None = None
        self.finish_reasons: tuple[str, ...] = ()
        self.predicted: Choice | None = None
        self.commented_at: float | None = None
        self.stopped: RouterError | None = None  # why the router itself ends this call

    # --- the straight line ---

    async def run(self) -> None:
        """Answer the call. Never raises; ends with exactly one `CallEnded`."""
        try:
            if not self.client.left:
                await self._answer()
        except RouterError as fault:
            self._refuse(fault)
        except asyncio.CancelledError:
            if self.stopped is not None:
                self._refuse(self.stopped)
        except Exception:
            log.exception("call %s failed inside the router", self.request_id)
            self._refuse(RouterError("the router itself failed on this call; its log says why"))
        finally:
            self._ended()

    async def _answer(self) -> None:
        front = self.front
        call = self.call = read_call(self.route, self.request.body, self.request.head.get(b"content-type"))
        self.session = headers.session(self.request.head) or call.session
        self.model, self.facts = front.facts_of(self, call)
        front.fleet.budget.call()
        while True:
            try:
                choice = await front.dispatch.choose(self, self.facts)
            except NoBackend as nobody:
                # Nobody is left: what the last attempt met says more than that.
                self._give_up(self.last_fault or nobody)
                return
            self.predicted = choice
            backend = front.fleet.backends[choice.name]
            try:
                await self._attempt(call, backend, choice)
                self.outcome = Outcome.OK
                return
            except Answered as answered:
                fault, said = answered.fault, answered.said
                if self.answered is None or self.answered.fault.kind is not FailureKind.CANNOT:
                    self.answered = answered
            except BackendFault as caught:
                fault, said = caught, None
            settled(fault)
            if self.answered is not None:
                settled(self.answered)
            if not self._goes_on(call, backend, fault, said):
                self._give_up(fault)
                return

    async def _attempt(self, call: Call, backend: Backend, choice: Choice) -> None:
        """One try on one backend: send, wait for what may be committed, commit, relay to the end.

        Raises:
            BackendFault: it failed; `phase` says how far it had come.
            Answered: it refused the call itself.
        """
        front, facts = self.front, self.facts
        assert facts is not None
        limits = front.fleet.config.limits
        lease = front.fleet.lease(backend.name, facts)
        relay = self.relay = Relay(
            self.client, front.loop, lambda head: self._observe(head, backend), limits.held_answer_bytes
        )
        relay.on_content = lease.first_content
        lease.abort = relay.fail
        failure: BackendFault | None = None
        try:
            await self._ask(backend, relay, front.body_for(self, call, backend))
            self._judge(backend, relay)
            if not self._commit(backend, relay):
                while relay.mode is COMMITTED:
                    await relay.wait()
                if relay.mode is FAILED:
                    self._end_whole_or_raise(backend, relay)
                self.client.finish()
            self._take_answer(backend, relay)
        except BackendFault as fault:
            failure = fault
            raise
        except Answered as answered:
            failure = answered.fault
            raise
        finally:
            relay.drop()
            lease.end()
            self.relay = None
            self._attempted(backend, choice, relay, failure)
            front.sampled(self, lease, relay, failure)

    async def _ask(self, backend: Backend, relay: Relay, body: bytes) -> None:
        """Send, and wait until something may be committed.

        A kept connection that turns out to be stale is replaced once, free of charge: the backend closed it while
        our request was on its way, and nobody is at fault.
        """
        pool = backend.pool
        head = headers.to_backend(
            self.request.head,
            backend.config,
            pool.address.authority,
            len(body) if body or self.route.body != "none" else None,
            self.request_id,
            keys_are_ours=self.front.keys_are_ours,
        )
        connection = pool.take()
        may_be_stale = connection is not None
        while True:
            if connection is None:
                connection = await pool.connect()
            relay.begin(connection)
            connection.send(head, body, relay)
            while relay.mode is WAITING:
                await relay.wait()
            stale = may_be_stale and relay.failed_with(FailureKind.RESET) and not connection.answered
            if not stale:
                break
            connection, may_be_stale = None, False
        if relay.mode is FAILED:
            raise self._fault(backend, relay, Phase.SENT if relay.head is None else Phase.HEAD)

    def _observe(self, head: ResponseHead, backend: Backend) -> Observer | None:
        """An observer for an event stream, None for any other body."""
        streams = self.route.streams
        kind = head.get(b"content-type") or b""
        if head.status != 200 or streams is None or self.call is None or not kind.startswith(b"text/event-stream"):
            return None
        observer = self.front.observer(self, streams, backend)
        self.stream = observer.stream if isinstance(observer, Spliced) else observer
        return observer

    def _judge(self, backend: Backend, relay: Relay) -> None:
        """Whether what is held is an answer; a backend's own refusal is sorted by whose fault it is."""
        head = relay.head
        assert head is not None
        if head.status < 300:
            if relay.observer is None:
                self._judge_body(backend, relay, head)
            return
        body = relay.body()
        said = shapes.classify_backend_error(head.status, body)
        kind = _KINDS.get(said, FailureKind.CANNOT)
        if kind is FailureKind.AUTH and self.front.key_is_clients(self.request.head, backend):
            kind = FailureKind.CLIENT
        if kind is FailureKind.CLIENT and self.resumed_at:
            kind = FailureKind.CANNOT  # the call itself was good enough for the first backend: it is the continuation
        message = shapes.error_message(body)
        fault = BackendFault(
            f"{backend.name} answered {head.status}: {message}"
            if message
            else f"{backend.name} answered {head.status}",
            backend=backend.name,
            kind=kind,
            phase=Phase.HEAD,
            backend_status=head.status,
            retry_after_s=headers.retry_after_s(head),
        )
        raise Answered(fault, said, head, body)

    def _judge_body(self, backend: Backend, relay: Relay, head: ResponseHead) -> None:
        """A body that is no stream: half a JSON document, or one in place of a stream already begun, is no answer."""
        problem = None
        if self.client.head_sent:
            problem = "sent no event stream, though one was asked for"
        elif relay.whole and (head.get(b"content-type") or b"").startswith(b"application/json"):
            try:
                answer = read_answer(relay.body())
            except ValueError:
                problem = "sent a body that is not JSON, though it says so"
            else:
                self._said(backend, answer.usage, answer.finish_reasons, answer.response_id, answer.fingerprint)
                if self.front.on_answer is not None:
                    self.front.on_answer(self, backend, relay.body())
        if problem is not None:
            raise BackendFault(
                f"{backend.name} {problem}", backend=backend.name, kind=FailureKind.GARBAGE, phase=Phase.HEAD
            )

    def _commit(self, backend: Backend, relay: Relay) -> bool:
        """From here on the client has bytes of this answer. True where that is all of it."""
        head, client = relay.head, self.client
        assert head is not None
        if not client.head_sent:
            self.status = head.status
            answer = headers.from_backend(
                head, self.request_id, backend.name, backend.kernel, len(self.attempts) + 1
            ) + header_lines(self.front.cors(self.request.head))
            if relay.whole and relay.observer is None:
                relay.mode = ENDED
                self._first_content(self._clock())
                client.respond(head.status, answer, relay.body())
                return True
            client.start(head.status, answer)
        self.front.keep_for_continuation(self, relay)
        relay.commit()
        return False

    def _end_whole_or_raise(self, backend: Backend, relay: Relay) -> None:
        """A stream that broke after its terminal events is an answer all the same: the client has every word of it.

        Raises:
            BackendFault: something that the client waits for is missing.
        """
        fault = self._fault(backend, relay, Phase.COMMITTED)
        stream, call = self.stream, self.call
        whole = stream is not None and stream.finished and fault.kind is not FailureKind.ERROR_EVENT
        if not whole or stream is None or call is None or (call.include_usage and stream.usage is None):
            raise fault
        self.front.fleet.observe(backend, Evidence.CALL_FAILED, fault.message)
        if call.table is not None and call.table.has_done and not stream.done:
            self.client.write(b"data: [DONE]\n\n")

    def _take_answer(self, backend: Backend, relay: Relay) -> None:
        """Remember what a whole stream said of itself."""
        stream = self.stream if relay.observer is not None else None
        if stream is not None:
            reasons = tuple(stream.finish_reasons)
            self._said(backend, stream.usage, reasons, stream.response_id, stream.fingerprint)

    def _said(
        self,
        backend: Backend,
        usage: Usage | None,
        finish_reasons: tuple[str, ...],
        response_id: str | None,
        fingerprint: str | None,
    ) -> None:
        self.usage, self.finish_reasons = usage, finish_reasons
        if response_id is not None and self.route.kind is RouteKind.RESPONSES:
            self.front.remember_response(response_id, backend.name)
        if fingerprint is not None:
            self.front.fingerprint_seen(backend, fingerprint)

    # --- failures ---

    def _fault(self, backend: Backend, relay: Relay, phase: Phase) -> BackendFault:
        kind, detail = relay.failure or (FailureKind.RESET, "failed")
        return BackendFault(
            f"{backend.name} {detail}",
            backend=backend.name,
            kind=kind,
            phase=phase,
            status=retry.verdict(kind, phase).status,
        )

    def _goes_on(self, call: Call, backend: Backend, fault: BackendFault, said: ErrorKind | None) -> bool:
        """Learn from a failed attempt; whether another one follows."""
        front = self.front
        self.last_fault = fault
        self.tried.add(backend.name)
        front.learn(self, call, backend, fault, said)
        unresumable = front.unresumable(self) if fault.phase is Phase.COMMITTED else None
        step = retry.after(
            fault.kind,
            fault.phase,
            attempts=len(self.attempts),
            max_attempts=front.fleet.config.retry.max_attempts,
            others=front.others_could(self),
            unresumable=unresumable,
            budget=front.fleet.budget,
            now=self._clock(),
        )
        goes_on = step.remedy in (Remedy.ELSEWHERE, Remedy.CONTINUE)
        if step.remedy is Remedy.CONTINUE and self.emitted is not None:
            self.resumed_at = self.emitted.characters
        verdict = retry.verdict(fault.kind, fault.phase)
        if verdict.counts:
            evidence = Evidence.REFUSED if fault.kind is FailureKind.REFUSED else Evidence.CALL_FAILED
            front.fleet.observe(backend, evidence, fault.message)
        front.bus.emit(
            AttemptFailed(
                self.request_id,
                backend.name,
                front.fleet.label(self.model),
                fault.kind,
                fault.phase,
                verdict.counts,
                goes_on,
                fault.message if goes_on else f"{fault.message} ({step.reason})",
            )
        )
        return goes_on

    def _give_up(self, fault: RouterError) -> None:
        """Nothing more is tried: the backend's own refusal where there is one, else ours."""
        answered = self.answered
        if answered is None or self.client.head_sent or retry.verdict(answered.fault.kind, Phase.HEAD).status:
            self._refuse(fault)
            return
        self.status, self.code = answered.head.status, answered.fault.kind.value
        self.outcome = Outcome.CLIENT_ERROR if self.status < 500 and self.status != 429 else Outcome.FAILED
        backend = self.front.fleet.backends.get(answered.fault.backend)
        if not self.client.left:
            self.client.respond(
                self.status,
                headers.from_backend(
                    answered.head,
                    self.request_id,
                    answered.fault.backend,
                    backend.kernel if backend else "unknown",
                    len(self.attempts),
                )
                + header_lines(self.front.cors(self.request.head)),
                answered.body,
            )

    def _refuse(self, fault: RouterError) -> None:
        """Tell the client what went wrong, in the shape and at the place that its route has for that."""
        self.code = fault.code
        if self.client.left:
            return
        if self.client.head_sent:
            self.outcome = Outcome.BROKEN
            self.client.write(shapes.error_event(self.route, fault))
            self.client.abort()
            return
        self.status = fault.status
        self.outcome = _OUTCOMES.get(fault.type, Outcome.FAILED)
        self.front.respond_fault(self.client, self.request, self.route, fault, self.request_id)

    # --- around it ---

    def leave(self) -> None:
        """The client hung up: stop at once, whatever this call waits for."""
        if self.task is not None:
            self.task.cancel()

    def stop(self, why: RouterError) -> None:
        """The router ends this call visibly: it shuts down."""
        self.stopped = why
        if self.task is not None:
            self.task.cancel()

    def sweep(self, now: float) -> None:
        """Look at the call's deadlines. Called a few times a second for every open call: no call owns a timer."""
        timeouts = self.front.fleet.config.timeouts
        relay = self.relay
        if relay is not None and relay.connection is not None and not self.client.paused:
            silent = now - relay.last_at
            if relay.content_at is None and silent > timeouts.first_byte_s:
                relay.fail(FailureKind.FIRST_BYTE_TIMEOUT, f"sent no token within {timeouts.first_byte_s:g} s")
            elif relay.content_at is not None and silent > timeouts.inter_chunk_s:
                relay.fail(FailureKind.INTER_CHUNK_TIMEOUT, f"sent nothing for {timeouts.inter_chunk_s:g} s")
        if self.call is not None and self.call.stream and (relay is None or relay.mode is WAITING):
            self._comment(now, timeouts.waiting_comment_s)

    def _comment(self, now: float, every_s: float) -> None:
        """A streaming client that waits long gets its head and comments, so that nothing in between hangs up."""
        last = self.commented_at
        if self.client.left or self.route.streams is None or now - (last or self.started_at) < every_s:
            return
        if last is None:
            if self.client.head_sent:
                return  # an answer has begun: its own silence is the sweep's business
            self.status = 200
            self.client.start(
                200,
                [
                    headers.EVENT_STREAM,
                    headers.NO_BUFFER,
                    headers.NO_CACHE,
                    *headers.about(self.request_id),
                    *self.front.cors(self.request.head),
                ],
            )
        self.commented_at = now
        self.client.write(b": waiting\n\n")

    def _first_content(self, at: float) -> None:
        if self.ttft_s is None:
            self.ttft_s = at - self.started_at

    def _attempted(self, backend: Backend, choice: Choice, relay: Relay, failure: BackendFault | None) -> None:
        now = self._clock()
        if relay.content_at is not None:
            self._first_content(relay.content_at)
        self.attempts.append(
            Attempt(
                backend.name,
                backend.kernel,
                choice.reason,
                now - relay.sent_at,
                relay.content_at - relay.sent_at if relay.content_at is not None else None,
                failure.kind if failure else None,
                failure.phase if failure else None,
                failure.message if failure else "",
                self.resumed_at,
            )
        )

    def _ended(self) -> None:
        front, usage, call = self.front, self.usage, self.call
        predicted, facts = self.predicted, self.facts
        front.ended(
            self,
            CallEnded(
                request_id=self.request_id,
                at=front.wall() - (self._clock() - self.started_at),
                route=self.route.name,
                model=front.fleet.label(self.model) if self.model else "",
                asked=(call.model or "") if call is not None else "",
                stream=call is not None and call.stream,
                outcome=self.outcome,
                status=self.status,
                code=self.code,
                attempts=tuple(self.attempts),
                duration_s=self._clock() - self.started_at,
                queued_s=self.queued_s,
                ttft_s=self.ttft_s,
                prompt_tokens=usage.prompt_tokens if usage is not None else None,
                completion_tokens=usage.completion_tokens if usage is not None else None,
                cached_tokens=usage.cached_tokens if usage is not None else None,
                bytes_in=len(self.request.body),
                bytes_out=self.client.bytes_out,
                finish_reasons=self.finish_reasons,
                session=self.session is not None,
                background=facts is not None and facts.background,
                predicted_ttft_s=predicted.ttft_s if predicted is not None else None,
                predicted_end_s=predicted.end_s if predicted is not None else None,
                client=self.client.address,
            ),
        )


_KINDS = {
    ErrorKind.UNKNOWN_MODEL: FailureKind.UNKNOWN_MODEL,
    ErrorKind.BUSY: FailureKind.BUSY,
    ErrorKind.AUTH: FailureKind.AUTH,
    ErrorKind.CLIENT: FailureKind.CLIENT,
    ErrorKind.SERVER: FailureKind.SERVER_ERROR,
}
_OUTCOMES = {"invalid_request_error": Outcome.CLIENT_ERROR, "overloaded_error": Outcome.SHED}
