"""Convolutions and dropout of several seeds: gradients, and random numbers as a function of seed, step and row."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stn.multiseed.rules import layers  # noqa: F401  (fills the table of rules)
from stn.multiseed.rules.gradients import OwnConv
from stn.multiseed.stacked import SeedOps


def ops(seed: int, step: int, rows: Tensor) -> SeedOps:
    return SeedOps([seed], torch.tensor([seed]), step, rows)


@pytest.mark.parametrize(
    ("channels", "kernel", "padding", "groups"),
    [
        (1, (5, 5), (0, 0), 1),
        (2, (3, 5), (1, 2), 1),
        (1, (7, 3), (2, 0), 3),
        (2, (5, 5), 1, 2),
        (16, (7, 8), (0, 1), 2),
    ],
)
def test_our_convolution_has_the_gradients_of_conv2d(channels: int, kernel: tuple, padding: tuple, groups: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, groups * channels, 11, 12, dtype=torch.float64, requires_grad=True)
    filters = groups * max(4, channels)
    weight = torch.randn(filters, channels, *kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(filters, dtype=torch.float64, requires_grad=True)
    ours, theirs = OwnConv.apply(x, weight, bias, padding, groups), F.conv2d(x, weight, bias, 1, padding, 1, groups)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    up = torch.randn_like(theirs)
    for a, b in zip(
        torch.autograd.grad(ours, (x, weight, bias), up),
        torch.autograd.grad(theirs, (x, weight, bias), up),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


@pytest.mark.parametrize("needs_gradient", [True, False])
def test_a_thin_convolution_in_bf16_has_ways_of_its_own_where_an_image_needs_its_gradient(needs_gradient: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 1, 20, 20, requires_grad=needs_gradient)
    layer, exact = nn.Conv2d(1, 16, 9), nn.Conv2d(1, 16, 9).double()
    exact.load_state_dict(layer.state_dict())
    with torch.autocast("cpu", torch.bfloat16), ops(0, 0, torch.arange(8)):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    assert (type(out.grad_fn).__name__ == "OwnConvBackward") == needs_gradient
    up, x_exact = torch.randn(out.shape), x.detach().double().requires_grad_(needs_gradient)
    needed = [tensor for tensor in (x, *layer.parameters()) if tensor.requires_grad]
    needed_exact = [tensor for tensor in (x_exact, *exact.parameters()) if tensor.requires_grad]
    ours = torch.autograd.grad(out, needed, up.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        theirs = torch.autograd.grad(layer(x), needed, up.bfloat16())
    exact_ones = torch.autograd.grad(exact(x_exact), needed_exact, up.double())
    for a, b, reference in zip(ours, theirs, exact_ones, strict=True):
        errors = [float((found - reference).norm() / reference.norm()) for found in (a, b)]
        assert a.dtype == torch.float32
        assert errors[0] < max(0.004, 1.1 * errors[1]), errors  # PyTorch's own: 0.01 without units for bf16


@pytest.mark.parametrize(
    "options", [{}, {"padding": 1}, {"stride": 2}, {"padding": "same"}, {"dilation": 2}, {"bias": False}]
)
def test_convolutions_of_any_kind_train_as_without_the_replacement(options: dict) -> None:
    layer = nn.Conv2d(1, 3, 3, **options).double()
    results = []
    for replaced in (False, True):
        x = torch.linspace(-1, 1, 2 * 81, dtype=torch.float64).view(2, 1, 9, 9).sin().requires_grad_()
        if replaced:
            with ops(0, 0, torch.arange(2)):
                out = layer(x)
        else:
            out = layer(x)
        results.append(torch.autograd.grad((out * out.detach().cos()).sum(), (x, *layer.parameters())))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


@pytest.mark.parametrize("layer", [nn.Dropout(0.3), nn.Dropout2d(0.3)])
def test_dropout_is_a_function_of_seed_step_and_row(layer: nn.Module) -> None:
    x = torch.ones(40, 50, 4, 4)

    def out(seed: int, step: int, rows: Tensor) -> Tensor:
        with ops(seed, step, rows):
            return layer(x[: len(rows)])

    whole = out(1, 2, torch.arange(40))
    assert torch.equal(out(1, 2, torch.arange(10, 30)), whole[10:30])
    assert not torch.equal(out(1, 3, torch.arange(40)), whole)
    assert not torch.equal(out(2, 2, torch.arange(40)), whole)
    assert sorted(whole.unique().tolist()) == pytest.approx([0.0, 1 / 0.7])
    assert whole.mean() == pytest.approx(1, abs=0.05)
    if isinstance(layer, nn.Dropout2d):
        assert (whole.flatten(2).std(-1) == 0).all()
    layer.eval()
    assert torch.equal(out(1, 2, torch.arange(40)), x)
    layer.train()


def test_two_calls_of_dropout_draw_two_masks() -> None:
    x = torch.ones(10, 100)
    with ops(0, 0, torch.arange(10)):
        assert not torch.equal(F.dropout(x), F.dropout(x))


def test_torchs_own_generator_is_a_function_of_seed_step_and_rows_too_and_is_given_back() -> None:
    def two(seed: int, step: int, first: int) -> list[Tensor]:
        with ops(seed, step, torch.arange(first, first + 4)):
            return [torch.rand(5), torch.randn(5)]

    state = torch.get_rng_state()
    whole = two(1, 2, 0)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, two(1, 2, 0), whole))
    for other in (two(2, 2, 0), two(1, 3, 0), two(1, 2, 4)):
        assert not torch.equal(other[0], whole[0])
    with ops(1, 2, torch.arange(4)):
        assert not torch.equal(torch.rand(5), torch.rand(5))


# ---- operations, one by one
