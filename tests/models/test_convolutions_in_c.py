"""Which passes of a convolution are computed in C on a CPU, and that gradients are right whichever they are."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from stn.models.kernels import compiled, cpu_convolution
from stn.multiseed.model import StackedModel
from stn.multiseed.rules import gradients
from stn.multiseed.rules.gradients import Kernels, OwnConv, is_slow

WHY_NOT = compiled.missing() or ("" if cpu_convolution.lanes() else "the CPU has no AVX2")
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
LAST = torch.channels_last


def test_wrong_sizes_are_pytorchs_errors() -> None:
    x = torch.randn(4, 64, 10, 10).contiguous(memory_format=LAST).requires_grad_()
    for weight, bias in (
        (torch.randn(64, 16, 7, 7, requires_grad=True), None),
        (torch.randn(64, 32, 7, 7, requires_grad=True), torch.zeros(3)),
    ):
        with pytest.raises(RuntimeError, match=r"expected|shape"):
            OwnConv.apply(x, weight, bias, 0, 2)


@pytest.fixture(params=[16, 8], ids=["wide vectors", "vectors of eight"])
def lanes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """What decides which passes are in C; the functions are this machine's."""
    monkeypatch.setattr(gradients, "lanes", lambda: request.param)
    return request.param


def gradients_are_exact(x: Tensor, weight: Tensor, bias: Tensor, padding: int, groups: int) -> Kernels:
    """Compare with PyTorch's in float64, and return what was computed in C."""
    result = OwnConv.apply(x, weight, bias, padding, groups)
    passes, grad = result.grad_fn.in_c, torch.randn_like(result)
    found = [result, *torch.autograd.grad(result, [x, weight, bias], grad)]
    X, Y, Z = (tensor.detach().double().requires_grad_() for tensor in (x, weight, bias))
    exact = F.conv2d(X, Y, Z, padding=padding, groups=groups)
    for own, reference in zip(found, [exact, *torch.autograd.grad(exact, [X, Y, Z], grad.double())], strict=True):
        assert torch.allclose(own.double(), reference, rtol=0, atol=1e-5 * float(reference.detach().abs().max()))
    return passes


def tensors(channels: int, filters: int, kernel: int, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return images, filters and bias of two groups."""
    x = torch.randn(4, 2 * channels, *size).contiguous(memory_format=LAST).requires_grad_()
    weight = torch.randn(2 * filters, channels, kernel, kernel, requires_grad=True)
    return x, weight, torch.randn(2 * filters, requires_grad=True)


@pytest.mark.parametrize(
    ("size", "padding", "full"),
    [((10, 10), 0, True), ((10, 10), 1, False), ((8, 9), 0, True), ((9, 9), 0, False), ((7, 7), 0, False)],
    ids=["sixteen pixels", "padding", "six pixels", "nine pixels", "one pixel"],
)
def test_small_maps_are_convolved_in_c(size: tuple[int, int], padding: int, full: bool, lanes: int) -> None:
    """With wide vectors oneDNN is faster where tiles would be mostly empty; with others always in two passes."""
    x, weight, bias = tensors(16, 32, 7, size)
    assert is_slow(x, weight, 1, padding, 1, 2)
    in_c = Kernels(full, full, full) if lanes == 16 else Kernels(images=padding == 0)
    assert gradients_are_exact(x, weight, bias, padding, 2) == in_c


@pytest.mark.parametrize("channels", [1, 2])
def test_thin_convolutions_see_one_channel_in_c(channels: int, lanes: int) -> None:
    x, weight, bias = tensors(channels, 9, 5, (11, 12))
    assert is_slow(x, weight, 1, 0, 1, 2)
    in_c = lanes == 8 and channels == 1
    assert gradients_are_exact(x, weight, bias, 0, 2) == Kernels(result=in_c, images=in_c)


@pytest.mark.parametrize(
    ("channels", "filters", "odd"), [(10, 20, True), (8, 10, True), (8, 24, False), (3, 6, False), (34, 4, False)]
)
def test_odd_channels_are_convolved_to_images_in_c(channels: int, filters: int, odd: bool, lanes: int) -> None:
    x, weight, bias = tensors(channels, filters, 3, (12, 12))
    assert is_slow(x, weight, 1, 0, 1, 2) == (odd and lanes == 8)
    assert not is_slow(x.detach(), weight, 1, 0, 1, 2)
    assert not is_slow(x, weight, 1, 1, 1, 2)
    assert not is_slow(x.contiguous(), weight, 1, 0, 1, 2)
    assert gradients_are_exact(x, weight, bias, 0, 2) == Kernels(images=lanes == 8)


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
@pytest.mark.parametrize(("channels", "filters", "padding"), [(1, 9, 0), (10, 20, 0), (2, 8, 1)])
def test_a_gradient_has_a_gradient(
    channels: int, filters: int, padding: int, dtype: torch.dtype, rounding: float
) -> None:
    """In float32 passes in C are among them, which autograd does not see into."""
    given = [x.detach().to(dtype, memory_format=torch.preserve_format) for x in tensors(channels, filters, 5, (9, 8))]
    x, weight, bias = (tensor.requires_grad_() for tensor in given)
    found = []
    for result in (OwnConv.apply(x, weight, bias, padding, 2), F.conv2d(x, weight, bias, padding=padding, groups=2)):
        first = torch.autograd.grad(result.pow(3).sum(), given, create_graph=True)
        found.append([*first, *torch.autograd.grad(torch.stack([g.pow(2).sum() for g in first]).sum(), given)])
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=rounding * float(theirs.detach().abs().max()))


@pytest.mark.parametrize("lanes", [16, 8], indirect=True)
def test_odd_channels_in_bf16_are_pytorchs(lanes: int) -> None:
    x, weight, _ = tensors(10, 20, 5, (12, 12))
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_slow(x, weight, 1, 0, 1, 2)


def test_seeds_together_take_the_kernels_and_a_compiler_does_not(lanes: int) -> None:
    network = StackedModel(lambda: torch.nn.Sequential(torch.nn.Conv2d(16, 32, 7)), [0, 1])
    images = torch.randn(2, 3, 16, 10, 10, requires_grad=True)

    def names() -> set[str]:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            network(images, 0, torch.arange(3)).sum().backward()
        return {event.key for event in profile.key_averages() if event.key.startswith("stn::")}

    passes = {"", "_to_image", "_to_filters"} if lanes == 16 else {"_to_image"}
    assert names() == {f"stn::convolve_last{of}" for of in passes}
    traced = make_fx(lambda images: network(images, 0, torch.arange(3)))(images)
    assert "aten.convolution" in traced.code
    assert "stn." not in traced.code
