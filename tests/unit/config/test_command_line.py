"""The command line: precedence, recipes, --check, --list and --help."""

import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from stn.commands.check import check
from stn.commands.list import list_names
from stn.config import command_line
from stn.config.resolve import resolve, validate
from stn.config.schema import Arch, Config, Data
from stn.config.yaml_files import SHORT, build_config, load_yaml, normalise, overlay
from stn.training.runtime import Runtime
from tests.support.paths import ROOT
from tests.support.trainer import command, environment, train

CONTRACT = {
    "arch", "dataset", "seeds", "epochs", "steps", "batch_size", "lr", "precision", "data_root", "runs", "name",
    "limit_train", "limit_test", "parallel",
}  # fmt: skip


def test_short_names_are_the_contract() -> None:
    assert set(SHORT) >= CONTRACT
    typed = (
        "--arch cnn --dataset mnist_r --seeds 0,3,8-15 --epochs 2 --batch-size 32 --lr 1e-3 --precision bf16 "
        "--data-root d --runs r --name n --limit-train 5 --limit-test 6 --parallel seeds --check --list "
        "--log.wandb offline"
    )
    (parsed,) = command_line.parse(shlex.split(typed))
    assert (parsed.arch.name, parsed.data.name, parsed.train.seeds, parsed.train.epochs) == (
        "cnn",
        "mnist_r",
        "0,3,8-15",
        2,
    )
    assert (parsed.data.batch_size, parsed.optim.lr, parsed.train.precision) == (32, 0.001, "bf16")
    assert (parsed.data.root, parsed.log.runs, parsed.log.name, parsed.log.wandb) == ("d", "r", "n", "offline")
    assert (parsed.data.limit_train, parsed.data.limit_test, parsed.train.parallel) == (5, 6, "seeds")
    assert parsed.check
    assert parsed.list == "*"


