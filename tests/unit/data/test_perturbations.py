"""Perturbations and augmentations of digits: what they do is what they say."""

import math
from typing import Any

import pytest
import torch

from stn.config.dataset import build_dataset
from stn.config.schema import Data
from stn.data import augment, geometry, perturbations, sources
from stn.data.rng import Draws
from stn.models.grids import affine_grid, sample
from tests.support.networks import invert_affine


def digits(n: int) -> torch.Tensor:
    return sources.mnist().test_x[:n]


def test_rotation_is_uniform_and_says_what_it_did() -> None:
    x, degrees = perturbations.rotate(digits(5000), Draws(1, torch.arange(5000)), digits(10))
    assert degrees.min() < -89
    assert degrees.max() > 89
    assert abs(degrees.mean()) < 3
    assert abs(degrees.std() - 180 / 12**0.5) < 1
    # The sampling matrix of the opposite angle undoes it, except for the blur of two resamplings.
    angle = torch.deg2rad(degrees[:, 0])
    theta = torch.stack([angle.cos(), -angle.sin(), 0 * angle, angle.sin(), angle.cos(), 0 * angle], 1).view(-1, 2, 3)
    back = sample(x, affine_grid(invert_affine(theta), (28, 28), True), "zeros", True)
    original = digits(5000).float() / 255
    error = (back - original).abs().mean()
    assert error < 0.03
    assert (x - original).abs().mean() > 4 * error


def test_rotation_by_90_degrees_is_counter_clockwise() -> None:
    class Quarter(Draws):
        def uniform(self, n: int, low: float = 0, high: float = 1) -> torch.Tensor:
            return torch.full((1, 1), high)

    x, degrees = perturbations.rotate(digits(1), Quarter(0), digits(1))
    assert degrees.item() == 90
    torch.testing.assert_close(x, torch.rot90(digits(1).float() / 255, 1, (2, 3)), atol=1e-4, rtol=0)


def test_translation_places_the_digit_where_it_says() -> None:
    n = 3000
    x, pose = perturbations.translate_in_clutter(digits(n), Draws(2, torch.arange(n)), digits(100))
    assert x.shape == (n, 1, 60, 60)
    assert x.max() <= 1
    assert pose.unique().tolist() == list(range(-16, 17))
    for i in range(20):
        left, top = (int(v) + 16 for v in pose[i])
        window = x[i, 0, top : top + 28, left : left + 28]
        assert (window >= digits(n)[i, 0].float() / 255 - 1e-6).all()  # clutter only adds
    added = x.sum((1, 2, 3)) - digits(n).float().sum((1, 2, 3)) / 255
    assert added.mean() > 5
    assert added.min() > -30  # clamping takes a little


def test_scaling_says_the_area_and_keeps_the_centre() -> None:
    n = 2000
    x, pose = perturbations.scale_in_clutter(
        digits(n), Draws(3, torch.arange(n)), torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    )
    assert x.shape == (n, 1, 112, 112)
    assert -2 <= pose.min() < -1.9
    assert 3.9 < pose.max() <= 4
    assert abs(pose.mean() - 1) < 0.15
    mass = digits(n).float().sum((1, 2, 3)) / 255
    large = pose[:, 0] > 0  # small ones alias: bilinear sampling skips pixels
    torch.testing.assert_close((x.sum((1, 2, 3)) / mass)[large].log2(), pose[large, 0], atol=0.12, rtol=0)


def six(x_M1HW: torch.Tensor, each: float, spread: float) -> None:
    """The sum over a canvas is the sum of six independent draws with this mean and standard deviation."""
    total, n = 255 * x_M1HW.double().sum((1, 2, 3)), len(x_M1HW)
    assert abs(total.mean() - 6 * each) < 4 * 6**0.5 * spread / n**0.5 + 1e-4
    assert abs(total.std() / (6**0.5 * spread) - 1) < 0.1


def power(k: int) -> float:
    """Return the mean of f^k, where f is 2^U(-1, 2)."""
    return (4**k - 0.5**k) / (3 * k * math.log(2))


WIDTH = {
    "mnist_t": ((55**2 - 1) + (6**2 - 1)) ** 0.5 / 60,
    "mnist_s": (112**2 - 12 * 112 * power(3) / power(2) + 72 * power(4) / power(2)) ** 0.5 / 112,
}
"""Of where clutter lies, beside that of the canvas: crops lie whole on it."""


