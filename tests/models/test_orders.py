"""What is faster in float32 on a CPU: the order of maps in memory, and layers that round differently."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stn.multiseed.model import StackedModel
from stn.multiseed.rules.gradients import is_slow
from stn.multiseed.rules.order import channels_of, in_memory_order, in_order, reshaped
from stn.multiseed.stacked import SeedOps, Stacked, run_operation

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "group norm between convolutions": lambda: nn.Sequential(
        nn.Conv2d(2, 16, 3), nn.GroupNorm(4, 16), nn.GELU(), nn.Conv2d(16, 16, 3), nn.GroupNorm(8, 16), nn.ReLU()
    ),
    "instance norm, pools": lambda: nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.InstanceNorm2d(6, affine=True), nn.GELU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1)
    ),
    "depthwise and transposed": lambda: nn.Sequential(
        nn.Conv2d(2, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(), nn.ConvTranspose2d(8, 3, 2, 2)
    ),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(162, 40), nn.ReLU(), nn.Linear(40, 3, bias=False)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_float32_is_what_float64_alone_is_within_rounding(name: str) -> None:
    x_SBCHW = torch.linspace(-3, 3, 3 * 5 * 162).mul(7).sin().view(3, 5, 2, 9, 9)
    results = []
    for dtype in (torch.float32, torch.float64):
        model = StackedModel(NETWORKS[name], [7, 8, 9], dtype=dtype)
        x = x_SBCHW.to(dtype).requires_grad_()
        if dtype == torch.float32:
            out = model(x, 0, torch.arange(5))
            assert not model.slow
        else:
            out = torch.stack([model.alone(s, x[s], 0, torch.arange(5)) for s in range(3)])
        grads = torch.autograd.grad((out * out.detach().cos()).sum(), [x, *model.parameters()])
        results.append([out.detach(), *grads])
    largest = max(float(b.abs().max()) for b in results[1])  # a gradient that should be 0 is rounding of others' size
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a.double(), b, atol=1e-4 * largest, rtol=0)


def _made_by_convolution(S: int, B: int, C: int, H: int) -> Tensor:
    return torch.randn(B, H, H, S, C).permute(3, 0, 4, 1, 2)


def test_gradients_have_the_order_of_what_they_are_of() -> None:
    x = _made_by_convolution(2, 3, 4, 5).requires_grad_()
    y = in_order(x, 1, 0, 2, 3, 4)
    assert torch.equal(y, x)
    assert y.transpose(0, 1).is_contiguous()
    (grad,) = torch.autograd.grad(y.square().sum(), x)
    assert grad.stride() == x.stride()
    torch.testing.assert_close(grad, 2 * x.detach())
    (grad,) = torch.autograd.grad(run_operation(None, torch.mean, (Stacked(x), (2, 3)), {}).every.sum(), x)
    assert grad.stride() == x.stride()
    expanded = torch.randn(2, 3, 4, 1, 1).expand(2, 3, 4, 5, 5).requires_grad_()
    (grad,) = torch.autograd.grad(channels_of(expanded).sum(), expanded)
    assert grad.shape == expanded.shape


def test_wide_convolutions_keep_the_order_that_a_norm_has_made() -> None:
    x = Stacked(_made_by_convolution(2, 3, 16, 5))
    normed = run_operation(None, F.group_norm, (x, 4), {})
    assert normed.every.transpose(0, 1).is_contiguous()
    for channels, kept in ((16, True), (4, False)):
        weight = Stacked(torch.randn(2, 8, channels, 3, 3))
        out = run_operation(
            None, torch.conv2d, (normed[:, :channels] if kept else Stacked(normed.every[:, :, :4]), weight), {}
        )
        assert out.every.transpose(0, 1).is_contiguous() == kept


def test_depthwise_convolutions_are_not_thin() -> None:
    x = torch.randn(2, 8, 9, 9)
    for filters, thin in ((8, False), (16, False), (64, True)):
        assert is_slow(x, nn.Parameter(torch.randn(filters, 1, 3, 3)), 1, 1, 1, 8) == thin
        double = nn.Parameter(torch.randn(filters, 1, 3, 3).double())
        assert is_slow(x.double(), double, 1, 1, 1, 8), "the last bits of runs of before"


@pytest.mark.parametrize(
    ("channels", "kernel", "side", "padding", "slow"),
    [(16, 7, 10, 0, True), (16, 5, 12, 0, False), (16, 7, 10, 3, False), (24, 7, 10, 0, False), (64, 3, 4, 0, False)],
)
def test_large_filters_on_small_maps_have_slow_gradients(
    channels: int, kernel: int, side: int, padding: int, slow: bool
) -> None:
    x = torch.randn(2, 2 * channels, side, side).to(memory_format=torch.channels_last).requires_grad_()
    weight = nn.Parameter(torch.randn(64, channels, kernel, kernel))
    assert is_slow(x, weight, 1, padding, 1, 2) == slow
    assert not is_slow(x.detach(), weight, 1, padding, 1, 2)
    assert not is_slow(x.contiguous(), weight, 1, padding, 1, 2), "oneDNN computes in this order anyway"
    assert not is_slow(x.detach().double().requires_grad_(), weight, 1, padding, 1, 2), (
        "the last bits of runs of before"
    )


def test_a_copy_for_a_view_has_a_gradient_in_the_order_of_what_it_copies() -> None:
    maps = _made_by_convolution(2, 3, 4, 5).detach().requires_grad_()
    flat = run_operation(None, torch.flatten, (Stacked(maps), 1), {})
    assert torch.equal(flat.every, maps.flatten(2))
    assert flat.every.is_contiguous()
    (grad,) = torch.autograd.grad(flat.every, maps, torch.ones_like(flat.every))
    assert grad.stride() == maps.stride()


@pytest.mark.parametrize("stacked", [False, True])
def test_flattening_is_torchs_for_any_arguments(stacked: bool) -> None:
    x = torch.randn(3, 2, 4, 5, requires_grad=True)
    flatten = nn.Flatten(1, -1)

    def run(function: Callable) -> Tensor:
        with SeedOps([0, 1, 2], torch.arange(3), 0, torch.arange(2)):
            out = function(Stacked(x) if stacked else x)
        return out.every if isinstance(out, Stacked) else out

    every = x if stacked else x.unsqueeze(0)
    for arguments in ((), (1,), (0, 1), (-2, -1), (1, 1)):
        wanted = torch.stack([one.flatten(*arguments) for one in every])
        assert torch.equal(run(lambda y, a=arguments: torch.flatten(y, *a)), wanted if stacked else wanted[0])
    assert run(lambda y: torch.flatten(input=y, start_dim=1)).numel() == x.numel()
    assert run(flatten).numel() == x.numel()
    with pytest.raises(RuntimeError, match="start_dim"):
        run(lambda y: y.flatten(2, 1))


def test_copies_for_views_keep_to_what_autograd_and_functorch_can() -> None:
    overlapping = torch.randn(2, 7, requires_grad=True)
    flat = reshaped(overlapping[:, :1].expand(2, 4), -1)  # as many elements as if it were dense
    assert torch.autograd.grad(flat.sum(), overlapping)[0].sum() == 8
    assert reshaped(torch.ones(1, requires_grad=True)).dim() == 0
    x = torch.randn(3, 4, 5, requires_grad=True)
    assert torch.equal(torch.vmap(lambda y: reshaped(y.mT, -1))(x), x.mT.reshape(3, -1))


def test_functions_in_memory_order_see_dense_tensors_and_their_axes() -> None:
    x = _made_by_convolution(2, 3, 4, 5)
    seen: list[bool] = []

    def flip(y: Tensor, axes: list[int]) -> Tensor:
        seen.append(y.is_contiguous())
        return y.flip(axes.index(3))

    assert torch.equal(in_memory_order(flip, x), x.flip(3))
    assert torch.equal(in_memory_order(flip, x[..., ::2]), x[..., ::2].flip(3))
    assert seen == [True, False]
