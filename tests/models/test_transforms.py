"""Every family of transforms: identity, gradients, inverses, composition."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from stn.models.grids import axes, bend, plate_grid, sample
from stn.models.transformer import Localisation, Options, SpatialTransformer
from stn.models.transforms import build_family
from tests.support.transforms import FAMILIES, LINEAR, make

PARAMETERS = {"translation": 2, "attention": 3, "similarity": 4, "affine": 6, "projective": 8, "tps": 32}


def near_identity(name: str, n: int = 3, by: float = 0.1) -> torch.Tensor:
    torch.manual_seed(1)
    start = torch.tensor(build_family(name, 4).identity, dtype=torch.float64)
    return start + by * torch.randn(n, len(start), dtype=torch.float64)


def regular(size: tuple[int, int], align_corners: bool) -> torch.Tensor:
    x, y = axes(size, align_corners, torch.zeros((), dtype=torch.float64))
    return torch.stack([x.expand(size), y.expand(size)], -1)


def test_every_transform_has_its_number_of_parameters() -> None:
    assert {name: len(build_family(name, 4).identity) for name in FAMILIES} == PARAMETERS
    assert len(build_family("tps", 3).identity) == 18


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_transform_starts_at_the_identity(name: str, align_corners: bool) -> None:
    family: Any = build_family(name, 4)
    theta = torch.tensor(family.identity).expand(2, -1)
    grid = family.grid(family.start(theta), (7, 9), align_corners, 1)
    assert (grid - regular((7, 9), align_corners)).abs().max() < 1e-6
    model = make("stn_c0", transform=name, align_corners=align_corners)
    x = torch.randn(3, 1, 28, 28)
    with torch.no_grad():
        (warp,) = model.warps(x)
        (exact,) = model.double().warps(x.double())
    assert (warp.grid_BHW2 - regular((28, 28), align_corners)).abs().max() < 1e-6
    torch.testing.assert_close(warp.image_BCHW, x, atol=1e-4, rtol=0)  # of noise, by grid_sample in fp32
    fine = 1e-5 if name == "tps" else 1e-6  # noise is steep, and a spline's matrix was made in fp32
    torch.testing.assert_close(exact.image_BCHW, x.double(), atol=fine, rtol=0)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_are_those_of_finite_differences(name: str, align_corners: bool) -> None:
    """Through parameters, two compositions, grid and sampler; of a smooth image, whose derivative does not jump."""
    family: Any = build_family(name, 4)
    torch.manual_seed(2)
    image = torch.randn(1, 2, 7, 8, dtype=torch.float64, requires_grad=True)

    def warped(theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        whole = family.then(family.start(theta[:1]), family.start(theta[1:]))
        return sample(x, family.grid(whole, (4, 5), align_corners, 1), "border", align_corners)

    def parameters(theta: torch.Tensor) -> torch.Tensor:
        return family.parameters(family.then(family.start(theta[:1]), family.start(theta[1:])))

    theta = near_identity(name, 2, 0.07).requires_grad_()
    assert torch.autograd.gradcheck(warped, (theta, image), eps=1e-7, atol=1e-5)
    assert torch.autograd.gradcheck(parameters, (theta,))


@pytest.mark.parametrize("name", list(LINEAR))
def test_the_matrix_holds_the_parameters_and_composes(name: str) -> None:
    family: Any = build_family(name, 4)
    theta = near_identity(name)
    matrix = family.start(theta)
    torch.testing.assert_close(family.parameters(matrix), theta, atol=1e-12, rtol=0)
    whole = family.then(matrix, matrix.flip(0))
    torch.testing.assert_close(whole, matrix @ matrix.flip(0), atol=1e-12, rtol=0)
    # The product of two is one of the same family.
    again = family.start(family.parameters(whole))
    torch.testing.assert_close(family.grid(again, (5, 6), True, 1), family.grid(whole, (5, 6), True, 1))


@pytest.mark.parametrize("name", FAMILIES)
def test_points_go_through_the_later_transform_first(name: str) -> None:
    family: Any = build_family(name, 4)
    theta = near_identity(name, 3)
    first, second, third = (family.start(one) for one in theta.unsqueeze(1))

    def look_up(before, inner: torch.Tensor) -> torch.Tensor:
        outer = family.grid(before, (151, 151), True, 1).permute(0, 3, 1, 2)  # a map of where points go
        return F.grid_sample(outer, inner.clamp(-1, 1), align_corners=True).permute(0, 2, 3, 1)

    inner = family.grid(third, (6, 5), True, 1)
    middle = look_up(second, inner)
    inside = ((inner.abs() < 1) & (middle.abs() < 1)).all(-1)
    assert inside.sum() > 8
    composed = family.grid(family.then(family.then(first, second), third), (6, 5), True, 1)
    torch.testing.assert_close(composed[inside], look_up(first, middle)[inside], atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", list(LINEAR))
def test_a_known_warp_is_undone_by_its_inverse(name: str) -> None:
    """Points to 1e-12; an image that bilinear sampling reproduces to 1e-5 inside. A spline's inverse is no spline."""
    family: Any = build_family(name, 4)
    theta = near_identity(name, 1, 0.05)
    there = family.start(theta)
    back = family.start(family.parameters(torch.linalg.inv(there)))
    grid = family.grid(family.then(there, back), (11, 11), True, 1)
    torch.testing.assert_close(grid, regular((11, 11), True).unsqueeze(0), atol=1e-12, rtol=0)
    # Bilinear sampling keeps a plane; a projective transform bends it, by less the finer the pixels are.
    side = 1025 if name == "projective" else 41
    x = torch.linspace(-1, 1, side, dtype=torch.float64)
    plane = 1 + 2 * x + 3 * x[:, None]
    image = plane.view(1, 1, side, side)
    for step in (there, back):
        image = sample(image, family.grid(step, (side, side), True, 1), "border", True)
    inside = slice(3 * side // 10, 7 * side // 10)
    torch.testing.assert_close(image[0, 0, inside, inside], plane[inside, inside], atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", [2, 3, 4, 5])
def test_a_spline_takes_its_control_points_where_it_says(side: int) -> None:
    torch.manual_seed(3)
    to = regular((side, side), True).view(1, -1, 2) + 0.2 * torch.randn(4, side * side, 2, dtype=torch.float64)
    points = torch.stack(plate_grid(to, (side, side), True), -1).flatten(1, 2)
    torch.testing.assert_close(points, to, atol=1e-10, rtol=0)
    both = [torch.stack(g, -1) for g in (plate_grid(to, (6, 7), False, 2), bend(to, *axes((6, 7), False, to, 2)))]
    torch.testing.assert_close(*both, atol=1e-10, rtol=0)


def test_a_spline_of_an_affine_map_is_that_map() -> None:
    matrix = torch.tensor([[0.9, 0.2], [-0.3, 1.1]], dtype=torch.float64)
    to = (regular((4, 4), True).view(-1, 2) @ matrix.T + 0.1).unsqueeze(0)
    found = torch.stack(plate_grid(to, (9, 8), True), -1)[0]
    torch.testing.assert_close(found, regular((9, 8), True) @ matrix.T + 0.1, atol=1e-12, rtol=0)


def test_a_projective_transform_survives_its_horizon() -> None:
    family: Any = build_family("projective", 4)
    theta = torch.tensor([[1.0, 0, 0, 0, 1, 0, 1, 0]])  # at x = -1 points are infinitely far
    theta.requires_grad_()
    grid = family.grid(family.start(theta), (5, 5), True, 1)
    grid.sum().backward()
    assert grid.isfinite().all()
    assert theta.grad is not None
    assert theta.grad.isfinite().all()


def test_tps_is_exact_whatever_matrix_products_may_round_to() -> None:
    to = near_identity("tps", 1, 0.1).view(1, 16, 2).float()
    with torch.autocast("cpu", torch.bfloat16):
        x, _ = plate_grid(to, (28, 28), True)
    torch.testing.assert_close(x, plate_grid(to.double(), (28, 28), True)[0].float(), atol=1e-6, rtol=0)


def test_a_head_without_gradient_problems_in_half_precision() -> None:
    head = Localisation(torch.nn.Flatten(), 16, build_family("tps", 4).identity, 0, None, True)
    st = SpatialTransformer([head], 4, (4, 4), Options(transform="tps", identity="residual"))
    with torch.autocast("cpu", torch.bfloat16):
        warp = st(torch.randn(2, 1, 4, 4), lambda y, depth: y)
    assert warp.grid_BHW2.dtype == torch.float32
    assert (warp.grid_BHW2 - regular((4, 4), True)).abs().max() < 1e-6
