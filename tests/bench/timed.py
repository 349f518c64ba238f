"""`python -m tests.bench.timed serve …`: the router, with a watch on how much CPU time its sentinel takes.

Its calls are timed from outside, some hundreds a second, so that nothing of this stands in the router's own code. The
sum lies in a file beside the fleet file, which the bench reads while the router runs.
"""

import mmap
import struct
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from time import thread_time_ns
from typing import Any

from router.cli.main import main
from router.continuation import Emitted
from router.quality.watch import LiveSentinel

SUM = struct.Struct("=Q")


def read_s(file: Path) -> float:
    """Return the seconds that stand in a sum's file."""
    return float(SUM.unpack(file.read_bytes())[0]) / 1e9


class Watch:
    """Adds up what functions take, a function within another one once."""

    def __init__(self, file: Path) -> None:
        file.write_bytes(SUM.pack(0))
        with file.open("r+b") as opened:
            self._sum = mmap.mmap(opened.fileno(), SUM.size)
        self._within = False

    def on(self, function: Callable[..., Any], counts: Callable[..., bool] = lambda *_: True) -> Callable[..., Any]:
        """Return the function, timed where `counts` says so of its arguments."""

        @wraps(function)
        def timed(*args: Any) -> Any:
            if self._within or not counts(*args):
                return function(*args)
            self._within = True
            began = thread_time_ns()
            try:
                return function(*args)
            finally:
                self._within = False
                SUM.pack_into(self._sum, 0, SUM.unpack_from(self._sum)[0] + thread_time_ns() - began)

        return timed


if __name__ == "__main__":
    watch = Watch(Path(sys.argv[sys.argv.index("--config") + 1]).with_name("timed"))
    for name in ("folded", "ended", "answered"):
        setattr(LiveSentinel, name, watch.on(getattr(LiveSentinel, name)))
    # What can no longer be continued is folded for the sentinel alone.
    Emitted.fold = watch.on(Emitted.fold, lambda emitted: emitted.lost is not None)  # type: ignore[method-assign]
    sys.exit(main())
