"""The page in a real browser, with the network off: tables, filters, names and size."""

import itertools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from report import CHROMIUM, generate
from scipy import stats as scipy_stats

from launch.report import build
from launch.report.analysis.cells import load

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium (Debian: apt install chromium), or STN_CHROMIUM")


def column(page: "Page", number: int) -> list[str]:
    """Return what a column of the table of architectures shows."""
    return page.locator(f".architectures:visible tbody tr:visible > :nth-child({number})").all_inner_texts()


def results(page: Path, dataset: str) -> dict[str, dict[int, float]]:
    """Return accuracies by architecture and seed, read from the run directories."""
    accuracies: dict[str, dict[int, float]] = {}
    for run in page.parent.parent.glob("sig*/*"):
        config = (run / "config.yaml").read_text()
        if f"name: {dataset}\n" in config:
            arch = re.search(r"^arch:\n  name: (\w+)", config, re.MULTILINE)
            assert arch
            for line in (run / "results.jsonl").read_text().splitlines():
                row = json.loads(line)
                accuracies.setdefault(arch[1], {})[row["seed"]] = 100 * row["test_acc"]
    return accuracies


def test_numbers_are_those_of_the_rows(small: Path, opened) -> None:
    page = opened(small)
    page.select_option("#dataset", "mnist_r")
    for arch, values in results(small, "mnist_r").items():
        x = list(values.values())
        low, high = scipy_stats.t.interval(0.95, len(x) - 1, np.mean(x), scipy_stats.sem(x))
        row = page.locator(f'.architectures:visible tr[data-about="{arch}"] td').all_inner_texts()
        expected = ["8", f"{np.mean(x):.2f}", f"{np.std(x, ddof=1):.2f}", f"{low:.2f} to {high:.2f}"]
        assert row[:7] == [*expected, *(f"{v:.2f}" for v in (np.median(x), max(x), min(x)))]


def test_pairs_are_those_of_the_rows(small: Path, opened) -> None:
    """scipy's paired t test; Holm's correction by hand; the words, the table and the matrix say the same."""
    page = opened(small)
    page.select_option("#dataset", "mnist_r")
    tests = {}
    for (a, first), (b, second) in itertools.combinations(sorted(results(small, "mnist_r").items()), 2):
        d = np.array([second[seed] - first[seed] for seed in sorted(first)])
        tests[f"{b} - {a}"] = d, scipy_stats.ttest_1samp(d, 0)
    order = sorted(tests, key=lambda pair: tests[pair][1].pvalue)
    corrected, running = {}, 0.0
    for rank, pair in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * tests[pair][1].pvalue))
        corrected[pair] = running, len(order) - rank
    words = page.locator(".verdicts:visible li").all_inner_texts()
    assert len(words) == len(tests)
    for pair, (d, test) in tests.items():
        p, left = corrected[pair]
        assert p < 0.05, "the levels below are those of rejected pairs"
        ends, mark = test.confidence_interval(1 - 0.05 / left), "better" if d.mean() > 0 else "worse"
        row = page.locator(f'.comparisons:visible tr[data-about="{pair}"] td').all_inner_texts()
        assert row[:4] == [mark, "8", f"{d.mean():+.2f}", f"{ends.low:+.2f} to {ends.high:+.2f}"]
        assert row[4:] == [f"{p:.4g}", f"{d.mean() / d.std(ddof=1):.2f}", "-"]
        b, a = pair.split(" - ")
        heads = page.locator(".matrix:visible thead th").all_inner_texts()
        field = page.locator(f'.matrix:visible tr[data-about="{b}"] td').nth(heads.index(a) - 1)
        assert field.inner_text() == f"{d.mean():+.2f}"
        assert field.get_attribute("class") == mark
        low, high = sorted(map(abs, ends))
        winner, loser = (b, a) if d.mean() > 0 else (a, b)
        sentence = f"{winner} beats {loser} by {abs(d.mean()):.2f} points (95 % {low:.2f} to {high:.2f}, n = 8 pairs, "
        assert any(text.startswith(sentence) for text in words)


