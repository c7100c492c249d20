"""What is said of a configuration before it trains, and refused."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor, nn

from stn.commands import network
from stn.config.dataset import Data, classes_left_out
from stn.config.resolve import resolve
from stn.config.schema import Config, Optim
from tests.models.multiseed.test_one_result import (
    LOGITS,
    Net,
    counted,
    no_grad,
    noisy,
    normalised,
    normalised_if_trained,
    running_mean,
    tallied,
)
from tests.unit.data.test_data_files import arrays, save


def said(capsys: pytest.CaptureFixture[str], **sections: Any) -> list[str]:
    network.try_network(resolve(Config.model_validate(sections)))
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("optim", "notes"),
    [
        ({"milestones": ["1 epochs"]}, ["milestones with schedule onecycle"]),
        ({"gamma": 0.5}, ["gamma with schedule onecycle"]),
        ({"name": "sgd", "betas": [0.8, 0.9], "schedule": "constant"}, ["betas with name sgd"]),
        (
            {"schedule": "cosine", "anneal": "linear", "start_factor": 0.5, "final_factor": 0.1},
            ["start_factor with schedule cosine", "anneal with schedule cosine"],
        ),
        ({"schedule": "multistep", "milestones": ["1 epochs"], "gamma": 0.5}, []),
        ({"schedule": "onecycle", "anneal": "linear", "final_factor": 0.1, "start_factor": 0.5}, []),
    ],
)
def test_what_changes_nothing_gets_a_note(
    optim: dict[str, Any], notes: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"note: optim.{note.replace(' with ', ' means nothing with optim.')}" for note in notes]
    assert said(capsys, arch={"name": "cnn"}, optim=optim) == texts


class Flat(nn.Module):
    def __init__(self, within: str) -> None:
        super().__init__()
        self.add_module(within, nn.Linear(784, 10))
        self.within = within

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, self.within)(x.flatten(1))


def test_a_rate_of_a_localisation_net_that_is_not_there_gets_a_note(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wish = {"arch": {"name": "stn_c0"}, "optim": {"loc_lr_multiplier": 0.1}}
    note = "note: stn_c0 has no parameters of a module st, so optim.loc_lr_multiplier means nothing"
    for within, notes in (("st", []), ("loc", [note])):
        monkeypatch.setattr(network, "build_network", lambda config, within=within: Flat(within))
        assert said(capsys, **wish) == notes


def test_state_that_is_no_tensor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(Flat):
        def get_extra_state(self) -> int:
            return 3

        def set_extra_state(self, state: int) -> None:
            pass

    monkeypatch.setattr(network, "build_network", lambda config: Counting("last"))
    with pytest.raises(ValueError, match="stn_slx has _extra_state in its state dict"):
        network.try_network(resolve(Config()))


@pytest.mark.parametrize("others", [1, 2])
def test_more_than_logits_in_training_is_refused(others: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchvision's networks with auxiliary classifiers return it; a penalty has a number an image."""

    class Auxiliary(Flat):
        def forward(self, x: Tensor) -> Any:
            logits = super().forward(x)
            return (logits, *[logits] * others) if self.training else logits

    monkeypatch.setattr(network, "build_network", lambda config: Auxiliary("last"))
    with pytest.raises(ValueError, match=r"stn_slx returns (\[2, 10\], )+\[2, 10\] in training, not logits \[2, 10\]"):
        network.try_network(resolve(Config()))


def test_a_network_without_anything_to_train_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "build_network", lambda config: Flat("last").requires_grad_(False))
    with pytest.raises(ValueError, match="stn_slx has no parameter to train"):
        network.try_network(resolve(Config()))


def test_classes_that_are_held_out_whole_are_found(tmp_path: Path) -> None:
    images = arrays(n=400)
    order = images["y_train"].argsort(kind="stable")
    in_order = images | {key: images[key][order] for key in ("x_train", "y_train")}
    mixed, sorted_ = save(tmp_path / "mixed.npz", **images), save(tmp_path / "sorted.npz", **in_order)

    def found(name: str, **data: int) -> list[int]:
        return classes_left_out(Data(name=name, **data))  # type: ignore[arg-type]

    for settings in ({}, {"validation": 150}, {"limit_train": 120}, {"limit_train": 20}):
        assert found(mixed, **settings) == []
    assert found(sorted_) == found(sorted_, limit_train=20) == []
    assert (found(sorted_, validation=150), found(sorted_, limit_train=120)) == ([3], [2, 3])


SEEN = ": see extend.md, What to avoid"


@pytest.mark.parametrize(
    ("middle", "settings", "ranks", "fault"),
    [
        (counted, {}, 1, "cnn counts in passes, which no checkpoint has" + SEEN),
        (no_grad, {"train": {"compile": True}}, 1, "cnn has other gradients with --train.compile" + SEEN),
        (normalised, {}, 1, f"cnn {LOGITS} in evaluation, by the batch{SEEN}"),
        (tallied, {}, 1, "cnn changes its buffer mean otherwise in evaluation, by the batch" + SEEN),
        (running_mean, {"optim": {"accumulate": 4}}, 1, f"cnn {LOGITS} where --optim.accumulate divides a batch{SEEN}"),
        (running_mean, {}, 2, f"cnn {LOGITS} where 2 processes share a batch{SEEN}"),
        (running_mean, {}, 1, ""),
        (noisy, {}, 1, ""),
        (no_grad, {"optim": {"accumulate": 4}}, 2, ""),
        (normalised_if_trained, {}, 2, ""),
    ],
)
def test_they_are_refused_in_one_line(
    middle: Callable[[Net, Tensor], Tensor],
    settings: dict[str, Any],
    ranks: int,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(network, "build_network", lambda config: Net(middle))
    config = resolve(Config.model_validate({"arch": {"name": "cnn"}, **settings}))
    runtime: Any = SimpleNamespace(world=ranks, compiles=config.train.compile)
    try:
        network.try_network(config, runtime)
        found = ""
    except ValueError as error:
        found = str(error)
    assert found == fault


def test_a_network_that_draws_gets_a_note_where_a_batch_is_divided(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(network, "build_network", lambda config: Net(noisy))
    network.try_network(resolve(Config(optim=Optim(accumulate=2))))
    note = (
        "note: stn_slx draws from torch's generator: as it were another seed, where --optim.accumulate divides a batch"
    )
    assert capsys.readouterr().out.splitlines() == [note]
