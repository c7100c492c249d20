"""Convolutions in C on a CPU: as exact as oneDNN's, whatever the number of threads, and taken where they fit."""

from collections.abc import Iterator

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
SHAPES = [
    (5, 3, 16, 32, (7, 7), (10, 10)),
    (33, 4, 32, 32, (7, 7), (10, 10)),
    (17, 2, 32, 16, (3, 5), (7, 9)),
    (16, 1, 64, 32, (5, 5), (8, 11)),
    (1, 1, 48, 80, (4, 4), (4, 4)),
    (2, 2, 16, 16, (1, 1), (3, 3)),
    (18, 4, 10, 20, (5, 5), (12, 12)),
    (17, 3, 8, 10, (5, 3), (11, 6)),
    (3, 2, 1, 16, (9, 9), (28, 28)),
    (5, 1, 1, 9, (2, 7), (9, 40)),
    (2, 4, 1, 23, (7, 2), (7, 3)),
    (2, 3, 7, 1, (3, 3), (5, 5)),
]
"""Images, groups, channels, filters, kernel, map: whole tiles and parts of them, one vector and several."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytorchs(x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor, groups: int) -> list[Tensor]:
    x, weight = (tensor.detach().requires_grad_() for tensor in (x, weight))
    result = F.conv2d(x, weight, bias, groups=groups)
    return [result.detach(), *torch.autograd.grad(result, [x, weight], grad)]


@pytest.mark.parametrize("vectors", ["of this machine", "of eight"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_results_are_as_exact_as_onednns_and_the_same_for_all_threads(
    shape: tuple, vectors: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if vectors == "of eight":
        built = compiled._load(["cc"], [*compiled._FLAGS, "-mno-avx512f", "-fopenmp"])
        monkeypatch.setattr(compiled, "library", lambda: compiled.Library(built, shares=True))
    B, G, C, O, kernel, size = shape
    x = torch.randn(B, G * C, *size).contiguous(memory_format=LAST)
    weight, bias = torch.randn(G * O, C, *kernel), torch.randn(G * O)
    grad = torch.randn_like(F.conv2d(x, weight, bias, groups=G))

    def ours() -> list[Tensor]:
        convolved = cpu_convolution.convolve(x, weight, bias, G)
        images = cpu_convolution.to_image(grad.contiguous(), weight, *size, G)  # in another order of memory
        thin = [cpu_convolution.thin_to_image(grad, weight, *size, G)] if C == 1 else []
        return [convolved, images, cpu_convolution.to_filters(x, grad, G), *thin]

    assert cpu_convolution.has_kernel(x, weight, bias, G)
    exact = pytorchs(x.double(), weight.double(), bias.double(), grad.double(), G)
    found, theirs = ours(), pytorchs(x, weight, bias, grad, G)
    for name, own, number in zip(("result", "images", "filters", "images"), found, (0, 1, 2, 1), strict=False):
        reference, library = exact[number], theirs[number]
        assert own.shape == reference.shape, name
        errors = [float((tensor - reference).abs().max() / reference.abs().max()) for tensor in (own, library)]
        assert errors[0] <= 2e-6 + 4 * errors[1], (name, errors)
    assert found[0].is_contiguous(memory_format=LAST)
    assert found[1].is_contiguous(memory_format=LAST)
    torch.set_num_threads(2)
    assert all(torch.equal(one, two) for one, two in zip(found, ours(), strict=True))


def test_what_has_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.randn(2, 32, 10, 10).contiguous(memory_format=LAST), torch.randn(32, 16, 7, 7)
    bias = torch.zeros(32)
    assert cpu_convolution.has_kernel(x, weight, bias, 2)
    assert cpu_convolution.has_kernel(x, weight, None, 2)
    for images in (x.contiguous(), x.double(), x[:, :, :6], x[:0], x[:, :16].contiguous(memory_format=LAST)):
        assert not cpu_convolution.has_kernel(images, weight, bias, 2)
    for filters in (
        weight.bfloat16(),
        torch.randn(31, 16, 7, 7),
        torch.randn(32, 32, 7, 7),
        torch.randn(32, 16, 11, 7),
    ):
        assert not cpu_convolution.has_kernel(x, filters, bias[: len(filters)], 2)
    for C, size, fits in ((16, (128, 128), True), (16, (129, 128), False), (1, (120, 90), True), (1, (1500, 9), False)):
        large = torch.randn(1, 2 * C, *size).contiguous(memory_format=LAST)
        assert cpu_convolution.has_kernel(large, torch.randn(32, C, 7, 7), bias, 2) == fits, "a thread's stack"
    for other in (bias.double(), bias[:3]):
        assert not cpu_convolution.has_kernel(x, weight, other, 2)
    monkeypatch.setattr(cpu_convolution, "lanes", lambda: 0)
    assert not cpu_convolution.has_kernel(x, weight, bias, 2), "a CPU on which nothing was measured"
    monkeypatch.undo()
    monkeypatch.setattr(compiled, "library", lambda: compiled.Library(None, "no compiler"))
    assert not cpu_convolution.has_kernel(x, weight, bias, 2)


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


@pytest.mark.parametrize(("channels", "filters", "odd"), [(10, 20, True), (8, 10, True), (8, 24, False), (3, 6, False)])
def test_odd_channels_are_convolved_to_images_in_c(channels: int, filters: int, odd: bool, lanes: int) -> None:
    x, weight, bias = tensors(channels, filters, 3, (12, 12))
    assert is_slow(x, weight, 1, 0, 1, 2) == (odd and lanes == 8)
    assert not is_slow(x.detach(), weight, 1, 0, 1, 2)
    assert not is_slow(x, weight, 1, 1, 1, 2)
    assert not is_slow(x.contiguous(), weight, 1, 0, 1, 2)
    assert gradients_are_exact(x, weight, bias, 0, 2) == Kernels(images=lanes == 8)


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
