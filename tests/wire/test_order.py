"""One call at a time on a connection: pipelining, refusals in their turn, Expect, versions, and who left."""

from router.wire.server import ClientConnection
from tests.wire.talk import Stage, statuses

GET = b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: h\r\n"
BAD = b"GET / HTTP/1.1\r\n\r\n"


async def test_thousands_of_pipelined_requests_are_answered_in_order_without_recursion() -> None:
    stage = Stage()
    raw = await stage.says(b"".join(GET % i for i in range(3000)))
    assert [request.head.target for request in stage.handler.requests] == [f"/{i}" for i in range(3000)]
    assert statuses(raw.got) == [200] * 3000
    await stage.over(raw)


async def test_what_is_pipelined_while_a_call_is_open_waits_for_its_turn() -> None:
    stage = Stage()
    stage.handler.hold = True
    raw = await stage.says(GET % 1)
    for i in (2, 3):
        for byte in GET % i:
            raw.say(bytes([byte]))
            await stage.settle()
    for i in (1, 2, 3):
        assert [one[1].head.target for one in stage.handler.held] == [f"/{i}"]
        connection, _ = stage.handler.held.pop()
        connection.respond(200, [], b"answer %d" % i)
        await stage.settle()
    assert raw.got.index(b"answer 1") < raw.got.index(b"answer 2") < raw.got.index(b"answer 3")
    await stage.over(raw)


async def test_bytes_that_come_between_two_turns_do_not_overtake_those_that_wait() -> None:
    stage = Stage()
    stage.handler.hold = True
    raw = await stage.says(GET % 1)
    raw.say(b"POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nab")
    await stage.settle()
    connection, _ = stage.handler.held.pop()
    connection.respond(200, [], b"")
    connection.data_received(b"cdef")  # in the same turn of the loop, before what waits was read
    await stage.settle()
    assert [one[1].body for one in stage.handler.held] == [b"abcdef"]
    await stage.over(raw)


async def test_too_much_pipelined_is_dropped_and_the_connection_closes_after_the_answer() -> None:
    stage = Stage(pipelined_bytes=1000)
    stage.handler.hold = True
    raw = await stage.says(GET % 1)
    for i in range(200):
        raw.say(GET % i)
        await stage.settle()
    connection, _ = stage.handler.held.pop()
    assert kept(connection) <= 1000
    connection.respond(200, [], b"done")
    await stage.settle()
    assert statuses(raw.got) == [200]
    assert b"connection: close" in raw.got
    assert raw.closed
    await stage.over(raw)


def kept(connection: ClientConnection) -> int:
    return sum(map(len, connection._pending))


async def test_a_client_that_pipelines_without_reading_fills_no_memory() -> None:
    stage = Stage(write_high_bytes=4096)
    raw = await stage.says(GET % 0)
    raw.transport.pause_reading()
    (connection,) = stage.server.connections
    for _ in range(300):
        raw.say(b"".join(GET % i for i in range(200)))
        await stage.settle()
    transport = connection._transport
    assert transport.get_write_buffer_size() < 3 * 4096
    assert kept(connection) <= stage.server.limits.pipelined_bytes
    raw.transport.resume_reading()
    await stage.settle()
    assert set(statuses(raw.got)) == {200}
    assert raw.closed  # it had sent more than is kept
    await stage.over(raw)


async def test_a_slow_reader_is_served_the_rest_once_it_reads() -> None:
    stage = Stage(write_high_bytes=1024)
    raw = await stage.says(GET % 0)
    raw.transport.pause_reading()
    raw.say(b"".join(GET % i for i in range(1, 500)))
    await stage.settle()
    assert len(stage.handler.requests) < 100
    raw.transport.resume_reading()
    await stage.settle()
    assert [request.head.target for request in stage.handler.requests] == [f"/{i}" for i in range(500)]
    await stage.over(raw)


async def test_a_bad_request_behind_good_ones_is_refused_in_its_turn() -> None:
    stage = Stage()
    raw = await stage.says(GET % 1 + GET % 2 + BAD + GET % 3)
    assert statuses(raw.got) == [200, 200, 400]
    assert raw.closed
    await stage.over(raw)


