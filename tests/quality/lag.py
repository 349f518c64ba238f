"""How late the router's loop is while a check runs: `python -m tests.quality.lag [quick|full]`.

The whole router runs here, on its own loop, before a simulated vLLM in a process of its own that answers full-size
logprobs. A beat every 2 ms says two things: how late it came, and how much CPU time this thread used since the last.
Lateness measures a busy machine too; the CPU time between two beats is what the router itself held the loop for.
Numbers are printed, nothing is asserted.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from router.app import App
from router.config import BackendConfig, FleetConfig
from router.events import CanaryEnded, Event
from router.quality.plan import Size
from tests.live.processes import MODEL, sim

BEAT_S = 0.002


class Beats:
    """Lateness and CPU time of every beat since the last look, in milliseconds."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self.held: list[float] = []

    async def run(self) -> None:
        """Beat for ever."""
        while True:
            due, cpu = time.monotonic() + BEAT_S, time.thread_time()
            await asyncio.sleep(BEAT_S)
            self.late.append(1e3 * (time.monotonic() - due))
            self.held.append(1e3 * (time.thread_time() - cpu))

    def told(self, name: str) -> str:
        """One line of the table; begins anew."""
        late, held, self.late, self.held = sorted(self.late), sorted(self.held), [], []

        def at(values: list[float], share: float) -> float:
            return values[min(len(values) - 1, int(share * len(values)))]

        columns = [f"{at(v, share):8.2f}" for v in (late, held) for share in (0.5, 0.99, 0.999, 1.0)]
        return f"{name:20} {len(late):7} {' '.join(columns)}"


async def measure(url: str, size: Size, show: Callable[[str], None]) -> None:
    """Start a router on this loop, let it check, print a line for each phase."""
    ended: asyncio.Queue[CanaryEnded] = asyncio.Queue()

    def on_event(event: Event) -> None:
        if isinstance(event, CanaryEnded):
            ended.put_nowait(event)

    app = App(FleetConfig(backends=(BackendConfig(name="sim", url=url),)), asyncio.get_running_loop())
    app.bus.subscribe(on_event)
    beats = Beats()
    beating = asyncio.ensure_future(beats.run())
    try:
        await app.start()
        await ended.get()
        show(beats.told("start, first check"))
        await asyncio.sleep(5)
        show(beats.told("idle"))
        app.quality.ask("sim", MODEL, size)
        found = await ended.get()
        show(beats.told(f"{size} check"))
        show(f"{found.duration_s:.0f} s: {found.detail}")
    finally:
        beating.cancel()
        await app.stop(0)


def main(size: Size) -> None:
    with tempfile.TemporaryDirectory() as name, sim(Path(name), "sim", "--max-model-len", "16384") as server:
        late, held = "late ms: p50, p99, p99.9, max", "CPU ms between beats: the same"
        print(f"{'':20} {'beats':>7} {late:>35} {held:>35}")
        uvloop.run(measure(server.url, size, print))


if __name__ == "__main__":
    main(Size(sys.argv[1] if len(sys.argv) > 1 else "full"))
