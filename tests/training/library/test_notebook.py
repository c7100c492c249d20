"""The notebook of examples/ runs: as plain Python, and in Jupyter where that is installed."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.sweeps import TINY, write_sweep
from tests.support.trainer import environment

NOTEBOOK = ROOT / "examples" / "results.ipynb"
SMALL = TINY | {"seeds": "0-1", "base": TINY["base"] | {"steps": 10, "eval": {"every": "5 steps"}}}


@pytest.mark.slow
@pytest.mark.parametrize("jupyter", [False, True], ids=["python", "jupyter"])
def test_the_notebook_runs(jupyter: bool, tmp_path: Path) -> None:
    if jupyter and not (find_spec("nbclient") and find_spec("ipykernel")):
        pytest.skip("no nbclient and ipykernel")
    write_sweep(tmp_path, SMALL, "small")
    if jupyter:
        shutil.copy(NOTEBOOK, tmp_path / "results.ipynb")  # the kernel runs in its folder
        words = ["-m", "jupyter", "execute", "--output", str(tmp_path / "out.ipynb"), str(tmp_path / "results.ipynb")]
    else:
        cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        (tmp_path / "cells.py").write_text("\n\n".join(code), encoding="utf-8")
        words = ["cells.py"]
    env = environment(PYTHONPATH=str(ROOT), SWEEP="small.yaml", MPLBACKEND="agg", CUDA_VISIBLE_DEVICES="")
    line = [sys.executable, *words]
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    if jupyter:
        outputs = [
            out for cell in json.loads((tmp_path / "out.ipynb").read_text())["cells"] for out in cell.get("outputs", [])
        ]
        assert not [out for out in outputs if out["output_type"] == "error"]
    else:
        assert "cnn " in done.stdout
        assert "stn_slx on mnist, finished seeds [0, 1]" in done.stdout


def test_the_notebook_is_stored_with_what_it_printed() -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] for cell in cells)
    assert NOTEBOOK.stat().st_size < 100_000
