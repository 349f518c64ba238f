"""The pages that the code writes are the ones that are there."""

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
