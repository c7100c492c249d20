"""Convolutions of several seeds that round otherwise than those of one, as a GPU's do, give the same training in fp64.

On images of noise. In a digit, strokes and background are constant over several pixels: neighbouring patches are equal,
the last bit decides which of them a pool takes, and with it which sampling point gets the gradient. On MNIST the
gradient of a transformer's parameters differs by 1e-4 of its size for that, and test losses by as much after 88 steps.
"""

from pathlib import Path

import pytest

from tests.support.trainer import QUIET, noise_images, only_run, train


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["stn_c0", "stn_cx"])
def test_seeds_convolved_in_another_way_are_the_seed_alone(arch: str, tmp_path: Path) -> None:
    words = ("--arch", arch, "--net", "tutorial", "--dataset", noise_images(tmp_path), "--lr", 0.002, "--epochs", 4,
             "--precision", "fp64", "--batch-size", 96, *QUIET)  # fmt: skip
    for name, more in {"together": ("--seeds", "2-3", "--train.conv", "rows"), "alone": ("--seeds", 2)}.items():
        done = train(*words, *more, runs=tmp_path / name)
        assert done.returncode == 0, done.stderr
    together, alone = (only_run(tmp_path / name).results()[2] for name in ("together", "alone"))
    assert together["weights_sha256"] != alone["weights_sha256"], "they round in the same way: nothing is shown"
    assert together["test_loss"] == pytest.approx(alone["test_loss"], abs=1e-9)
