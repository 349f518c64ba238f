"""What is measured once in a run: how many streams stay smooth, what a scrape costs, how long a start takes."""

import threading
import time
from collections.abc import Callable
from statistics import median

import httpx

from tests.bench import targets
from tests.bench.measure import Bench, paced
from tests.bench.targets import Place, Target

LADDER = (512, 1024, 1500, 2048)
STARTS = 3
SCRAPES = 20
EVERY_S = 0.25


def smooth_streams(bench: Bench, target: Target) -> float:
    """Return the highest step of the ladder on which all streams stay smooth; a step that fails is tried once more."""
    reached = 0
    for streams in LADDER:
        for _ in range(2):
            sample = bench.run(target, paced(streams, 2.5))
            bench.settle(target)
            if sample.is_smooth(streams):
                reached = streams
                break
        else:
            break
    return float(reached)


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


class Repeated:
    """Do something again and again beside a measurement, in a thread."""

    def __init__(self, what: Callable[[], object]) -> None:
        self._what = what
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(EVERY_S):
            self._what()
