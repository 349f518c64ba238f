"""The real Chromium of this machine, driven by selenium."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)


@contextlib.contextmanager
def chromium(profile: Path, size: tuple[int, int] = (1440, 1000)) -> Iterator[webdriver.Chrome]:
    """A fresh browser with a profile of its own; its console is kept in the log."""
    options = Options()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        driver.set_script_timeout(180)
        yield driver
    finally:
        driver.quit()


def look(driver: webdriver.Chrome, *, width: int, height: int, dark: bool, mobile: bool = False) -> None:
    """Set the window's size and the person's taste in light or dark."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 2 if mobile else 1, "mobile": mobile}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    taste = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": taste})


def wrongs(driver: webdriver.Chrome) -> list[str]:
    """What the console complained about since the last look."""
    lines: list[dict[str, Any]] = driver.get_log("browser")
    return [str(line["message"]) for line in lines if line["level"] in ("SEVERE", "WARNING")]
