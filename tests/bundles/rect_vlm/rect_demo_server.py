"""The demo in a real process on a free loopback port, and a headless browser that asks nothing of others."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
)  # fmt: skip
START_SECONDS, STOP_SECONDS = 600, 300  # 10 and 3 on an idle machine


def chromium() -> str | None:
    """The browser: CHROMIUM of the environment, else the first one on the path."""
    given = os.environ.get("CHROMIUM")
    return given or next(filter(None, map(shutil.which, CHROMIUM)), None)


@contextmanager
def served(folder: Path, *options: str) -> Iterator[str]:
    """Address of a demo whose temporary files lie in `folder`; it is ended by its own process id."""
    command = [sys.executable, "-m", "medbundles", "tool", "rect_vlm", "demo", "--port", "0", *options]
    temporary = folder / "temporary"
    temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    log = folder / "demo.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=stream, stderr=subprocess.STDOUT
        )
        try:
            yield _address(process, log)
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def _address(process: subprocess.Popen, log: Path) -> str:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        if found := re.search(r"demo at (http://127\.0\.0\.1:\d+)", log.read_text()):
            return found[1]
        time.sleep(0.1)
    raise AssertionError(f"the demo did not start: {log.read_text()[-3000:]}")


@contextmanager
def browser_page(profile: Path, asked: list[str]) -> Iterator[Any]:
    """A page of a fresh browser; what it asks of any host is added to `asked`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            profile, executable_path=chromium(), headless=True, args=list(QUIET), accept_downloads=True,
            viewport={"width": 1360, "height": 900},
        )  # fmt: skip
        page = context.pages[0]
        page.set_default_timeout(START_SECONDS * 1000)
        page.on("request", lambda request: asked.append(request.url))
        yield page
        context.close()
