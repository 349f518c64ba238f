"""One DGX Spark shared by simulated servers in several processes: a small mapped file says what each takes now."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import tempfile
from pathlib import Path

from router.sim.host import SPARK_BANDWIDTH_GB_S, Load

SLOTS = 32
_ROW = struct.Struct("<qddd")  # pid (0: free), until, memory, compute
_LONGEST_STEP_S = 60.0  # a step said to end later than this was left behind by another boot


class SharedHost:
    """The host of that name on this machine; processes that name it slow each other.

    Times are those of the monotonic clock, which all processes of a machine share. Every process writes only its own
    row, without a lock: a half-written row lasts for one step and shifts one step's length. A process that was killed
    stops counting when its last step ends, and whoever comes next takes its row.
    """

    def __init__(self, name: str, bandwidth_gb_s: float = SPARK_BANDWIDTH_GB_S, folder: Path | None = None) -> None:
        self.name = name
        self.bandwidth_gb_s = bandwidth_gb_s
        folder = folder or Path(tempfile.gettempdir()) / f"router-sim-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        safe = "".join(one if one.isalnum() or one in "-_." else "_" for one in name)
        with open(folder / f"{safe}.host", "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_size < SLOTS * _ROW.size:
                file.truncate(SLOTS * _ROW.size)
            self._rows = mmap.mmap(file.fileno(), SLOTS * _ROW.size)
            self._own = self._take_row()
            fcntl.flock(file, fcntl.LOCK_UN)  # the mapping keeps the file open, and with it the lock

    def __repr__(self) -> str:
        return f"<SharedHost {self.name} {self.bandwidth_gb_s} GB/s, row {self._own}>"

    def others(self, key: str, now: float) -> Load:
        """Sum what the other processes take at this moment."""
        memory = compute = 0.0
        for row in range(SLOTS):
            pid, until, its_memory, its_compute = _ROW.unpack_from(self._rows, row * _ROW.size)
            if pid and row != self._own and now < until < now + _LONGEST_STEP_S:
                memory += its_memory
                compute += its_compute
        return Load(memory, compute)

    def declare(self, key: str, now: float, until: float, load: Load) -> None:
        """Say what this process takes until its step ends."""
        _ROW.pack_into(self._rows, self._own * _ROW.size, os.getpid(), until, load.memory, load.compute)

    def leave(self, key: str) -> None:
        """This process takes nothing any more."""
        _ROW.pack_into(self._rows, self._own * _ROW.size, os.getpid(), 0.0, 0.0, 0.0)

    def close(self) -> None:
        """Give the row back."""
        with contextlib.suppress(ValueError):  # closed already
            _ROW.pack_into(self._rows, self._own * _ROW.size, 0, 0.0, 0.0, 0.0)
            self._rows.close()

    def _take_row(self) -> int:
        for row in range(SLOTS):
            pid = _ROW.unpack_from(self._rows, row * _ROW.size)[0]
            if not pid or not _lives(pid):
                _ROW.pack_into(self._rows, row * _ROW.size, os.getpid(), 0.0, 0.0, 0.0)
                return row
        raise RuntimeError(f"{SLOTS} simulated servers on host {self.name} already")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
