"""What is measured once in a run: how many streams stay smooth, what a scrape costs, how long a start takes."""

import itertools
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from statistics import median

import httpx

from tests.bench import targets
from tests.bench.measure import CALM, FAST, Bench, paced
from tests.bench.targets import Place, Target
from tests.bench.timed import read_s

LADDER = (512, 1024, 1500, 2048)
STARTS = 3
SCRAPES = 20
EVERY_S = 0.25
WATCH_S = 5.0


def smooth_streams(bench: Bench, target: Target) -> tuple[float, str]:
    """Return the highest step of the ladder on which all streams stay smooth, and what was wrong on the next one.

    A step that fails is tried once more.
    """
    reached, wrong = 0, ""
    for streams in LADDER:
        for _ in range(2):
            sample = bench.run(target, paced(streams, 2.5))
            bench.settle(target)
            if sample.is_smooth(streams):
                reached = streams
                break
        else:
            kept_up = sample.events / (streams * 20 * sample.seconds)
            wrong = f"{streams} streams: {sample.us('jitter', 'p99') / 1000:.1f} ms of jitter, "
            wrong += f"{kept_up:.0%} of the chunks, {sample.errors} errors, {sample.cpu_s / sample.seconds:.2f} cores"
            break
    return float(reached), wrong


def start_s(place: Place) -> float:
    """Return the median of the seconds from starting the router's process to an answered call."""
    taken = []
    for _ in range(STARTS):
        target = targets.start("router", place)
        target.stop()
        taken.append(target.started_in_s)
    return median(taken)


def scrape_ms(place: Place) -> float:
    """Return the median milliseconds of GET /metrics on an otherwise idle router."""
    target = targets.start("router", place)
    try:
        time.sleep(1.0)
        taken = []
        with httpx.Client() as http:
            for _ in range(SCRAPES):
                began = time.monotonic()
                http.get(f"{target.url}/metrics").raise_for_status()
                taken.append((time.monotonic() - began) * 1000)
        return median(taken)
    finally:
        target.stop()


def stop_during_scrapes_ms(bench: Bench, place: Place) -> float:
    """Return by how much 64 streams stop longer while /metrics is read four times a second than while it is not."""
    target = targets.start("router", place)
    try:
        calm = bench.run(target, paced(64))
        bench.settle(target)
        with Repeated(lambda: httpx.get(f"{target.url}/metrics", timeout=10).raise_for_status()):
            scraped = bench.run(target, paced(64))
        return max(scraped.us("jitter", "p999") - calm.us("jitter", "p999"), 0) / 1000
    finally:
        target.stop()


def busy_jitter_ms(bench: Bench, place: Place, direct: Target) -> float:
    """Return the added p99 jitter of 256 streams while it is scraped, reloaded and watched on two dashboards."""
    target = targets.start_router(place, reloaded(0), "router-busy")
    token = (target.folder / "state" / "admin-token").read_text().strip()
    admin = f"http://127.0.0.1:{target.admin_port}"
    headers = {"authorization": f"Bearer {token}"}
    generation = itertools.count(1)

    def reload() -> None:
        targets.write_fleet(target, place, reloaded(next(generation)))
        httpx.post(f"{admin}/api/reload", headers=headers, json={}, timeout=10).raise_for_status()

    def watch() -> None:
        with httpx.stream("GET", f"{admin}/api/events", headers=headers, timeout=10) as events:
            events.raise_for_status()
            until = time.monotonic() + WATCH_S
            for _ in events.iter_lines():
                if time.monotonic() > until:
                    return

    def scrape() -> None:
        httpx.get(f"{target.url}/metrics", timeout=10).raise_for_status()

    try:
        calm = bench.run(direct, paced(256)).us("jitter", "p99")
        with Repeated(scrape), Repeated(reload, every_s=1.0), Repeated(watch), Repeated(watch):
            busy = bench.run(target, paced(256)).us("jitter", "p99")
        return (busy - calm) / 1000
    finally:
        target.stop()


def reloaded(generation: int) -> str:
    """Return settings that differ from one reload to the next."""
    return f"retry: {{burst: {10 + generation}}}\n"


def sentinel_share(bench: Bench, place: Place) -> float:
    """Return how many per cent of the router's CPU time under streams the sentinel takes, the dearest of three loads.

    Two routers side by side differ by more than that from one run to the next, so one router is asked how long it was
    inside the sentinel's calls.
    """
    target = targets.start_router(place, "", "router-timed", [sys.executable, "-m", "tests.bench.timed"])
    shares = []
    try:
        for load in (FAST, CALM, paced(64)):
            before = spent_s(target)
            took = bench.run(target, load).cpu_s
            shares.append((spent_s(target) - before) / took * 100)
            bench.settle(target)
        return max(shares)
    finally:
        target.stop()


def spent_s(target: Target) -> float:
    """Return how long the sentinel ran in this router so far."""
    return read_s(target.folder / "timed")


class Repeated:
    """Do something again and again beside a measurement, in a thread; what goes wrong there comes out at the end."""

    def __init__(self, what: Callable[[], object], every_s: float = EVERY_S) -> None:
        self._what = what
        self._every_s = every_s
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self._done: Future[None] | None = None

    def __enter__(self) -> None:
        self._done = self._pool.submit(self._run)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._pool.shutdown()
        if self._done is not None:
            self._done.result()

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            self._what()
