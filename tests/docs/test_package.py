"""Installed, the router has all that it needs: pip, pipx and `uv tool install` take the package, not the checkout."""

import tomllib
from fnmatch import fnmatch
from pathlib import Path

import router

PACKAGE = Path(router.__file__).parent
PROJECT = Path(__file__).parents[2] / "pyproject.toml"
FOR_READERS = {"DESIGN.md"}


def test_every_file_that_the_router_reads_is_part_of_the_package() -> None:
    """A page or a text whose suffix no pattern names works in a checkout and is missing once installed."""
    patterns = tomllib.loads(PROJECT.read_text())["tool"]["setuptools"]["package-data"]["router"]
    files = [file for file in PACKAGE.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    data = {str(file.relative_to(PACKAGE)) for file in files if file.suffix not in (".py", ".pyc", ".so")}
    missing = {name for name in data if not any(fnmatch(name, one.removeprefix("**/")) for one in patterns)}
    assert missing == FOR_READERS


def test_every_folder_with_code_is_a_package() -> None:
    """`packages.find` passes over a folder without `__init__.py`, and everything in it."""
    folders = {file.parent for file in PACKAGE.rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
