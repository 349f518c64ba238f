"""The routing study live: real `router sim` and `router serve` processes, the same trace part under every policy.

`make routing-study-live` prints a table a fleet, with what the virtual study says of the very same calls beside it.
Times are not sped up: a minute is a minute. The policies take turns, in another order each round.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

from router.sim.described import DescribedFleet
from router.sim.replay import Ended, Replay
from router.sim.trace import Arrival, synthetic, with_models
from tests.bench import machine
from tests.processes import DidNotStart
from tests.study.live_figures import Key, table, verdict
from tests.study.live_fleet import LiveFleet, Use, as_processes_have_it, use, workplace
from tests.study.live_load import Outcome, play, schedule
from tests.study.page import with_live
from tests.study.routing_study import FLEETS, LONGEST_PROMPT, POLICIES, ROOT, TRACES, fleet_of, trace_of

PAGE = ROOT / "docs" / "routing-study.md"
WARM_UP_S = 12.0
MADE_UP = 2000  # calls of a synthetic trace
HEAD = """
## Live, through HTTP

Written by `make routing-study-live ARGS=--write`. The same engines, now as processes: one `router sim` for each backend
of a fleet (those of one Spark share its bandwidth) and `router serve` with one policy after another, fed by a streaming
client on the same machine. Nothing was measured on a Spark here either; what is real is the router: its proxy, clock,
learning and bookkeeping.

