"""Perturbations of images: distributions, geometry, and test sets whose bits never change."""

import hashlib
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from stn.config.dataset import build_dataset
from stn.config.resolve import resolve, signature
from stn.config.schema import Config, Data
from stn.data import sources
from stn.data.datasets import points
from stn.data.geometry import displaced, offsets, quadrilateral, resample, turned
from stn.data.rng import Draws
from stn.data.stream import Stream
from stn.models.grids import control_points
from tests.support.paths import CIFAR, needs_cifar

SHA256 = {  # of 200 test images from the first to the last, and of their poses
    "mnist_r": "6de446daf329a6db",
    "mnist_t": "cf1b6f540e579be7",
    "mnist_s": "d866094337443d98",
    "mnist_tc": "cf1b6f540e579be7",
    "mnist_rts": "4e817a6c34ea9cda",
    "mnist_p": "692384dfe5779a38",
    "mnist_e": "97230ed173fcda27",
    "mnist_h": "2d8ad40f6807845c",
    "cifar10_r": "675e5c16417d6dc2",
    "cifar10_a": "3fa39156ddf570d8",
}


def stream(name: str, seeds=(0,), **data) -> Stream:
    return Stream(Data(name=name, root=str(CIFAR), **data), build_dataset(name), list(seeds))


def with_cifar(names) -> list:
    return [pytest.param(name, marks=needs_cifar) if name.startswith("cifar") else name for name in names]


# ---- the bits of the test sets


