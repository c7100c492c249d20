"""The pose measures: signs against images, published figures of a transformer that does nothing, known rotations."""

import math

import pytest
import torch
from torch import nn

from stn.config.dataset import build_dataset
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data
from stn.data.stream import Stream
from stn.evaluation.accuracy import bypassed
from stn.evaluation.pose import compensation, linear_part, pixels_per_unit, total_matrix
from stn.evaluation.pose_statistics import _line, pose_summary
from stn.models.build import build_network
from stn.multiseed.model import StackedModel
from tests.support.pose import make, measure_pose


def undo(dataset: str, pose_BP: torch.Tensor) -> torch.Tensor:
    """Return the affine parameters that undo a perturbation, derived by hand."""
    one, zero = torch.ones(len(pose_BP)), torch.zeros(len(pose_BP))
    if dataset == "mnist_r":
        a = torch.deg2rad(-pose_BP[:, 0])
        return torch.stack([a.cos(), -a.sin(), zero, a.sin(), a.cos(), zero], 1)
    if dataset == "mnist_s":
        s = 2 ** (pose_BP[:, 0] / 2)
        return torch.stack([s, zero, zero, zero, s, zero], 1)
    return torch.stack([one, zero, pose_BP[:, 0] / 29.5, zero, one, pose_BP[:, 1] / 29.5], 1)


class Oracle(nn.Module):
    """A localisation network that knows the answer: each batch has the perturbed images first, then the plain ones."""

    def __init__(self, theta_BP: torch.Tensor, stream: Stream) -> None:
        super().__init__()
        parts = theta_BP.split(stream.test_batch_size(400))
        identity = torch.tensor([1.0, 0, 0, 0, 1, 0])
        self.depth, self.answers = 0, [x for part in parts for x in (part, identity.expand(len(part), 6))]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.answers.pop(0)


@pytest.mark.parametrize("dataset", ["mnist_r", "mnist_t", "mnist_s"])
def test_a_transformer_that_undoes_everything(dataset: str) -> None:
    model, stream = make("stn_c0", dataset)
    images = stream.test_images(torch.arange(400))
    lazy, _ = measure_pose(model, stream, 400)
    model.st[0].heads[0] = Oracle(undo(dataset, images.pose_BP), stream)  # type: ignore[index]
    row, _ = measure_pose(model, stream, 400)
    assert row["pose_spread"] < 0.02
    assert row["pose_slope"] == pytest.approx(1, abs=1e-3)
    assert row["pose_intercept"] == pytest.approx(0, abs=0.02)
    # The same sign in the images: what is undone looks like what it was.
    assert row["feature_agreement"] > lazy["feature_agreement"] + 0.25  # clutter stays, on T and S


