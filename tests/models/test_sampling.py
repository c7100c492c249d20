"""The deterministic sampler against grid_sample."""

import pytest
import torch

from stn.models import sampling
from stn.models.sampling import deterministic_sample
from tests.support.sampling import PADDINGS, example, gradients, native


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kind", ["anywhere", "centres"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_equals_grid_sample_with_its_gradients(kind, padding, align_corners, dtype, tolerance) -> None:
    given = example(kind, align_corners, dtype)
    expected = gradients(native, *given, padding, align_corners)
    found = gradients(deterministic_sample, *given, padding, align_corners)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[2], expected[2])  # the same operation
    assert (found[1] - expected[1]).abs().max() <= tolerance * expected[1].abs().max()
    x, grid, gradient = given
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    assert torch.equal(gradients(deterministic_sample, x, grid, gradient, padding, align_corners)[1], found[1])


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1)])
def test_images_of_one_row_or_column(shape: tuple[int, int], padding: str, align_corners: bool) -> None:
    torch.manual_seed(1)
    sizes = (2, 1, *shape), (2, 3, 3, 2), (2, 1, 3, 3)
    x, grid, gradient = (torch.randn(size, dtype=torch.float64) for size in sizes)
    expected, found = (
        gradients(f, x, grid, gradient, padding, align_corners)[1] for f in (native, deterministic_sample)
    )
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("padding", PADDINGS)
def test_gradcheck(padding: str, align_corners: bool) -> None:
    x, grid, _ = (tensor[:2, :2, :3, :3].clone().requires_grad_() for tensor in example())
    assert torch.autograd.gradcheck(lambda x, grid: deterministic_sample(x, grid, padding, align_corners), (x, grid))


def test_bits_do_not_depend_on_position_or_neighbours_in_the_batch() -> None:
    x, grid, gradient = example(dtype=torch.float32)
    gradient *= torch.tensor([1, 1e-12, 1e12, 1e-36]).view(4, 1, 1, 1)
    found = gradients(deterministic_sample, x, grid, gradient, "border", True)
    order = torch.tensor([2, 0, 3, 1])
    moved = gradients(deterministic_sample, x[order], grid[order], gradient[order], "border", True)
    alone = [gradients(deterministic_sample, x[[i]], grid[[i]], gradient[[i]], "border", True) for i in range(4)]
    for k in range(3):
        assert torch.equal(moved[k], found[k][order])
        assert torch.equal(torch.cat([a[k] for a in alone]), found[k])


@pytest.mark.parametrize("bad", [float("nan"), -float("nan"), float("inf"), -float("inf")])
def test_a_nan_gradient_affects_its_own_image_only(bad: float) -> None:
    x, grid, gradient = example(dtype=torch.float32)
    clean = gradients(deterministic_sample, x, grid, gradient, "zeros", True)[1]
    gradient[1, 2, 3, 4] = bad
    found = gradients(deterministic_sample, x, grid, gradient, "zeros", True)[1]
    assert found[1].isnan().all()
    assert torch.equal(found[[0, 2, 3]], clean[[0, 2, 3]])


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_zero_gradients_stay_zero(zero: float) -> None:
    x, grid, gradient = example()
    assert not gradients(deterministic_sample, x, grid, torch.full_like(gradient, zero), "zeros", True)[1].any()


def test_gradients_near_the_smallest_double_are_accurate() -> None:
    x, grid, gradient = example()
    expected, found = (
        gradients(f, x, grid, gradient * 1e-300, "zeros", True)[1] for f in (native, deterministic_sample)
    )
    torch.testing.assert_close(found * 1e300, expected * 1e300, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("at", ["tiny", "huge"])
def test_every_point_on_one_pixel_neither_overflows_nor_vanishes(dtype: torch.dtype, at: str) -> None:
    largest = 2.0 ** {"tiny": -120, "huge": 112}[at] * (2 - torch.finfo(dtype).eps)  # just below the next power
    gradient = torch.full((1, 1, 64, 128), largest, dtype=dtype)
    x, grid = torch.zeros(1, 1, 3, 3, dtype=dtype), torch.zeros(1, 64, 128, 2, dtype=dtype)
    found = gradients(deterministic_sample, x, grid, -gradient, "border", True)[1]
    expected = torch.zeros_like(found)
    expected[0, 0, 1, 1] = -largest * 64 * 128
    torch.testing.assert_close(found, expected, atol=0, rtol=2**-40 if dtype == torch.float64 else 0)


def test_precision_on_2_to_the_16_points() -> None:
    torch.manual_seed(1)
    gradient = torch.rand(1, 1, 256, 256, dtype=torch.float64)
    gradient[0, 0, 0, 0] = 1.0
    x, grid = torch.zeros(1, 1, 400, 400, dtype=torch.float64), torch.rand(1, 256, 256, 2, dtype=torch.float64) * 2 - 1
    expected, found = (gradients(f, x, grid, gradient, "zeros", False)[1] for f in (native, deterministic_sample))
    assert (found - expected).abs().max() < 2**-40


def test_deterministic_mode_is_not_changed() -> None:
    given = example()
    try:
        for warn_only in (False, True):
            torch.use_deterministic_algorithms(True, warn_only=warn_only)
            found = gradients(deterministic_sample, *given, "reflection", False)
            assert torch.are_deterministic_algorithms_enabled()
            assert torch.is_deterministic_algorithms_warn_only_enabled() == warn_only
    finally:
        torch.use_deterministic_algorithms(False)
    for a, b in zip(gradients(deterministic_sample, *given, "reflection", False), found, strict=True):
        assert torch.equal(a, b)


def test_only_requested_gradients_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_image_gradient", None)
    x, grid, gradient = example()
    deterministic_sample(x, grid.requires_grad_(), "border", True).backward(gradient)
    assert grid.grad is not None
