"""The seed axis in training: a seed beside others, in parts and on other rows is the seed alone."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stn.config.dataset import build_dataset
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data, Optim, Train
from stn.data.rng import initialised
from stn.data.stream import Stream
from stn.models.build import build_network
from stn.multiseed.model import StackedModel
from stn.training.optimizer import SeedOptimiser, clip_gradients
from tests.support.networks import BATCH_NORM
from tests.support.one_operation import stack_alone

ARCHS = ["cnn", "stn_c0", "stn_c0_coord", "stn_cx", "stn_dlx", "stn_slx"]


def train(
    config: Config, seeds: list[int], n: int = 20, parts: int = 1, poison: int | None = None
) -> tuple[StackedModel, Tensor]:
    """n steps of a real stream; the model and the losses [n, S]."""
    facts = build_dataset(config.data.name)
    stream = Stream(config.data, facts, seeds, dtype=torch.float64)
    model = StackedModel(lambda: build_network(config), seeds, dtype=torch.float64)
    optimiser = SeedOptimiser([config.optim] * len(seeds), model, stream.clock, n)
    if poison is not None:
        with torch.no_grad():
            next(iter(model.stacked.values()))[poison] = math.nan
    losses = []
    for step in range(n):
        stream.seek(step)
        optimiser.zero_grad()
        total = torch.zeros(len(seeds), dtype=torch.float64)
        for part in stream.draw().parts(parts):
            logits = model(part.x_SBCHW, stream.clock, part.row_B).transpose(1, 2)
            loss = (F.cross_entropy(logits, part.y_SB, reduction="none") * part.weight_B).sum(1)
            loss.sum().backward()
            total += loss.detach()
        if config.optim.clip:
            clip_gradients(model, config.optim.clip)
        optimiser.step()
        losses.append(total)
    return model, torch.stack(losses)


def config(arch: str, optim: Optim, net: str | None = None, batch_size: int = 16) -> Config:
    data = Data(name="mnist_r", batch_size=batch_size, limit_train=640)
    return resolve(Config(arch=Arch(name=arch, net=net), data=data, optim=optim, train=Train(steps=20)))


@pytest.mark.parametrize("optim", [Optim(name="sgd", lr=0.05, clip=1.0), Optim(lr=0.003, weight_decay=0.01)], ids=str)
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("net", [BATCH_NORM, None])
def test_fused_is_alone_to_1e_12_in_every_loss_and_weight(arch: str, optim: Optim, net: str | None) -> None:
    one = config(arch, optim, net)
    together, losses = train(one, [3, 4, 5], 6)
    alone, loss = train(one, [4], 6)
    assert (loss[:, 0] - losses[:, 1]).abs().max() <= 1e-12
    for name, weight in alone.weights(0).items():
        assert (weight - together.weights(1)[name]).abs().max() <= 1e-12, name
    assert losses.std(1).min() > 1e-4, "the seeds are the same"
    assert not together.slow


def test_one_seed_is_the_ordinary_module_with_torchs_own_optimiser() -> None:
    one = config("stn_slx", Optim(name="adamw", lr=0.003, weight_decay=0.1, schedule="constant"))
    model, _ = train(one, [3])
    facts = build_dataset("mnist_r")
    module = initialised(lambda: build_network(one), 3).double()
    stream = Stream(one.data, facts, [3], dtype=torch.float64)
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.003, weight_decay=0.1)
    for step in range(20):
        batch = stream.batch(step)
        F.cross_entropy(module(batch.x_SBCHW[0]), batch.y_SB[0]).backward()
        optimiser.step()
        optimiser.zero_grad()
    for name, weight in module.state_dict().items():
        torch.testing.assert_close(weight, model.weights(0)[name], atol=1e-11, rtol=0)


def test_a_seed_that_is_no_number_leaves_the_others_bit_for_bit() -> None:
    one = config("stn_cx", Optim(name="adamw", lr=0.003, clip=0.5), BATCH_NORM)
    clean, _ = train(one, [0, 1, 2, 3], 5)
    hurt, losses = train(one, [0, 1, 2, 3], 5, poison=2)
    assert losses[:, 2].isnan().all()
    for s in (0, 1, 3):
        for name, weight in clean.weights(s).items():
            assert torch.equal(weight, hurt.weights(s)[name]), name


def test_a_batch_in_parts_is_the_batch() -> None:
    one = config("stn_c0", Optim(name="sgd", lr=0.1), "tutorial")
    whole, parts = train(one, [1, 2], 5)[0], train(one, [1, 2], 5, parts=3)[0]
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def test_initialisation_does_not_disturb_torchs_random_state() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = StackedModel(lambda: nn.Linear(3, 2), [1]).weights(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    for name, value in StackedModel(lambda: nn.Linear(3, 2), [0, 1]).weights(1).items():
        assert torch.equal(value, first[name])


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit the network"):
        StackedModel(lambda: nn.Linear(3, 2), [1]).load_weights(0, {"weight": torch.zeros(2, 3)})


def test_weights_that_two_modules_share_stay_one() -> None:
    def tied() -> nn.Module:
        net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        net[2].weight = net[0].weight
        return net

    model = StackedModel(tied, [0, 1])
    assert len(list(model.parameters())) == 3
    assert set(model.weights(0)) == set(tied().state_dict())
    x = torch.randn(2, 5, 4)
    alone = stack_alone(model, x, 0, torch.arange(5))
    torch.testing.assert_close(model(x, 0, torch.arange(5)), alone)
