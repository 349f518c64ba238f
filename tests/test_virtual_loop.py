"""The loop that the other coroutine tests stand on: time jumps, deadlocks fail, nothing is left behind."""

import asyncio
import textwrap
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.virtual_loop import Deadlock, VirtualLoop

pytest_plugins = ["pytester"]


async def test_an_hour_of_sleep_takes_no_time() -> None:
    loop, began = asyncio.get_running_loop(), time.monotonic()
    before = loop.time()
    await asyncio.sleep(3600)
    assert loop.time() == pytest.approx(before + 3600)
    assert time.monotonic() - began < 5


async def test_timers_fire_in_their_order() -> None:
    fired: list[float] = []

    async def fire(delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        fired.append(delay_s)

    await asyncio.gather(*(fire(delay_s) for delay_s in (30, 1, 0.5, 20)))
    assert fired == [0.5, 1, 20, 30]


async def test_a_thread_is_waited_for_while_the_clock_stands() -> None:
    before = asyncio.get_running_loop().time()
    assert await asyncio.to_thread(sum, range(1000)) == 499_500
    assert asyncio.get_running_loop().time() == before


@given(st.lists(st.floats(0, 1e6), max_size=5))
async def test_every_example_gets_a_fresh_clock(delays: list[float]) -> None:
    for delay_s in delays:
        await asyncio.sleep(delay_s)
    assert asyncio.get_running_loop().time() == pytest.approx(1_000.0 + sum(delays))


@pytest.mark.realtime
async def test_a_realtime_test_gets_a_plain_loop() -> None:
    assert not isinstance(asyncio.get_running_loop(), VirtualLoop)


def test_a_fixture_can_use_the_loop_of_its_test(runner: asyncio.Runner, loop: asyncio.AbstractEventLoop) -> None:
    async def which() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert runner.run(which()) is loop


async def wait_for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def test_a_deadlock_fails_at_once_and_says_who_waits_where() -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as one, pytest.raises(Deadlock, match=r"wait_for_ever \(.*py:\d+\)"):
        one.run(wait_for_ever())


LEFTOVERS = {
    "left running": "asyncio.create_task(asyncio.sleep(9), name='forgotten')\nawait asyncio.sleep(0)",
    "never retrieved": "async def fail(): raise KeyError('lost')\nasyncio.create_task(fail())\nawait asyncio.sleep(1)",
    "never awaited": "asyncio.sleep(1)",
    "in a callback": "asyncio.get_running_loop().call_soon(int, 'no number')\nawait asyncio.sleep(1)",
    "unclosed": "import socket\na = socket.socket()\ndel a",
}


@pytest.mark.parametrize("sign", LEFTOVERS)
def test_what_a_test_leaves_behind_is_an_error(pytester: pytest.Pytester, sign: str) -> None:
    pytester.makeconftest("from tests.conftest import *")
    body = textwrap.indent(LEFTOVERS[sign], "    ")
    pytester.makepyfile(f"import asyncio\nasync def test_it():\n{body}")
    result = pytester.runpytest_inprocess("-q", "-Werror", "-p", "no:cacheprovider")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert sign.replace("in a callback", "Exception in callback") in result.stdout.str()
