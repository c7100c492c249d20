"""Triton's kernels on the stand-in: compiled for an H100 by NVIDIA's assembler, launched and counted, not run."""

from pathlib import Path

import pytest

from tests.dryrun.conftest import Dry
from tests.dryrun.test_dryrun import assert_captured, train

pytestmark = pytest.mark.dryrun
WORDS = ("--dataset", "mnist_r", "--eval.every", "100steps", "--optim.schedule", "constant")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("arch", "launches"), [("cnn", 10), ("stn_c0_coord", 24), ("stn_slx", 15)])
def test_our_kernels_are_compiled_and_captured(
    arch: str, launches: int, precision: str, dry_with_triton: Dry, tmp_path: Path
) -> None:
    words = (*WORDS, "--arch", arch, "--seeds", "0-3", "--train.fuse", 4, "--precision", precision, "--steps", 12)
    counts, text = train(dry_with_triton, tmp_path, *words, "--train.conv", "triton")
    assert_captured(counts, text)
    assert counts["triton"] == launches, "convolutions, pools and samples, forward and backward"
    assert counts["slow weight gradients"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "compiles", "most"),
    [("cnn", False, 100), ("cnn", True, 90), ("stn_slx", False, 180), ("stn_slx", True, 150)],
)
def test_a_step_takes_few_launches(arch: str, compiles: bool, most: int, dry_with_triton: Dry, tmp_path: Path) -> None:
    words = (*WORDS, "--arch", arch, "--seeds", "0-63", "--train.fuse", 64, "--train.conv", "grouped", "--steps", 12)
    counts, text = train(dry_with_triton, tmp_path, *words, *["--train.compile"] * compiles)
    assert_captured(counts, text)
    assert counts["nodes"] <= most
    assert counts["imported dynamo"] == compiles
    assert "left out" not in text
