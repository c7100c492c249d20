"""The geometry of perturbations: where points and pixels go."""

import pytest
import torch
import torch.nn.functional as F

from stn.config.dataset import build_dataset
from stn.data import sources
from stn.data.geometry import displaced, offsets, quadrilateral, resample, turned
from stn.data.rng import Draws
from stn.models.grids import control_points

# ---- geometry


def blob(side: int, x: float, y: float, channels: int = 1) -> torch.Tensor:
    """Return a round spot this many pixels to the right of the centre and below it."""
    at = offsets(side, torch.device("cpu"))
    spot = 250 * torch.exp(-((at - x) ** 2 + (at[:, None] - y) ** 2) / 4)
    return spot.round().byte().expand(1, channels, side, side)


def place(x_1CHW: torch.Tensor) -> tuple[float, float]:
    at, total = offsets(x_1CHW.shape[-1], torch.device("cpu")), x_1CHW.sum()
    return float((x_1CHW * at).sum() / total), float((x_1CHW * at[:, None]).sum() / total)


@pytest.mark.parametrize(("name", "spot"), [("mnist_r", (5, -3)), ("mnist_rts", (4, -6)), ("cifar10_a", (6, 2))])
def test_the_pose_says_where_a_spot_went(name: str, spot: tuple[float, float]) -> None:
    facts = build_dataset(name)
    assert facts.perturb
    for seed in range(20):
        images = blob(facts.side, *spot, channels=facts.shape[0])
        x, pose = facts.perturb(images, Draws(seed, torch.arange(1)), images)
        assert x.shape == (1, *facts.shape)
        says = dict(zip(facts.pose, pose[0].double(), strict=True))
        angle, factor = torch.deg2rad(says["degrees"]), 2 ** (says.get("log2_area", torch.tensor(0.0)) / 2)
        right = factor * (spot[0] * angle.cos() + spot[1] * angle.sin()) + says.get("x", 0)
        down = factor * (-spot[0] * angle.sin() + spot[1] * angle.cos()) + says.get("y", 0)
        if max(abs(right), abs(down)) > facts.shape[1] / 2 - 6:
            continue  # cut off
        assert place(x) == pytest.approx((float(right), float(down)), abs=0.1)


def test_samples_are_those_of_torch() -> None:
    torch.manual_seed(0)
    x = torch.randint(0, 256, (3, 2, 9, 7), dtype=torch.uint8)
    grid = torch.randn(3, 20, 21, 2)
    theirs = F.grid_sample(x.float() / 255, grid, align_corners=True)
    torch.testing.assert_close(resample(x, *(grid * torch.tensor([3.0, 4.0])).unbind(-1)), theirs, atol=1e-5, rtol=0)
    for far in (torch.inf, -torch.inf, 1e30, 4.0 + 1e-6):
        assert resample(x, torch.full((3, 1, 1), far), torch.full((3, 1, 1), -far)).abs().max() < 1e-5
    whole = resample(
        x,
        offsets(7, torch.device("cpu")).view(1, 1, 7).expand(3, -1, -1) + 0,
        offsets(9, torch.device("cpu"))[None, :, None].repeat(3, 1, 1),
    )
    assert torch.equal(whole, x.float() / 255)


def test_quarter_turn_enlargement_and_shift_are_exact() -> None:
    x = sources.mnist().test_x[:1]
    quarter = resample(x, *turned(torch.tensor([[90.0]]), torch.ones(1, 1), torch.zeros(1, 2), 28))
    torch.testing.assert_close(quarter, torch.rot90(x.float() / 255, 1, (2, 3)), atol=1e-5, rtol=0)
    moved = resample(x, *turned(torch.zeros(1, 1), torch.ones(1, 1), torch.tensor([[3.0, -2.0]]), 28))
    assert torch.equal(moved[..., :-2, 3:], (x.float() / 255)[..., 2:, :-3])
    double = resample(x, *turned(torch.zeros(1, 1), torch.full((1, 1), 3.0), torch.zeros(1, 2), 84))
    assert torch.equal(double[..., 1::3, 1::3], x.float() / 255)


def corners(n: int) -> torch.Tensor:
    home = control_points(2, torch.device("cpu"), torch.float64) * 13.5
    return home + Draws(3, torch.arange(n)).normal(8, 5).view(n, 4, 2).double()


