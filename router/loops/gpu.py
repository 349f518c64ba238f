"""How hot and how fast is each machine's GPU? Asked of nvidia-smi, here or over ssh, now and then.

Looking is no action, so a passive router looks too. What cannot be read is a state to show, never a line in the log.
"""

from __future__ import annotations

import asyncio
import shlex
import shutil
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from router.config import BackendConfig
from router.configtypes import SSH_TARGET, is_loopback
from router.fleet import Fleet
from router.loops import command, sshlog
from router.loops.command import Output
from router.loops.unreadable import Unreadable
from router.vllm.gpu import QUERY, GpuReading, parsed

INTERVAL_S = 30.0
TIMEOUT_S = 10.0  # nvidia-smi takes about a second without its persistence daemon; ssh gives up after 5


Run = Callable[..., Awaitable[Output]]  # a program and its words, as `router.loops.command.run` takes them


@dataclass(frozen=True, slots=True)
class GpuUnread:
    """Why there is no reading of a host, in one sentence."""

    detail: str


def commands(
    backends: Iterable[BackendConfig], which: Callable[[str], str | None]
) -> Mapping[str, tuple[str, ...] | GpuUnread]:
    """What to run for each host, or why nothing is. An address for ssh beats `auto` where two backends share a host."""
    found: dict[str, tuple[str, ...] | GpuUnread] = {}
    for one in backends:
        if one.gpu == "off" or not one.host:
            continue
        host = one.host[0]  # of several machines the first one: `gpu` names one
        match = SSH_TARGET.fullmatch(one.gpu)
        if match is not None:
            port = int(match["port"]) if match["port"] else None
            found[host] = ("ssh", *sshlog.words(match["target"], port, shlex.join(QUERY)))
        elif host in found:
            continue
        elif not is_loopback(host):
            found[host] = GpuUnread(f"not read: {host} is another machine; write gpu: ssh://{host} to read it")
        elif which(QUERY[0]) is None:
            found[host] = GpuUnread(f"not read: {QUERY[0]} is not installed here")
        else:
            found[host] = QUERY
    return found


class GpuLoop:
    """Keeps the newest reading of each host.

    Attributes:
        readings: host to its newest reading; a host that could not be read the last time is not in it.
        unread: host to why it has none.
    """

    def __init__(self, fleet: Fleet, run: Run = command.run, which: Callable[[str], str | None] = shutil.which) -> None:
        self.readings: dict[str, GpuReading] = {}
        self.unread: dict[str, GpuUnread] = {}
        self._fleet = fleet
        self._run = run
        self._which = which

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL_S)

    async def look(self) -> None:
        """Ask every host once, all at the same time, each for at most TIMEOUT_S seconds."""
        to_run = commands((one.config for one in self._fleet.backends.values()), self._which)
        results = await asyncio.gather(*(self._asked(words) for words in to_run.values()))
        answers = dict(zip(to_run, results, strict=True))
        self.readings = {host: one for host, one in answers.items() if isinstance(one, GpuReading)}
        self.unread = {host: one for host, one in answers.items() if isinstance(one, GpuUnread)}

    async def read_now(self, hosts: Sequence[str]) -> Sequence[GpuReading]:
        """What the GPUs of these hosts say at this moment, under the load that somebody gives them."""
        await self.look()
        return [self.readings[host] for host in hosts if host in self.readings]

    async def _asked(self, words: tuple[str, ...] | GpuUnread) -> GpuReading | GpuUnread:
        if isinstance(words, GpuUnread):
            return words
        try:
            async with asyncio.timeout(TIMEOUT_S):
                output = await self._run(*words)
        except TimeoutError:
            return GpuUnread(f"not read: {words[0]} took longer than {TIMEOUT_S:g} s")
        except Unreadable as error:
            return GpuUnread(f"not read: {error.detail}")
        reading = parsed(output.text) if output.code == 0 else None
        return reading or GpuUnread(f"not read: {words[0]} said {_last_line(output)!r}")


def _last_line(output: Output) -> str:
    """What a program said last, its complaint first: nvidia-smi complains on its standard output."""
    said = (output.complaint or output.text.decode("utf-8", "replace")).strip()
    return said.splitlines()[-1][:200] if said else f"nothing, exit code {output.code}"
