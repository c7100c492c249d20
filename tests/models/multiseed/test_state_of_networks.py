"""Networks that keep something between passes which their state dict, and so a checkpoint, does not have."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from stn.multiseed.checks.as_written import keeps_more_than_checkpoints
from tests.models.multiseed.test_one_result import SHAPE, Net, build, counted, dropped, running_mean


def remembered(net: Net, x: Tensor) -> Tensor:
    before = getattr(net, "before", torch.zeros(()))
    net.before = x.detach().mean()
    return x - before


def cached(net: Net, x: Tensor) -> Tensor:
    net.size = x.shape[-1]
    net.mask = torch.ones(net.size, net.size, dtype=x.dtype).tril()
    return x * net.mask


GENERATOR = np.random.default_rng(0)
OWN = torch.Generator()
OTHERS = [np.random.rand, GENERATOR.random, random.random, lambda: float(torch.rand((), generator=OWN))]


@pytest.mark.parametrize(
    "middle",
    [counted, remembered, *(lambda n, x, draw=draw: x if draw() < 0.4 else x / 2 for draw in OTHERS)],
    ids=["counted", "remembered", "NumPy's", "NumPy's own", "Python's", "torch's own"],
)
def test_what_no_checkpoint_keeps(middle: Callable[[Net, Tensor], Tensor]) -> None:
    assert keeps_more_than_checkpoints(build(middle), SHAPE)


class Lost(Net):
    def __init__(self, persistent: bool) -> None:
        super().__init__(running_mean)
        self.register_buffer("mean", torch.zeros(4, 1, 1), persistent=persistent)


def test_a_buffer_outside_of_the_state_dict_may_be_a_cache_and_no_state() -> None:
    assert keeps_more_than_checkpoints(lambda: Lost(persistent=False), SHAPE)
    assert not keeps_more_than_checkpoints(lambda: Lost(persistent=True), SHAPE)
    assert not any(keeps_more_than_checkpoints(build(middle), SHAPE) for middle in (cached, dropped, running_mean))
