"""Gradients from the pixels that a max-pool took: as exact as PyTorch's, whatever the number of threads."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stn.models.kernels import compiled, cpu_convolution, cpu_pooled, cpu_pooling
from tests.support.vectors import take_vectors_of_eight

WHY_NOT = compiled.missing() or ("" if cpu_convolution.lanes() else "the CPU has no AVX2")
pytestmark = [pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT), pytest.mark.usefixtures("one_thread")]
LAST = torch.channels_last
SHAPES = [
    (5, 3, 16, 32, (7, 7), (10, 10)),
    (33, 4, 1, 10, (9, 9), (28, 28)),
    (3, 2, 10, 20, (5, 5), (12, 13)),
    (2, 1, 3, 64, (7, 7), (32, 32)),
    (17, 1, 64, 24, (5, 3), (6, 9)),
    (2, 8, 2, 1, (1, 11), (4, 15)),
    (1, 1, 1, 8, (2, 2), (3, 3)),
    (2, 4, 5, 18, (3, 17), (30, 40)),
    (2, 1, 4, 72, (3, 3), (6, 6)),
]
"""Images, groups, channels, filters, kernel, map: tiles of all sizes, one vector and several, a row left over."""
PADDED = [
    ((3, 2, 16, 24, (3, 3), (14, 14)), (1, 1)),
    ((2, 1, 3, 16, (5, 3), (7, 8)), (4, 0)),
    ((2, 1, 1, 8, (3, 5), (6, 5)), (0, 2)),
]
"""The same, and rows and columns of zeros on each side."""


@pytest.mark.parametrize("vectors", ["of this machine", "of eight"])
@pytest.mark.parametrize(("shape", "padding"), [*((shape, (0, 0)) for shape in SHAPES), *PADDED], ids=str)
def test_gradients_are_exact_and_the_same_for_all_threads(
    shape: tuple, padding: tuple[int, int], vectors: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if vectors == "of eight":
        take_vectors_of_eight(monkeypatch)
    B, G, C, O, (k, l), size = shape
    x, weight = torch.randn(B, G * C, *size).contiguous(memory_format=LAST), torch.randn(G * O, C, k, l)
    maps = F.conv2d(x, weight, padding=padding, groups=G).contiguous(memory_format=LAST)
    pooled, place = cpu_pooling.places(maps)
    grad = (torch.randn_like(pooled) * (torch.rand_like(pooled) < 0.7)).contiguous()  # in another order of memory
    assert cpu_pooled.has_kernel(maps, x, weight, G, padding)

    def ours() -> list[Tensor]:
        to_image = cpu_pooled.to_image(grad, place, weight, *size, G, *padding)
        return [to_image, cpu_pooled.to_filters(x, grad, place, k, l, G, *padding)]

    X, Y = x.double().requires_grad_(), weight.double().requires_grad_()
    result, dense = F.conv2d(X, Y, padding=padding, groups=G), cpu_pooling.put(grad, place, *maps.shape[2:]).double()
    for own, exact in zip(ours(), torch.autograd.grad(result, [X, Y], dense), strict=True):
        assert own.shape == exact.shape
        assert float((own - exact).abs().max()) <= 3e-6 * float(exact.abs().max())
    found = ours()
    torch.set_num_threads(2)
    assert all(torch.equal(one, two) for one, two in zip(found, ours(), strict=True))


def test_what_has_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.randn(2, 32, 10, 10).contiguous(memory_format=LAST), torch.randn(32, 16, 7, 7)
    maps = F.conv2d(x, weight, groups=2).contiguous(memory_format=LAST)
    assert cpu_pooled.has_kernel(maps, x, weight, 2)
    for other in (maps.contiguous(), maps.bfloat16(), maps[:, :, :3], maps[:, :12]):
        assert not cpu_pooled.has_kernel(other, x, weight, 2)
    for images in (x.contiguous(), x.double(), x[:, :16].contiguous(memory_format=LAST)):
        assert not cpu_pooled.has_kernel(maps, images, weight, 2)
    assert not cpu_pooled.has_kernel(maps, x, weight, 2, (1, 0)), "of another size"
    padded = F.conv2d(x, weight, padding=7, groups=2).contiguous(memory_format=LAST)
    assert not cpu_pooled.has_kernel(padded, x, weight, 2, (7, 7)), "filters that see zeros alone"
    monkeypatch.setattr(cpu_pooled, "_FLOATS", 10 * 10 * 16 - 1)
    assert not cpu_pooled.has_kernel(maps, x, weight, 2), "a thread's stack"
    monkeypatch.undo()
    monkeypatch.setattr(cpu_pooled, "lanes", lambda: 0)
    assert not cpu_pooled.has_kernel(maps, x, weight, 2), "a CPU on which nothing was measured"


def test_a_gradient_that_is_not_a_number_stays_one() -> None:
    x, weight = torch.randn(2, 8, 6, 6).contiguous(memory_format=LAST), torch.randn(8, 8, 3, 3)
    _, place = cpu_pooling.places(F.conv2d(x, weight).contiguous(memory_format=LAST))
    grad = torch.zeros(2, 8, 2, 2)
    grad[1, 3, 0, 1] = torch.nan
    filters = cpu_pooled.to_filters(x, grad, place, 3, 3, 1, 0, 0)
    assert filters[3].isnan().all()
    assert not filters[[0, 1, 2, 4, 5, 6, 7]].isnan().any()
    images = cpu_pooled.to_image(grad, place, weight, 6, 6, 1, 0, 0)
    assert images[1].isnan().any()
    assert not images[0].isnan().any()
