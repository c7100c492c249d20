"""The pose measures: signs against images, SPEC's figures for a transformer that does nothing, known rotations."""

import math

import pytest
import torch
from torch import nn

from launch.report.analysis.metrics import POSE_UNITS
from stn.config.dataset import build_dataset
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data
from stn.data.stream import Stream
from stn.evaluation.accuracy import bypassed
from stn.evaluation.pose import (
    _KINDS,
    compensation,
    linear_part,
    measure_poses,
    pixels_per_unit,
    total_matrix,
)
from stn.evaluation.pose_statistics import POINTS, Points, _line, points_to_plot, pose_summary
from stn.models.build import build_network
from stn.models.wirings import Transformed
from stn.multiseed.model import StackedModel
from tests.support.trainer import QUIET, Run, only_run, train


def make(arch: str, dataset: str, **options) -> tuple[Transformed, Stream]:
    config = resolve(Config(arch=Arch(name=arch, **options), data=Data(name=dataset, limit_test=400)))
    facts = build_dataset(dataset)
    model = build_network(config)
    assert isinstance(model, Transformed)
    return model, Stream(config.data, facts, [0])


def measure_pose(model: nn.Module, stream: Stream, images: int) -> tuple[dict, Points]:
    return measure_poses(StackedModel(lambda: model, [0]), stream, images)[0]


def undo(dataset: str, pose_BP: torch.Tensor) -> torch.Tensor:
    """The affine parameters that take a perturbation back, written down by hand."""
    one, zero = torch.ones(len(pose_BP)), torch.zeros(len(pose_BP))
    if dataset == "mnist_r":
        a = torch.deg2rad(-pose_BP[:, 0])
        return torch.stack([a.cos(), -a.sin(), zero, a.sin(), a.cos(), zero], 1)
    if dataset == "mnist_s":
        s = 2 ** (pose_BP[:, 0] / 2)
        return torch.stack([s, zero, zero, zero, s, zero], 1)
    return torch.stack([one, zero, pose_BP[:, 0] / 29.5, zero, one, pose_BP[:, 1] / 29.5], 1)


class Oracle(nn.Module):
    """A localisation net that knows: of each batch the perturbed images first, then the plain ones."""

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
    """Of an image and of its feature map, each in units of its own: 29.5 and 25 pixels."""
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


def by_hand(dataset: str, theta_BP: torch.Tensor) -> torch.Tensor:
    """The perturbation that a transformer of the image seems to have seen, from its six numbers."""
    a, b, x, c, d, y = theta_BP.double().T
    if dataset == "mnist_r":
        return -torch.rad2deg(torch.atan2(c - b, a + d))
    return torch.log2(a * d - b * c) if dataset == "mnist_s" else 29.5 * torch.stack([x, y], 1)


