"""A package outside of the repository is trained, evaluated, drawn, exported, swept and reported as ours is."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.paths import ROOT
from tests.support.plugin import write_plugin
from tests.support.sweeps import TINY, launch
from tests.support.trainer import QUIET, environment, only_run, train

NAMED = ("--plugin", "my_package.things", "--dataset", "my_digits", "--steps", "12", "--limit-test", "60")


@pytest.fixture
def path(tmp_path: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(write_plugin(tmp_path / "elsewhere"))}


def after(*commands: tuple, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run commands of `stn` one after the other in a fresh Python."""
    lines = [list(map(str, words)) for words in commands]
    code = f"import sys; from stn.__main__ import main; sys.exit(max(map(main, {lines})))"
    line = [sys.executable, "-c", code]
    env["PYTHONPATH"] = f"{ROOT}:{env['PYTHONPATH']}"
    return subprocess.run(line, cwd=cwd, env=environment(**env), capture_output=True, text=True, check=False)


def test_a_package_of_ones_own(tmp_path: Path, path: dict[str, str]) -> None:
    words = (*NAMED, "--arch", "aligned", "--arch.width", "5", "--seeds", "0-3", "--eval.metrics", "reach", "ece")
    done = train(*words, "--log.wandb", "disabled", runs=tmp_path / "runs", cwd=tmp_path, **path)
    assert done.returncode == 0, done.stderr
    assert "slower" not in done.stdout
    run = only_run(tmp_path / "runs")
    rows = run.results()
    assert len(rows) == 4
    for row in rows.values():
        assert (row["arch"], row["dataset"], row["fused"]) == ("aligned", "my_digits", 4)
        assert {"test_reach", "test_ece", "pose_slope", "feature_agreement"} <= row.keys()
    assert len({row["test_reach"] for row in rows.values()}) == 4
    assert {path.stem for path in (run.path / "pictures").glob("*.png")} >= {"warp", "object", "region", "pose"}
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert (config["train"]["plugins"], config["arch"]["width"]) == (["my_package.things"], 5)
    assert json.loads((run.path / "env.json").read_text())["plugins"]["my_package.things"]["file"].endswith("things.py")

    done = after(
        ("evaluate", run.path),
        ("show", run.path, "--out", tmp_path / "out"),
        ("export", run.path, "--out", tmp_path / "exported"),
        cwd=tmp_path, **path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (done.stdout.count("test_reach"), done.stdout.count("as recorded")) == (5, 4), "the mean, too" + done.stderr
    assert (tmp_path / "out" / "region.png").exists()
    assert any((tmp_path / "exported").glob("*.safetensors"))
    lost = after(("evaluate", run.path), cwd=tmp_path, PYTHONPATH="")
    assert "no plugin my_package.things: Python finds no such module" in lost.stderr
    assert "Traceback" not in lost.stderr


def test_a_network_that_says_nothing_gets_a_line(tmp_path: Path, path: dict[str, str]) -> None:
    done = train(*NAMED, "--arch", "silent", *QUIET, runs=tmp_path / "runs", cwd=tmp_path, **path)
    assert done.stdout.count("note: silent has no method warps") == 1
    assert "pose_slope" not in only_run(tmp_path / "runs").results()[0]


def test_the_manuals_own_modules_train(tmp_path: Path) -> None:
    manual = (ROOT / "docs" / "pages" / "how-to" / "extend.md").read_text()
    modules = [block for block in re.findall(r"```python\n(.*?)```", manual, re.DOTALL) if "@stn.register" in block]
    names = [re.findall(r"^def (\w+)\(make_net", block, re.MULTILINE)[0] for block in modules]
    assert names == ["mlp", "aligned"]
    for name, block in zip(names, modules, strict=True):
        (tmp_path / f"of_{name}.py").write_text(block)
        words = ("--plugin", f"of_{name}", "--arch", name, "--dataset", "mnist_r", "--steps", 6, "--limit-test", 60)
        done = train(*words, "--seeds", "0-1", *QUIET, runs=tmp_path / name, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert [row["status"] for row in only_run(tmp_path / name).results().values()] == ["finished"] * 2


def test_a_function_without_a_return_is_one_line(tmp_path: Path, path: dict[str, str]) -> None:
    file = tmp_path / "elsewhere" / "my_package" / "things.py"
    file.write_text(file.read_text().replace("    return Aligned(", "    Aligned("))
    done = train(*NAMED, "--arch", "aligned", *QUIET, runs=tmp_path / "runs", cwd=tmp_path, **path)
    message = "error: aligned returns NoneType, not an nn.Module; is a return missing?\n"
    assert (done.returncode, done.stderr) == (2, message)


def test_a_network_with_too_few_outputs_is_one_line(tmp_path: Path) -> None:
    text = 'import stn\nfrom torch import nn\n\n@stn.register("arch")\ndef few(make_net, shape, classes):\n'
    (tmp_path / "few.py").write_text(
        text + '    """Few."""\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, classes - 1))\n'
    )
    done = train("--plugin", "few", "--arch", "few", *QUIET, runs=tmp_path / "runs", cwd=tmp_path)
    message = "error: few returns [2, 9] for two images, not logits [2, 10]\n"
    assert (done.returncode, done.stderr, (tmp_path / "runs").exists()) == (2, message, False)


def test_a_network_that_would_compute_something_else_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "masked.py").write_text(
        """import stn
from torch import nn

class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 8, 5), nn.Linear(4608, 10)

    def forward(self, x):
        maps = self.conv(x)
        maps.view(len(maps), -1)[:, :2000] = 0
        return self.last(maps.flatten(1))

@stn.register("arch")
def masked(make_net, shape, classes):
    "A mask."
    return Masked()
"""
    )
    done = train("--plugin", "masked", "--arch", "masked", *QUIET, runs=tmp_path / "runs", cwd=tmp_path)
    message = "error: masked computes otherwise here than by itself: see extend.md, What to avoid\n"
    assert (done.returncode, done.stderr, (tmp_path / "runs").exists()) == (2, message, False)


def test_a_module_does_not_change_the_arithmetic(tmp_path: Path) -> None:
    (tmp_path / "later.py").write_text(
        """import torch
import stn

torch.backends.mkldnn.conv.fp32_precision = "bf16"

@stn.register("metric")
def reach(logits, y):
    "The largest logit."
    return logits.max()
"""
    )
    (tmp_path / "quick.py").write_text(
        """import torch
import stn
from torch import nn

torch.set_float32_matmul_precision("medium")
torch.backends.mkldnn.conv.fp32_precision = "bf16"

class Exact(nn.Linear):
    def forward(self, x):
        assert torch.backends.mkldnn.matmul.fp32_precision == torch.backends.mkldnn.conv.fp32_precision == "ieee"
        return super().forward(x.flatten(1))

@stn.register("arch")
def exact(make_net, shape, classes):
    "A layer."
    return Exact(784, 10)
"""
    )
    words = ("--plugin", "quick,later", "--arch", "exact", "--eval.metrics", "reach", "--eval.every", "1 steps")
    done = train(*words, *QUIET, "--steps", 2, runs=tmp_path / "runs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_sweep_and_its_report_know_a_plugin(tmp_path: Path, path: dict[str, str]) -> None:
    base = TINY["base"] | {"plugin": ["my_package.things"], "dataset": "my_digits", "steps": 8}  # type: ignore[operator]
    base |= {"eval": {"every": "8 steps", "metrics": ["reach"]}}
    grid = {"arch": ["aligned", "silent"]}
    (tmp_path / "own.yaml").write_text(
        yaml.safe_dump(TINY | {"name": "own", "base": base, "grid": grid, "seeds": "0-1"})
    )
    path["PYTHONPATH"] = f"{ROOT}:{path['PYTHONPATH']}"
    done = launch("sweep", "own.yaml", cwd=tmp_path, **path)
    assert done.returncode == 0, done.stdout + done.stderr
    told = launch("report", "runs/own", "--out", "page", cwd=tmp_path, **path)
    assert "2 cells, 4 seeds" in told.stdout, told.stderr
    page = (tmp_path / "page" / "index.html").read_text()
    assert "aligned" in page
    assert "reach, last epoch" in page


def test_edited_code_of_a_plugin_is_refused(tmp_path: Path, path: dict[str, str]) -> None:
    words = (*NAMED, "--arch", "aligned", *QUIET)
    assert train(*words, runs=tmp_path / "runs", cwd=tmp_path, **path).returncode == 0
    file = tmp_path / "elsewhere" / "my_package" / "things.py"
    # Longer by a space: Python's own cache knows seconds and sizes alone.
    file.write_text(file.read_text().replace('act == "relu"', 'act != "relu" '))
    again = train(*words, "--seeds", "1", runs=tmp_path / "runs", cwd=tmp_path, **path)
    assert again.returncode == 2
    assert "was trained by other code" in again.stderr