def test_the_homography_takes_corners_where_it_should() -> None:
    to_M42 = corners(500)
    grid = torch.stack(quadrilateral(to_M42, 28), -1)
    found = grid[:, ::27, ::27].reshape(500, 4, 2)
    torch.testing.assert_close(found, to_M42, atol=1e-9, rtol=0)
    # And between corners it is the projective map that a linear system gives.
    s = torch.tensor([0.0, 1, 0, 1]).double().expand(500, -1)
    t, one, nil = torch.tensor([0.0, 0, 1, 1]).double().expand(500, -1), s * 0 + 1, s * 0
    X, Y = to_M42.unbind(-1)
    rows = [[s, t, one, nil, nil, nil, -s * X, -t * X], [nil, nil, nil, s, t, one, -s * Y, -t * Y]]
    system = torch.cat([torch.stack(r, -1) for r in rows], 1)
    m = torch.linalg.solve(system, torch.cat([X, Y], 1))
    u, v = 9 / 27, 18 / 27
    depth = m[:, 6] * u + m[:, 7] * v + 1
    expected = (
        torch.stack([m[:, 0] * u + m[:, 1] * v + m[:, 2], m[:, 3] * u + m[:, 4] * v + m[:, 5]], -1) / depth[:, None]
    )
    well = depth.abs() > 0.05
    assert well.sum() > 450
    torch.testing.assert_close(grid[well, 18, 9], expected[well], atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize(
    "to",
    [
        [[0, 0], [1, 1], [3, 3], [2, 2]],
        [[5, 5]] * 4,
        [[0, 0], [9, 0], [0, 0], [9, 0]],
        [[0, 0], [9, 0], [9, 9], [0, 9]],  # crossed
        [[-9, -9], [9, -9], [-9, 9], [0, 0]],  # three in line: the horizon is an edge
        [[-9, -9], [9, -9], [-9, 9], [-4, -4]],  # concave: the horizon cuts through
    ],
)
def test_a_degenerate_quadrilateral_gives_an_image(to: list) -> None:
    home = control_points(2, torch.device("cpu"), torch.float64) * 13.5
    moved = torch.tensor([to]).double() - home
    positions = displaced(moved, torch.ones(1, 1), 28)
    assert not any(p.isnan().any() for p in positions)
    image = resample(sources.mnist().test_x[:1], *positions)
    assert 0 <= image.min() <= image.max() <= 1


@pytest.mark.parametrize("n", [4, 16])
def test_control_points_look_where_they_should(n: int) -> None:
    moved, factor = (
        Draws(8, torch.arange(300)).normal(2 * n, 1.5).view(300, n, 2),
        torch.linspace(0.75, 1, 300)[:, None],
    )
    step = 27 if n == 4 else 9  # control points are pixels
    found = torch.stack(displaced(moved, factor, 28), -1)[:, ::step, ::step].reshape(300, n, 2)
    at = torch.arange(0, 28, step) - 13.5
    home = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).reshape(n, 2)
    torch.testing.assert_close(found, (home + moved) / factor[:, None], atol=1 / 2047, rtol=0)


@pytest.mark.parametrize("name", ["mnist_p", "mnist_e", "mnist_h"])
def test_points_of_the_output_show_what_the_pose_says(name: str) -> None:
    facts, n = build_dataset(name), 300
    assert facts.perturb
    ramp = (torch.arange(28) * 9).byte()
    columns, rows = ramp.expand(n, 1, 28, 28), ramp[:, None].expand(n, 1, 28, 28)
    (across, pose), (down, _) = (facts.perturb(i, Draws(6, torch.arange(n)), i) for i in (columns, rows))
    points = len(facts.pose) // 2
    factor = 2 ** (pose[:, :1] / 2) if "log2_area" in facts.pose else torch.ones(n, 1)
    side = round(points**0.5)
    at = torch.linspace(-13.5, 13.5, side)
    home = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).reshape(points, 2)
    says = (home + pose[:, -2 * points :].view(n, points, 2)) / factor[:, None]
    step = 27 // (side - 1)
    shown = torch.stack([across, down], -1)[:, 0, ::step, ::step].reshape(n, points, 2) * 255 / 9 - 13.5
    inside = (says.abs() < 13.5).all(-1)
    assert inside.sum() > 100
    torch.testing.assert_close(shown[inside], says[inside], atol=0.01, rtol=0)
