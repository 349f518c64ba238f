"""Admission: the queue keeps every call exactly once, and starves nobody."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.policy.admit import Admit, Queue, Shed, admit
from router.policy.facts import CallFacts, Candidate, Speed, Wait

SPEED = Speed(0.1, 3000.0, 0.013, 0.005, 0.01, 0.1, 10.0)


def candidate(name: str, in_flight: int = 0, cap: int | None = None, barred: str | None = None) -> Candidate:
    return Candidate(name, ("host",), barred, in_flight, in_flight, 0.0, 0.0, 0, cap, SPEED)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["offer", "offer", "offer", "next", "leave", "expire"]),
        st.integers(0, 30),  # which ticket
        st.sampled_from(["ann", "bob", "eve"]),
        st.booleans(),  # background
        st.floats(0.0, 5.0),  # time that passes
    ),
    max_size=120,
)


@given(STEPS, st.integers(1, 12))
def test_the_queue_never_loses_or_duplicates_a_call(steps: list[tuple[Any, ...]], limit: int) -> None:
    queue, now = Queue(limit), 0.0
    inside: set[int] = set()
    for what, ticket, client, background, passed in steps:
        now += passed
        if what == "offer" and ticket not in inside:
            if isinstance(queue.offer(now, ticket, now + 10.0, client, background), Wait):
                inside.add(ticket)
        elif what == "next":
            given_out = queue.next(now)
            if given_out is not None:
                assert given_out in inside
                inside.discard(given_out)
        elif what == "leave":
            assert queue.leave(ticket) == (ticket in inside)
            inside.discard(ticket)
        elif what == "expire":
            due = queue.expire(now)
            assert inside.issuperset(due)
            assert len(set(due)) == len(due)
            inside.difference_update(due)
        assert len(queue) == len(inside) <= limit
        assert all(one in queue for one in inside)
        assert all(1 <= queue.position(one) <= len(queue) for one in inside)
    while (left := queue.next(now)) is not None:
        inside.remove(left)
    assert set(queue.expire(now)) == inside


@given(st.lists(st.sampled_from(["ann", "bob", "eve"]), min_size=1, max_size=40))
def test_clients_take_turns_and_each_ones_calls_keep_their_order(clients: list[str]) -> None:
    queue = Queue(1000)
    for number, client in enumerate(clients):
        queue.offer(0.0, (client, number), 100.0, client)
    out = [queue.next(1.0) for _ in clients]
    for client in set(clients):
        numbers = [one[1] for one in out if one and one[0] == client]
        assert numbers == sorted(numbers)
    waiting = Counter(clients)
    since: Counter[str] = Counter()
    for one in out:
        gone = one[0]
        for client in waiting:
            since[client] = 0 if client == gone or not waiting[client] else since[client] + 1
            assert since[client] < len(set(clients))  # nobody waits through more than one round
        waiting[gone] -= 1


def test_interactive_calls_go_before_background_ones() -> None:
    queue = Queue(10)
    queue.offer(0.0, "title", 60.0, background=True)
    queue.offer(1.0, "chat", 60.0)
    assert queue.position("chat") == 1
    assert queue.position("title") == 2
    assert [queue.next(2.0), queue.next(2.0), queue.next(2.0)] == ["chat", "title", None]


def test_background_calls_get_a_turn_under_endless_interactive_load() -> None:
    queue = Queue(10)
    queue.offer(0.0, "title", 1e9, background=True)
    for turn in range(20):
        queue.offer(0.0, turn, 1e9)
        if queue.next(0.0) == "title":
            assert turn < 10
            return
    raise AssertionError("the background call starved")


def test_a_call_past_its_deadline_is_never_given_out() -> None:
    queue = Queue(10)
    queue.offer(0.0, "late", 5.0)
    queue.offer(0.0, "in time", 50.0)
    assert queue.next(6.0) == "in time"
    assert queue.next(6.0) is None
    assert queue.expire(6.0) == ["late"]
    assert len(queue) == 0


def test_a_full_queue_sheds_with_the_time_in_which_it_will_have_room() -> None:
    queue = Queue(4)
    for ticket in range(4):
        queue.offer(0.0, ticket, 1e6, str(ticket))
    for turn in range(1, 40):  # one goes every 3 s
        queue.offer(3.0 * turn, 4 + turn, 1e6, str(turn))
        queue.next(3.0 * turn)
    shed = [one for one in (queue.offer(120.0, ("x", n), 1e6, f"x{n}") for n in range(8)) if isinstance(one, Shed)]
    assert shed
    assert shed[-1].retry_after_s == pytest.approx(3.0 * len(queue), rel=0.2)


def test_one_client_may_not_fill_the_queue_beside_others() -> None:
    queue = Queue(8)
    queue.offer(0.0, "bob's", 60.0, "bob")
    offers = [queue.offer(0.0, number, 60.0, "ann") for number in range(6)]
    assert [isinstance(one, Wait) for one in offers] == [True] * 4 + [False] * 2
    assert isinstance(queue.offer(0.0, "bob's second", 60.0, "bob"), Wait)


def test_the_same_ticket_twice_is_a_mistake() -> None:
    queue = Queue(8)
    queue.offer(0.0, 1, 60.0)
    with pytest.raises(ValueError, match="waits already"):
        queue.offer(0.0, 1, 60.0)


# --- admission ---


def test_a_call_is_admitted_where_a_place_is_free_and_nobody_waits() -> None:
    pool = [candidate("a", 4, 4), candidate("b", 3, 4)]
    assert admit(CallFacts("m"), pool, 0, 8) == Admit()
    assert isinstance(admit(CallFacts("m"), pool, 1, 8), Wait)


def test_a_background_call_leaves_the_last_place_to_those_who_are_watched() -> None:
    pool = [candidate("a", 4, 4), candidate("b", 3, 4)]
    assert isinstance(admit(CallFacts("m", background=True), pool, 0, 8), Wait)
    assert admit(CallFacts("m", background=True), [candidate("a", 0, 1)], 0, 8) == Admit()


def test_a_call_is_shed_when_pool_and_queue_are_full() -> None:
    pool = [candidate("a", 4, 4)]
    assert admit(CallFacts("m"), pool, 8, 8, 12.0) == Shed(
        "every backend is full (a 4 of 4) and 8 calls wait", retry_after_s=12.0
    )


def test_a_call_that_nobody_could_ever_take_is_left_to_the_choice() -> None:
    assert admit(CallFacts("m"), [candidate("a", barred="ejected")], 0, 8) == Admit()


def test_a_backend_without_a_cap_never_makes_anybody_wait() -> None:
    assert admit(CallFacts("m"), [candidate("a", 90)], 0, 8) == Admit()
