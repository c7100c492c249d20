"""The charts of the page in a real browser: pointer, keyboard, intervals, print."""

import json
import re
from pathlib import Path
from statistics import fmean, median

import pytest
from report import CHROMIUM

from launch.report import build
from launch.report.analysis.cells import load

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium (Debian: apt install chromium), or STN_CHROMIUM")


@pytest.mark.slow
def test_a_curve_shows_the_point_under_the_pointer(small: Path, opened) -> None:
    page = opened(small)
    chart = page.locator('[data-chart="curves"]:visible .canvas')
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 14 - 0.04 * box["width"], box["y"] + box["height"] * 0.7)
    tooltip = page.locator("#tip").inner_text()
    match = re.fullmatch(r"(\w+), seed (\d), epoch (\d+): (\d+\.\d\d) % error", tooltip)
    assert match, tooltip
    folder = small.parent.parent
    rows = [json.loads(line) for path in folder.glob("*/*/metrics.jsonl") for line in path.read_text().splitlines()]
    errors = {
        f"{100 * (1 - row['test_acc']):.2f}"
        for row in rows
        if row["kind"] == "eval" and row["seed"] == int(match[2]) and row["epoch"] == int(match[3])
    }
    assert match[4] in errors


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["seeds", "curves", "cost", "confusion", "pose"])
def test_charts_can_be_used_from_the_keyboard(kind: str, small: Path, opened) -> None:
    page = opened(small)
    page.locator(f'[data-chart="{kind}"]:visible .canvas').focus()
    tooltips = []
    for _ in range(3):
        page.keyboard.press("ArrowRight")
        tooltips.append(page.locator("#tip").inner_text())
    assert len(set(tooltips)) == 3
    for key, other in (
        ("Home", tooltips[0]),
        ("PageDown", None),
        ("Home", tooltips[0]),
        ("ArrowLeft", None),
        ("End", None),
    ):
        before = page.locator("#tip").inner_text()
        page.keyboard.press(key)
        now = page.locator("#tip").inner_text()
        assert now == (before if key == "End" else other or now)  # left of the first is the last
    page.keyboard.press("ArrowRight")
    assert page.locator("#tip").inner_text() == tooltips[0]
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


@pytest.mark.slow
def test_charts_show_means_or_medians(small: Path, opened) -> None:
    page, cells = opened(small), load([str(small.parent.parent)]).cells
    page.select_option("#dataset", "mnist_r")
    for chosen, centre in (("median", median), ("mean", fmean)):
        page.select_option("#summary", chosen)
        page.locator('[data-chart="cost"]:visible .canvas').focus()
        page.keyboard.press("Home")
        match = re.match(r"(\w+): (\d+\.\d\d) %", page.locator("#tip").inner_text())
        assert match
        (cell,) = (cell for cell in cells if (cell.arch, cell.dataset) == (match[1], "mnist_r"))
        errors = [100 * (1 - accuracy) for accuracy in cell.values("test_acc").values()]
        assert match[2] == f"{centre(errors):.2f}"
        bars = page.locator('[data-chart="seeds"]:visible .canvas > svg > line[stroke-width="2.5"]')
        points = page.locator('[data-chart="seeds"]:visible .canvas > svg > circle[fill-opacity="0.55"]').evaluate_all(
            "all => all.map(c => +c.getAttribute('cy'))"
        )
        ends = [float(bars.first.get_attribute(name)) for name in ("y1", "y2")]
        reaches = [min(points), max(points)] == pytest.approx(sorted(ends), abs=0.2)
        assert reaches == (chosen == "median")


@pytest.mark.slow
def test_links_lead_to_run_directories(small: Path, opened) -> None:
    page = opened(small)
    link = page.locator(".architectures:visible tbody a").first
    where = Path(link.evaluate("a => decodeURIComponent(new URL(a.href).pathname)"))
    assert (where / "0-7" / "results.jsonl").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_the_page_is_accessible_and_fits_its_width(width: int, scheme: str, small: Path, opened) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = opened(small, width, color_scheme=scheme)
    faults = Axe().run(page).response["violations"]
    assert [(f["id"], f["nodes"][0]["html"]) for f in faults if f["impact"] in ("serious", "critical")] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != ground


@pytest.mark.slow
def test_wide_intervals_stay_in_the_plot(small: Path, opened, tmp_path: Path) -> None:
    """Two seeds: 12.7 standard errors, far beyond the curves."""
    comparison = load([str(small.parent.parent)])
    for cell in comparison.cells:
        cell.rows = {seed: row for seed, row in cell.rows.items() if seed < 2}
    build.write_report(comparison, tmp_path)
    page = opened(tmp_path / "index.html")
    bands = page.locator('[data-chart="curves"]:visible svg > polygon[fill-opacity="0.16"]')
    assert bands.count() == 3
    for band in bands.all():
        clip = page.locator(str(band.get_attribute("clip-path"))[4:-1] + " rect")
        assert float(str(clip.get_attribute("height"))) < 300


@pytest.mark.slow
def test_plots_of_every_data_set_clip_by_what_is_shown(small: Path, opened) -> None:
    page, names = opened(small), '[data-chart="curves"]:visible svg > polygon[clip-path]'
    datasets = page.locator("#dataset option").count()
    assert datasets > 1
    for i in range(datasets):
        page.select_option("#dataset", index=i)
        assert page.locator(names).count()
        by = {str(band.get_attribute("clip-path"))[4:-1] for band in page.locator(names).all()}
        assert all(page.locator(f"svg:visible {name}").count() == page.locator(name).count() == 1 for name in by)


@pytest.mark.slow
def test_printing_is_light_and_the_page_dark_again(small: Path, opened) -> None:
    page = opened(small, color_scheme="dark")
    theme = "document.documentElement.dataset.theme"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(theme) == "light"
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 within Chromium's margins
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(theme) == "dark"
