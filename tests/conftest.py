"""How coroutine tests run: in virtual time, and nothing may be left behind when one ends.

`async def test_…` needs no decorator. It runs on a `VirtualLoop` (sleeping is free, a deadlock fails at once), or on a
plain loop with real time and real sockets where it is marked `@pytest.mark.realtime` (`limit_s=60` by default). A plain
fixture may ask for `runner` (an `asyncio.Runner`) or `loop` and run coroutines on the very loop of its test.

When the last fixture is torn down, these are errors: a task still pending, an exception that nobody retrieved, a
coroutine that nobody awaited, a transport or socket that nobody closed.
"""

import asyncio
import functools
import gc
import inspect
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings

from tests.virtual_loop import VirtualLoop, describe

REALTIME_LIMIT_S = 60.0

settings.register_profile(
    "suite", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # a busy machine is no failure
if settings.get_current_profile_name() != "fuzz":
    settings.load_profile("suite")

AsyncTest = Callable[..., Coroutine[Any, Any, None]]


def pytest_pycollect_makeitem(collector: pytest.Collector, name: str, obj: object) -> None:
    """Give every coroutine test its loop, whether or not it asks for one by name."""
    if isinstance(collector, pytest.Module | pytest.Class) and name.startswith("test") and is_async(obj):
        pytest.mark.usefixtures("runner")(obj)


def pytest_collection_finish() -> None:
    """Take what exists by now out of the garbage collector's sight: looking after each test gets cheap."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test on its loop; under hypothesis, every example on a fresh one."""
    test = pyfuncitem.obj
    if not is_async(test):
        return None
    realtime = pyfuncitem.get_closest_marker("realtime")
    if hasattr(test, "hypothesis"):
        test.hypothesis.inner_test = example_by_example(test.hypothesis.inner_test)
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(test).parameters}
    limit_s = realtime.kwargs.get("limit_s", REALTIME_LIMIT_S) if realtime else None
    runner = cast(asyncio.Runner, pyfuncitem.funcargs["runner"])
    runner.run(within(test(**arguments), limit_s))
    return True


@pytest.fixture
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    """Run coroutines on the loop of this test: `runner.run(coroutine)`."""
    realtime = request.node.get_closest_marker("realtime") is not None
    with tidy_runner(asyncio.SelectorEventLoop if realtime else VirtualLoop) as one:
        yield one


@pytest.fixture
def loop(runner: asyncio.Runner) -> asyncio.AbstractEventLoop:
    """Return the loop of this test; `loop.time()` is virtual unless the test is marked realtime."""
    return runner.get_loop()


@contextmanager
def tidy_runner(factory: Callable[[], asyncio.AbstractEventLoop], generation: int = 2) -> Iterator[asyncio.Runner]:
    """Yield a runner; when it ends, fail over whatever was left running or went wrong unseen."""
    wrongs: list[str] = []
    with asyncio.Runner(loop_factory=factory) as one:
        loop = one.get_loop()
        loop.set_exception_handler(lambda _, context: wrongs.append(told(context)))
        yield one
        pending = {task for task in asyncio.all_tasks(loop) if not task.done()}
        if pending and not getattr(loop, "deadlocked", False):
            wrongs.append(describe(pending, "left running at the end of the test:"))
        pending.clear()
    gc.collect(generation)  # exceptions nobody retrieved and coroutines nobody awaited speak up when they are collected
    if wrongs:
        pytest.fail("\n".join(wrongs), pytrace=False)


def is_async(test: object) -> bool:
    """Say whether this is a coroutine function, looking through hypothesis' wrapper."""
    hypothesis = getattr(test, "hypothesis", None)
    return inspect.iscoroutinefunction(hypothesis.inner_test if hypothesis else test)


def example_by_example(test: AsyncTest) -> Callable[..., None]:
    """Make a plain function of a coroutine function: each call on a fresh loop in virtual time."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with tidy_runner(VirtualLoop, generation=1) as one:  # a hundred examples: look at what is young
            one.run(test(*args, **kwargs))

    return run


async def within(test: Coroutine[Any, Any, None], limit_s: float | None) -> None:
    """Await a test; one in real time may not take longer than its limit."""
    async with asyncio.timeout(limit_s):
        await test


def told(context: dict[str, Any]) -> str:
    """Say what the loop's exception handler was told."""
    error = context.get("exception")
    cause = f": {type(error).__name__}: {error}" if error is not None else ""
    return f"{context.get('message', 'an error nobody handled')}{cause}"
