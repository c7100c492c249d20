"""Networks of plugins that are built in unusual ways are trained, loaded again, shown and exported."""

from pathlib import Path

import pytest

import stn
from stn.__main__ import main
from tests.support.trainer import QUICK, SMALL, Run, only_run, train

SOURCE = '''
import torch
from torch import nn
import stn


class Core(nn.Module):
    """A recurrent net with features that are drawn when it is built, and a layer that learns its size later."""

    def __init__(self):
        super().__init__()
        self.rows, self.last = nn.LSTM(28, 24, batch_first=True), nn.LazyLinear(10)
        self.register_buffer("drawn", torch.randn(24, 64), persistent=False)

    def forward(self, x):
        return self.last(nn.Flatten()((self.rows(x.squeeze(1))[0] @ self.drawn).sin()))

    def train(self, mode=True):
        super().train(mode)


class Wrapped(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module, self.temperature = module, nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.module(x) * self.temperature

    def train(self, mode=True):
        super().train(mode)


@stn.register("arch")
def odd(make_net, shape, classes):
    "Odd."
    return Wrapped(Core())
'''


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("odd")
    (folder / "odd.py").write_text(SOURCE)
    words = ("--plugin", "odd", "--arch", "odd", "--seeds", "3", "--steps", "30", *QUICK, *SMALL)
    done = train(*words, runs=folder / "runs", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return only_run(folder / "runs")


def test_it_predicts_what_it_scored(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with what it drew when it was built, which no file has."""
    monkeypatch.syspath_prepend(trained.path.parents[3])
    run = stn.load(trained.path)
    images, labels = run.test_images(1000)
    found = run.predict(images).argmax(1).eq(labels).float().mean().item()
    assert found == pytest.approx(run.rows[0]["test_acc"], abs=1e-6)
    assert found > 0.2


def test_it_is_shown_and_exported(trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.syspath_prepend(trained.path.parents[3])
    with pytest.raises(SystemExit, match="0"):
        main(["check", "--plugin", "odd", "--arch", "odd"])
    assert "LSTM" in capsys.readouterr().out
    assert main(["export", str(trained.path), "--out", str(tmp_path / "card")]) == 0