@pytest.mark.parametrize(
    ("dataset", "expected", "margin"), [("mnist_r", 52.0, 1.5), ("mnist_t", 13.3, 0.4), ("mnist_s", 1.73, 0.05)]
)
def test_a_transformer_that_does_nothing_has_the_published_spread(dataset: str, expected: float, margin: float) -> None:
    model, stream = make("stn_c0", dataset)
    stream.test_count = 4000
    batch = stream.test_images(torch.arange(4000))
    kind, columns = {"mnist_r": ("degrees", [0]), "mnist_t": ("shift", [0, 1]), "mnist_s": ("log2_area", [0])}[dataset]
    applied = batch.pose_BP.double()[:, columns].squeeze(1)
    identity = torch.eye(3, dtype=torch.float64).expand(4000, 3, 3)
    summary = pose_summary(
        kind, applied, compensation(kind, identity, pixels_per_unit(model, stream.dataset.shape)), batch.y_B
    )
    assert summary["spread"] == pytest.approx(expected, abs=margin)
    assert summary["slope"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("degrees", [-170.0, -90.0, -0.01, 0.0, 33.3, 120.0])
def test_a_rotation_is_read_back_to_a_hundredth_of_a_degree(degrees: float, align_corners: bool) -> None:
    model, _ = make("stn_c0", "mnist_r", align_corners=align_corners)
    a = math.radians(degrees)
    with torch.no_grad():
        shift, scale = torch.tensor([0.2, -0.1]), 1.3
        turn = [scale * math.cos(a), -scale * math.sin(a), shift[0], scale * math.sin(a), scale * math.cos(a), shift[1]]
        model.st[0].heads[0].last.bias.copy_(torch.tensor(turn))  # type: ignore[union-attr, index]
        warps = model.warps(torch.zeros(3, 1, 28, 28))
    found = compensation("degrees", total_matrix(model, (1, 28, 28), [warp.grid_BHW2 for warp in warps]), 1.0)
    assert (found - degrees).abs().max() < 0.01
    A_B33 = linear_part(model.st[0], warps[0].grid_BHW2)  # type: ignore[arg-type]
    assert A_B33[0, :2].flatten().tolist() == pytest.approx([float(x) for x in turn], abs=1e-6)


def test_pixels_are_those_of_the_paper() -> None:
    assert [
        pixels_per_unit(*pair) for pair in ((make(a, "mnist_t")[0], (1, 60, 60)) for a in ("stn_c0", "stn_cx"))
    ] == [
        29.5,
        25,
    ]


def test_several_transformers_make_one_matrix() -> None:
    model, _ = make("stn_cx", "mnist_r", depth=(0, 1))
    parts = torch.tensor([[1.1, 0.2, 0.1, -0.2, 0.9, 0], [0.9, 0, 0.3, 0.1, 1, 0.2]])
    with torch.no_grad():
        for st, part in zip(model.st, parts, strict=True):
            st.heads[0].last.bias.copy_(part)  # type: ignore[union-attr, index]
        found = total_matrix(model, (1, 28, 28), [warp.grid_BHW2 for warp in model.warps(torch.zeros(2, 1, 28, 28))])
    last = torch.tensor([[0.0, 0, 1]])
    # The second acts on maps of 10 x 10 whose pixels are 2 of the image's: 9 of 13.5 image pixels a unit.
    parts[1, [2, 5]] *= 9 / 13.5
    expected = torch.cat([parts[0].view(2, 3), last]) @ torch.cat([parts[1].view(2, 3), last])
    torch.testing.assert_close(found[0].float(), expected, atol=1e-6, rtol=0)


def test_angles_are_compared_around_their_mean() -> None:
    """170 and -170 degrees are 20 apart, not 340."""
    applied, label = torch.zeros(2, dtype=torch.float64), torch.zeros(2)
    made = torch.tensor([170.0, -170.0], dtype=torch.float64)
    assert pose_summary("degrees", applied, made, label)["spread"] == pytest.approx(10)
    # Around that of each label: one stands on its head.
    both = torch.cat([torch.zeros(18, dtype=torch.float64), made])
    label = torch.arange(10).repeat_interleave(2)
    assert pose_summary("degrees", torch.zeros_like(both), both, label)["spread"] == pytest.approx(1)


def test_the_line_is_the_orthogonal_one() -> None:
    torch.manual_seed(0)
    x = torch.randn(500, dtype=torch.float64)
    y = 0.7 * x + 3 + 0.3 * torch.randn(500, dtype=torch.float64)
    cov = torch.cov(torch.stack([x, y]))
    axis = torch.linalg.eigh(cov).eigenvectors[:, -1]
    slope, intercept = _line(x, y)
    assert slope == pytest.approx(float(axis[1] / axis[0]))
    assert intercept == pytest.approx(float(y.mean() - slope * x.mean()))


@pytest.mark.parametrize("which", [0, 1])
def test_whichever_transformer_undoes_a_shift(which: int) -> None:
    """Transforms of an image and of its feature map have units of their own: 29.5 and 25 pixels."""
    model, stream = make("stn_cx", "mnist_t", depth=(0, 1))
    pose_BP = stream.test_images(torch.arange(400)).pose_BP
    theta = undo("mnist_t", pose_BP)
    theta[:, [2, 5]] *= (1, 29.5 / 25)[which]
    model.st[which].heads[0] = Oracle(theta, stream)  # type: ignore[index]
    row, _ = measure_pose(model, stream, 400)
    assert row["pose_spread"] < 0.02
    assert row["pose_slope"] == pytest.approx(1, abs=1e-3)


def test_agreement_is_of_the_same_images_whatever_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stn.evaluation.pose._AGREEMENT_IMAGES", 100)
    model, stream = make("stn_c0", "mnist_r")
    found = {measure_pose(model, stream, size)[0]["feature_agreement"] for size in (400, 70)}
    assert max(found) - min(found) < 1e-9


def test_bypassed_networks_do_not_warp() -> None:
    facts = build_dataset("mnist_t")
    config = resolve(Config(arch=Arch(name="stn_cx"), data=Data(name="mnist_t")))
    seeds = StackedModel(lambda: build_network(config), [0, 1]).eval()
    x = torch.randn(4, *facts.shape)
    with torch.no_grad():
        start = seeds.predict(x)
        seeds.stacked["st.0.heads.0.last.bias"].add_(0.3)
        assert not torch.equal(seeds.predict(x), start)
        with bypassed(seeds) as any_transformer:
            assert any_transformer
            assert torch.equal(seeds.predict(x), start)
        assert not torch.equal(seeds.predict(x), start)
