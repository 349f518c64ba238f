"""Every command shows how it is used, and what it shows is a call that the command accepts."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from router.cli.main import COMMANDS, app

ROOT: Any = typer.main.get_command(app)
SHOWN = re.compile(r"^\s+(router(?: [^|>]+)?)")  # up to where the shell takes over
FILE = re.compile(r"^[\w/.-]+\.\w+$")


def tree(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below this one with the words that call it, itself included."""
    yield path, command
    for name in command.list_commands(None) if hasattr(command, "list_commands") else ():
        yield from tree(command.get_command(None, name), (*path, name))


EVERY = list(tree(ROOT))


def examples(text: str) -> list[list[str]]:
    """The calls that a help text gives as examples: the lines after the word that start with `router`."""
    _, _, after = text.partition("Example")
    return [shlex.split(found[1], comments=True)[1:] for line in after.splitlines() if (found := SHOWN.match(line))]


def accepts(words: list[str]) -> tuple[str, ...]:
    """The path of the command that these words call, after it has read its options; raises as the command would."""
    command, parent, path = ROOT, None, ()
    while True:
        context = command.make_context(path[-1] if path else "router", list(words), parent=parent)
        if not hasattr(command, "list_commands"):
            return path
        name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
        parent, path = context, (*path, name)


def with_files_in(folder: Path, words: list[str]) -> None:
    """Lay an empty file there for every word that names one: some commands want what they read to exist."""
    for word in words:
        if FILE.match(word) and not word.startswith("/"):
            (folder / word).parent.mkdir(parents=True, exist_ok=True)
            (folder / word).touch()


def full_help(command: Any) -> str:
    return f"{command.help or ''}\n{command.epilog or ''}"


@pytest.mark.parametrize(("path", "command"), EVERY, ids=lambda value: " ".join(value) if type(value) is tuple else "")
def test_a_command_s_help_ends_with_examples_that_it_accepts(
    path: tuple[str, ...], command: Any, tmp_path: Path
) -> None:
    given = examples(full_help(command))
    assert given, f"`router {' '.join(path)} --help` has no example"
    for words in given:
        with_files_in(tmp_path, words)
        with contextlib.chdir(tmp_path):
            called = accepts(words)
        assert called[: len(path)] == path, f"an example of `router {' '.join(path)}` calls `router {' '.join(called)}`"


@pytest.mark.parametrize(("path", "command"), EVERY, ids=lambda value: " ".join(value) if type(value) is tuple else "")
def test_the_help_a_person_sees_shows_the_example_on_a_line_of_its_own(path: tuple[str, ...], command: Any) -> None:
    shown = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "80", "TERM": "dumb"})
    assert shown.exit_code == 0
    assert re.search(r"^\s+router( |$)", shown.output.partition("Example")[2], re.M), shown.output


@pytest.mark.parametrize("words", [["status", "--jsom"], ["canary", "run", "a", "--ful"], ["sttaus"], ["drain"]])
def test_an_example_that_its_command_would_refuse_is_found(words: list[str]) -> None:
    with pytest.raises(Exception, match=r"(?i)no such|missing"):
        accepts(words)


def test_the_walk_reaches_every_command_of_the_table_and_the_groups_below() -> None:
    walked = {path for path, _ in EVERY}
    assert {(name,) for name in COMMANDS} < walked
    assert ("canary", "run") in walked


def test_an_unknown_command_or_option_is_a_usage_error_without_a_traceback() -> None:
    for words in (["sttaus"], ["status", "--jsom"], ["drain"], ["serve", "--port", "eighty"]):
        ended = CliRunner().invoke(app, words)
        assert ended.exit_code == 2, (words, ended.output)
        assert "Traceback" not in ended.output