def test_tables_sort_and_filter(small: Path, opened) -> None:
    page = opened(small)
    page.locator(".architectures:visible thead button", has_text="mean").click()
    means = [float(text) for text in column(page, 3)]
    assert means == sorted(means)
    button = page.locator(".architectures:visible thead button", has_text="mean")
    button.focus()
    page.keyboard.press("Enter")
    assert [float(text) for text in column(page, 3)] == sorted(means, reverse=True)
    assert button.locator("xpath=..").get_attribute("aria-sort") == "descending"
    page.evaluate("""document.querySelectorAll('.panel:not([hidden]) .architectures tbody tr').forEach((row, i) => {
        row.cells[2].dataset.sort = [9, 10, -2][i]; row.cells[2].textContent = [9, 10, -2][i]; })""")
    page.locator(".architectures:visible thead button", has_text="mean").click()
    assert column(page, 3) == ["-2", "9", "10"], "by number"
    page.fill("#filter", "C0")
    assert column(page, 1) == ["stn_c0"]
    assert page.locator('[data-chart="curves"]:visible .legend li').all_inner_texts() == ["stn_c0"]
    page.fill("#filter", "")
    assert len(column(page, 1)) == 3


def test_data_set_and_metric_can_be_chosen(small: Path, opened) -> None:
    page = opened(small)
    names = page.locator("#dataset option").all_inner_texts()
    assert names == ["mnist", "mnist_r"]
    assert page.locator("h2:visible").all_inner_texts() == ["mnist"]
    page.select_option("#dataset", "mnist_r")
    assert page.locator("h2:visible").all_inner_texts() == ["mnist_r"]
    before = column(page, 3)
    page.select_option("#metric", "best_test_acc")
    assert "selected on the test set" in page.locator(".panel:visible h3").first.inner_text()
    after = column(page, 3)
    assert all(float(best) >= float(last) for best, last in zip(after, before, strict=True))
    assert after != before


NAMES = [
    "</script><script>hacked = 1</script>",
    "\"><img src=x onerror='hacked = 1'>",
    "x" * 300,
    "перенос сдвиг 変換",
    "{{ 7*7 }}",
]


def test_names_are_shown_as_text(small: Path, opened, tmp_path: Path) -> None:
    comparison = load([str(small.parent.parent)])
    comparison.name = f"</title><script>hacked = 1</script> & {NAMES[3]}"
    comparison.notes = NAMES
    for cell, name in zip(comparison.cells, itertools.cycle(NAMES)):
        cell.setting, cell.failed = name, {99: f"</script> {name}"}
    build.write_report(comparison, tmp_path)
    page = opened(tmp_path / "index.html")
    assert page.evaluate("typeof hacked") == "undefined"
    assert page.locator("h1").inner_text() == f"Comparison: {comparison.name}"
    assert page.locator(".notes li").all_inner_texts() == NAMES
    shown = {text.split(" ", 1)[1] for text in column(page, 1)}
    assert shown == {cell.setting for cell in comparison.cells if cell.dataset == "mnist"}
    legend = page.locator('[data-chart="curves"]:visible .legend li').all_inner_texts()
    assert {text.split(" ", 1)[1] for text in legend} == shown
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert "<script>" not in (tmp_path / "report.md").read_text()


def test_the_tables_need_no_scripts(small: Path, opened) -> None:
    page = opened(small, java_script_enabled=False)
    assert len(page.locator(".architectures tbody tr:visible").all()) > 6
    assert page.locator("noscript").is_visible()


@pytest.mark.slow
def test_a_large_report_is_a_small_page(tmp_path: Path, opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 cells, 1,000 seeds: under 6 MB; benchmarks/report.py measures how long it takes to open.

    Without figures/, which the page does not need and which take most of the time."""
    generate(tmp_path / "large", archs=20, datasets=5, seeds=10)
    monkeypatch.setattr(build.apart, "draw", lambda sections, folder: None)
    build.write_report(load([str(tmp_path / "large")]), tmp_path)
    large = tmp_path / "index.html"
    assert large.stat().st_size < 6e6
    page = opened(large)
    page.wait_for_selector('[data-chart="pose"]:visible svg')
    assert len(column(page, 1)) == 20
