"""`make fuzz`: the properties of the wire, of edits, of streams and of whole calls, with new seeds until time is up.

    python -m tests.fuzz [--minutes 5] [--seed N]

Each round runs every property under one seed, for a minute or more; the last one is not cut short. A failure ends it
and prints how to see it again.
"""

import argparse
import random
import subprocess
import sys
import time

from rich.console import Console

PROPERTIES = (
    "tests/fuzz",
    "tests/openai/test_edit.py",
    "tests/openai/test_stream_cuts.py",
    "tests/openai/test_multipart.py",
    "tests/exchange/test_stateful.py",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=None, help="of the first round; default: drawn")
    asked = parser.parse_args()
    console = Console()
    seed = asked.seed if asked.seed is not None else random.SystemRandom().randrange(1_000_000)
    ends_at = time.monotonic() + asked.minutes * 60
    rounds = 0
    while not rounds or time.monotonic() < ends_at:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "tests.fuzz.profile", "-p", "no:cacheprovider"]
        command += [f"--hypothesis-seed={seed}", *PROPERTIES]
        console.print(f"seed {seed} …", end=" ")
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        console.print(
            f"{done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ''} {time.monotonic() - began:.0f} s"
        )
        if done.returncode:
            console.print(done.stdout[-6000:], markup=False, highlight=False)
            console.print(f"again: {' '.join(command)}", markup=False, soft_wrap=True)
            return 1
        rounds += 1
        seed += 1
    console.print(f"{rounds} rounds, no failure")
    return 0


if __name__ == "__main__":
    sys.exit(main())
