"""`router explain` on a terminal of 80 columns: every term and every candidate's number on one line."""

from __future__ import annotations

import io

from rich.console import Console

from router.cli.orders import _candidates

NAMES = ("spark-1-marlin", "spark-1-cutlass", "spark-2-flashinfer")
TERMS = ("barred", "cost_s", "wait_s", "prefill_s", "decode_s", "others_s", "slow_s", "bonus_s", "in_flight", "cap")


def test_the_terms_of_three_candidates_stand_whole_in_80_columns() -> None:
    rows = [{"name": name, **dict.fromkeys(TERMS, i + 0.5), "last_resort": i == 0} for i, name in enumerate(NAMES)]
    console = Console(file=io.StringIO(), width=80)
    console.print(_candidates(rows, NAMES[0]))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert lines[0].split() == list(NAMES)
    for term, line in zip(TERMS, lines[1:], strict=False):
        assert line.split()[-3:] == ["0.5", "1.5", "2.5"]
        assert line.startswith(term.replace("_", " "))
    assert lines[-1].split() == ["last", "resort", "yes", "no", "no"]
