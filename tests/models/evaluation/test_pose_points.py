"""The points behind the pose measures: of which images, and that a run records them once."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from launch.report.analysis.metrics import POSE_UNITS
from stn.evaluation.pose import _KINDS
from stn.evaluation.pose_statistics import POINTS, points_to_plot, pose_summary
from tests.support.pose import make, measure_pose
from tests.support.trainer import QUIET, Run, only_run, train


def by_hand(dataset: str, theta_BP: torch.Tensor) -> torch.Tensor:
    """Return the perturbation that an affine transformer of the image undoes, from its six parameters."""
    a, b, x, c, d, y = theta_BP.double().T
    if dataset == "mnist_r":
        return -torch.rad2deg(torch.atan2(c - b, a + d))
    return torch.log2(a * d - b * c) if dataset == "mnist_s" else 29.5 * torch.stack([x, y], 1)


@pytest.mark.slow
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
    """Angles are unwrapped as they are for the regression."""
    applied = torch.linspace(-90, 90, 1000, dtype=torch.float64)
    made = 170 - applied  # the final pose is 170 degrees everywhere, or what is that less a turn
    made = (made + torch.linspace(-15, 15, 1000, dtype=torch.float64).flip(0) + 180) % 360 - 180
    found = points_to_plot("degrees", applied, made)["degrees"]
    line = pose_summary("degrees", applied, made, torch.zeros(1000))
    for x, y in zip(found["applied"], found["predicted"], strict=True):
        assert y == pytest.approx(line["slope"] * x + line["intercept"], abs=20)


def test_few_images_give_few_points_and_nans_give_none() -> None:
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


SHORT = ("--steps", 20, "--batch-size", 32, "--limit-train", 160, "--limit-test", 240, "--eval.every", "10 steps",
         *QUIET)  # fmt: skip
TRANSFORMED = ("--arch", "stn_cx", "--dataset", "mnist_r", "--seeds", "0-1", "--fuse", 1, *SHORT)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    runs = tmp_path_factory.mktemp("poses")
    done = train(*TRANSFORMED, runs=runs)
    assert done.returncode == 0, done.stderr
    assert " is off" not in done.stdout + done.stderr  # no sink has heard of a pose
    return only_run(runs)


def poses(run: Run) -> list[dict]:
    return [row for row in run.rows() if row["kind"] == "pose"]


@pytest.mark.parametrize(("arch", "dataset"), [("cnn", "mnist_r"), ("stn_c0", "mnist")])
def test_without_a_transformer_or_a_pose_there_are_no_points(arch: str, dataset: str, tmp_path: Path) -> None:
    done = train("--arch", arch, "--dataset", dataset, *SHORT, runs=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(only_run(tmp_path).results()) == 1
    assert poses(only_run(tmp_path)) == []


def test_a_run_killed_before_its_result_has_its_points_once(trained: Run, tmp_path: Path) -> None:
    shutil.copytree(trained.path.parents[2], tmp_path, dirs_exist_ok=True)
    run = only_run(tmp_path)
    before, results = poses(run), run.results()
    assert not any(
        isinstance(row[key], dict) for row in results.values() for key in row.keys() - {"fingerprint", "predictions"}
    )
    assert [(row["seed"], row["step"], row["epoch"]) for row in before] == [(0, 20, 4.0), (1, 20, 4.0)]
    assert before[0]["degrees"] != before[1]["degrees"]
    for row in before:
        assert len(row["degrees"]["applied"]) == len(row["degrees"]["predicted"]) == 200
    # As a kill leaves it: the first seed's result is there, a row is torn.
    (run.path / "results.jsonl").write_text((run.path / "results.jsonl").read_text().splitlines()[0] + "\n")
    (run.path / ".rows" / "1").unlink()
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "pose", "seed": 1, "degr')
    assert train(*TRANSFORMED, runs=tmp_path).returncode == 0
    assert sorted(poses(run), key=lambda row: row["seed"]) == before
    clocks = ("wall_s", "images_per_s", "fused", "row_sha256")
    assert [{k: v for k, v in row.items() if k not in clocks} for row in run.results().values()] == [
        {k: v for k, v in row.items() if k not in clocks} for row in results.values()
    ]


def test_rows_have_the_pose_and_the_record_has_the_way(trained: Run) -> None:
    for row in trained.results().values():
        for key in ("bypass_acc", "pose_spread", "pose_slope", "pose_intercept", "pose_determinant"):
            assert isinstance(row[key], float), key
        assert 0 < row["feature_agreement"] <= 1
    warps = [row for row in trained.rows() if row["kind"] == "warp"]
    assert [(row["seed"], row["step"]) for row in warps] == [(s, t) for s in (0, 1) for t in (0, 10, 20)]
    assert len(warps[0]["theta"]) == 12
    assert warps[0]["theta"][0] == [1, 0, 0, 0, 1, 0]


def test_the_report_knows_the_unit_of_every_kind_of_pose() -> None:
    assert list(POSE_UNITS) == list(_KINDS)
