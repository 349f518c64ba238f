"""Build the router with the modules of a call's way compiled to C by mypyc, from the very same source.

    python deploy/compile.py

Makes a wheel in build/dist, to be installed like any other, and in build/compiled a whole copy of the checkout with the
extensions beside their sources, where tests and benchmarks run as they are. The checkout itself stays pure Python:
nothing compiled ever lies beside a source that somebody may edit. Needs a C compiler and Python's headers.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
STAGE = ROOT / "build" / "compiled"
WHEELS = ROOT / "build" / "dist"
FOLDERS = ("router", "tests", "config", "deploy", "docs")
FILES = ("pyproject.toml", "README.md", "CHANGELOG.md", "Makefile", "Dockerfile")
REQUIRES = 'requires = ["setuptools>=77"'
COMPILED = (
    "router/events.py",
    "router/policy/*.py",
    "router/wire/*.py",
    "router/openai/*.py",
    "router/headers.py",
    "router/backend.py",
    "router/fleet.py",
    "router/samples.py",
    "router/waiting.py",
    "router/dispatch.py",
    "router/continuation.py",
    "router/exchange.py",
    "router/front.py",
    "router/logs/lines.py",
    "router/metrics/*.py",
    "router/history/store.py",
)
"""What a call runs through. The rest runs once a second or less, and stays as it is.

So does `logs/core.py`: mypyc frees a compiled `logging.Handler` without clearing the weak references to it, and
`logging.shutdown` follows one at the end.
"""

SETUP = """\
from mypyc.build import mypycify
from setuptools import setup

setup(ext_modules=mypycify({modules!r}, opt_level="3", debug_level="0"))
"""


def main() -> None:
    """Stage, compile into a wheel, and lay its extensions into the stage."""
    problem = what_is_missing()
    if problem:
        sys.exit(f"the router cannot be compiled here: {problem}. It runs as well, if more slowly, as it is.")
    stage()
    shutil.rmtree(WHEELS, ignore_errors=True)
    flags = ["--quiet", "--disable-pip-version-check", "--no-deps", "--wheel-dir", str(WHEELS)]
    constraints = {"PIP_CONSTRAINT": str(ROOT / "deploy" / "constraints.txt")}
    command = [sys.executable, "-m", "pip", "wheel", *flags, str(STAGE)]
    done = subprocess.run(command, env=os.environ | constraints, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    (wheel,) = WHEELS.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        built = [name for name in archive.namelist() if name.endswith(".so")]
        archive.extractall(STAGE, built)
    print(f"compiled {len(built) - 1} modules: {wheel.relative_to(ROOT)}, and {STAGE.relative_to(ROOT)} to run from")


def what_is_missing() -> str:
    """Say what a compilation needs and is not there; empty where it can begin."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"there is no C compiler ({compiler}; Debian and Ubuntu: apt-get install build-essential)"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python's headers are missing (Debian and Ubuntu: apt-get install python3-dev)"
    return ""


def stage() -> None:
    """Copy the checkout, without what earlier runs left in it, and tell its build what to compile."""
    shutil.rmtree(STAGE, ignore_errors=True)
    STAGE.mkdir(parents=True)
    skipped = shutil.ignore_patterns("__pycache__", "*.so")
    for name in (*FOLDERS, *FILES):  # an image is built from less than a checkout
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, STAGE / name, ignore=skipped)
        elif (ROOT / name).exists():
            shutil.copy2(ROOT / name, STAGE / name)
    modules = [str(path.relative_to(STAGE)) for pattern in COMPILED for path in sorted(STAGE.glob(pattern))]
    (STAGE / "setup.py").write_text(SETUP.format(modules=modules))
    project = STAGE / "pyproject.toml"
    project.write_text(project.read_text().replace(REQUIRES, f'{REQUIRES}, "mypy"'))


if __name__ == "__main__":
    main()