async def test_a_bad_request_behind_an_open_call_is_refused_in_its_turn() -> None:
    stage = Stage()
    stage.handler.hold = True
    raw = await stage.says(GET % 1 + BAD)
    assert raw.got == b""
    connection, _ = stage.handler.held.pop()
    connection.respond(200, [], b"")
    await stage.settle()
    assert statuses(raw.got) == [200, 400]
    await stage.over(raw)


async def test_nothing_behind_connection_close_is_served() -> None:
    stage = Stage()
    raw = await stage.says(b"GET /1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" + GET % 2)
    assert statuses(raw.got) == [200]
    assert raw.closed
    await stage.over(raw)


async def test_100_continue_is_said_before_the_body_is_waited_for() -> None:
    stage = Stage()
    raw = await stage.says(POST + b"Expect: 100-Continue\r\nContent-Length: 3\r\n\r\n")
    assert statuses(raw.got) == [100]
    raw.say(b"abc")
    await stage.settle()
    assert statuses(raw.got) == [100, 200]
    await stage.over(raw)


async def test_a_pipelined_100_continue_is_said_in_its_turn() -> None:
    stage = Stage()
    raw = await stage.says(GET % 1 + POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert statuses(raw.got) == [200, 100]
    raw.say(b"abc")
    await stage.settle()
    assert statuses(raw.got) == [200, 100, 200]
    await stage.over(raw)


async def test_a_body_that_will_be_too_large_is_refused_before_it_is_sent() -> None:
    stage = Stage(body_bytes=10)
    raw = await stage.says(POST + b"Expect: 100-continue\r\nContent-Length: 11\r\n\r\n")
    assert statuses(raw.got) == [413]
    await stage.over(raw)


async def test_http_1_0_gets_an_unframed_body_and_a_close() -> None:
    stage = Stage()
    stage.handler.hold = True
    raw = await stage.says(b"GET / HTTP/1.0\r\n\r\n")
    connection, _ = stage.handler.held.pop()
    connection.start(200, [])
    connection.write(b"one ")
    connection.write(b"two")
    connection.finish()
    await stage.settle()
    assert raw.got.endswith(b"\r\n\r\none two")
    assert b"chunked" not in raw.got
    assert raw.closed
    await stage.over(raw)


async def test_head_gets_the_head_alone() -> None:
    stage = Stage()
    raw = await stage.says(b"HEAD /abc HTTP/1.1\r\nHost: h\r\n\r\n" + GET % 1)
    first, _, rest = raw.got.partition(b"\r\n\r\n")
    assert b"content-length: 4" in first
    assert rest.startswith(b"HTTP/1.1 200")
    await stage.over(raw)


async def test_a_stream_cut_short_has_no_last_chunk() -> None:
    stage = Stage()
    stage.handler.hold = True
    raw = await stage.says(GET % 1)
    connection, _ = stage.handler.held.pop()
    connection.start(200, [])
    connection.write(b"half")
    connection.abort()
    await stage.settle()
    assert raw.got.endswith(b"4\r\nhalf\r\n")
    assert raw.closed
    await stage.over(raw)


async def test_a_client_that_ends_its_side_has_left() -> None:
    stage = Stage()
    stage.handler.hold = True
    raw = await stage.says(POST + b"Content-Length: 3\r\n\r\nabc")
    connection, _ = stage.handler.held.pop()
    told: list[bool] = []
    connection.on_leave = lambda: told.append(True)
    assert stage.server.body_bytes == 3
    raw.transport.close()
    await stage.settle()
    assert told == [True]
    assert connection.left
    connection.start(200, [])
    connection.write(b"to nobody")
    connection.finish()
    await stage.over(raw)


async def test_a_stopping_server_lets_a_pipelined_body_come_to_its_end() -> None:
    stage = Stage()
    stage.handler.hold = True
    raw = await stage.says(GET % 1)
    stage.server.stop_keep_alive()
    idle = await stage.says(b"")
    stage.server.stop_keep_alive()
    await stage.settle()
    assert idle.closed
    connection, _ = stage.handler.held.pop()
    connection.respond(200, [], b"last")
    await stage.settle()
    assert raw.got.endswith(b"last")
    assert raw.closed
    await stage.over(raw, idle)
