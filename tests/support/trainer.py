"""Run train.py as a user does, and read the run directories that it writes."""

import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.support.forked import ForkServer
from tests.support.machine import wait_until
from tests.support.paths import ROOT

QUIET = ("--log.wandb", "disabled", "--log.no-pictures")
SMALL = ("--limit-train", "1280", "--limit-test", "300", *QUIET)
QUICK = ("--net", "tutorial", "--arch", "stn_c0", "--batch-size", "32")
"""For tests that need many steps of any network."""
TWO_THREADS = ("--train.threads", "2")
"""For tests that compare bits: the number of threads decides how torch splits tensors."""


def command(*arguments: object, launcher: str | None = None, runs: Path | None = None) -> list[str]:
    """Return the command line of a training; ``launcher`` names a file of configs/accelerate."""
    start = [sys.executable]
    if launcher:
        on_cpu = ["env", "ACCELERATE_USE_CPU=true"] if launcher == "cpu2" else []  # also where there are GPUs
        start = [*on_cpu, str(Path(sys.executable).parent / "accelerate"), "launch", "--config_file"]
        start.append(str(ROOT / "configs" / "accelerate" / f"{launcher}.yaml"))
    where = ["--runs", str(runs)] if runs else []
    return [*start, str(ROOT / "train.py"), *map(str, arguments), *where]


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment without the user's W&B and Accelerate settings.

    Bytecode is cached, also where it otherwise is not: the stand-in for CUDA starts in half the time."""
    not_kept = ("WANDB_", "ACCELERATE_", "PYTHONDONTWRITEBYTECODE")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(not_kept)}
    return kept | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "WANDB_SILENT": "true"} | more


@cache
def fork_server() -> ForkServer:
    return ForkServer(environment())


def train_in_ranks(*arguments: object, runs: Path, count: int = 2) -> subprocess.CompletedProcess[str]:
    """Run a training in processes with torchrun's variables: seconds faster than through a launcher (Linux)."""
    if sys.platform != "linux":
        pytest.skip("processes are forked: Linux only")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    size = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    common = size | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} | common for rank in range(count)]
    return fork_server().run(command(*arguments, runs=runs)[1:], *(environment(**rank) for rank in ranks))


def train(
    *arguments: object, launcher: str | None = None, runs: Path | None = None, cwd: Path | str | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a training to its end; in the fork server unless the test needs a fresh Python."""
    words = command(*arguments, launcher=launcher, runs=runs)
    if sys.platform == "linux" and not (launcher or env.keys() - {"PYTHONPATH"}):
        return fork_server().run(words[1:], environment(**env), cwd=cwd or ROOT)
    return subprocess.run(
        words,
        capture_output=True,
        text=True,
        env=environment(**env),
        cwd=cwd,
        timeout=500,
        check=False,
    )


def noise_images(folder: Path) -> str:
    """Write 1,000 training and 300 test images of noise, in which no two patches are equal; return their data set."""
    generator = np.random.default_rng(0)
    images, labels = generator.integers(0, 256, (1300, 28, 28), np.uint8), generator.integers(0, 10, 1300)
    file = folder / "noise.npz"
    np.savez(file, x_train=images[:1000], y_train=labels[:1000], x_test=images[1000:], y_test=labels[1000:])
    return f"npz:{file}"


def train_with(patch: str, *words: object, runs: Path) -> subprocess.CompletedProcess[str]:
    """Run a training in a process of its own, in which this code is run first: to inject a fault."""
    if sys.platform != "linux":
        pytest.skip("processes are forked: Linux only")
    script = f"import runpy, sys\n{patch}\nsys.argv[0] = 'train.py'\nrunpy.run_path('train.py', run_name='__main__')\n"
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder) / "patched.py").write_text(script)
        return fork_server().run([str(path), *map(str, words), "--runs", str(runs)], environment())


def start_training(*words: object, runs: Path, launcher: str | None = None) -> subprocess.Popen:
    """Start a training in a process group of its own."""
    return subprocess.Popen(
        command(*words, launcher=launcher, runs=runs),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(), start_new_session=True,
    )  # fmt: skip


def wait_for_train_rows(runs: Path, count: int = 1) -> None:
    """Wait until a run below ``runs`` has written this many rows of training metrics."""

    def written() -> bool:
        files = runs.glob("*/*/*/metrics.jsonl")
        return any(path.read_text().count('"kind": "train"') >= count for path in files)

    wait_until(f"{count} rows of training below {runs}", written, 240)  # on a busy machine


def run_script(script: str, *arguments: object, monkeypatch: pytest.MonkeyPatch) -> object:
    """Return the exit code of a script, run in this process: that saves the seconds that its imports take."""
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    with pytest.raises(SystemExit) as error:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    return error.value.code


class Run:
    """A run directory, read back."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def results(self) -> dict[int, dict]:
        return {row["seed"]: row for row in self.rows("results.jsonl")}

    def rows(self, name: str = "metrics.jsonl") -> list[dict]:
        return [json.loads(line) for line in (self.path / name).read_text().splitlines()]

    def metrics_without_clock(self) -> list[dict]:
        return [{k: v for k, v in row.items() if k != "images_per_s"} for row in self.rows()]

    def status(self) -> dict:
        path = self.path / "status.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def weights(self, seed: int) -> dict[str, torch.Tensor]:
        return load_file(self.path / "checkpoints" / f"seed-{seed}" / "final.safetensors")

    def saved_steps(self) -> set[int]:
        return {int(path.stem.removeprefix("step-")) for path in self.path.rglob("step-*.safetensors")}


def only_run(runs: Path) -> Run:
    """Return the one run directory below ``runs``."""
    (path,) = runs.glob("*/*/*")
    return Run(path)


def assert_close(weights: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], atol: float = 1e-12) -> None:
    """Compare float64 weights: on some CPUs a batched product rounds differently from one alone."""
    assert weights.keys() == expected.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=atol)
