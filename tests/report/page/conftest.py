"""Generated reports, opened in a browser without a network."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from report import CHROMIUM

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


def generated(folder: Path, archs: int, datasets: int, seeds: int) -> Path:
    """Generate a report over generated run directories; return its page."""
    sizes = ["--archs", str(archs), "--datasets", str(datasets), "--seeds", str(seeds), "--repeat", "1"]
    words = [sys.executable, "benchmarks/report.py", *sizes, "--keep", str(folder)]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    return folder / "report" / "index.html"


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generated(tmp_path_factory.mktemp("page") / "small", archs=3, datasets=2, seeds=8)


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with playwright.sync_playwright() as driver:
        instance = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield instance
        instance.close()


@pytest.fixture
def opened(browser: "Browser"):
    """Open a page without a network; any message on the console fails the test."""
    complaints: list[str] = []
    contexts = []

    def open_(path: Path, width: int = 1280, **options) -> "Page":
        context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: complaints.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
        page.goto(path.as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []
