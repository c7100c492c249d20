"""The pictures of runs: drawn at the end of a run, and again by a command."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stn.__main__ import main as stn_main
from stn.commands import show
from stn.config.resolve import resolve
from stn.config.yaml_files import load_yaml
from stn.evaluation.pictures import draw, figures, warps
from stn.evaluation.pictures.plans import Confusion
from stn.models.build import build_network
from stn.runs.directory import RunDir
from tests.support.networks import config_of
from tests.support.paths import ROOT
from tests.support.records import result
from tests.support.trainer import Run, only_run, train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    runs = tmp_path_factory.mktemp("pictures")
    words = "--arch stn_c0 --arch.iterations 2 --dataset mnist_r --seeds 0-1 --steps 12 --batch-size 32"
    words += " --limit-train 160 --limit-test 200 --eval.every 4_steps"
    words += " --log.wandb disabled --log.gif --train.threads 1 --fuse 1"
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


def test_the_command_draws_again(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["show", str(run.path), "--seed", "1", "--gif", "--images", "0,5", "--out", str(tmp_path / "new")]
    assert stn_main(words) == 0
    printed = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert {path.name for path in printed} == {path.name for path in (run.path / "pictures").iterdir()}
    assert all(path.is_file() and path.parent == tmp_path / "new" for path in printed)
    with Image.open(tmp_path / "new" / "warp.gif") as film:
        assert film.width == 2 * (28 + 1) * 3  # two images, each with a line beside it


def test_pictures_of_another_seed_do_not_replace_the_runs_own(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = (run.path / "pictures" / "warp.png").read_bytes()
    assert stn_main(["show", str(run.path), "--seed", "1"]) == 0
    assert (run.path / "pictures" / "warp.png").read_bytes() == before
    assert (tmp_path / "pictures" / "warp.png").read_bytes() != before


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
    """A run of cnn, made from the other run with its own weights and name."""
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


def test_an_error_in_a_picture_costs_only_the_picture(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path
) -> None:
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


def test_a_matrix_of_many_classes_has_no_numbers() -> None:
    def texts(K: int) -> list[str]:
        axis = figures.draw(Confusion("classes", np.eye(K))).axes[0]
        assert len(axis.get_xticks()) <= figures.MOST_WITH_NUMBERS
        return [text.get_text() for text in axis.texts]

    assert texts(3) == ["1"] * 3
    assert len(texts(figures.MOST_WITH_NUMBERS)) == figures.MOST_WITH_NUMBERS
    assert texts(1000) == []
