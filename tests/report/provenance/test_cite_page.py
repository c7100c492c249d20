"""The snippets of the page on citing give the hash of the rows that a report's signatures have."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from launch.report.build import compare
from stn.runs.directory import RunDir
from tests.support.paths import ROOT
from tests.support.sweeps import TWO_CELLS, add_result, save_plan
from tests.support.trainer import environment

PAGE = (ROOT / "docs" / "pages" / "how-to" / "cite.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
METRICS = '{"mnist_r": "test_acc"}'


def _replaced(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


def _printed(snippet: str, metrics: str, name: str, cwd: Path) -> str:
    code = _replaced(_replaced(snippet, METRICS, metrics), "NAME", name)
    words, env = [sys.executable, "-c", code], environment(PYTHONPATH=str(ROOT))
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]  # after warnings


def _rows_of(signature: str) -> str:
    return signature.rpartition("|rows:")[2]


@pytest.mark.parametrize("snippet", SNIPPETS, ids=["runs", "rows.csv"])
def test_a_snippet_hashes_the_rows_of_one_table(snippet: str, tmp_path: Path) -> None:
    grid = {"arch": ["cnn", "stn_slx"], "dataset": ["mnist", "mnist_r"]}
    plan = save_plan(tmp_path, TWO_CELLS | {"grid": grid, "seeds": "0-3"})
    for i, job in enumerate(plan.jobs):
        for seed in range(4):
            acc, dataset = 0.9 + 0.01 * i + 0.001 * seed, job.dataset
            more = {"macro_f1": acc / 3} if seed else {}  # a seed without the metric is not in its table
            status = {"status": "failed", "reason": "loss is nan"} if (i, seed) == (1, 2) else {}
            add_result(plan, job, seed, acc, dataset=dataset, test_loss=1, **more, **status)
        RunDir(plan.experiment / job.sig / job.block).config.write_text(plan.cell_file(job).read_text())
    written = compare([str(plan.experiment)])
    name = plan.experiment.name
    assert len(written.sections) == 2
    for section in written.sections:
        hashes = [_rows_of(panel.signature) for panel in section.panels]
        assert len(hashes) == len(set(hashes)) == 3
        for panel, expected in zip(section.panels, hashes, strict=True):
            metrics = f"{{{section.name!r}: {panel.metric.key!r}}}"
            assert _printed(snippet, metrics, name, tmp_path) == expected
            assert _rows_of(panel.pair_signature) == expected
    assert written.overview.across is not None
    over = _rows_of(written.overview.across.signature)
    assert _printed(snippet, '{"mnist": "test_acc", "mnist_r": "test_acc"}', name, tmp_path) == over


def test_a_snippet_hashes_the_rows_of_a_claim() -> None:
    claim = ROOT / "benchmarks" / "claims" / "2026-11-27-finnveden-r"
    (signature,) = re.findall(r"^`(data:.*)`$", (claim / "README.md").read_text(), re.MULTILINE)
    assert _printed(SNIPPETS[0], METRICS, str(claim / "runs"), ROOT) == _rows_of(signature)