@pytest.mark.parametrize("name", ["mnist_t", "mnist_s"])
def test_clutter_is_six_crops_of_any_place_of_any_training_image(name: str) -> None:
    """Without a digit, and too dark to be clamped, a canvas sums to the sum of its crops."""
    make, n = build_dataset(name).perturb, 1500
    assert make
    black, draws = torch.zeros(n, 1, 28, 28).byte(), lambda: Draws(4, torch.arange(n))
    mean, square = (power(2), power(4)) if name == "mnist_s" else (1.0, 1.0)
    ones = torch.ones(1, 1, 28, 28).byte()
    images = torch.arange(1, 42).byte().view(-1, 1, 1, 1).expand(-1, 1, 28, 28)
    across = torch.arange(28).byte().expand(1, 1, 28, 28)
    for pool, value, variance in (
        (ones, 1.0, 0.0),  # six, of 36 pixels, each as large as it should be
        (images, 21.0, (41**2 - 1) / 12),  # of all images alike
        (across, 13.5, (23**2 - 1) / 12),  # from all columns alike
        (across.transpose(2, 3), 13.5, (23**2 - 1) / 12),
    ):
        spread = 36 * (square * (value**2 + variance) - (mean * value) ** 2) ** 0.5
        x, _ = make(black, draws(), pool)
        if spread == 0:
            assert torch.equal((255 * x).sum((1, 2, 3)).round(), torch.full((n,), 6.0 * 36))
        else:
            six(x, 36 * mean * value, spread)
    seen = make(black, draws(), ones)[0].double().mean((0, 1)) * 255
    for profile in (seen.sum(0), seen.sum(1)):
        at = torch.arange(len(profile)) - (len(profile) - 1) / 2
        middle = (profile * at).sum() / profile.sum()
        width = ((profile * (at - middle) ** 2).sum() / profile.sum()) ** 0.5
        assert abs(middle) < 0.02 * len(profile)
        assert abs(12**0.5 * width / len(profile) - WIDTH[name]) < 0.02


def test_random_affine_without_range_is_the_identity() -> None:
    x = digits(8).float() / 255
    same = augment.random_affine(x, Draws(1, torch.arange(8)), Data())
    torch.testing.assert_close(same, x, atol=1e-4, rtol=0)


def test_random_affine_agrees_with_torchvision() -> None:
    from torchvision.transforms.functional import InterpolationMode, affine

    class Fixed(Draws):
        values = (20.0, 5.0, 1.2, 0.1, 0.05)

        def uniform(self, n: int, low: float = 0, high: float = 1) -> torch.Tensor:
            self._drawn += 1
            return torch.full((8, 1), self.values[self._drawn - 1])

    x = digits(8).float() / 255
    ours = augment.random_affine(x, Fixed(0), Data(rotate=30, translate=0.2, scale=(0.8, 1.3), shear=10))
    shift: Any = [2.8, 1.4]  # torchvision's annotation says integers, its documentation does not
    theirs = affine(x, -20.0, shift, 1.2, [-5.0, 0.0], InterpolationMode.BILINEAR)
    difference = (ours - theirs).abs().mean()
    assert difference < 0.25 * (ours - x).abs().mean(), float(difference)


def test_crop_and_flip_move_pixels_only() -> None:
    x = torch.arange(2 * 3 * 8 * 8).view(2, 3, 8, 8).float() + 1
    flipped = augment.random_flip(x.repeat(50, 1, 1, 1), Draws(1, torch.arange(100)))
    mirrored = (flipped[:, 0, 0, 0] == x.repeat(50, 1, 1, 1)[:, 0, 0, 7]).float().mean()
    assert 0.3 < mirrored < 0.7
    cropped = augment.random_crop(x, Draws(2, torch.arange(2)), 2)
    assert cropped.shape == x.shape
    assert set(cropped.unique().tolist()) <= {0.0, *x.unique().tolist()}


def test_cutout_paints_one_square_in_the_mean_colour() -> None:
    x, mean = torch.ones(500, 3, 12, 16), torch.tensor([0.25, 0.5, 0.75]).view(3, 1, 1)
    out = augment.random_cutout(x, Draws(1, torch.arange(500)), 4, mean)
    painted = (out == mean).all(1)
    assert torch.equal(out, torch.where(painted[:, None], mean, x))
    rows, columns = painted.any(2).sum(1), painted.any(1).sum(1)
    assert torch.equal(painted.flatten(1).sum(1), rows * columns)  # a rectangle, a part of a square at the border
    assert rows.max() == columns.max() == 4
    assert rows.min() < 4
    assert painted.any(0).all()
    assert torch.equal(x, torch.ones_like(x))


def test_functions_of_a_row_do_not_depend_on_its_position_in_the_batch() -> None:
    """fp32 exp2 does: its vector and scalar forms differ in the last bit."""
    x = torch.linspace(-90, 90, 1003)
    for function in (lambda v: torch.stack(geometry.cos_sin(v), -1), lambda v: geometry.exp2(v / 45)):
        assert torch.equal(function(x), torch.cat([function(x[i : i + 1]) for i in range(len(x))]))
