"""Networks that are written in ways of their own: seeds together are each alone, or it is said that they cannot be."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stn.multiseed.checks.as_written import runs_as_written
from stn.multiseed.checks.equivalence import check_equivalence
from stn.multiseed.model import StackedModel
from stn.training.optimizer import clip_gradients

SHAPE = (2, 6, 6)


class Odd(nn.Module):
    """A convolution of 4 channels, an odd operation, and a linear layer."""

    def __init__(self, operation: Callable[["Odd", Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(2, 4, 3), nn.Linear(64, 5)
        self.scale, self.many = nn.Parameter(torch.rand(())), nn.Parameter(torch.rand(3))
        self.register_buffer("nothing", torch.empty(0))
        self.drop, self.operation = nn.Dropout(0.5, inplace=True), operation

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.operation(self, self.conv(x)).flatten(1))


def drop_in_place(network: Odd, x: Tensor) -> Tensor:
    y = x * 1
    network.drop(y)
    return y


OPERATIONS: dict[str, Callable[[Odd, Tensor], Tensor]] = {
    "dropout of a tensor that is the same for all": lambda n, x: (
        x * F.dropout(torch.ones(len(x), 4, 1, 1), 0.5, n.training)
    ),
    "dropout in place": drop_in_place,
    "dropout of everything": lambda n, x: F.dropout(x, 1.0, n.training) + x,
    "a scalar parameter": lambda n, x: x * n.scale,
    "a slope that is a scalar": lambda n, x: F.prelu(x, n.many[0]),
    "a bias that is a scalar": lambda n, x: F.linear(x.flatten(1), torch.eye(64, dtype=x.dtype), n.many[0]),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("S", [2, 4])  # four seeds, channels and rows: what is broadcast wrongly still fits
def test_seeds_together_are_each_alone(name: str, S: int) -> None:
    seeds, rows = list(range(S)), torch.arange(4)
    x = torch.randn(S, 4, *SHAPE, generator=torch.Generator().manual_seed(0))
    together = StackedModel(lambda: Odd(OPERATIONS[name]), seeds)(x, 3, rows)
    for s in seeds:
        alone = StackedModel(lambda: Odd(OPERATIONS[name]), [s])(x[s : s + 1], 3, rows)
        torch.testing.assert_close(together[s], alone[0], rtol=1e-4, atol=1e-5)
    assert check_equivalence(lambda: Odd(OPERATIONS[name]), SHAPE).fault is None


def test_dropout_in_place_drops() -> None:
    seen: list[Tensor] = []
    model = StackedModel(lambda: Odd(lambda n, x: seen.append(drop_in_place(n, x)) or seen[-1]), [0])
    model(torch.randn(1, 4, *SHAPE), 0, torch.arange(4))
    assert 0.3 < (seen[0] == 0).float().mean() < 0.7


def test_the_norm_of_a_scalars_gradient_counts() -> None:
    model = StackedModel(lambda: Odd(OPERATIONS["a scalar parameter"]), [0, 1])
    model(torch.randn(2, 4, *SHAPE), 0, torch.arange(4)).square().sum().backward()
    norms = [torch.cat([p.grad[s].flatten() for p in model.parameters() if p.grad is not None]).norm() for s in (0, 1)]
    torch.testing.assert_close(clip_gradients(model, 0.0), torch.stack(norms))


@pytest.mark.parametrize("draw", ["attention", "gamma"])
def test_what_torch_draws_depends_on_seed_and_step_alone(draw: str) -> None:
    def operation(network: Odd, x: Tensor) -> Tensor:
        if draw == "gamma":
            return x * torch.distributions.Gamma(torch.ones(len(x), 4, 1, 1), 1.0).sample()
        q = x.flatten(2)
        return F.scaled_dot_product_attention(q, q, q, None, 0.5)

    model, x = StackedModel(lambda: Odd(operation), [0]), torch.randn(1, 4, *SHAPE)
    first, second, other = (model(x, step, torch.arange(4)) for step in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("rows", [3, 5])
def test_dropout_over_another_dimension_than_the_batch(rows: int) -> None:
    def operation(network: Odd, x: Tensor) -> Tensor:
        tokens_LBE = x.flatten(2).movedim(2, 0)
        return torch.dropout(tokens_LBE, p=0.5, train=True).movedim(0, 2)

    model, x = StackedModel(lambda: Odd(operation), [0, 1]), torch.randn(2, rows, *SHAPE)
    first, second, other = (model(x, step, torch.arange(rows)) for step in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    alone = StackedModel(lambda: Odd(operation), [1])(x[1:], 3, torch.arange(rows))
    torch.testing.assert_close(first[1], alone[0], rtol=1e-4, atol=1e-5)
    assert check_equivalence(lambda: Odd(operation), SHAPE).fault is None
    parts = [model(x, 3, torch.arange(start, start + rows)) for start in (0, rows)]
    assert not torch.equal(*parts), "parts of a batch drop the same"


def mask_through_a_view(network: Odd, x: Tensor) -> Tensor:
    y = x.relu()
    y.view(len(y), -1)[:, 3:40].mul_(0)
    return y


@pytest.mark.parametrize("training", [True, False])
def test_what_is_lost_in_a_view_that_is_a_copy_is_found(training: bool) -> None:
    def operation(network: Odd, x: Tensor) -> Tensor:
        return mask_through_a_view(network, x) if network.training == training else x

    assert not runs_as_written(lambda: Odd(operation), SHAPE)


def drop_paths(network: Odd, x: Tensor) -> Tensor:
    """Leave out a path, now and then, of what torch draws."""
    return x + 10 * x.new_empty(len(x), 1, 1, 1).bernoulli_(0.05)


def round_up(network: Odd, x: Tensor) -> Tensor:
    """Amplify rounding: here and by itself it is another one."""
    return torch.sin(1e6 * x)


@pytest.mark.parametrize("operation", [drop_paths, round_up, lambda n, x: x + 10 * (random.random() < 0.3)])
def test_networks_that_draw_or_amplify_rounding_are_not_refused(operation: Callable[[Odd, Tensor], Tensor]) -> None:
    for seed in range(10):
        torch.manual_seed(seed)
        assert runs_as_written(lambda: Odd(operation), SHAPE)


@pytest.mark.parametrize("name", ["dropout of everything", "a slope that is a scalar", "dropout in place"])
def test_other_networks_run_as_written(name: str) -> None:
    assert runs_as_written(lambda: Odd(OPERATIONS[name]), SHAPE)


def test_a_network_that_three_rows_do_not_suit_is_not_compared() -> None:
    assert runs_as_written(lambda: Odd(lambda n, x: x.unflatten(0, (2, -1)).flatten(0, 1)), SHAPE)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_network_that_recomputes_is_no_silent_mistake(reentrant: bool) -> None:
    def operation(network: Odd, x: Tensor) -> Tensor:
        return checkpoint(
            lambda y: F.linear(y.flatten(1), network.out.weight[:, :].mT @ network.out.weight),
            x,
            use_reentrant=reentrant,
        )  # type: ignore[return-value]

    model = StackedModel(lambda: Odd(operation), [0])

    def step() -> Any:
        model(torch.randn(1, 4, *SHAPE), 0, torch.arange(4)).sum().backward()

    with pytest.raises(RuntimeError, match="meta"):
        step()
