"""Every architecture under every optimiser: what is saved is what is loaded, and goes on as if nothing had been."""

import runpy
import sys
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import torch

from stn.config import registry
from stn.config.dataset import build_dataset
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data, Optim, Train
from stn.data.stream import Stream
from stn.models.build import build_network
from stn.multiseed.model import StackedModel
from stn.runs.directory import RunDir
from stn.training import checkpoints
from stn.training.checkpoints import SeedCheckpoint
from stn.training.optimizer import SeedOptimiser, clip_gradients
from tests.support.networks import BATCH_NORM
from tests.support.paths import ROOT

STEPS = 4
OPTIMS = {
    "adamw": Optim(name="adamw", lr=0.01, weight_decay=0.1),
    "sgd": Optim(name="sgd", lr=0.01, momentum=0, clip=1),
    "momentum": Optim(name="sgd", lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-3),
}
ARCHS = sorted(n for n, entry in registry.entries["arch"].items() if entry.function.__module__.startswith("stn."))
SEEDS = [0, 5]


@pytest.fixture(scope="module")
def losses() -> Callable:
    argv, sys.argv = sys.argv, ["train.py"]
    try:
        return runpy.run_path(str(ROOT / "train.py"), run_name="loop")["seed_losses"]
    finally:
        sys.argv = argv


class Training:
    """Two seeds of a configuration, in float64."""

    def __init__(self, config: Config, losses: Callable) -> None:
        self.config, self.losses = config, losses
        data = build_dataset(config.data.name)
        self.stream = Stream(config.data, data, SEEDS, dtype=torch.float64)
        self.model = StackedModel(partial(build_network, config), SEEDS, dtype=torch.float64)
        self.optimiser = SeedOptimiser([config.optim] * len(SEEDS), self.model, self.stream.clock, STEPS)

    def run(self, *steps: int) -> None:
        self.model.train()
        for step in steps:
            batch = self.stream.batch(step)
            self.optimiser.zero_grad()
            self.losses(self.config, self.model, batch, self.stream.clock)[0].sum().backward()
            clip_gradients(self.model, self.config.optim.clip)
            self.optimiser.step()

    def state(self) -> list[SeedCheckpoint]:
        return [
            SeedCheckpoint(self.model.weights(s), self.optimiser.seed_state(s), {}, {"note": [s, None, 0.1]})
            for s in range(len(SEEDS))
        ]


def assert_equal(found: list[SeedCheckpoint], expected: list[SeedCheckpoint]) -> None:
    for a, b in zip(found, expected, strict=True):
        for part in ("model", "optim", "best"):
            assert getattr(a, part).keys() == getattr(b, part).keys()
            for name, tensor in getattr(b, part).items():
                assert getattr(a, part)[name].equal(tensor), name
        assert a.header["note"] == b.header["note"]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("arch", "optim"), list(product([*ARCHS, BATCH_NORM], OPTIMS)))
def test_a_resumed_training_is_the_undisturbed_one(arch: str, optim: str, tmp_path: Path, losses: Callable) -> None:
    net = Arch(name="stn_c0", net=BATCH_NORM) if arch == BATCH_NORM else Arch(name=arch, net="tutorial")
    data = Data(name="mnist_r", batch_size=2, limit_train=6, limit_test=2)  # the last batch of an epoch is whole
    config = resolve(Config(arch=net, data=data, optim=OPTIMS[optim], train=Train(steps=STEPS)))
    undisturbed = Training(config, losses)
    undisturbed.run(*range(STEPS))
    first = Training(config, losses)
    first.run(0, 1)
    run = RunDir(tmp_path / "name" / "sig" / "0,5")
    for seed, checkpoint in zip(SEEDS, first.state(), strict=True):
        checkpoints.save_seed(run, seed, 2, checkpoint, keep=2)
    loaded = checkpoints.load_newest([(run, seed) for seed in SEEDS])
    assert [checkpoint.header["step"] for checkpoint in loaded] == [2, 2]
    assert_equal(loaded, first.state())
    second = Training(config, losses)
    for s, checkpoint in enumerate(loaded):
        second.model.load_weights(s, checkpoint.model)
        second.optimiser.load_seed_state(s, checkpoint.optim)
    assert_equal(second.state(), first.state())
    second.run(*range(2, STEPS))
    assert_equal(second.state(), undisturbed.state())
