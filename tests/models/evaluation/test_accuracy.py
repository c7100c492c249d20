"""Scores of several seeds against what each network predicts alone."""

import math

import pytest
import torch
import torch.nn.functional as F

import stn.config.yaml_files  # noqa: F401  (fills the registry)
from stn.commands.evaluate import _verdict
from stn.config.dataset import build_dataset
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data, Eval
from stn.data.rng import initialised
from stn.data.stream import Stream
from stn.evaluation.accuracy import evaluate, scores
from stn.models.build import build_network
from stn.multiseed.model import StackedModel
from stn.training.runtime import Runtime


def test_top5_accuracy_counts_every_test_image_for_each_seed() -> None:
    config, dataset = resolve(Config(arch=Arch(name="cnn", net="tutorial"))), build_dataset("mnist")
    model = StackedModel(lambda: build_network(config), [0, 7])
    stream = Stream(Data(limit_test=300), dataset, model.seeds)
    found = evaluate(model, stream, Eval(batch_size=128), Runtime(config, 1))
    images = stream.test_images(torch.arange(300))
    for s, row in enumerate(found):
        with torch.no_grad():
            logits_BK = initialised(lambda: build_network(config), 7 * s).eval()(images.x_BCHW)
        rank_B = (logits_BK > logits_BK.gather(1, images.y_B[:, None])).sum(1)
        assert row["test_top5_acc"] == pytest.approx(float((rank_B < 5).double().mean()))
        assert row["test_acc"] == pytest.approx(float((rank_B < 1).double().mean()))
    assert found[0]["test_top5_acc"] != found[1]["test_top5_acc"]


def test_mirror_images_count_half() -> None:
    config, dataset = resolve(Config(arch=Arch(name="cnn", net="tutorial"))), build_dataset("mnist")
    model = StackedModel(lambda: build_network(config), [0, 7])
    stream = Stream(Data(limit_test=300), dataset, model.seeds)
    found = evaluate(model, stream, Eval(batch_size=128, mirror=True), Runtime(config, 1))
    images = stream.test_images(torch.arange(300))
    for s, row in enumerate(found):
        network = initialised(lambda: build_network(config), 7 * s).eval()
        with torch.no_grad():
            logits_BK = (network(images.x_BCHW) + network(images.x_BCHW.flip(3))) / 2
        assert row["test_loss"] == pytest.approx(float(F.cross_entropy(logits_BK, images.y_B)))
        assert row["test_acc"] == pytest.approx(float((logits_BK.argmax(1) == images.y_B).double().mean()))


def test_five_classes_or_fewer_have_no_top5_accuracy() -> None:
    assert "test_top5_acc" not in scores(torch.eye(5, dtype=torch.int64), 0.1, 5)
    assert scores(torch.eye(6, dtype=torch.int64), 0.1, 3, "val")["val_top5_acc"] == 0.5


def test_the_loss_in_float64_does_not_depend_on_the_size_of_batches() -> None:
    config, dataset = resolve(Config(arch=Arch(name="cnn", net="tutorial"))), build_dataset("mnist")
    model = StackedModel(lambda: build_network(config), [0, 7], dtype=torch.float64)
    stream = Stream(Data(limit_test=300), dataset, model.seeds, dtype=torch.float64)
    found = [evaluate(model, stream, Eval(batch_size=size), Runtime(config, 1)) for size in (14, 60, 300)]
    assert len({tuple(row["test_loss"] for row in rows) for rows in found}) == 1
    weights = {name: tensor.clone() for name, tensor in model.weights(1).items()}
    weights[list(weights)[-1]] = torch.tensor([8e307] + 9 * [-8e307], dtype=torch.float64)
    model.load_weights(1, weights)
    first, second = evaluate(model, stream, Eval(batch_size=60), Runtime(config, 1))
    assert (first["test_loss"], second["test_loss"]) == (found[0][0]["test_loss"], math.inf)


@pytest.mark.parametrize(
    ("recorded", "rounding", "verdict"),
    [
        ([[990, 10], [0, 1000]], False, (True, "as recorded")),
        ([[991, 9], [0, 1000]], False, (False, "NOT as recorded")),
        ([[991, 9], [0, 1000]], True, (True, "as recorded but for 1 of 2,000 images, by rounding")),
        ([[995, 5], [0, 1000]], True, (False, "NOT as recorded")),
        (None, False, (False, "NOT compared: no confusion matrix was recorded")),
    ],
)
def test_rounding_may_move_one_image_in_a_thousand(recorded: list, rounding: bool, verdict: tuple) -> None:
    ours = {"confusion": [[990, 10], [0, 1000]], "val_count": 2000}
    assert _verdict(recorded, ours, "val", rounding) == verdict
