"""Networks that keep something between passes which their state dict, and so a checkpoint, does not have."""

import random
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from stn.multiseed.checks.one_result import keeps_beside_checkpoints
from tests.models.multiseed.test_one_result import SHAPE, Net, build, counted, dropped, running_mean, with_penalty


def counted_in_a_tensor(net: Net, x: Tensor) -> Tensor:
    net.size = torch.as_tensor(net.size) + 1  # type: ignore[assignment]
    return x if net.size < 1000 else 0 * x


def remembered(net: Net, x: Tensor) -> Tensor:
    before = getattr(net, "before", torch.zeros(()))
    net.before = x.detach().mean()
    return x - before


def cached(net: Net, x: Tensor) -> Tensor:
    net.size = x.shape[-1]
    net.mask = torch.ones(net.size, net.size, dtype=x.dtype).tril()
    return x * net.mask


def timed(net: Net, x: Tensor) -> Tensor:
    net.seconds = time.perf_counter()
    return x


GENERATOR = np.random.default_rng(0)
OWN = torch.Generator()
OTHERS = [np.random.rand, GENERATOR.random, random.random, lambda: float(torch.rand((), generator=OWN))]


REPEATED, OTHER = "gives something else when a pass is repeated", "draws from another generator than torch's"


@pytest.mark.parametrize(
    ("middle", "fault"),
    [
        (counted, "counts in passes, which no checkpoint has"),
        (lambda n, x: with_penalty(n, counted(n, x)), "counts in passes, which no checkpoint has"),
        (counted_in_a_tensor, "counts in size, which no checkpoint has"),
        (remembered, REPEATED),
        *[
            (lambda n, x, draw=draw: x if draw() < 0.4 else x / 2, fault)
            for draw, fault in zip(OTHERS, [OTHER, REPEATED, OTHER, REPEATED], strict=True)
        ],
    ],
    ids=["counted", "in a tensor", "with a penalty", "remembered", "NumPy's", "NumPy's own", "Python's", "torch's own"],
)
def test_what_no_checkpoint_keeps(middle: Callable[[Net, Tensor], Tensor], fault: str) -> None:
    assert keeps_beside_checkpoints(build(middle), SHAPE) == fault


class Lost(Net):
    def __init__(self, persistent: bool) -> None:
        super().__init__(running_mean)
        self.register_buffer("mean", torch.zeros(4, 1, 1), persistent=persistent)


def test_a_buffer_outside_of_the_state_dict_may_be_a_cache_and_no_state() -> None:
    assert keeps_beside_checkpoints(lambda: Lost(persistent=False), SHAPE)
    assert not keeps_beside_checkpoints(lambda: Lost(persistent=True), SHAPE)
    assert not any(keeps_beside_checkpoints(build(middle), SHAPE) for middle in (cached, timed, dropped, running_mean))
