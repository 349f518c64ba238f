"""What this machine is and what processes use of it: CPU time to the microsecond, memory, and what others take."""

import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.processes import descendants

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process and its descendants have used, all threads, to the microsecond.

    From schedstat (nanoseconds); where the kernel keeps none, from stat (hundredths of a second). A thread that has
    ended is not counted, so take differences over a time in which none ends.
    """
    return sum(one_cpu_s(one) for one in (pid, *descendants(pid)))


def one_cpu_s(pid: int) -> float:
    total_ns = 0
    for task in glob(f"/proc/{pid}/task", "*/schedstat"):
        try:
            total_ns += int(task.read_text().split()[0])
        except (OSError, IndexError):
            continue
    return total_ns / 1e9 if total_ns else ticks(pid) / TICKS_PER_S


def ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def glob(folder: str, pattern: str) -> Iterable[Path]:
    try:
        return list(Path(folder).glob(pattern))
    except OSError:
        return ()


def memory_mb(pid: int) -> float:
    """Return what a process and its descendants hold in memory, shared pages shared out (PSS), in MB."""
    kilobytes = 0
    for one in (pid, *descendants(pid)):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        kilobytes += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return kilobytes * 1024 / 1e6


def busy_s() -> float:
    """Return the CPU seconds that the whole machine has spent on anything, since it started."""
    fields = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / TICKS_PER_S


def cores() -> tuple[int, int]:
    """Return the core of whatever is measured and the core of backends and load: apart where there are two."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[1 % len(usable)]


def description() -> dict[str, str]:
    """Say what this was measured on."""
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": f"{os.cpu_count()} × {model}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": commit(),
    }


def commit() -> str:
    """Return the commit that is measured, with a + where files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False)
    return (name.stdout.strip() or "unknown") + ("+" if changed.stdout.strip() else "")
