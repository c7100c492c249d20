"""The network of our own for CIFAR-10: whitening, fast biases, identity start, and that seeds of it run as one."""

import torch
from torch import nn

from stn.config.dataset import build_dataset
from stn.models.best_nets import FastBias, Whitening
from stn.models.build import build_network
from stn.multiseed.checks.as_written import runs_as_written
from stn.multiseed.checks.equivalence import check_equivalence
from tests.support.networks import config_of, has_one_result, seeded_network
from tests.support.paths import CIFAR, needs_cifar


@needs_cifar
def test_whitening_decorrelates_the_training_images() -> None:
    facts = build_dataset("cifar10")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (facts.mean, facts.std))
    images = (facts.load(str(CIFAR)).train_x[:5000].float() / 255 - mean) / std
    with torch.no_grad():
        out = Whitening()(images)
    assert torch.equal(out[:, 12:], -out[:, :12])
    filters = out[:, :12].movedim(1, 0).flatten(1)
    second_moments = filters @ filters.T / filters.shape[1]
    damped = torch.tensor(Whitening.VARIANCES) / (torch.tensor(Whitening.VARIANCES) + 0.0005)
    torch.testing.assert_close(second_moments.diagonal(), damped, rtol=0.05, atol=0)  # 5,000 images, not 45,000
    correlations = second_moments / (second_moments.diagonal().outer(second_moments.diagonal())).sqrt()
    assert (correlations - torch.eye(12)).abs().max() < 0.3


def test_a_fast_bias_moves_64_times_as_far_in_a_step() -> None:
    x = torch.randn(8, 3, 4, 4)
    plain, fast = nn.BatchNorm2d(3), FastBias(3)
    moved = []
    for layer in (plain, fast):
        before = layer(x)
        (before * torch.arange(3.0).view(3, 1, 1)).sum().backward()
        with torch.no_grad():
            layer.bias -= 1e-4 * layer.bias.grad  # type: ignore[operator]
            moved.append(layer(x) - before)
    assert fast.weight.grad is None
    torch.testing.assert_close(moved[1][:, 1:], 64 * moved[0][:, 1:], rtol=1e-3, atol=1e-5)


def test_convolutions_start_as_the_identity() -> None:
    convolution = seeded_network("cnn", "cifar10", net="whitened_cifar").get_submodule("1.0")
    x = torch.randn(2, 24, 31, 31)
    torch.testing.assert_close(convolution(x)[:, :24], x)


def test_seeds_of_it_run_as_one_network() -> None:
    config = config_of("stn_c0", "cifar10", net="whitened_cifar")
    assert check_equivalence(lambda: build_network(config), (3, 32, 32)).fault is None
    assert runs_as_written(lambda: build_network(config), (3, 32, 32))
    has_one_result(lambda: build_network(config), (3, 32, 32), parts=1)  # batch norm refuses parts by itself
