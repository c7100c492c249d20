"""The deterministic sampler compiled, on a GPU and in a CUDA graph."""

import pytest
import torch

from stn.models import sampling
from stn.models.sampling import deterministic_sample
from tests.support.sampling import PADDINGS, example, gradients

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_operators_pass_opcheck() -> None:
    x, grid, gradient = example()
    for operator in (sampling._image_gradient, sampling._grid_gradient):
        torch.library.opcheck(operator, (gradient, x, grid, 1, True))


def test_compiles_without_graph_breaks(deterministic: None) -> None:
    given = example()
    compiled = torch.compile(deterministic_sample, backend="aot_eager", fullgraph=True)
    for a, b in zip(
        gradients(compiled, *given, "border", True),
        gradients(deterministic_sample, *given, "border", True),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cuda_equals_the_cpu(padding: str, align_corners: bool, dtype: torch.dtype, deterministic: None) -> None:
    given = example("anywhere", align_corners, dtype)
    expected = gradients(deterministic_sample, *given, padding, align_corners)
    x, grid, gradient = (tensor.cuda() for tensor in given)
    found = [t.cpu() for t in gradients(deterministic_sample, x, grid, gradient, padding, align_corners)]
    assert torch.equal(found[1], expected[1])  # every step rounds alike
    for a, b in zip(found, expected, strict=True):
        tolerance = 1e-10 if dtype == torch.float64 else 1e-5
        torch.testing.assert_close(a, b, atol=tolerance * float(b.abs().max()), rtol=0)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("padding", PADDINGS)
def test_cuda_repeats_bit_for_bit(padding: str, deterministic: None) -> None:
    torch.manual_seed(1)
    shapes = (64, 16, 32, 32), (64, 40, 40, 2), (64, 16, 40, 40)  # many points for each pixel
    x, grid, gradient = (torch.randn(shape, device="cuda") for shape in shapes)
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    first, *others = (gradients(deterministic_sample, x, grid, gradient, padding, True) for _ in range(3))
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.gpu
@needs_cuda
def test_backward_is_captured_in_a_graph(deterministic: None) -> None:
    x, grid, gradient = (tensor.cuda() for tensor in example(dtype=torch.float32))
    expected = sampling._image_gradient(gradient, x, grid, 0, True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = sampling._image_gradient(gradient, x, grid, 0, True)
    gradient.mul_(2)
    graph.replay()
    assert torch.equal(captured, 2 * expected)
