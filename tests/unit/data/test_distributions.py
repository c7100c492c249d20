"""Perturbations are distributed as their data sets are defined."""

import pytest
import torch
import torch.nn.functional as F

from stn.config.dataset import build_dataset
from stn.data.datasets import point_names
from stn.data.rng import Draws

# ---- distributions

N = 4000
U, G = "uniform", "normal"
POSES: dict[str, dict[str, tuple]] = {
    "mnist_r": {"degrees": (U, -90, 90)},
    "mnist_s": {"log2_area": (U, -2, 4)},
    "mnist_rts": {"degrees": (U, -45, 45), "factor": (U, 0.7, 1.2), "x": (U, -7, 7), "y": (U, -7, 7)},
    "mnist_p": {"factor": (U, 0.75, 1)} | dict.fromkeys(point_names(4), (G, 0, 5)),
    "mnist_e": {"factor": (U, 0.75, 1)} | dict.fromkeys(point_names(16), (G, 0, 1.5)),
    "mnist_h": dict.fromkeys(point_names(4), (G, 0, 2**0.5 * 3.375)),
    "cifar10_r": {"degrees": (U, -30, 30)},
    "cifar10_a": {"degrees": (U, -30, 30), "log2_area": (U, -0.643856, 0.643856), "x": (U, -4, 4), "y": (U, -4, 4)},
}


def poses(name: str) -> dict[str, torch.Tensor]:
    facts = build_dataset(name)
    assert facts.perturb
    x = torch.zeros(N, facts.shape[0], 4, 4, dtype=torch.uint8).expand(-1, -1, 4, 4)
    x = F.pad(x, [0, facts.side - 4, 0, facts.side - 4])
    _, pose = facts.perturb(x, Draws(12, torch.arange(N)), x)
    return dict(zip(facts.pose, pose.double().unbind(1), strict=True))


@pytest.mark.parametrize("name", POSES)
def test_perturbations_are_distributed_as_defined(name: str) -> None:
    pose = poses(name)
    if "factor" in POSES[name]:
        pose["factor"] = 2 ** (pose.pop("log2_area") / 2)
    assert set(pose) == set(POSES[name])
    for column, (kind, a, b) in POSES[name].items():
        value = pose[column].sort().values
        low, high = (a, b) if kind == U else (a - 5 * b, a + 5 * b)
        assert low - 1e-6 <= value[0] < value[-1] <= high + 1e-6
        if kind == U:  # the nearest of 4,000 is further from an end than this once in 500 million
            assert max(value[0] - low, high - value[-1]) < 0.005 * (high - low), column
        mean, sd = ((a + b) / 2, (b - a) / 12**0.5) if kind == U else (a, b)
        assert abs(value.mean() - mean) < 4 * sd / N**0.5, column
        assert abs(value.std() / sd - 1) < 0.05, column
        below = (value - a) / (b - a) if kind == U else torch.special.ndtr((value - a) / b)
        distance = (below - torch.arange(N) / N).abs().max()
        assert distance < 2.2 / N**0.5, (column, distance)  # Kolmogorov and Smirnov: once in 8,000 columns
    correlation = torch.corrcoef(torch.stack(list(pose.values()))).view(len(pose), -1) - torch.eye(len(pose))
    if name == "mnist_h":  # half of the variance is common to all four corners, each axis by itself
        correlation -= 0.5 * (torch.eye(2).repeat(4, 4) - torch.eye(8))
    assert correlation.abs().max() < 5 / N**0.5


def test_the_digit_of_the_cluttered_set_is_anywhere_alike() -> None:
    for column in poses("mnist_t").values():
        counts = torch.bincount(column.long() + 16, minlength=33).double()
        assert len(counts) == 33
        assert ((counts - N / 33) ** 2 / (N / 33)).sum() < 73  # chi-square of 32: once in 20,000