def digest(name: str) -> str:
    s = stream(name)
    images = s.test_images(torch.arange(200) * (s.test_count - 1) // 199)
    return hashlib.sha256(images.x_BCHW.numpy().tobytes() + images.pose_BP.numpy().tobytes()).hexdigest()[:16]


def test_every_perturbed_set_has_a_digest() -> None:
    from stn.config import registry

    assert {name for name in registry.entries["dataset"] if build_dataset(name).perturb} == set(SHA256)


@pytest.mark.parametrize("name", with_cifar(SHA256))
def test_test_sets_never_change(name: str) -> None:
    """If these change, all published numbers of the data set belong to another data set."""
    assert digest(name) == SHA256[name]


def test_test_sets_are_the_same_without_vector_instructions() -> None:
    names = [name for name in SHA256 if CIFAR or not name.startswith("cifar")]
    code = f"from tests.unit import test_distort as t; print(*map(t.digest, {names}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"ATEN_CPU_CAPABILITY": "default", "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [SHA256[name] for name in names]


@pytest.mark.parametrize("name", with_cifar(SHA256))
def test_an_image_does_not_depend_on_its_batch_or_the_threads(name: str) -> None:
    s, index = stream(name), torch.arange(9_900, 10_100) % stream(name).test_count
    whole = s.test_images(index)
    threads = torch.get_num_threads()
    for size, n in ((1, 1), (7, 2), (200, 1), (200, 2)):
        torch.set_num_threads(n)
        parts = [s.test_images(i) for i in index.split(size)]
        torch.set_num_threads(threads)
        assert torch.equal(torch.cat([p.x_BCHW for p in parts]), whole.x_BCHW)
        assert torch.equal(torch.cat([p.pose_BP for p in parts]), whole.pose_BP)


@pytest.mark.parametrize("name", with_cifar(SHA256))
def test_test_images_know_nothing_of_training(name: str) -> None:
    index = torch.arange(20)
    a, b = stream(name).test_images(index), stream(name, (5, 6), limit_train=9, rotate=20.0, flip=True)
    b.batch(0)
    assert torch.equal(a.x_BCHW, b.test_images(index).x_BCHW)
    assert a.x_BCHW.shape[1:] == build_dataset(name).shape
    assert a.pose_BP.shape == (20, len(build_dataset(name).pose))


def test_the_cluttered_set_of_jaderberg_is_finnvedens() -> None:
    a, b = (stream(name).test_images(torch.arange(5)) for name in ("mnist_t", "mnist_tc"))
    assert torch.equal(a.x_BCHW, b.x_BCHW)


# ---- distributions

N = 4000
U, G = "uniform", "normal"
POSES: dict[str, dict[str, tuple]] = {
    "mnist_r": {"degrees": (U, -90, 90)},
    "mnist_s": {"log2_area": (U, -2, 4)},
    "mnist_rts": {"degrees": (U, -45, 45), "factor": (U, 0.7, 1.2), "x": (U, -7, 7), "y": (U, -7, 7)},
    "mnist_p": {"factor": (U, 0.75, 1)} | dict.fromkeys(points(4), (G, 0, 5)),
    "mnist_e": {"factor": (U, 0.75, 1)} | dict.fromkeys(points(16), (G, 0, 1.5)),
    "mnist_h": dict.fromkeys(points(4), (G, 0, 2**0.5 * 3.375)),
    "cifar10_r": {"degrees": (U, -30, 30)},
    "cifar10_a": {"degrees": (U, -30, 30), "log2_area": (U, -0.643856, 0.643856), "x": (U, -4, 4), "y": (U, -4, 4)},
}


def poses(name: str) -> dict[str, torch.Tensor]:
    facts = build_dataset(name)
    assert facts.perturb
    x = torch.zeros(N, facts.shape[0], 4, 4, dtype=torch.uint8).expand(-1, -1, 4, 4)
    x = F.pad(x, [0, facts.side - 4, 0, facts.side - 4])
    _, pose = facts.perturb(x, Draws(12, torch.arange(N)), x)
    return dict(zip(facts.pose, pose.double().unbind(1), strict=True))


@pytest.mark.parametrize("name", POSES)
def test_perturbations_are_distributed_as_defined(name: str) -> None:
    pose = poses(name)
    if "factor" in POSES[name]:
        pose["factor"] = 2 ** (pose.pop("log2_area") / 2)
    assert set(pose) == set(POSES[name])
    for column, (kind, a, b) in POSES[name].items():
        value = pose[column].sort().values
        low, high = (a, b) if kind == U else (a - 5 * b, a + 5 * b)
        assert low - 1e-6 <= value[0] < value[-1] <= high + 1e-6
        if kind == U:  # the nearest of 4,000 is further from an end than this once in 500 million
            assert max(value[0] - low, high - value[-1]) < 0.005 * (high - low), column
        mean, sd = ((a + b) / 2, (b - a) / 12**0.5) if kind == U else (a, b)
        assert abs(value.mean() - mean) < 4 * sd / N**0.5, column
        assert abs(value.std() / sd - 1) < 0.05, column
        below = (value - a) / (b - a) if kind == U else torch.special.ndtr((value - a) / b)
        distance = (below - torch.arange(N) / N).abs().max()
        assert distance < 2.2 / N**0.5, (column, distance)  # Kolmogorov and Smirnov: once in 8,000 columns
    correlation = torch.corrcoef(torch.stack(list(pose.values()))).view(len(pose), -1) - torch.eye(len(pose))
    if name == "mnist_h":  # half of the variance is common to all four corners, each axis by itself
        correlation -= 0.5 * (torch.eye(2).repeat(4, 4) - torch.eye(8))
    assert correlation.abs().max() < 5 / N**0.5


def test_the_digit_of_the_cluttered_set_is_anywhere_alike() -> None:
    for column in poses("mnist_t").values():
        counts = torch.bincount(column.long() + 16, minlength=33).double()
        assert len(counts) == 33
        assert ((counts - N / 33) ** 2 / (N / 33)).sum() < 73  # chi-square of 32: once in 20,000


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


# ---- the stream


def test_training_images_may_stay_as_they_are() -> None:
    a, b = stream("mnist_p", perturb_train=False), stream("mnist_p")
    x = a.as_image(a.batch(0).x_SBCHW[0])
    order = a._order_SN[0, :128]
    torch.testing.assert_close(x, sources.mnist().train_x[order].float() / 255, atol=1e-6, rtol=0)
    assert not torch.equal(a.batch(0).x_SBCHW, b.batch(0).x_SBCHW)
    index = torch.arange(9)
    assert torch.equal(a.test_images(index).x_BCHW, b.test_images(index).x_BCHW)


def test_plain_training_images_must_have_the_size_of_test_images() -> None:
    with pytest.raises(ValueError, match="perturb_train cannot be off: plain images are 28 pixels wide, mnist_t's 60"):
        resolve(Config(data=Data(name="mnist_t", perturb_train=False)))
    with pytest.raises(ValueError, match="perturb_train cannot be off: mnist is not perturbed"):
        resolve(Config(data=Data(name="mnist", perturb_train=False)))
    for name in ("mnist_e", "cifar10_a"):
        on, off = (resolve(Config(data=Data(name=name, perturb_train=p))) for p in (True, False))
        assert signature(on) != signature(off)


@pytest.mark.parametrize("name", with_cifar(["mnist", *SHA256]))
def test_plain_images_stand_in_the_middle_of_the_canvas(name: str) -> None:
    s, facts = stream(name), build_dataset(name)
    index = torch.tensor([3, s.test_count - 1])
    plain = s.as_image(s.plain_images(index))
    assert plain.shape == (2, *facts.shape)
    edge = (facts.shape[1] - facts.side) // 2
    middle = plain[:, :, edge : edge + facts.side, edge : edge + facts.side]
    source = facts.load(str(CIFAR)).test_x
    torch.testing.assert_close(middle, source[[3, len(source) - 1]].float() / 255, atol=1e-6, rtol=0)
    assert plain.sum().item() == pytest.approx(middle.sum().item(), abs=0.02)


@needs_cifar
def test_each_half_of_the_mismatched_set_has_figures_of_its_own() -> None:
    usual, other = stream("cifar10", validation=100), stream("cifar10_mismatched", validation=100)
    assert torch.equal(usual.batch(0).x_SBCHW, other.batch(0).x_SBCHW)
    mean = torch.tensor([0.4942, 0.4851, 0.4504]).view(3, 1, 1)
    std = torch.tensor([0.2467, 0.2429, 0.2616]).view(3, 1, 1)
    images = sources.cifar10(str(CIFAR))
    index = torch.arange(10)
    for s, plain in ((other, images.train_x[-100:]), (stream("cifar10_mismatched"), images.test_x)):
        bright = plain[:10].float() / 255
        torch.testing.assert_close(s.test_images(index).x_BCHW, (bright - mean) / std)
        torch.testing.assert_close(s.as_image(s.test_images(index).x_BCHW), bright)
        torch.testing.assert_close(s.as_image(s.plain_images(index)), bright)
