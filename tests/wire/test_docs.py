"""docs/wire.md says what the wire refuses, and nothing else."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
RAISED = re.compile(r"(ClientFault|Overloaded)\(((?:[^()]|\([^()]*\))*)\)")


def raised() -> set[tuple[int, str]]:
    """Return every status and code that the modules of the wire refuse a request with."""
    found = set()
    for module in ("head", "server"):
        text = (ROOT / "router" / "wire" / f"{module}.py").read_text()
        for kind, words in RAISED.findall(text):
            code, status = re.search(r'code="(\w+)"', words), re.search(r"status=(\d+)", words)
            if code is not None:
                found.add((int(status[1]) if status else {"ClientFault": 400, "Overloaded": 503}[kind], code[1]))
    return found


def test_the_table_of_refusals_is_what_the_code_refuses() -> None:
    rows = re.findall(r"^\|.*\| (\d{3}) \| `(\w+)` \|$", (ROOT / "docs" / "wire.md").read_text(), re.MULTILINE)
    assert len(raised()) >= 14
    assert {(int(status), code) for status, code in rows} == raised()