def test_command_line_overrides_yaml(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("lr: 1e-3\nsteps: 70\nseeds: 4\noptim: {momentum: 0.5, name: sgd}\narch: {name: cnn}\n")
    (parsed,) = command_line.parse(["--config", str(path), "--lr", "0.5"])
    assert (parsed.optim.lr, parsed.optim.momentum, parsed.train.steps, parsed.arch.name) == (0.5, 0.5, 70, "cnn")
    assert parsed.train.seeds == "4"
    (other_length,) = command_line.parse([f"--config={path}", "--epochs", "3"])
    assert (other_length.train.epochs, other_length.train.steps) == (3, None)
    (only_called,) = command_line.parse([f"--config={path}", "--name", "epochs"])
    assert (only_called.train.epochs, only_called.train.steps, only_called.log.name) == (None, 70, "epochs")


def test_several_values_are_a_grid_and_the_last_of_a_flag_counts() -> None:
    grid = command_line.parse(["--optim.weight_decay", "0,1", "--lr=0.1,0.2", "--steps", "5"])
    assert [(c.optim.weight_decay, c.optim.lr) for c in map(resolve, grid)] == [(0, 0.1), (0, 0.2), (1, 0.1), (1, 0.2)]
    assert [c.optim.lr for c in command_line.parse(["--lr", "0.1,0.2", "--lr", "3"])] == [3]


@pytest.mark.parametrize("words", [["--arch", "cnn"], ["--arch=cnn"], ["--arch.name", "cnn"]])
def test_a_baseline_leaves_out_what_a_recipe_says_of_transformers(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("arch: {name: stn_slx, net: tutorial, padding: zeros}\noptim: {lr: 0.5, loc_lr_multiplier: 0.1}\n")
    (baseline,) = map(resolve, command_line.parse(["--config", str(path), *words]))
    assert (baseline.arch.name, baseline.arch.net, baseline.arch.padding) == ("cnn", "tutorial", None)
    assert (baseline.optim.lr, baseline.optim.loc_lr_multiplier) == (0.5, 1.0)
    (other,) = map(resolve, command_line.parse(["--config", str(path), "--arch", "stn_c0"]))
    assert (other.arch.padding, other.optim.loc_lr_multiplier) == ("zeros", 0.1)
    with pytest.raises(SystemExit):
        command_line.parse(["--config", str(path), *words, "--arch.padding", "zeros"])
    assert "cnn has no option 'padding'" in capsys.readouterr().err


def test_overlays_win_key_by_key_and_replace_the_length() -> None:
    base = normalise({"lr": 0.1, "optim": {"name": "sgd"}, "steps": 70, "train": {"seeds": "0-3"}}, "base")
    over = normalise({"optim": {"lr": 0.5}, "epochs": 2}, "sweep")
    assert over == {"optim": {"lr": 0.5}, "train": {"epochs": 2}}
    assert overlay(base, over) == {"optim": {"lr": 0.5, "name": "sgd"}, "train": {"seeds": "0-3", "epochs": 2}}
    assert overlay(over, base)["train"] == {"seeds": "0-3", "steps": 70}
    both = overlay(base, {"train": {"epochs": None, "steps": 9}}, {"optim": {"lr": 1}})
    assert both == {"optim": {"lr": 1, "name": "sgd"}, "train": {"seeds": "0-3", "epochs": None, "steps": 9}}
    assert base == {"optim": {"lr": 0.1, "name": "sgd"}, "train": {"seeds": "0-3", "steps": 70}}
    assert over == {"optim": {"lr": 0.5}, "train": {"epochs": 2}}
    assert build_config(overlay(base, over), "sweep").optim.lr == 0.5
    with pytest.raises(ValueError, match="sweep: optim: lr: input should be a valid number"):
        build_config({"optim": {"lr": "fast"}}, "sweep")
    with pytest.raises(ValueError, match="give epochs or steps, not both"):
        validate(build_config(overlay(base, {"train": {"epochs": 1, "steps": 5}}), "sweep"))


def test_help_is_quick() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = train("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    # CPU seconds, so that other processes do not matter: 0.3 now, 1.8 if torch is imported first.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.2
    assert "--arch.align-corners" in done.stdout


@pytest.mark.parametrize("dataset", ["mnist", "mnist_r", "mnist_t", "mnist_s", "cifar10"])
def test_every_architecture_passes_check_on_every_data_set(dataset: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arch in ("cnn", "stn_c0", "stn_c0_coord", "stn_cx", "stn_dlx", "stn_slx"):
        assert check([resolve(Config(arch=Arch(name=arch), data=Data(name=dataset)))]) == 0
    assert "parameters" in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_passes_check_and_says_what_it_is(path: Path) -> None:
    resolved = resolve(load_yaml(path))
    assert check([resolved]) == 0
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert f"--config configs/{path.name}" in header[1]
    for word in ("command", "time", "published", "ours"):
        assert any(line.startswith(f"# {word} ") for line in header), word


def test_finnvedens_recipe_is_the_papers() -> None:
    for letter, lr in (("r", 0.02), ("t", 0.01), ("s", 0.02)):
        c = load_yaml(ROOT / "configs" / f"finnveden_{letter}.yaml")
        assert (c.optim.name, c.optim.lr, c.optim.momentum, c.optim.weight_decay) == ("sgd", lr, 0, 0)
        assert (c.data.name, c.data.batch_size, c.train.steps) == (f"mnist_{letter}", 256, 70_000)
        assert (c.optim.milestones, c.optim.gamma, c.train.seeds) == (("50000 steps",), 0.1, "0-9")


def test_list_shows_every_name_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert list_names() == 0
    out = capsys.readouterr().out
    for name in ("stn_c0_coord", "mnist_s", "cifar10", "tutorial", "configs/finnveden_r.yaml"):
        assert name in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "message"),
    [
        (["--cpu", "--num_processes", "2"], "processes asked for: several, running: 1"),
        (["--num_processes", "1"], "processes asked for: 3, running: 1"),
    ],
)
def test_another_world_size_than_asked_for_is_refused(launcher: list[str], message: str, tmp_path: Path) -> None:
    words = command("--runs", tmp_path / "runs", *(["--processes", "3"] if "3" in message else []))
    accelerate = [str(Path(sys.executable).parent / "accelerate"), "launch", *launcher]
    done = subprocess.run([*accelerate, *words[1:]], capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode != 0
    assert message in done.stderr
    assert not (tmp_path / "runs").exists()


def test_more_ranks_in_the_environment_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    Runtime(Config(), 1)  # Accelerate keeps its state, so that the variable starts nothing
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ValueError, match="processes asked for: 4, running: 1"):
        Runtime(Config(), 1)
