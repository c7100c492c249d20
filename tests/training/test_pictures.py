"""The pictures: what is drawn for whom, that it is what the network does, and the command that draws again."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from stn.__main__ import main as stn_main
from stn.commands import show
from stn.config.dataset import build_dataset
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data
from stn.config.yaml_files import load_yaml
from stn.data.stream import Stream
from stn.evaluation import pose
from stn.models.build import build_network
from stn.models.wirings import Transformed
from stn.multiseed.model import StackedModel
from stn.pictures import draw, warps
from stn.pictures.subject import Subject, image_grids, outline
from stn.runs.directory import RunDir
from tests.support.paths import CIFAR, ROOT, needs_cifar
from tests.support.records import result
from tests.support.trainer import Run, environment, only_run, train


def config_of(arch: str, dataset: str, **options) -> Config:
    return resolve(Config(arch=Arch(name=arch, **options), data=Data(name=dataset, limit_test=300)))


def subject(arch: str, dataset: str, **options) -> Subject:
    """An untrained network that warps each image in its own way."""
    torch.manual_seed(0)
    config, facts = config_of(arch, dataset, **options), build_dataset(dataset)
    model = build_network(config).eval()
    assert isinstance(model, Transformed)
    for st in model.st:
        for head in st.heads:  # type: ignore[union-attr]
            torch.nn.init.normal_(head.last.weight, std=0.02)  # type: ignore[union-attr, arg-type]
    return Subject(model, Stream(config.data, facts, [0]), "a title", [0, 1, 2, 3], [])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    runs = tmp_path_factory.mktemp("pictures")
    words = "--arch stn_c0 --arch.iterations 2 --dataset mnist_r --seeds 0-1 --steps 12 --limit-train 640"
    words += " --limit-test 200 --eval.every 4_steps --log.wandb disabled --log.gif --train.threads 1 --fuse 1"
    done = train(*(word.replace("_steps", " steps") for word in words.split()), runs=runs)
    assert done.returncode == 0, done.stderr
    return only_run(runs)


def frames(path: Path) -> int:
    with Image.open(path) as film:
        return film.n_frames  # type: ignore[attr-defined]


def test_a_run_ends_with_its_pictures(run: Run) -> None:
    drawn = {path.name for path in (run.path / "pictures").iterdir()}
    names = ("curves", "confusion", "warp", "object", "iterations", "region", "pose")
    assert drawn == {f"{name}.png" for name in names} | {"warp.gif"}
    rows = [row for row in run.rows() if row["kind"] == "warp" and row["seed"] == 0]
    assert [row["step"] for row in rows] == [0, 4, 6, 8, 12]  # the start, each evaluation, the middle
    assert frames(run.path / "pictures" / "warp.gif") == len(rows)


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


@pytest.mark.parametrize("depth", [(0, 1), 1])
def test_parallel_transforms_of_feature_maps_are_drawn(depth: tuple[int, ...] | int) -> None:
    s = subject("stn_cx", "mnist", depth=depth, parallel=2)
    with torch.no_grad():
        assert warps.region(s) is not None


@torch.no_grad()
def test_an_object_is_one_test_image_under_its_perturbations() -> None:
    s = subject("stn_c0", "mnist_r")
    figure = warps.objects(s)
    shown = [torch.tensor(axis.images[0].get_array().filled()) for axis in figure.axes[:10]]  # type: ignore[union-attr]
    batch = s.stream.test_images(torch.arange(10) * 10_000)
    order = batch.pose_BP[:, 0].argsort()
    torch.testing.assert_close(torch.stack(shown), s.stream.as_image(batch.x_BCHW[order, 0]).clamp(0, 1))
    titles = [axis.get_title() for axis in figure.axes[:10]]
    assert titles == [f"{degrees:.0f}°" for degrees in batch.pose_BP[order, 0].tolist()]


@needs_cifar
@torch.no_grad()
@pytest.mark.parametrize("dataset", ["cifar10_r", "cifar10_a"])
def test_an_object_of_a_single_fixed_perturbation_has_further_ones(dataset: str, monkeypatch) -> None:
    monkeypatch.setenv("STN_DATA", str(CIFAR))
    s = subject("stn_c0", dataset, net="lenet")
    titles = [axis.get_title() for axis in warps.objects(s).axes[:10]]
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
    figure = warps.iterations(subject(arch, "mnist", **options))
    assert (figure and [axis.get_title() for axis in figure.axes if axis.get_title()]) == titles


@torch.no_grad()
def test_rows_are_the_start_the_middle_and_the_end() -> None:
    s = subject("stn_c0", "mnist")
    theta = [[1.0, 0, 0, 0, 1, 0]] * 12
    rows = [{"step": step, "epoch": step / 10, "theta": theta} for step in (0, 10, 48, 60, 100)]
    labels = [axis.get_ylabel() for axis in warps.warp(replace(s, rows=rows)).axes]
    assert [label for label in labels if label] == ["input", "epoch 0", "epoch 4.8", "epoch 10"]
    # A cx network's last row is its own map, not an image.
    final = warps.warp(replace(subject("stn_cx", "mnist_r"), rows=rows)).axes[-1].images[0]
    assert final.get_array().shape == (10, 10)  # type: ignore[union-attr]


@torch.no_grad()
def test_the_title_of_the_poses_says_what_the_result_row_says() -> None:
    s = subject("stn_c0", "mnist_r")
    row, figure = pose.measure_poses(StackedModel(lambda: s.model, [0]), s.stream, 100)[0][0], warps.poses(s)
    assert figure is not None
    expected = ", ".join(f"{key} {row[f'pose_{key}']:.3g}" for key in ("spread", "slope", "intercept"))
    assert figure.axes[0].get_title() == f"{expected} (n = 300)"


def test_the_command_draws_again(run: Run, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "stn", "show", str(run.path), "--seed", "1", "--gif", "--images", "0,5"]
    done = subprocess.run(
        [*line, "--out", str(tmp_path / "new")],
        capture_output=True,
        text=True,
        env=environment(),
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = [Path(line) for line in done.stdout.splitlines()]
    assert {path.name for path in printed} == {path.name for path in (run.path / "pictures").iterdir()}
    assert all(path.is_file() and path.parent == tmp_path / "new" for path in printed)
    with Image.open(tmp_path / "new" / "warp.gif") as film:
        assert film.width == 2 * (28 + 1) * 3  # two images, each with a line beside it


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is no run directory"),
        ([""], "is no run directory"),
        ([], "give either RUN or --weights"),
        (["RUN", "--weights", "x"], "give either RUN or --weights"),
        (["--weights", "x"], "give either RUN or --weights"),
        (["--weights", "x", "--recipe", "s4", "--gif"], "need a RUN"),
        (["RUN", "--images", "0,12"], "no image 12 to show: there are 0 to 11"),
        (["RUN", "--images", "-1"], "no image -1 to show"),
        (["RUN", "--images", "a"], "whole numbers"),
        (["RUN", "--seed", "7"], "seed 7 is not finished"),
        (["RUN", "--colour"], "--colour"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(arguments: list[str], message: str, run: Run, capsys, tmp_path: Path) -> None:
    words = [str(run.path) if word == "RUN" else word for word in arguments]
    with pytest.raises(SystemExit) as left:
        stn_main(["show", *words, "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert left.value.code == 2
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_an_unfinished_run_is_not_drawn(run: Run, capsys, tmp_path: Path) -> None:
    shutil.copy(run.path / "config.yaml", tmp_path)
    (tmp_path / "results.jsonl").write_text('{"seed": 0}\n{"seed": 1, "status": "failed"}\n')
    with pytest.raises(SystemExit) as left:
        stn_main(["show", str(tmp_path)])
    assert left.value.code == 2
    assert "no finished seed" in capsys.readouterr().err


def test_a_network_without_a_transformer_has_curves_only(run: Run, capsys, tmp_path: Path) -> None:
    """A run of cnn, put together from the other one: its weights and its name."""
    config = load_yaml(run.path / "config.yaml")
    from stn.config.yaml_files import dump_yaml
    from stn.training.checkpoints import save_weights

    plain = config_of("cnn", "mnist_r")
    shutil.copy(run.path / "metrics.jsonl", tmp_path)
    (tmp_path / "results.jsonl").write_text(json.dumps(result(0, confusion=[[3, 1], [0, 4]])))
    (tmp_path / "config.yaml").write_text(dump_yaml(plain.model_copy(update={"log": config.log})))
    model = build_network(plain)
    save_weights(RunDir(tmp_path), 0, "final", model.state_dict())
    assert show.main([str(tmp_path)]) == 0
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"curves.png", "confusion.png"}
    assert "nothing to warp" in capsys.readouterr().out


def test_what_fails_costs_the_pictures_only(run: Run, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(warps, "warp", broken)
    there = RunDir(run.path)
    there.pictures = tmp_path
    draw.draw(load_yaml(run.path / "config.yaml"), there)
    assert "no pictures: RuntimeError: no ink" in capsys.readouterr().out


def test_plain_weights_are_drawn_in_the_network_of_a_recipe(
    capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = resolve(load_yaml(ROOT / "configs" / "s2_conv.yaml"))
    torch.save(build_network(config).state_dict(), tmp_path / "model.pt")
    monkeypatch.chdir(tmp_path)
    words = ["--weights", "model.pt", "--images", "0,1", "--recipe"]
    assert show.main([*words, "s2_conv"]) == 0
    assert (tmp_path / "pictures" / "warp.png").is_file()
    assert "pictures/warp.png" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        stn_main(["show", *words, "nothing"])
    assert "no recipe 'nothing'" in capsys.readouterr().err
