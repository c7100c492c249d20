"""What the page says on top: over data sets, differences, and against an earlier report."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from report import CHROMIUM

from launch.report import build
from launch.report.analysis.cells import load
from launch.report.earlier.read import EarlierCell
from tests.report.page.test_page import results
from tests.support.across import cells_of, sweep

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium (Debian: apt install chromium), or STN_CHROMIUM")


@pytest.fixture(scope="module")
def page_of_three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on three data sets, one cell of which was trained otherwise, against one that was better."""
    out, cells = tmp_path_factory.mktemp("three"), cells_of(sweep())
    optim = cells[0].config.optim.model_copy(update={"lr": 0.5})
    cells[0].config = cells[0].config.model_copy(update={"optim": optim})
    earlier = [EarlierCell.of(cell) for cell in cells]
    for seed, value in earlier[0].numbers["test_acc"].items():
        earlier[0].numbers["test_acc"][seed] = value + 0.01 + 0.001 * (seed % 2)
    build.write_report(build.Comparison("three", cells, []), out, earlier=(Path("old"), earlier))
    return out / "index.html"


def fields(page: "Page", table: str) -> list[list[str]]:
    rows = page.locator(f".{table} tbody tr").all()
    return [row.locator("th, td").all_inner_texts() for row in rows]


def test_the_top_is_shown_whatever_data_set_is_selected(page_of_three: Path, opened) -> None:
    page = opened(page_of_three)
    for name in ("mnist", "mnist_r"):
        page.select_option("#dataset", name)
        tops = page.locator("details.overview > summary").all_inner_texts()
        assert tops == ["What differs between the configurations", "Against an earlier report", "Across data sets"]
        assert len(fields(page, "across-matrix")) == 3
    assert fields(page, "differences") == [
        ["arch.net", "finnveden_r: mnist, mnist_r; jaderberg_cnn: mnist_p"],
        ["optim.lr", "0.001: all others; 0.5: cnn on mnist"],
    ]
    assert page.locator(".overview .verdicts li").first.inner_text().startswith("mnist, cnn: worse (-1.05 points, ")
    assert page.locator("img.profiles").evaluate("image => image.complete && image.naturalWidth > 100")
    tables = page.locator("table:not(.differences)").count()
    assert page.locator(".signature").count() == tables, "a signature under every table"


def test_the_matrix_is_that_of_the_rows(small: Path, opened) -> None:
    page = opened(small)
    heads = page.locator(".across-matrix thead th").all_inner_texts()
    by_set = [results(small, name) for name in ("mnist", "mnist_r")]
    for row in fields(page, "across-matrix"):
        for column, text in zip(heads[1:], row[1:], strict=True):
            a, b = row[0], column
            d = [sum(of[a][s] - of[b][s] for s in range(8)) / 8 for of in by_set]
            assert text.partition(",")[0] == (f"{sum(d) / 2:+.2f}" if a != b else "")


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_fits_its_width(width: int, scheme: str, page_of_three: Path, opened) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = opened(page_of_three, width, color_scheme=scheme)
    violations = Axe().run(page).response["violations"]
    assert [(violation["id"], violation["nodes"][0]["html"]) for violation in violations] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_verdict_stands_above_the_warnings(small: Path, opened, tmp_path: Path) -> None:
    comparison = load([str(small.parent.parent)])
    for cell in comparison.cells[:1]:
        cell.rows = {0: cell.rows[0]}
    build.write_report(comparison, tmp_path)
    page = opened(tmp_path / "index.html")
    verdict, warning = (page.locator(f"{what}:visible").first.bounding_box()["y"] for what in (
        "section .verdicts", "section .warning"))  # fmt: skip
    assert verdict < warning < page.locator("table.architectures:visible").bounding_box()["y"]
    assert "train at least two more: python train.py --config" in page.locator(".warning:visible").first.inner_text()
