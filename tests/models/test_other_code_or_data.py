"""What a finished run is taken for: not for what other code, other weights or other data would make of it."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import stn
from stn.commands import evaluate, export, show
from stn.commands.library.run import Run, change
from stn.config import dataset
from tests.support.trainer import QUIET, only_run, train
from tests.unit.data.test_data_files import arrays, save


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    few = ("--steps", 60, "--lr", 0.003, "--batch-size", 32, "--limit-train", 320, "--limit-test", 200)
    done = train("--arch", "stn_cx", "--dataset", "mnist_r", "--eval.mirror", *few, *QUIET, runs=runs)
    assert done.returncode == 0, done.stderr
    return only_run(runs).path


def test_a_card_says_that_its_accuracy_is_of_mirror_images_too(run: Path, tmp_path: Path) -> None:
    export.export_run(str(run), None, tmp_path, onnx=False)
    assert "of 200 test images, each shown with its mirror image" in (tmp_path / "card.md").read_text()


def test_recorded_answers_are_of_mirror_images_too(run: Path) -> None:
    opened = stn.load(run)
    network, images = opened.model(0), opened._stream.test_images(torch.arange(100)).x_BCHW
    assert len(opened.answers(0).predicted_N[:100].tolist()) > len(set(opened.answers(0).predicted_N[:100])) > 2
    assert export._answered_otherwise(opened, 0, network, images) == 0
    opened.config = change(opened.config, eval={"mirror": False})  # as if it had been scored without
    assert export._answered_otherwise(opened, 0, network, images) > 0


def test_code_that_answers_otherwise_exports_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = Run.model

    def edited(run: Run, seed: int | None = None) -> nn.Module:
        network = trained(run, seed)
        with torch.no_grad():
            next(p for p in network.parameters() if p.shape == (10,)).add_(torch.arange(10.0))
        return network

    monkeypatch.setattr(Run, "model", edited)
    with pytest.raises(SystemExit) as left:
        export.export_run(str(run), None, tmp_path / "out", onnx=False)
    assert left.value.code == 1
    said = "of 100 images otherwise than was recorded; export it with the code that trained it: commit "
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    answers = next((run / "predictions").glob("seed-*"))
    content = answers.read_bytes()
    answers.write_bytes(b"damaged")  # nothing to compare with
    export.export_run(str(run), None, tmp_path / "out", onnx=False)
    answers.write_bytes(content)


def test_weights_of_another_architecture_with_the_same_shapes_are_refused(run: Path) -> None:
    weights = str(run / "checkpoints" / "seed-0" / "final.safetensors")
    with pytest.raises(ValueError, match="was trained as stn_cx; this recipe's network is stn_slx"):
        evaluate.evaluate_weights(weights, "finnveden_r", {"limit_test": 50}, False)
    with pytest.raises(ValueError, match="was trained as stn_cx"):
        show.main(["--weights", weights, "--recipe", "finnveden_r"])


def test_mirrored_weights_are_said_to_be(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.yaml").write_text("arch: stn_cx\ndataset: mnist_r\n")
    weights = str(run / "checkpoints" / "seed-0" / "final.safetensors")
    for mirror in (True, False):
        assert evaluate.evaluate_weights(weights, str(tmp_path / "own.yaml"), {"limit_test": 50}, mirror) == 0
        assert ("each with its mirror image" in capsys.readouterr().out) == mirror


def test_the_json_of_an_evaluation_says_after_how_many_iterations(run: Path, tmp_path: Path) -> None:
    evaluate.evaluate_run(str(run), 2, False, str(tmp_path / "scores.json"))
    assert json.loads((tmp_path / "scores.json").read_text())["test_iterations"] == 2


def test_a_run_is_not_read_with_other_images(tmp_path: Path) -> None:
    name = save(tmp_path / "a.npz", **arrays(side=28))
    (tmp_path / "config.yaml").write_text(f"arch: cnn\ndataset: {name}\n")
    content = dataset.build_dataset(name).content
    for known in ({"data": {"content": content}}, {"data": []}, {}):
        (tmp_path / "env.json").write_text(json.dumps(known))
        assert stn.load(tmp_path).config.data.label == "a"
    (tmp_path / "env.json").write_text(json.dumps({"data": {"content": "0123456789abcdef"}}))
    with pytest.raises(ValueError, match=r"was trained on other images than npz:.*a\.npz has now"):
        _ = stn.load(tmp_path).config