**How.** Every policy gets the same calls: a place of the trace, Poisson arrivals, prompts of as many tokens, an answer
as long as the trace's, which the call does not announce. Processes start afresh for each policy and round, with nothing
learned; the first seconds (below) are the warm-up, played but not counted. Times are not sped up. Canaries are off.
**Virtual** columns replay these very calls in virtual time. There the router has measured each backend alone before
its first call, here it learns from the warm-up's calls only. Ranges are 95 % intervals over calls (bootstrap), which
take calls as independent; as calls wait for each other, they are too narrow. A p99 is here about the longest call. The
load is above the capacity at which the oracle keeps 99 % goodput, so that a minute holds enough calls. Ends are
compared call by call: 0.80 means that the same calls ended in 80 % of the other policy's time.
"""


@dataclass(slots=True)
class Records:
    """Everything that was seen of one fleet, by policy."""

    fleet: DescribedFleet
    live: dict[str, dict[Key, Ended | None]] = field(default_factory=dict)
    virtual: dict[str, dict[Key, Ended | None]] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    lengths: list[tuple[int, int]] = field(default_factory=list)  # prompt tokens: of the trace, as served


@dataclass(frozen=True, slots=True)
class Turn:
    """One policy in one round on one fleet: the calls, and the seconds at the beginning that do not count."""

    policy: str
    round: int
    seed: int
    arrivals: Sequence[Arrival]
    warm_up_s: float

    def counts(self, number: int) -> bool:
        """Whether this call came after the warm-up."""
        return self.arrivals[number].at >= self.warm_up_s


def virtual(turn: Turn, fleet: DescribedFleet) -> dict[Key, Ended | None]:
    """The same calls in virtual time."""
    replay = Replay(fleet, turn.arrivals, turn.policy, seed=turn.seed)
    by_moment = {one.at: one for one in replay.finish()}
    return {(turn.round, n): by_moment.get(one.at) for n, one in enumerate(turn.arrivals) if turn.counts(n)}


def counted(turn: Turn, outcomes: Sequence[Outcome]) -> dict[Key, Ended | None]:
    """What came of the calls after the warm-up."""
    return {(turn.round, one.number): one.ended for one in outcomes if turn.counts(one.number)}


async def take(turn: Turn, records: Records, folder: Path) -> None:
    """Start the fleet, play the calls, end the fleet, and note what was seen."""
    fleet = records.fleet
    place = folder / f"{fleet.name}-{turn.round}-{turn.policy}"
    async with LiveFleet(fleet, turn.policy, turn.seed, place) as running:
        before = running.cpu()
        outcomes = await play(running.url, turn.arrivals)
        used = use(before, running.cpu(), os.cpu_count() or 1)
    records.uses.append(used)
    records.live.setdefault(turn.policy, {}).update(counted(turn, outcomes))
    records.virtual.setdefault(turn.policy, {}).update(virtual(turn, fleet))
    records.failures += [f"{turn.policy}, call {one.number}: {one.failure}" for one in outcomes if one.failure]
    records.lengths += [(one.ended.prompt_tokens, one.prompt_tokens) for one in outcomes if one.ended]
    ends = [one.ended.end_s for one in outcomes if one.ended and turn.counts(one.number)]
    shown = f"{mean(ends):.2f} s mean end of {len(ends)} calls" if ends else "no call ended"
    say(f"round {turn.round + 1}, {fleet.name}, {turn.policy}: {shown}; {used}")
    for one in [one for one in outcomes if one.failure][:3]:
        say(f"  call {one.number} failed: {one.failure}")


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {what}", file=sys.stderr, flush=True)


def source(folder: Path, name: str) -> tuple[Sequence[Arrival], str]:
    """The calls to play, and their name; made-up ones where the trace is not at hand."""
    path = folder / TRACES[name]
    if path.exists():
        return trace_of(path), name
    say(f"WARNING: {path} is not there (--traces says where it lies): the calls are MADE UP, not from a public trace")
    return synthetic(MADE_UP, 0), "synthetic (made up)"


async def study(options: argparse.Namespace) -> list[Records]:
    """All rounds of all policies; the fleets run beside each other, as they are separate machines."""
    calls, _ = source(options.traces, options.trace)
    found = [Records(as_processes_have_it(fleet_of(name))) for name in options.fleets]
    with workplace() as name:
        for number in range(options.rounds):
            seed = options.seed + number
            shift = number % len(options.policies)
            for policy in options.policies[shift:] + options.policies[:shift]:
                turns = []
                for one in found:
                    rate = options.load * len(one.fleet.hosts)
                    timed = schedule(calls, WARM_UP_S + options.seconds, rate, seed, LONGEST_PROMPT)
                    arrivals = with_models(timed, dict(one.fleet.traffic), seed)
                    turns.append(take(Turn(policy, number, seed, arrivals, WARM_UP_S), one, Path(name)))
                async with asyncio.TaskGroup() as group:  # where one fleet fails, the other is ended too
                    for turn in turns:
                        group.create_task(turn)
    return found


def document(found: Sequence[Records], options: argparse.Namespace, about: Mapping[str, str]) -> str:
    """The section of the documentation page."""
    _, trace = source(options.traces, options.trace)
    parts = [
        f"Run on {time.strftime('%Y-%m-%d', time.gmtime())} on {about['cpu']}, Python {about['python']}, "
        f"commit {about['commit']}: trace {trace}, {options.load:g} answer tokens a second offered to each Spark, "
        f"{options.rounds} rounds of {options.seconds:g} s a policy after {WARM_UP_S:g} s of warm-up, "
        f"seeds {', '.join(str(options.seed + n) for n in range(options.rounds))}.",
    ]
    for one in found:
        told, served = (mean(pair[n] for pair in one.lengths) for n in (0, 1))
        most = Use(*(max(getattr(use, name) for use in one.uses) for name in ("router", "sim", "load", "machine")))
        parts += ["", f"### Live: {one.fleet.name}", "", *table(one.live, one.virtual, one.fleet.promise), ""]
        parts.append(f"{verdict(one.live, one.fleet.promise)} CPU at most: {most}.")
        parts.append(f"Mean prompt: {told:.0f} tokens in the trace, {served:.0f} as served.")
        if any(each.is_too_much for each in one.uses):
            parts.append("**WARNING: over 60 % of a core or of the machine in use: it may have set the pace.**")
        parts += [f"- failed: {failure}" for failure in one.failures[:10]]
    return "\n".join(parts)


async def run(options: argparse.Namespace) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    about = machine.description()  # before: the commit may be another at the end
    made = document(await study(options), options, about)
    print(made)
    if options.write:
        page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
        PAGE.write_text(with_live(page, f"{HEAD}\n{made}"), encoding="utf-8")
        say(f"written: {PAGE}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, default=ROOT / ".." / "shared" / "traces", help="folder of both traces")
    parser.add_argument("--trace", choices=tuple(TRACES), default="azure")
    parser.add_argument("--fleets", nargs="+", choices=FLEETS, default=list(FLEETS[:2]))
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--seconds", type=float, default=60.0, help="of a policy and round, beside the warm-up")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--load", type=float, default=100.0, help="answer tokens a second that each Spark is offered")
    parser.add_argument("--seed", type=int, default=3, help="of the first round: place in the trace, arrivals, chance")
    parser.add_argument("--write", action="store_true", help="also put the result into docs/routing-study.md")
    try:
        asyncio.run(run(parser.parse_args()))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit("interrupted; every process was ended")
    except ExceptionGroup as group:
        started, others = group.split(DidNotStart)
        if started is None or others is not None:
            raise
        sys.exit(f"a process did not start: {started.exceptions[0]}")


if __name__ == "__main__":
    main()
