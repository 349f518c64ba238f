"""Servers in several processes share a Spark: what one takes the others feel, and the dead take nothing."""

import os
from pathlib import Path

import pytest

from router.sim.host import NO_LOAD, Load
from router.sim.sharedhost import SLOTS, SharedHost


def test_what_one_takes_the_others_feel_until_its_step_ends(tmp_path: Path) -> None:
    one, two = SharedHost("spark", folder=tmp_path), SharedHost("spark", folder=tmp_path)
    one.declare("a", now=10.0, until=10.5, load=Load(0.4, 0.1))
    assert two.others("b", 10.2) == Load(0.4, 0.1)
    assert one.others("a", 10.2) == NO_LOAD
    assert two.others("b", 10.6) == NO_LOAD


def test_another_host_feels_nothing(tmp_path: Path) -> None:
    one, two = SharedHost("spark-1", folder=tmp_path), SharedHost("spark-2", folder=tmp_path)
    one.declare("a", 1.0, 2.0, Load(0.9, 0.9))
    assert two.others("b", 1.5) == NO_LOAD


def test_whoever_leaves_takes_nothing_and_gives_its_row_back(tmp_path: Path) -> None:
    watching = SharedHost("spark", folder=tmp_path)
    for _ in range(2 * SLOTS):
        passing = SharedHost("spark", folder=tmp_path)
        passing.declare("a", 1.0, 9.0, Load(0.5, 0.5))
        passing.close()
    assert watching.others("b", 2.0) == NO_LOAD


def test_a_killed_process_leaves_its_row_to_the_next(tmp_path: Path) -> None:
    for _ in range(SLOTS):
        pid = os.fork()
        if pid == 0:
            SharedHost("spark", folder=tmp_path)
            os._exit(0)  # without closing
        os.waitpid(pid, 0)
    SharedHost("spark", folder=tmp_path).close()


def test_too_many_servers_on_one_host_are_told_so(tmp_path: Path) -> None:
    kept = [SharedHost("spark", folder=tmp_path) for _ in range(SLOTS)]
    with pytest.raises(RuntimeError, match="already"):
        SharedHost("spark", folder=tmp_path)
    assert len(kept) == SLOTS
