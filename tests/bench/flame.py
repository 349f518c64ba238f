"""`make flame`: where the router's CPU time goes, as flame graphs and as a list of the dearest functions.

    python -m tests.bench.flame [plain|ttft|paced256|fast|long …]

Samples the process from outside with py-spy (installed into .bench/), so the code that runs is the code that is sold.
Writes .bench/flame-NAME.svg and prints each function's share of the samples in which it was on top.
"""

import os
import subprocess
import sys
import venv
from collections import Counter
from dataclasses import replace
from pathlib import Path

from tests.bench import machine, targets
from tests.bench.__main__ import BACKENDS, HERE, LOADS, ROOT
from tests.bench.measure import Bench, Load, build
from tests.bench.targets import Place, Target
from tests.processes import Process, answers, free_ports

SECONDS = 6.0
PER_S = 400
SHOWN = 25


def main() -> int:
    core, other_core = machine.cores()
    os.sched_setaffinity(0, {other_core})
    spy = py_spy()
    first = free_ports(BACKENDS)
    folder = ROOT / "run"
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(build(HERE / "fake_backend.c", ROOT)), str(first), "2", targets.MODEL]
    backends = Process(command, folder / "backends.log", os.environ)
    backends.wait_until(lambda: answers(f"http://127.0.0.1:{first}/health"), 10, every_s=0.02)
    bench = Bench(build(HERE / "load.c", ROOT), backends.pid, first, other_core)
    router = targets.start("router", Place(range(first, first + 2), folder, ROOT / "peers", core))
    try:
        for name in sys.argv[1:] or ["plain", "paced256"]:
            print(f"\n{name}: {SECONDS:.0f} s, share of samples")
            print(dearest(record(spy, bench, router, name, LOADS[name])))
    finally:
        router.stop()
        backends.stop()
    return 0


def py_spy() -> Path:
    """Return the sampler, installing it where it is missing."""
    home = ROOT / "peers" / "py-spy"
    found = home / "bin" / "py-spy"
    if not found.exists():
        venv.create(home, with_pip=True)
        subprocess.run([str(home / "bin" / "pip"), "install", "--quiet", "py-spy"], check=True)
    return found


def record(spy: Path, bench: Bench, router: Target, name: str, load: Load) -> list[tuple[list[str], int]]:
    """Sample the router under a load, twice: for the picture, and for the stacks to count."""
    assert router.process is not None
    stacks = []
    for form in ("flamegraph", "raw"):
        output = ROOT / f"flame-{name}.{'svg' if form == 'flamegraph' else 'txt'}"
        words = ["record", "--pid", str(router.process.pid), "--duration", str(int(SECONDS)), "--rate", str(PER_S)]
        words += ["--format", form, "--output", str(output), "--nonblocking", "--function"]
        with subprocess.Popen([str(spy), *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            bench.run(router, replace(load, seconds=SECONDS - 0.5))
        bench.settle(router)
        if form == "raw":
            for line in output.read_text().splitlines():
                stack, _, count = line.rpartition(" ")
                stacks.append((stack.split(";"), int(count)))
    return stacks


def dearest(stacks: list[tuple[list[str], int]]) -> str:
    """List functions by the share of samples in which they were on top, and in which they ran at all."""
    tops: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for stack, count in stacks:
        tops[stack[-1]] += count
        within.update(dict.fromkeys(stack, count))
    total = sum(tops.values()) or 1
    rows = (f"{tops[one] / total:6.1%} {within[one] / total:8.1%}  {one}" for one, _ in tops.most_common(SHOWN))
    return "\n".join(["on top   within", *rows])


if __name__ == "__main__":
    sys.exit(main())
