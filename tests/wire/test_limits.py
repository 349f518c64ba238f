"""Everything bounded: heads, bodies, time, connections; and every refused path gives back what it took."""

from dataclasses import fields

import pytest

from router.app import server_limits
from router.config import FleetConfig, Timeouts
from router.wire.server import ServerLimits
from tests.wire.talk import Stage, statuses

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: h\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

TOO_LARGE_HEADS = {
    "a long target": b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
    "a long value": b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 3000 + b"\r\n\r\n",
    "a long name": b"GET / HTTP/1.1\r\nHost: h\r\n" + b"a" * 3000 + b": b\r\n\r\n",
    "a value of spaces": b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b" " * 3000,
    "many small headers": b"GET / HTTP/1.1\r\nHost: h\r\n" + b"a: b\r\n" * 60 + b"\r\n",
    "empty lines without end": b"\r\n" * 1500,
}


@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
@pytest.mark.parametrize("name", TOO_LARGE_HEADS)
async def test_a_head_has_a_limit_in_bytes_and_fields(name: str, bytewise: bool) -> None:
    stage = Stage(header_bytes=2000, header_count=50)
    raw = await stage.says(TOO_LARGE_HEADS[name], bytewise=bytewise)
    assert statuses(raw.got) == [431]
    assert stage.handler.requests == []
    await stage.over(raw)


@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
async def test_a_head_just_within_its_limit_passes(bytewise: bool) -> None:
    stage = Stage(header_bytes=2000)
    fill = 2000 - len(GET) - len(b"X: \r\n")
    raw = await stage.says(b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * fill + b"\r\n\r\n", bytewise=bytewise)
    assert statuses(raw.got) == [200]
    await stage.over(raw)


@pytest.mark.parametrize(
    "data",
    [CHUNKED + b"1;" + b"x" * 3000, CHUNKED + b"1\r\na\r\n0\r\nX: " + b"x" * 3000],
    ids=["a chunk extension", "a trailer"],
)
async def test_what_is_dropped_of_a_chunked_body_has_a_limit_too(data: bytes) -> None:
    stage = Stage(header_bytes=2000)
    raw = await stage.says(data, bytewise=True)
    assert statuses(raw.got) == [431]
    await stage.over(raw)


@pytest.mark.parametrize(
    "data",
    [POST + b"Content-Length: 11\r\n\r\n", CHUNKED + b"6\r\nabcdef\r\n6\r\nabcdef\r\n"],
    ids=["said", "chunked"],
)
async def test_a_body_has_a_limit(data: bytes) -> None:
    stage = Stage(body_bytes=10)
    raw = await stage.says(data)
    assert statuses(raw.got) == [413]
    await stage.over(raw)


@pytest.mark.parametrize("linger_s", [2, 10])
async def test_a_refused_upload_lingers_as_long_as_it_may(linger_s: int) -> None:
    stage = Stage(body_bytes=10, linger_s=linger_s)
    raw = stage.client()
    raw.stays = True
    raw.say(POST + b"Content-Length: 1000\r\n\r\n")
    await stage.sweeps(linger_s - 1)
    assert statuses(raw.got) == [413]
    assert stage.server.connections
    await stage.sweeps(3)
    await stage.over()
    assert raw.closed


async def test_all_bodies_together_have_a_limit_and_what_is_refused_is_given_back() -> None:
    stage = Stage(bodies_total_bytes=10)
    stage.handler.hold = True
    first = await stage.says(POST + b"Content-Length: 8\r\n\r\n12345678")
    second = await stage.says(POST + b"Content-Length: 4\r\n\r\nab")
    assert stage.server.body_bytes == 10
    third = await stage.says(POST + b"Content-Length: 4\r\n\r\nabcd")
    assert statuses(third.got) == [stage.handler.faults[0].status]
    assert stage.server.body_bytes == 10
    await stage.over(first, second, third)


@pytest.mark.parametrize("cut", range(1, len(POST) + 30, 7))
async def test_a_client_may_leave_anywhere_in_its_request(cut: int) -> None:
    stage = Stage()
    raw = await stage.says((POST + b"Content-Length: 6\r\n\r\nabcdef")[:cut])
    await stage.over(raw)


async def test_a_head_has_a_time_even_when_it_dribbles() -> None:
    stage = Stage(slow_head_s=15)
    raw = await stage.says(b"GET / HTTP/1.1\r\n")
    for _ in range(20):
        raw.say(b"a")
        await stage.sweeps(1)
    assert statuses(raw.got) == [408]
    await stage.over(raw)


async def test_a_body_that_stops_coming_is_refused() -> None:
    stage = Stage(slow_body_s=60)
    raw = await stage.says(POST + b"Content-Length: 6\r\n\r\nabc")
    await stage.sweeps(59)
    assert raw.got == b""
    await stage.sweeps(3)
    assert statuses(raw.got) == [408]
    await stage.over(raw)


