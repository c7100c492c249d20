"""Every recipe trains, fused and alone; published parameter counts through --check."""

import sys
from pathlib import Path

import pytest

from stn.commands.check import check
from stn.commands.library.run import change
from stn.config.dataset import build_dataset
from stn.config.resolve import resolve, signature
from stn.config.schema import Arch, Config, Data
from stn.config.yaml_files import dump_yaml, load_yaml
from stn.runs.trials import build_trials
from stn.training.runtime import Runtime
from stn.training.stop import Stop
from tests.support.paths import CIFAR, ROOT
from tests.support.trainer import only_run

RECIPES = sorted((ROOT / "configs").glob("*.yaml"))
COUNTS = {
    ("stn_c0", "tutorial", "mnist"): 27_360,
    ("stn_c0_coord", "tutorial_first", "mnist"): 28_144,
    ("stn_c0_coord", "tutorial", "mnist"): 28_644,
    ("stn_c0_coord", "tutorial_radius", "mnist"): 29_286,
    ("stn_c0_coord", "tutorial_norm", "mnist"): 29_346,
    ("stn_c0", "dilated", "cifar10"): 145_104,
    ("stn_c0", "lenet", "cifar10"): 802_492,
    ("stn_c0", "icstn", "mnist"): 39_048,
}


@pytest.mark.parametrize(("arch", "net", "dataset"), COUNTS)
def test_published_parameter_counts(arch: str, net: str, dataset: str, capsys: pytest.CaptureFixture[str]) -> None:
    transform = "projective" if net == "icstn" else None
    config = Config(arch=Arch(name=arch, net=net, transform=transform), data=Data(name=dataset))
    assert check([resolve(config)]) == 0
    assert f"parameters  {COUNTS[arch, net, dataset]}\n" in capsys.readouterr().out


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_what_a_run_keeps_of_a_recipe_runs_again(path: Path) -> None:
    resolved = resolve(load_yaml(path))
    assert resolve(resolved) == resolved
    assert resolved.log.name == path.stem


def test_what_a_run_keeps_of_an_architecture_runs_again(tmp_path: Path) -> None:
    spline = Arch(name="stn_c0", transform="tps", points=3)
    for arch in (Arch(name="cnn"), Arch(name="stn_cx", depth=(0, 1)), Arch(name="stn_dlx", depth=(1,)), spline):
        resolved = resolve(Config(arch=arch))
        (tmp_path / "config.yaml").write_text(dump_yaml(resolved))
        again = resolve(load_yaml(tmp_path / "config.yaml"))
        assert signature(again) == signature(resolved)
    assert resolved.arch.points == 3
    assert resolve(Config(arch=Arch(name="stn_dlx", depth=(1,)))).arch.depth == 1


def test_a_milestone_behind_the_last_step_gets_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    whole = load_yaml(ROOT / "configs" / "finnveden_r.yaml")
    for changed, noted in (({}, 0), ({"epochs": 2.0, "steps": None}, 1), ({"fraction": 0.01}, 0)):
        assert check([resolve(change(whole, train=changed))]) == 0
        assert capsys.readouterr().out.count("note: a milestone lies behind the last step") == noted


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_trains_fused_and_alone(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare in float64, where both must reach the same weights; batches are smaller than the recipe's."""
    recipe = load_yaml(path)
    if build_dataset(recipe.data.name).shape[0] == 3 and CIFAR is None:
        pytest.skip("no CIFAR-10 on this machine")
    monkeypatch.setattr(sys, "argv", ["train.py"])
    import train as script

    few = {"batch_size": 2, "limit_train": 40, "limit_test": 8, "root": str(CIFAR)}
    rows = {}
    for fuse in (2, 1):
        more = {"seeds": "0-1", "steps": 6, "epochs": None, "precision": "fp64", "fuse": fuse}
        log = {"runs": str(tmp_path / str(fuse)), "wandb": "disabled", "pictures": False}
        config = Config(
            arch=recipe.arch,
            data=recipe.data.model_copy(update=few),
            optim=recipe.optim.model_copy(update={} if recipe.optim.warmup == "0 epochs" else {"warmup": "2 steps"}),
            train=recipe.train.model_copy(update=more),
            log=recipe.log.model_copy(update=log),
        )
        config = resolve(config)
        assert script.train(Runtime(config, 2), Stop([], None, None), build_trials([config])) == 0
        rows[fuse] = only_run(tmp_path / str(fuse)).results()
    for seed in (0, 1):
        fused, alone = rows[2][seed], rows[1][seed]
        assert (fused["status"], fused["fused"], alone["fused"]) == ("finished", 2, 1)
        assert fused["test_loss"] == pytest.approx(alone["test_loss"], rel=1e-6)
