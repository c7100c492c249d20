"""Grids and samplers against torch's own, and the algebra of affine matrices."""

import pytest
import torch
import torch.nn.functional as F

from stn.models.grids import affine_grid, compose, sample
from stn.models.transformer import Localisation, Options, SpatialTransformer, is_localisation
from tests.support.networks import invert_affine


def random_theta(n: int) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.eye(2, 3, dtype=torch.float64) + 0.3 * torch.randn(n, 2, 3, dtype=torch.float64)


@pytest.mark.parametrize("align_corners", [True, False])
def test_grid_equals_torchs(align_corners: bool) -> None:
    theta = random_theta(5)
    expected = F.affine_grid(theta, [5, 1, 7, 10], align_corners=align_corners)
    torch.testing.assert_close(affine_grid(theta, (7, 10), align_corners), expected, atol=1e-14, rtol=0)


def test_grid_is_computed_in_fp32_whatever_theta_is_in() -> None:
    assert affine_grid(random_theta(2).bfloat16(), (4, 4), True).dtype == torch.float32


def test_compose_is_the_product_and_invert_undoes() -> None:
    a, b = random_theta(4), random_theta(4).flip(0)
    last = torch.tensor([0.0, 0, 1], dtype=torch.float64).expand(4, 1, 3)
    whole_a, whole_b, inverse = (torch.cat([m, last], 1) for m in (a, b, invert_affine(a)))
    torch.testing.assert_close(compose(whole_a, whole_b), whole_a @ whole_b, atol=1e-14, rtol=0)
    identity = torch.eye(3, dtype=torch.float64).expand(4, 3, 3)
    torch.testing.assert_close(compose(whole_a, inverse), identity, atol=1e-12, rtol=0)


def test_a_known_warp_is_undone_by_its_inverse() -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 41), torch.linspace(-1, 1, 41), indexing="ij")
    smooth = (1 + 2 * x + 3 * y).view(1, 1, 41, 41).double()  # bilinear sampling is exact on a plane
    theta = torch.tensor([[[0.8, 0.2, 0.1], [-0.2, 0.8, 0.05]]], dtype=torch.float64)
    there = sample(smooth, affine_grid(theta, (41, 41), True), "border", True)
    back = sample(there, affine_grid(invert_affine(theta), (41, 41), True), "border", True)
    torch.testing.assert_close(back[..., 12:29, 12:29], smooth[..., 12:29, 12:29], atol=1e-5, rtol=0)


def test_localisation_is_found_by_name() -> None:
    assert is_localisation("models.0.st.head.0.weight")
    assert not is_localisation("models.0.stages.0.0.weight")


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e38])
def test_a_transform_that_is_no_number_harms_its_own_image_only(padding: str, bad: float) -> None:
    """Without the guard this is a segmentation fault, which pytest does not survive."""
    head = Localisation(torch.nn.Flatten(), 64, (1.0, 0, 0, 0, 1, 0), 0, None, False)
    st = SpatialTransformer([head], 8, (8, 8), Options(padding=padding))
    x = torch.randn(3, 1, 8, 8)
    clean = st(x, lambda y, depth: y).image_BCHW
    with torch.no_grad():
        head.last.weight[0, 0] = 1.0
    seen = torch.zeros_like(x)
    seen[1, 0, 0, 0] = bad  # what the head reads of the second image
    warped = st(x, lambda y, depth: seen).image_BCHW
    assert warped[1].isfinite().all() == (bad == 1e38)
    assert torch.equal(warped[[0, 2]], clean[[0, 2]])
    warped.nan_to_num().sum().backward()
