"""Read a log with a program: on another machine with the `ssh` the operator already uses, or this one's journal.

No password, no prompt, bounded; the searching is done where the log is.
"""

from __future__ import annotations

import shlex

from router.loops.command import Output, run
from router.loops.dockerlog import SPARKRUN_LOG, image_of
from router.loops.unreadable import FILTER, Reason, Unreadable, filtered_tail

CONNECT_S = 5
JOURNAL_LINES = 1_000_000  # searched
NO_FILE = 44  # exit codes of ours on the far side
NO_CONTAINER = 45

_DOCKER_SCRIPT = f"""
since=$(docker inspect -f '{{{{.State.StartedAt}}}}' "$1") || exit {NO_CONTAINER}
found=$(docker logs --since "$since" "$1" 2>&1 | {FILTER})
case "$found" in *'LLM engine (v'*|*'non-default args'*) ;; *)
found=$found$(docker exec "$1" sh -c 'test -r "$1" && cat "$1"' sh "$2" 2>/dev/null | {FILTER}) ;; esac
printf '%s\\n' "$found"
"""

_SAID = (  # what ssh and docker say, in their words
    ("Host key verification failed", Reason.FORBIDDEN),
    ("Permission denied", Reason.FORBIDDEN),
    ("permission denied", Reason.FORBIDDEN),
    ("Connection refused", Reason.REFUSED),
    ("timed out", Reason.TIMEOUT),
    ("Could not resolve", Reason.UNREACHABLE),
    ("No route to host", Reason.UNREACHABLE),
    ("Network is unreachable", Reason.UNREACHABLE),
    ("No such container", Reason.NOT_FOUND),
    ("No such object", Reason.NOT_FOUND),
    ("No such file", Reason.NOT_FOUND),
    ("not found", Reason.NOT_FOUND),
    ("insufficient permissions", Reason.FORBIDDEN),
)


async def read_file(ssh: str, target: str, port: int | None, path: str) -> bytes:
    """Read the lines that count of a file over there. Raises Unreadable."""
    return await _read(ssh, target, port, filtered_tail(path), f"{path} on {target}")


async def read_container(ssh: str, target: str, port: int | None, name: str) -> bytes:
    """Read the lines that count of a container's log over there, or of sparkrun's file in it. Raises Unreadable."""
    command = ["sh", "-c", _DOCKER_SCRIPT, "sh", name, SPARKRUN_LOG]
    return await _read(ssh, target, port, command, f"container {name} on {target}")


async def read_image(ssh: str, target: str, port: int | None, name: str) -> str:
    """What a container over there was made from, see `router.loops.dockerlog.image_of`. Raises Unreadable."""
    command = ["docker", "inspect", "-f", "{{.Config.Image}} {{.Image}}", name]
    said = await _read(ssh, target, port, command, f"container {name} on {target}")
    image, _, digest = said.decode("utf-8", "replace").strip().partition(" ")
    return image_of(image, digest)


async def read_journal(journalctl: str, unit: str) -> bytes:
    """Read the lines that count of a systemd unit's journal on this machine. Raises Unreadable."""
    script = f'"$1" --no-pager -o cat -n {JOURNAL_LINES} -u "$2" | {FILTER}'
    output = await run("sh", "-c", script, "sh", journalctl, unit)
    if output.text or not output.complaint:
        return output.text
    raise _unreadable(output, f"journal of {unit}")


def words(target: str, port: int | None, command: str) -> list[str]:
    """Give ssh's arguments for a command over there: no terminal, no prompt, soon given up."""
    options = ["-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_S}"]
    if port is not None:
        options += ["-p", str(port)]
    return [*options, "--", target, command]


async def _read(ssh: str, target: str, port: int | None, command: list[str], what: str) -> bytes:
    output = await run(ssh, *words(target, port, shlex.join(command)))
    if output.code in (0, None):
        return output.text
    raise _unreadable(output, what)


def _unreadable(output: Output, what: str) -> Unreadable:
    """Turn an exit code and the words beside it into a reason."""
    last = output.complaint.splitlines()[-1][:200] if output.complaint else f"exit code {output.code}"
    if output.code == NO_FILE:
        return Unreadable(Reason.NOT_FOUND, f"{what} is not there or not readable")
    for words, reason in _SAID:
        if words in output.complaint:
            return Unreadable(reason, f"{what}: {last}")
    if output.code == NO_CONTAINER:
        return Unreadable(Reason.NOT_FOUND, f"{what}: {last}")
    return Unreadable(Reason.FAILED, f"{what}: {last}")
