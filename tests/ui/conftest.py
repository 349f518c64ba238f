"""One stage and one browser for all tests of the page; without Chromium they are skipped, and say so."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ui.stage import Stage, staged


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    if importlib.util.find_spec("selenium") is None:
        pytest.skip("NOT TESTED: selenium is not installed (pip install -e '.[ui]')")
    from tests.ui.browser import CHROMIUM, DRIVER

    if CHROMIUM is None or DRIVER is None:
        pytest.skip("NOT TESTED: no Chromium here (apt-get install chromium chromium-driver)")
    with staged(tmp_path_factory.mktemp("stage")) as one:
        yield one


@pytest.fixture(scope="session")
def driver(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from tests.ui.browser import chromium

    with chromium(Path(tmp_path_factory.mktemp("profile"))) as one:
        yield one