async def test_a_body_that_trickles_is_refused() -> None:
    stage = Stage(slow_body_s=60, slow_body_rate=500)
    raw = await stage.says(POST + b"Content-Length: 600\r\n\r\n")
    for _ in range(80):
        raw.say(b"a")
        await stage.sweeps(1)
    assert statuses(raw.got) == [408]
    await stage.over(raw)


async def test_a_large_body_over_a_slow_but_honest_line_passes() -> None:
    stage = Stage(slow_body_s=60, slow_body_rate=500)
    raw = await stage.says(POST + b"Content-Length: 200000\r\n\r\n")
    for _ in range(200):
        raw.say(b"a" * 1000)
        await stage.sweeps(1)
    assert statuses(raw.got) == [200]
    await stage.over(raw)


async def test_a_body_begun_behind_another_call_is_timed_as_a_body() -> None:
    stage = Stage(slow_body_s=60, idle_s=1000)
    raw = await stage.says(GET + POST + b"Content-Length: 6\r\n\r\nabc")
    assert statuses(raw.got) == [200]
    await stage.sweeps(62)
    assert statuses(raw.got) == [200, 408]
    await stage.over(raw)


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    stage = Stage(idle_s=75)
    raw = await stage.says(GET)
    said = raw.got
    await stage.sweeps(77)
    assert raw.closed
    assert raw.got == said
    await stage.over()


async def test_an_open_call_is_never_idle() -> None:
    stage = Stage(idle_s=75, slow_head_s=15, slow_body_s=60)
    stage.handler.hold = True
    raw = await stage.says(GET)
    await stage.sweeps(1000)
    connection, _ = stage.handler.held.pop()
    connection.respond(200, [], b"late")
    await stage.settle()
    assert raw.got.endswith(b"late")
    await stage.over(raw)


async def test_a_reader_that_stopped_is_cut() -> None:
    stage = Stage(slow_reader_s=120)
    stage.handler.hold = True
    raw = await stage.says(GET)
    connection, _ = stage.handler.held.pop()
    raw.transport.pause_reading()
    connection.start(200, [])
    connection.write(b"x" * 100_000)
    await stage.settle()
    assert connection.paused
    await stage.sweeps(119)
    assert not raw.closed
    await stage.sweeps(3)
    assert raw.closed
    connection.finish()
    await stage.over()


async def test_the_tail_of_a_long_answer_has_its_time_after_the_close() -> None:
    stage = Stage(slow_reader_s=120)
    stage.handler.hold = True
    raw = await stage.says(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    connection, _ = stage.handler.held.pop()
    connection.start(200, [])
    await stage.sweeps(600)
    raw.transport.pause_reading()
    connection.write(b"the tail")
    connection.finish()
    await stage.sweeps(5)
    raw.transport.resume_reading()
    await stage.settle()
    assert raw.got.endswith(b"the tail\r\n0\r\n\r\n")
    await stage.over()


async def test_one_address_may_hold_so_many_connections_and_others_still_come_in() -> None:
    stage = Stage(connections_per_address=3)
    mine = [stage.client("10.0.0.2") for _ in range(5)]
    other = stage.client("10.0.0.3")
    await stage.settle()
    assert [statuses(raw.got) for raw in mine] == [[], [], [], [503], [503]] or [statuses(raw.got) for raw in mine] == [
        [],
        [],
        [],
        [429],
        [429],
    ]
    assert not other.closed
    assert stage.server.refused == 2
    await stage.over(*mine[:3], other)


async def test_a_flood_is_refused_cheaply_and_leaves_nothing() -> None:
    stage = Stage(connections=10)
    flood = [stage.client(f"10.0.{i // 250}.{i % 250}") for i in range(2000)]
    await stage.settle()
    assert stage.server.refused == 1990
    assert len(stage.server.connections) == 10
    assert all(raw.closed for raw in flood[10:])
    await stage.over(*flood[:10])


def test_every_limit_of_the_wire_is_a_field_of_the_fleet_file() -> None:
    """Each name stands in `timeouts` or `limits` and what is written there arrives; one bounds a buffer of ours."""
    names = {one.name for one in fields(ServerLimits)} - {"write_high_bytes"}
    said: dict[str, dict[str, int]] = {"timeouts": {}, "limits": {}}
    renamed = {"idle_s": "idle_keep_alive_s"}
    for number, name in enumerate(sorted(names)):
        field = renamed.get(name, name)
        said["timeouts" if field in Timeouts.model_fields else "limits"][field] = 5000 + number
    limits = server_limits(FleetConfig.model_validate({"backends": [], **said}))
    assert [getattr(limits, name) for name in sorted(names)] == [5000 + number for number in range(len(names))]
