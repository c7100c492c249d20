"""What the page says image by image, in a real browser."""

import itertools
import re
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from report import CHROMIUM
from safetensors.numpy import load_file
from scipy import stats as scipy_stats

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium (Debian: apt install chromium), or STN_CHROMIUM")


@pytest.mark.slow
def test_comparisons_by_image_are_those_of_the_answers(small: Path, opened) -> None:
    """McNemar's test and the share of images that flip, from the files that the run directories hold."""
    page = opened(small)
    page.select_option("#dataset", "mnist_r")
    said: dict[str, dict[int, np.ndarray]] = {}
    label_N = np.zeros(0)
    for run in small.parent.parent.glob("sig*/*"):
        config = (run / "config.yaml").read_text()
        if "name: mnist_r\n" in config:
            (arch,) = re.findall(r"^arch:\n  name: (\w+)", config, re.MULTILINE)
            label_N = load_file(run / "predictions" / "images.safetensors")["label"]
            for path in run.glob("predictions/seed-*.safetensors"):
                said.setdefault(arch, {})[int(path.stem[5:])] = load_file(path)["predicted"]
    for (a, first), (b, second) in itertools.combinations(sorted(said.items()), 2):
        tables = [int(((first[s] == label_N) & (second[s] != label_N)).sum()) for s in range(8)]
        others = [int(((first[s] != label_N) & (second[s] == label_N)).sum()) for s in range(8)]
        p = [scipy_stats.binomtest(x, x + y).pvalue for x, y in zip(tables, others, strict=True)]
        flips = fmean(float((first[s] != second[s]).mean()) for s in range(8))
        row = page.locator(f'.image-pairs:visible tr[data-about="{b} - {a}"] td').all_inner_texts()
        assert row[:3] == ["8", f"{fmean(tables):,.1f}", f"{fmean(others):,.1f}"]
        order, clear = np.argsort(np.array(p, dtype=float)), 0
        while clear < 8 and (8 - clear) * p[order[clear]] < 0.05:
            clear += 1
        wins = [tables[s] > others[s] for s in order[:clear]]
        assert row[3:5] == [f"{sum(wins)} of 8", f"{clear - sum(wins)} of 8"]
        assert row[5] == f"{100 * flips:.2f}"
    page.fill("#filter", "stn_c0")
    assert page.locator(".image-pairs:visible tbody tr:visible").count() == 2
    assert page.locator(".classes:visible tbody tr:visible").count() == 10, "classes are no architectures"
    assert page.locator(".tiles:visible img").count() == 12
    assert page.locator('[data-chart="applied"]:visible .legend li').all_inner_texts() == ["stn_c0"]
    page.select_option("#dataset", "mnist")
    assert page.locator('[data-chart="applied"]:visible').count() == 0, "nothing is applied"
