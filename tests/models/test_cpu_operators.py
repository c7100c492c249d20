"""The C kernels for CPUs as PyTorch operators: what they are registered with, and derivatives of every kind."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stn.models.kernels import compiled, cpu_pooling, cpu_sampling
from stn.multiseed.model import StackedModel
from tests.support.orders import maps

pytestmark = pytest.mark.skipif(compiled.library()[0] is None, reason=compiled.library()[1] or "never")


def test_operators_do_what_their_registrations_say() -> None:
    x, grid = maps(2, 3, 8, 5, 5).requires_grad_(), torch.rand(2, 3, 4, 4, 2).requires_grad_()
    pooled = torch.randn(2, 8, 5, 7).contiguous(memory_format=torch.channels_last).requires_grad_()
    columns = torch.randn(2, 6, 5, 4).contiguous(memory_format=torch.channels_last)
    maps_of_two = torch.randn(2, 32, 6, 7).contiguous(memory_format=torch.channels_last)
    filters = torch.randn(32, 16, 3, 3)
    places = torch.randint(4, (2, 32, 3, 2), dtype=torch.int8).contiguous(memory_format=torch.channels_last)
    checks = "test_schema", "test_autograd_registration", "test_faketensor"
    for operator, given in (
        (torch.ops.stn.max_pool_last, (pooled,)),
        (torch.ops.stn.sample_last, (x, grid, True, False)),
        (torch.ops.stn.resample, (torch.rand(2, 1, 8, 8), *torch.rand(2, 2, 5, 5))),
        (torch.ops.stn.add_columns, (columns, 3, 6, 0)),
        (torch.ops.stn.convolve_last, (maps_of_two, filters, torch.rand(32), 2)),
        (torch.ops.stn.convolve_last_to_image, (torch.randn(2, 32, 4, 5), filters, 6, 7, 2)),
        (torch.ops.stn.convolve_last_to_filters, (maps_of_two, torch.randn(2, 32, 4, 5), 2)),
        (torch.ops.stn.convolve_last_to_filters, (maps_of_two, torch.randn(2, 16, 4, 5), 1)),
        (torch.ops.stn.pooled_to_filters, (maps_of_two, torch.randn(2, 32, 3, 2), places, 3, 3, 2, 1, 0)),
        (torch.ops.stn.pooled_to_image, (torch.randn(2, 32, 3, 2), places, filters, 6, 7, 2, 1, 0)),
        (torch.ops.stn.thin_to_image, (torch.randn(2, 32, 4, 5), filters[:, :1], 6, 7, 2)),
    ):
        torch.library.opcheck(operator, given, test_utils=checks)


def test_results_do_not_depend_on_the_default_dtype(request: pytest.FixtureRequest) -> None:
    request.addfinalizer(lambda: torch.set_default_dtype(torch.float32))
    x = torch.randn(2, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    torch.set_default_dtype(torch.bfloat16)
    assert torch.equal(cpu_pooling.max_pool(x), F.max_pool2d(x, 2))


def test_samples_have_second_derivatives() -> None:
    def penalty(sample: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, ...]:
        (slope,) = torch.autograd.grad(sample(x, grid).square().sum(), grid, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), [x, grid])

    x, grid = maps(1, 2, 8, 5, 5).requires_grad_(), (torch.rand(1, 2, 3, 3, 2) - 0.5).requires_grad_()
    for border, padding in ((False, "zeros"), (True, "border")):
        ours = penalty(lambda x, grid, border=border: cpu_sampling.sample(x, grid, border, True))
        theirs = penalty(lambda x, grid, pad=padding: F.grid_sample(x[0], grid[0], "bilinear", pad, True))
        for got, right in zip(ours, theirs, strict=True):
            assert torch.allclose(got, right, rtol=1e-4, atol=1e-4 * float(right.abs().max()))


@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")
def test_forward_derivatives_are_pytorchs() -> None:
    network = StackedModel(lambda: torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3), torch.nn.MaxPool2d(2)), [0])
    images, along = torch.randn(2, 1, 3, 4, 8, 8)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(images, along)
        tangent = torch.autograd.forward_ad.unpack_dual(network(dual, 0, torch.arange(3))).tangent
    assert tangent is not None
    assert tangent.any()
