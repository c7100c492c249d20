"""Every CUDA path on a stand-in for CUDA's runtime: captures, illegal calls, host copies, launches; no figures."""

import re
from pathlib import Path

import pytest

from stn.config import registry
from tests.dryrun.conftest import Dry
from tests.support.paths import CIFAR, ROOT

pytestmark = pytest.mark.dryrun
SMALL = ("--limit-test", "300", "--limit-train", "4000", "--log.wandb", "disabled", "--log.no-pictures")


def train(dry: Dry, tmp_path: Path, *words: object) -> tuple[dict, str]:
    steps = () if "--steps" in words else ("--steps", 40)
    return dry(ROOT / "train.py", *steps, *SMALL, "--runs", tmp_path / "runs", *words)


TWO_AND_ONE = ("--seeds", "0-2", "--train.fuse", 2)
"""A block of two seeds, then one of a single seed, in one process."""


def assert_captured(counts: dict, text: str, blocks: int = 1) -> None:
    assert counts["captured"] >= blocks, text
    assert (counts["failed"], counts["not allowed"], counts["host copies"]) == (0, 0, 0), text
    assert "not replayed" not in text


@pytest.mark.slow
@pytest.mark.parametrize("seeds", ["0", "0-3", "0-63"])
@pytest.mark.parametrize("arch", sorted(registry.entries["arch"]))
def test_each_architecture_is_captured_in_few_launches(arch: str, seeds: str, dry: Dry, tmp_path: Path) -> None:
    words = ("--arch", arch, "--dataset", "mnist_r", "--seeds", seeds, "--train.fuse", 64)
    counts, text = train(dry, tmp_path, *words, "--train.conv", "grouped")  # what is fastest is noise here
    assert_captured(counts, text)
    assert not counts["imported dynamo"]  # a start would take two seconds longer
    if seeds == "0-63":
        assert counts["nodes"] <= {"cnn": 150, "stn_c0_coord": 230}.get(arch, 220)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["mnist", "mnist_t", "mnist_s", "mnist_p", "mnist_e", "cifar10_a"])
def test_each_kind_of_data_is_captured(dataset: str, dry: Dry, tmp_path: Path) -> None:
    if dataset.startswith("cifar") and CIFAR is None:
        pytest.skip("CIFAR-10 is not here (STN_DATA)")
    words = ("--arch", "stn_c0", "--dataset", dataset, *TWO_AND_ONE, "--limit-train", 1500)
    assert_captured(*train(dry, tmp_path, *words), blocks=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("--precision", "bf16"),
        ("--precision", "fp64"),
        ("--train.deterministic",),
        ("--optim.accumulate", 2),
        ("--optim.clip", 1.0),
        ("--data.rotate", 10, "--data.crop", 2, "--data.cutout", 5, "--data.flip", "--data.alternate-flip"),
    ],
    ids=str,
)
def test_each_option_is_captured(words: tuple, dry: Dry, tmp_path: Path) -> None:
    fixed = () if "bf16" in words else ("--train.conv", "grouped")  # the trial of ways has tests of its own
    assert_captured(*train(dry, tmp_path, "--arch", "stn_slx", *TWO_AND_ONE, *fixed, *words), blocks=2)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["cnn", "stn_c0"])
def test_a_large_graph_and_an_evaluation_do_not_add_up(arch: str, dry: Dry, tmp_path: Path) -> None:
    words = ("--config", "finnveden_s", "--arch", arch, "--seeds", "0-31", "--train.fuse", 64)
    how = ("--optim.schedule", "constant", "--eval.every", "20steps", "--train.conv", "grouped", "--limit-train", 4096)
    counts, text = train(dry, tmp_path, *words, *how)
    assert_captured(counts, text, blocks=2)
    assert counts["reserved"] < 1.5 * counts["allocated"]
    assert counts["kept"] < 2**30, "what a library keeps for ever holds a large segment"


@pytest.mark.slow
def test_unfolded_convolutions_have_no_slow_weight_gradient(dry: Dry, tmp_path: Path) -> None:
    words = ("--arch", "stn_slx", "--dataset", "mnist_r", "--seeds", "0-3", "--train.fuse", 4)
    grouped, _ = train(dry, tmp_path / "grouped", *words, "--train.conv", "grouped")
    unfolded, text = train(dry, tmp_path / "unfold", *words, "--train.conv", "unfold")
    assert grouped["slow weight gradients"] > 0
    assert unfolded["slow weight gradients"] == 0
    assert_captured(unfolded, text)


@pytest.mark.slow
def test_what_was_timed_is_said_once_for_each_shape(dry: Dry, tmp_path: Path) -> None:
    words = ("--arch", "stn_slx", "--dataset", "mnist_r", "--seeds", "0-3")
    counts, text = train(dry, tmp_path, *words)
    assert_captured(counts, text)
    # Which way and how many seeds win is noise here.
    assert re.search(r"([24] seeds as one network|one seed at a time) \(images/s by number of seeds: 1: ", text), text
    shapes = re.findall(r"(convolution of .*?): [\w/]+ \(ms of ", text)
    assert "convolution of 2 x 1 to 16 channels, 9x9 on 28x28, float32, backward" in shapes
    assert len(shapes) == len(set(shapes))


@pytest.mark.slow
def test_a_compiled_step_without_triton_is_a_plain_one_and_said(dry: Dry, tmp_path: Path) -> None:
    counts, text = train(dry, tmp_path, "--arch", "cnn", "--seeds", "0-3", "--train.conv", "grouped", "--train.compile")
    assert_captured(counts, text)
    assert not counts["imported dynamo"]
    assert "--train.compile needs Triton and is left out: " in text


@pytest.mark.slow
def test_a_step_is_one_replay_and_few_launches(dry: Dry, tmp_path: Path) -> None:
    words = ("--arch", "stn_slx", "--dataset", "mnist_r", "--seeds", "0-3", "--train.fuse", 4)
    fixed = ("--train.conv", "grouped", "--limit-train", 64000)
    fixed = (*fixed, "--optim.schedule", "constant", "--eval.every", "500steps")
    few, _ = train(dry, tmp_path / "few", *words, *fixed, "--steps", 40)
    many, _ = train(dry, tmp_path / "many", *words, *fixed, "--steps", 80)
    assert many["replayed"] - few["replayed"] == 40 * few["nodes"]
    assert many["launches"] - few["launches"] <= 5 * 40
