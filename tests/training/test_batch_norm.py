"""Batch norm over ranks: the statistics are those of the whole batch."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from stn.multiseed.rules.norms import _synchronised
from tests.support.trainer import SMALL, only_run, train, train_in_ranks

WORDS = ("--arch", "stn_c0", "--net", "tutorial_norm", "--precision", "fp64", "--log.every", "1 steps", *SMALL)


def test_rows_that_are_folded_into_the_batch_are_used_or_not_with_their_image() -> None:
    """As batch norm after flatten(0, 1); of five images the last fills a part of the batch."""
    x, used = torch.randn(5, 3, 7, dtype=torch.float64), torch.tensor([1, 1, 1, 1, 0])
    mean, var = torch.zeros(7, dtype=torch.float64), torch.ones(7, dtype=torch.float64)
    theirs = mean.clone(), var.clone()
    ours = _synchronised(lambda t: t, used, x.flatten(0, 1), mean, var, None, None, 0.1, 1e-5)
    right = F.batch_norm(x[:4].flatten(0, 1), *theirs, training=True)
    torch.testing.assert_close(ours[:12], right)
    torch.testing.assert_close((mean, var), theirs)
    with pytest.raises(ValueError, match="no multiple of 5 images"):
        _synchronised(lambda t: t, used, x.flatten(0, 1)[:13], mean, var, None, None, 0.1, 1e-5)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("--steps", 10), marks=pytest.mark.slow),
        # Ranks share two fused seeds, and the first has no image of the batch.
        ("--steps", 3, "--seeds", "0-1", "--batch-size", 1, "--parallel", "data"),
    ],
    ids=["one seed", "two seeds, fewer images than ranks"],
)
def test_two_ranks_normalise_as_one_process(words: tuple, tmp_path: Path) -> None:
    runs = []
    for name, run in (("one", train), ("two", train_in_ranks)):
        done = run(*WORDS, *words, runs=tmp_path / name)
        assert done.returncode == 0, done.stderr
        runs.append(only_run(tmp_path / name))
    one, two = ([row["loss"] for row in run.rows() if row["kind"] == "train"] for run in runs)
    assert two == pytest.approx(one, abs=1e-12)
    for seed, row in runs[0].results().items():
        other = runs[1].results()[seed]
        assert (row["world_size"], other["world_size"]) == (1, 2)
        assert other["test_loss"] == pytest.approx(row["test_loss"], abs=1e-12)
        weights = runs[0].weights(seed)
        for key, tensor in runs[1].weights(seed).items():
            torch.testing.assert_close(tensor, weights[key], rtol=0, atol=1e-10)
