"""The pages that the code writes are the ones that are there."""

import re
from pathlib import Path

import pytest

from tests.docs.errorcodes import error_codes
from tests.docs.generate import DOCS, PAGES


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_the_code_says_now(name: str) -> None:
    assert (DOCS / name).read_text("utf-8") == PAGES[name](), f"docs/{name} lags behind the code: make docs"


def test_every_error_code_says_something() -> None:
    codes = error_codes()
    assert {"model_not_found", "queue_full", "body_too_large", "no_backend"} <= {one.code for one in codes}
    assert [one for one in codes if not one.meaning.strip(" …") or not one.status] == []


def test_every_test_that_a_page_names_exists() -> None:
    """With its case, where it names one: a row of docs/failures.md is only as good as the test that shows it."""
    root = Path(__file__).parents[2]
    code = {file: file.read_text() for file in (root / "tests").rglob("test_*.py")}
    named = {
        (page.name, name, case)
        for page in (root / "docs").glob("*.md")
        for name, case in re.findall(r"`(test_\w+)(?:\[([^\]]+)\])?`", page.read_text())
    }
    missing = [
        (page, name, case)
        for page, name, case in sorted(named)
        if not any(f"def {name}(" in text and (not case or f'"{case}"' in text) for text in code.values())
    ]
    assert len(named) > 15
    assert missing == []
