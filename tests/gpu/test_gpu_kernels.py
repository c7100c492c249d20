"""Triton's kernels on the device: as exact as PyTorch's."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stn.data.geometry import resample
from stn.models import kernels
from stn.multiseed.convolution import Convolutions

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


def test_they_run_here() -> None:
    assert kernels.missing() == ""


@pytest.mark.parametrize(
    "shape", [(10, 1, 16, 28, 9), (3, 1, 32, 28, 9), (10, 16, 32, 10, 7), (4, 3, 10, 15, 5)], ids=str
)
@pytest.mark.parametrize("low", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_convolutions_are_as_exact_as_the_librarys(
    shape: tuple[int, ...], low: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    groups, channels, out, side, kernel = shape
    generator = torch.Generator("cuda").manual_seed(0)

    def passes(way: str, dtype: torch.dtype) -> list[Tensor]:
        generator.manual_seed(0)
        sizes = (33, groups * channels, side, side), (groups * out, channels, kernel, kernel), (groups * out,)
        tensors = [torch.randn(size, device="cuda", generator=generator).to(low) for size in sizes]
        x, weight, bias = (tensor.to(dtype).requires_grad_() for tensor in tensors)
        result = Convolutions(way)(x, weight, bias, 1, 0, 1, groups)  # type: ignore[arg-type]
        assert result is not None
        grad = torch.randn(result.shape, device="cuda", generator=generator).to(low).to(dtype)
        return [result.detach(), *torch.autograd.grad(result, [x, weight, bias], grad)]

    exact, library, ours = (
        passes("grouped", torch.float64),
        passes("grouped", low),
        passes("triton", low),
    )
    for reference, theirs, own in zip(exact, library, ours, strict=True):
        scale = float(reference.abs().max())
        errors = [float((tensor.double() - reference).abs().max()) / scale for tensor in (theirs, own)]
        assert errors[1] <= max(2 * errors[0], 8 * torch.finfo(low).eps), errors


def test_pools_are_pytorchs_to_the_bit() -> None:
    from stn.models.kernels.pooling import max_pool

    x = torch.randint(0, 4, (33, 70, 21, 20), device="cuda").float().requires_grad_()
    ours, theirs = max_pool(x, 2), F.max_pool2d(x, 2)
    grad = torch.randn_like(ours)
    assert torch.equal(ours, theirs)
    assert torch.equal(*(torch.autograd.grad(out, x, grad)[0] for out in (ours, theirs)))


def test_samples_are_the_cpus_to_the_bit() -> None:
    image = torch.randint(0, 256, (70_000, 1, 28, 28), dtype=torch.uint8)
    x, y = ((torch.rand(70_000, 28, 28) - 0.5) * 40 for _ in range(2))
    assert torch.equal(resample(image.cuda(), x.cuda(), y.cuda()).cpu(), resample(image, x, y))
