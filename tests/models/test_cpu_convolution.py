"""Convolutions in C on a CPU: as exact as oneDNN's, whatever the number of threads."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stn.models.kernels import compiled, cpu_convolution
from tests.support.vectors import take_vectors_of_eight

WHY_NOT = compiled.missing() or ("" if cpu_convolution.lanes() else "the CPU has no AVX2")
pytestmark = [pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT), pytest.mark.usefixtures("one_thread")]
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
        take_vectors_of_eight(monkeypatch)
        assert cpu_convolution.lanes() == 8
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
    for C, size, fits in ((16, (128, 128), True), (16, (129, 128), False), (1, (60, 90), True), (1, (1500, 9), False)):
        large = torch.randn(1, 2 * C, *size).contiguous(memory_format=LAST)
        assert cpu_convolution.has_kernel(large, torch.randn(32, C, 7, 7), bias, 2) == fits, "a thread's stack"
    for other in (bias.double(), bias[:3]):
        assert not cpu_convolution.has_kernel(x, weight, other, 2)
    monkeypatch.setattr(cpu_convolution, "lanes", lambda: 0)
    assert not cpu_convolution.has_kernel(x, weight, bias, 2), "a CPU on which nothing was measured"
    monkeypatch.undo()
    monkeypatch.setattr(compiled, "library", lambda: compiled.Library(None, "no compiler"))
    assert not cpu_convolution.has_kernel(x, weight, bias, 2)
