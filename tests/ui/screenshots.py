"""Take the pictures in docs/img: the page in light, dark, on a phone and in an incident, and `router status` as SVG.

`python -m tests.ui.screenshots` needs Chromium and takes about four minutes, most of it checks and traffic to look at.
"""

from __future__ import annotations

import base64
import contextlib
import io
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from router.cli.status import screen
from tests.ui.browser import chromium, look
from tests.ui.stage import Stage, staged, traffic

IMAGES = Path(__file__).parents[2] / "docs" / "img"
TRAFFIC_S = 100.0


def shoot(driver: Any, name: str, *, width: int = 1440, height: int = 1000, dark: bool = False) -> None:
    """One picture of the top of the page."""
    look(driver, width=width, height=height, dark=dark, mobile=width < 500)
    driver.execute_script("scrollTo(0, 0)")
    time.sleep(1.5)
    picture = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    (IMAGES / f"{name}.png").write_bytes(base64.b64decode(picture["data"]))
    print(f"{name}.png")


def checked(stage: Stage) -> None:
    """Every backend is checked, some twice, so that the page has something to show of quality."""
    with stage.admin() as admin:
        for name in ("spark-1-marlin", "spark-1-cutlass", "spark-2-flashinfer", "spark-3-qwen", "spark-1-cutlass"):
            admin.post("/api/quality/run", json={"backend": name, "size": "quick"}).raise_for_status()
            time.sleep(8)


def incident(stage: Stage) -> None:
    """A backend is flagged and drained, and a reload takes another one out."""
    with stage.admin() as admin:
        why = "answers drift from the reference on 7 of 8 texts"
        admin.post("/api/backends/spark-1-cutlass/grade", json={"flagged": True, "why": why})
        admin.post("/api/backends/spark-2-flashinfer/intent", json={"intent": "draining", "why": "wrong kernel"})
        time.sleep(20)
        stage.write_fleet(without=("spark-4-super",))
        admin.post("/api/reload", json={}).raise_for_status()
    time.sleep(15)


def terminal(stage: Stage) -> None:
    """`router status` as a terminal shows it."""
    with stage.admin() as admin:
        document = admin.get("/api/status").json()
    console = Console(record=True, width=128, file=io.StringIO(), force_terminal=True)
    console.print("[bold]$[/bold] router status")
    console.print(screen(document))
    svg = console.export_svg(title="router status")
    fonts = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # fetched from elsewhere; the reader's own will do
    (IMAGES / "status.svg").write_text(fonts.sub("", svg).replace("Fira Code, monospace", "monospace"))
    print("status.svg")


def main() -> None:
    """Take them all."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, staged(Path(folder)) as stage, contextlib.ExitStack() as busy:
        checked(stage)  # before there are calls: a check goes behind them
        busy.enter_context(traffic(stage))
        time.sleep(TRAFFIC_S)
        terminal(stage)
        with chromium(Path(folder) / "profile") as driver:
            driver.get(stage.login)
            shoot(driver, "dashboard-light")
            shoot(driver, "dashboard-dark", dark=True)
            shoot(driver, "dashboard-phone", width=390, height=844)
            incident(stage)
            shoot(driver, "dashboard-incident", height=1060)


if __name__ == "__main__":
    main()
