"""Every CUDA path on a stand-in for CUDA's runtime: captures, illegal calls, host copies, launches; no figures.

$STN_DRYRUN names the script that builds the stand-in (setup.sh VENV; run.sh lies beside it).
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stn.config import registry
from tests.support.paths import ROOT
from tests.support.trainer import environment

pytestmark = pytest.mark.dryrun
SMALL = ("--limit-test", "300", "--limit-train", "4000", "--log.wandb", "disabled", "--log.no-pictures")
Dry = Callable[..., tuple[dict, str]]


@pytest.fixture(scope="session")
def stand_in() -> list[str]:
    """Return the words that run Python on the stand-in."""
    script = Path(os.environ.get("STN_DRYRUN", ""))
    if not script.is_file():
        pytest.skip("no stand-in for CUDA (STN_DRYRUN names a script that builds one)")
    folder, venv = Path.home() / ".cache" / "stn-dryrun", sys.prefix
    if not (folder / "lib" / "libcuda.so.1").exists():
        built = subprocess.run([script, venv, folder], capture_output=True, text=True, timeout=500, check=False)
        if built.returncode:
            pytest.skip(f"the stand-in for CUDA could not be built: {built.stderr.splitlines()[-1]}")
    return [str(script.with_name("run.sh")), venv, str(folder)]


@pytest.fixture
def dry(stand_in: list[str], tmp_path: Path) -> Dry:
    """Return a function that runs a program and returns what was counted and its output."""

    def run(program: Path | str, *words: object) -> tuple[dict, str]:
        report = tmp_path / "report.json"
        probe = [str(ROOT / "tests" / "dryrun" / "probe.py"), str(report), str(program)]
        done = subprocess.run(
            [*stand_in, *probe, *map(str, words)], capture_output=True, text=True, timeout=300, check=False, cwd=ROOT,
            env=environment(FAKECUDA_LOG=str(tmp_path / "cuda.log")),
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(report.read_text()), done.stdout + done.stderr

    return run


def train(dry: Dry, tmp_path: Path, *words: object) -> tuple[dict, str]:
    return dry(ROOT / "train.py", "--steps", 40, *SMALL, "--runs", tmp_path / "runs", *words)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", ["0", "0-3"])
@pytest.mark.parametrize("arch", sorted(registry.entries["arch"]))
def test_each_architecture_is_captured_with_one_seed_and_with_several(
    arch: str, seeds: str, dry: Dry, tmp_path: Path
) -> None:
    counts, text = train(dry, tmp_path, "--arch", arch, "--dataset", "mnist_r", "--seeds", seeds)
    assert (counts["captured"], counts["failed"]) == (1, 0), text
    assert (counts["not allowed"], counts["host copies"]) == (0, 0)
    assert "not replayed" not in text


@pytest.mark.slow
def test_the_default_run_is_captured_in_every_precision(dry: Dry, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16", "fp64"):
        counts, text = train(dry, tmp_path, "--precision", precision)
        assert (counts["captured"], counts["failed"], counts["not allowed"]) == (1, 0, 0), text


BROKEN = """
import sys, torch
from stn.training.cuda_graph import WARM_UP, GraphedStep
device, told = torch.device("cuda"), []
x, noise = torch.zeros(1000, device=device), torch.zeros(1000, device=device)
def step():
    noise.uniform_()
    x.add_(1)
    if BREAKS:
        x.sum().item()  # syncs with the host
graphed = GraphedStep(step, device, True, told.append)
stream = torch.cuda.current_stream()
for _ in range(WARM_UP + 3):
    graphed(SIZE)
    assert torch.cuda.current_stream() == stream
torch.rand(10, device=device)
big = torch.empty(2**33, dtype=torch.uint8, device=device)
del big
torch.cuda.empty_cache()
assert torch.cuda.memory_reserved() < 2**33, "the allocator keeps what it has cached"
print(told)
"""


def test_after_a_capture_that_failed_plain_calls_are_safe_and_the_cause_is_told(dry: Dry, tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text(BROKEN.replace("BREAKS", "True").replace("SIZE", "8"))
    counts, text = dry(script)
    assert counts["failed"] == 1
    assert "steps are not replayed as a CUDA graph: " in text
    assert "not permitted when stream is capturing" in text, "the cause, rather than that the capture is broken"


POOLS = """
import torch
from stn.training.cuda_graph import WARM_UP, GraphedStep
device = torch.device("cuda")
def step():
    big = torch.empty(2**28, device=device)  # 1 GiB, for as long as the step
    big.add_(1)
graphed = GraphedStep(step, device, True, print)
for size in (64, 32, 16):
    for _ in range(WARM_UP + 2):
        graphed(size)
reserved = torch.cuda.memory_reserved() / 2**30
assert reserved < 2.5, f"{reserved:.1f} GiB reserved: a pool for each batch size"
"""


def test_graphs_of_all_batch_sizes_share_one_pool_of_memory(dry: Dry, tmp_path: Path) -> None:
    script = tmp_path / "pools.py"
    script.write_text(POOLS)
    assert dry(script)[0]["captured"] == 3
