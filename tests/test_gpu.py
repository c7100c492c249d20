"""What only a CUDA device can show. Skipped where there is none."""

from pathlib import Path

import pytest
import torch
from conftest import SMALL, only_run, train

from stn.data.stream import Stream
from stn.resolve import build_dataset
from stn.rng import Draws
from stn.schema import Data
from stn.warp import affine_grid, sample

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


def test_random_numbers_are_the_cpus() -> None:
    rows = torch.arange(1000)
    assert torch.equal(Draws(1, 2, rows).bits(5), Draws(1, 2, rows.cuda(), device="cuda").bits(5).cpu())
    assert torch.equal(Draws(3).permutation(60_000), Draws(3, device="cuda").permutation(60_000).cpu())


@pytest.mark.parametrize("name", ["mnist", "mnist_r", "mnist_t", "mnist_s"])
def test_batches_are_the_cpus(name: str) -> None:
    def batch(device: str) -> torch.Tensor:
        return (
            Stream(Data(name=name, rotate=10, crop=2, flip=True), build_dataset(name), [0, 1], device).batch(3).x_SBCHW
        )

    difference = (batch("cuda").cpu() - batch("cpu")).abs()
    assert difference.mean() < 1e-5


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_gather_sampler_is_deterministic_and_native_is_refused(padding: str) -> None:
    x = torch.randn(16, 8, 20, 20, device="cuda", requires_grad=True)
    theta = (torch.eye(2, 3) + 0.3 * torch.randn(16, 2, 3)).cuda().requires_grad_()
    torch.use_deterministic_algorithms(True)
    try:
        grads = []
        for _ in range(3):
            out = sample(x, affine_grid(theta, (20, 20), True), padding, True, "gather")
            grads.append(torch.autograd.grad((out * out.detach().cos()).sum(), (x, theta)))
        for other in grads[1:]:
            assert all(torch.equal(a, b) for a, b in zip(grads[0], other, strict=True))
        with pytest.raises(RuntimeError, match="deterministic"):
            sample(x, affine_grid(theta, (20, 20), True), padding, True).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "fp64"])
def test_every_precision_trains(precision: str, tmp_path: Path) -> None:
    done = train("--epochs", 1, "--precision", precision, "--log.wandb", "disabled", runs=tmp_path)
    assert done.returncode == 0, done.stderr
    assert only_run(tmp_path).results()[0]["test_acc"] > 0.95


def test_deterministic_mode_repeats_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    words = ("--steps", 60, "--arch", "stn_cx", "--train.deterministic", "--checkpoint.every", "10 steps", *SMALL)
    for name in ("a", "b"):
        assert train(*words, runs=tmp_path / name).returncode == 0
    train(*words, "--train.time-limit", "1e-3", runs=tmp_path / "c")
    assert train(*words, runs=tmp_path / "c").returncode == 0
    weights = {only_run(tmp_path / name).results()[0]["weights_sha256"] for name in ("a", "b", "c")}
    assert len(weights) == 1


def test_cuda_follows_the_cpu_in_double_precision(tmp_path: Path) -> None:
    words = (
        "--steps",
        20,
        "--precision",
        "fp64",
        "--log.every",
        "1 steps",
        "--net",
        "tutorial",
        "--arch",
        "stn_c0",
        *SMALL,
    )
    train(*words, runs=tmp_path / "gpu")
    train(*words, runs=tmp_path / "cpu", CUDA_VISIBLE_DEVICES="")
    losses = [[row["loss"] for row in only_run(tmp_path / d).rows() if row["kind"] == "train"] for d in ("gpu", "cpu")]
    assert max(abs(a - b) for a, b in zip(*losses, strict=True)) < 1e-6