@pytest.mark.parametrize(("dataset", "kind"), [("mnist_r", "degrees"), ("mnist_t", "shift"), ("mnist_s", "log2_area")])
def test_points_are_those_of_images_from_all_over_the_test_set(dataset: str, kind: str) -> None:
    torch.manual_seed(0)
    model, stream = make("stn_c0", dataset)
    nn.init.normal_(model.st[0].heads[0].last.weight, std=0.1)  # type: ignore[union-attr, index, arg-type]
    stream.test_count = 1000
    row, points = measure_pose(model, stream, 130)
    assert list(points) == [kind]
    index = torch.tensor([999 * i // 199 for i in range(200)])
    with torch.no_grad():
        batch = stream.test_images(index)
        (warp,) = model.warps(batch.x_BCHW)
    found = {key: torch.tensor(values, dtype=torch.float64) for key, values in points[kind].items()}
    applied = batch.pose_BP.double().squeeze(1) if kind != "shift" else batch.pose_BP.double()
    made = by_hand(dataset, warp.theta_BP)
    assert made.std() > 0.01
    assert len(found["applied"]) == POINTS == 200
    torch.testing.assert_close(found["applied"], applied, rtol=1e-3, atol=1e-6)
    apart = found["predicted"] - made
    if kind == "degrees":
        apart = (apart + 180) % 360 - 180
    assert apart.abs().max() < 1e-3 * made.abs().max() + 1e-4
    assert "shift" not in points or len(points["shift"]["applied"][0]) == 2
    assert not any("applied" in key for key in row)


def test_points_lie_about_the_line_of_the_row() -> None:
    """Angles come without the turns that the regression has been spared."""
    applied = torch.linspace(-90, 90, 1000, dtype=torch.float64)
    made = 170 - applied  # the final pose is 170 degrees everywhere, or what is that less a turn
    made = (made + torch.linspace(-15, 15, 1000, dtype=torch.float64).flip(0) + 180) % 360 - 180
    found = points_to_plot("degrees", applied, made)["degrees"]
    line = pose_summary("degrees", applied, made, torch.zeros(1000))
    for x, y in zip(found["applied"], found["predicted"], strict=True):
        assert y == pytest.approx(line["slope"] * x + line["intercept"], abs=20)


def test_few_images_give_few_points_and_what_is_no_number_none() -> None:
    applied = torch.tensor([1.0, 2.0, 3.123456], dtype=torch.float64)
    made = torch.tensor([-1.0, math.nan, -math.pi], dtype=torch.float64)
    assert points_to_plot("log2_area", applied, made) == {
        "log2_area": {"applied": [1.0, 3.123], "predicted": [1.0, 3.142]}
    }
    assert points_to_plot("log2_area", applied, made * math.nan) == {}
    pair = torch.stack([applied, made], 1)
    assert points_to_plot("shift", pair, pair) == {
        "shift": {"applied": [[1.0, -1.0], [3.123, -3.142]], "predicted": [[-1.0, 1.0], [-3.123, 3.142]]}
    }


SHORT = ("--steps", 20, "--limit-train", 640, "--limit-test", 240, "--eval.every", "10 steps", *QUIET)


def poses(run: Run) -> list[dict]:
    return [row for row in run.rows() if row["kind"] == "pose"]


@pytest.mark.parametrize(("arch", "dataset"), [("cnn", "mnist_r"), ("stn_c0", "mnist")])
def test_without_a_transformer_or_a_pose_there_are_no_points(arch: str, dataset: str, tmp_path) -> None:
    done = train("--arch", arch, "--dataset", dataset, *SHORT, runs=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(only_run(tmp_path).results()) == 1
    assert poses(only_run(tmp_path)) == []


def test_a_run_killed_before_its_result_has_its_points_once(tmp_path) -> None:
    words = ("--arch", "stn_cx", "--dataset", "mnist_r", "--seeds", "0-1", "--fuse", 1, *SHORT)
    done = train(*words, runs=tmp_path)
    assert done.returncode == 0
    assert " is off" not in done.stdout + done.stderr  # no sink has heard of it
    run = only_run(tmp_path)
    before, results = poses(run), run.results()
    assert not any(isinstance(row[key], dict) for row in results.values() for key in row.keys() - {"fingerprint"})
    assert [(row["seed"], row["step"], row["epoch"]) for row in before] == [(0, 20, 4.0), (1, 20, 4.0)]
    assert before[0]["degrees"] != before[1]["degrees"]
    for row in before:
        assert len(row["degrees"]["applied"]) == len(row["degrees"]["predicted"]) == 200
    # As a kill leaves it: the first seed's result is there, a row is torn.
    (run.path / "results.jsonl").write_text((run.path / "results.jsonl").read_text().splitlines()[0] + "\n")
    (run.path / ".rows" / "1").unlink()
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "pose", "seed": 1, "degr')
    assert train(*words, runs=tmp_path).returncode == 0
    assert sorted(poses(run), key=lambda row: row["seed"]) == before
    clocks = ("wall_s", "images_per_s", "fused")
    assert [{k: v for k, v in row.items() if k not in clocks} for row in run.results().values()] == [
        {k: v for k, v in row.items() if k not in clocks} for row in results.values()
    ]


def test_rows_have_the_pose_and_the_record_has_the_way(tmp_path) -> None:
    done = train(
        "--arch",
        "stn_cx",
        "--dataset",
        "mnist_r",
        "--seeds",
        "0-1",
        "--steps",
        "20",
        "--limit-train",
        "1280",
        "--limit-test",
        "200",
        "--eval.every",
        "10 steps",
        *QUIET,
        runs=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    for row in run.results().values():
        for key in ("bypass_acc", "pose_spread", "pose_slope", "pose_intercept", "pose_determinant"):
            assert isinstance(row[key], float), key
        assert 0 < row["feature_agreement"] <= 1
    warps = [row for row in run.rows() if row["kind"] == "warp"]
    assert [(row["seed"], row["step"]) for row in warps] == [(s, t) for t in (0, 10, 20) for s in (0, 1)]
    assert len(warps[0]["theta"]) == 12
    assert warps[0]["theta"][0] == [1, 0, 0, 0, 1, 0]


def test_the_report_knows_the_unit_of_every_kind_of_pose() -> None:
    assert list(POSE_UNITS) == list(_KINDS)
