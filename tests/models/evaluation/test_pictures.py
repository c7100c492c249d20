"""The pictures: what is drawn of which network, and that it is what the network does."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from matplotlib.figure import Figure

from stn.config.dataset import build_dataset
from stn.data.stream import Stream
from stn.evaluation import pose
from stn.evaluation.pictures import draw, figures, warps
from stn.evaluation.pictures.plans import Plan
from stn.evaluation.pictures.subject import Subject, image_grids, outline
from stn.models.build import build_network
from stn.models.wirings import Transformed
from stn.multiseed.model import StackedModel
from tests.support.networks import config_of
from tests.support.paths import CIFAR, needs_cifar


def subject(arch: str, dataset: str, **options) -> Subject:
    """Return an untrained network that warps each image differently."""
    torch.manual_seed(0)
    config, facts = config_of(arch, dataset, **options), build_dataset(dataset)
    model = build_network(config).eval()
    assert isinstance(model, Transformed)
    for st in model.st:
        for head in st.heads:  # type: ignore[union-attr]
            torch.nn.init.normal_(head.last.weight, std=0.02)  # type: ignore[union-attr, arg-type]
    return Subject(model, Stream(config.data, facts, [0]), "a title", [0, 1, 2, 3], [])


@pytest.mark.parametrize(
    ("arch", "dataset", "options", "more"),
    [
        ("stn_c0", "mnist", {"net": "tutorial", "transform": "tps"}, set()),
        ("stn_cx", "mnist_r", {"depth": (0, 1)}, {"pose", "iterations"}),
        ("cnn", "mnist", {}, None),
    ],
)
def test_networks_have_the_pictures_that_mean_something(
    arch: str, dataset: str, options: dict, more: set[str] | None, tmp_path: Path
) -> None:
    config = config_of(arch, dataset, **options)
    paths = draw.draw_weights(config, lambda model: model.state_dict(), "a title", tmp_path, [0, 1, 2])
    expected = set() if more is None else {"warp", "object", "region"} | more
    assert {path.stem for path in paths} == {path.stem for path in tmp_path.iterdir()} == expected


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"transform": "projective", "padding": "zeros"},
        {"transform": "tps", "align_corners": False},
        {"iterations": 2, "net": "finnveden_t", "antialias": True},
        {"parallel": 2},
    ],
    ids=str,
)
def test_a_drawn_warp_is_the_networks_own(options: dict) -> None:
    s = subject("stn_c0", "mnist_t" if "antialias" in options else "mnist", **{"net": "tutorial"} | options)
    with torch.no_grad():
        drawn = torch.cat(s.warped(s.x_BCHW, s.theta(s.x_BCHW)), 1)
        own = s.stream.as_image(s.model.warps(s.x_BCHW)[0].image_BCHW)
    whole = s.stream.as_image(s.x_BCHW)
    assert own.shape[2] == 30 if "antialias" in options else (own[:, :1] - whole).abs().max() > 0.05
    torch.testing.assert_close(drawn, own, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("align_corners", "half"), [(True, 13.5), (False, 14.0)])
def test_the_outline_of_a_known_region(align_corners: bool, half: float) -> None:
    """Half as large around the centre (13.5, 13.5), then moved by 0.2 half sides to the right and 0.1 up."""
    s = subject("stn_c0", "mnist", align_corners=align_corners)
    theta_BP = torch.tensor([[0.5, 0, 0.2, 0, 0.5, -0.1]])
    line = outline(image_grids(s.model, (1, 28, 28), theta_BP)[0], (28, 28), align_corners)[0]
    left, right, top, bottom = 6.75 + 0.2 * half, 20.25 + 0.2 * half, 6.75 - 0.1 * half, 20.25 - 0.1 * half
    corners = torch.tensor([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]])
    torch.testing.assert_close(line[[0, 28, 56, 84, -1]], corners, atol=1e-5, rtol=0)


def test_a_feature_maps_transform_is_drawn_at_the_images_scale() -> None:
    """On T a translation of 1 is 25 pixels of the image to stn_cx, and 29.5 to the image."""
    s = subject("stn_cx", "mnist_t")
    (grid,) = image_grids(s.model, (1, 60, 60), torch.tensor([[1, 0, 10 / 25, 0, 1, -5 / 25]]))
    torch.testing.assert_close(outline(grid, (60, 60), True)[0, 0], torch.tensor([10.0, -5.0]), atol=1e-4, rtol=0)
    (grid,) = image_grids(s.model, (1, 60, 60), torch.tensor([[0.0, -1, 0, 1, 0, 0]]))  # only lengths change
    torch.testing.assert_close(outline(grid, (60, 60), True)[0, 0], torch.tensor([59.0, 0.0]), atol=1e-4, rtol=0)


def test_transforms_at_several_depths_compose() -> None:
    """The map's transform (9 pixels a unit on R) acts on points before the image's (13.5)."""
    s = subject("stn_cx", "mnist_r", depth=(0, 1))
    theta_BP = torch.tensor([[0.5, 0, 3 / 13.5, 0, 0.5, 0, 1, 0, 2 / 9, 0, 1, 0], [1, 0, 0, 0, 1, 0] * 2])
    line = outline(image_grids(s.model, (1, 28, 28), theta_BP)[0], (28, 28), True)
    expected = torch.tensor([[13.5 + 0.5 * (-13.5 + 2) + 3, 6.75], [0, 0]])
    torch.testing.assert_close(line[:, 0], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dataset", ["mnist_t", "mnist_s", "mnist_p", "mnist_e", "mnist_rts", "mnist_h"])
def test_every_perturbed_data_set_is_drawn(dataset: str) -> None:
    s = subject("stn_c0", dataset)
    with torch.no_grad():
        for make in (warps.warp, warps.objects, warps.region):
            assert make(s) is not None
        assert (warps.poses(s) is None) == (dataset == "mnist_h")


def words_of(plan: Plan, side: str) -> list[str]:
    """Return the texts of a sheet: titles are centred over images, labels to the left of a strip."""
    texts = figures.draw(plan).axes[0].texts
    return [text.get_text() for text in texts if text.get_horizontalalignment() == side and text.get_text()]


@pytest.mark.parametrize("depth", [(0, 1), 1])
def test_parallel_transforms_of_feature_maps_are_drawn(depth: tuple[int, ...] | int) -> None:
    s = subject("stn_cx", "mnist", depth=depth, parallel=2)
    with torch.no_grad():
        assert warps.region(s) is not None


@torch.no_grad()
def test_an_object_is_one_test_image_under_its_perturbations() -> None:
    s = subject("stn_c0", "mnist_r")
    plan = warps.objects(s)
    images = figures.draw(plan).axes[0].images[:10]
    shown = [torch.tensor(image.get_array().filled()) for image in images]  # type: ignore[union-attr]
    batch = s.stream.test_images(torch.arange(10) * 10_000)
    order = batch.pose_BP[:, 0].argsort()
    torch.testing.assert_close(torch.stack(shown), s.stream.as_image(batch.x_BCHW[order, 0]).clamp(0, 1))
    assert words_of(plan, "center")[:10] == [f"{degrees:.0f}°" for degrees in batch.pose_BP[order, 0].tolist()]


@needs_cifar
@torch.no_grad()
@pytest.mark.parametrize("dataset", ["cifar10_r", "cifar10_a"])
def test_an_object_of_a_single_fixed_perturbation_has_further_ones(dataset: str, monkeypatch) -> None:
    monkeypatch.setenv("STN_DATA", str(CIFAR))
    s = subject("stn_c0", dataset, net="lenet")
    titles = words_of(warps.objects(s), "center")[:10]
    pose_N = s.stream.test_images(torch.arange(10) * 10_000).pose_BP[:, 0]
    assert titles == [f"{degrees:.0f}°" for degrees in pose_N.sort().values.tolist()]
    assert -30 <= min(pose_N) < max(pose_N) <= 30


@torch.no_grad()
@pytest.mark.parametrize(
    ("arch", "options", "titles"),
    [
        ("stn_c0", {"parallel": 2}, ["input", "parallel 1", "parallel 2"]),
        (
            "stn_slx",
            {"depth": (0, 1), "iterations": 2},
            ["input", *(f"head {h}\nstep {k}" for h in (1, 2) for k in (1, 2))],
        ),
        ("stn_cx", {"depth": (0, 1)}, ["input", "transformer 1", "transformer 2"]),
        ("stn_slx", {"iterations": 3, "test_iterations": 1}, None),
    ],
    ids=str,
)
def test_every_step_has_its_column(arch: str, options: dict, titles: list[str] | None) -> None:
    plan = warps.iterations(subject(arch, "mnist", **options))
    assert (plan and words_of(plan, "center")) == titles


@torch.no_grad()
def test_rows_are_the_start_the_middle_and_the_end() -> None:
    s = subject("stn_c0", "mnist")
    theta = [[1.0, 0, 0, 0, 1, 0]] * 12
    rows = [{"step": step, "epoch": step / 10, "theta": theta} for step in (0, 10, 48, 60, 100)]
    assert words_of(warps.warp(replace(s, rows=rows)), "right") == ["input", "epoch 0", "epoch 4.8", "epoch 10"]
    # A cx network's last row is its own map, not an image.
    final = figures.draw(warps.warp(replace(subject("stn_cx", "mnist_r"), rows=rows))).axes[0].images[-1]
    assert final.get_array().shape == (10, 10)  # type: ignore[union-attr]


@torch.no_grad()
def test_the_title_of_the_poses_says_what_the_result_row_says() -> None:
    s = subject("stn_c0", "mnist_r")
    row = pose.measure_poses(StackedModel(lambda: deepcopy(cast(Transformed, s.model)), [0]), s.stream, 100)[0][0]
    plan = warps.poses(s)
    assert plan is not None
    expected = ", ".join(f"{key} {row[f'pose_{key}']:.3g}" for key in ("spread", "slope", "intercept"))
    assert figures.draw(plan).axes[0].get_title() == f"{expected} (n = 300)"


@torch.no_grad()
def test_a_picture_is_drawn_once_and_has_all_that_is_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Titles of a sheet lie outside its axis; a tight box of matplotlib's has them, and draws everything twice."""
    plan = warps.warp(subject("stn_slx", "mnist"))
    figures.draw(plan).savefig(tmp_path / "tight.png", dpi=120, bbox_inches="tight", pad_inches=0.08)
    drawn, usual = [], Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda self, renderer: drawn.append(1) or usual(self, renderer))
    assert figures.png(plan) == (tmp_path / "tight.png").read_bytes()
    assert len(drawn) == 1
