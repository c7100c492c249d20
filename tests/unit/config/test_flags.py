"""Flags by habit from other programs, names in other spellings, and errors that stand last."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from stn.config import command_line, registry
from stn.config.flags import FLAGS, refuse_unknown
from stn.config.flags.foreign import HINTS
from stn.config.resolve import resolve, signature
from stn.config.yaml_files import RECIPES, build_config, find_recipe, normalise
from tests.support.paths import ROOT
from tests.support.trainer import command, environment

FOREIGN = {
    "--learning-rate 0.1": "use --lr 0.01",
    "--learning_rate=0.1": "use --lr 0.01",
    "--model resnet18": "use --arch",
    "--gpus 2": "make train takes every GPU",
    "--devices 2": "make train takes every GPU",
    "--output_dir x": "use --runs DIR",
    "--default_root_dir x": "use --runs DIR",
    "--mixed_precision bf16": "use --precision bf16",
    "--amp": "use --precision bf16",
    "--fp16": "use --precision bf16",
    "--resume x.pth": "repeat the command; it resumes by itself",
    "--resume_from_checkpoint x": "repeat the command",
    "--num_workers 4": "leave it out: the data set stays in memory",
    "-j 4": "leave it out: the data set stays in memory",
    "-j4": "leave it out: the data set stays in memory",
    "--device cuda": "training runs on a GPU if there is one",
    "--no-cuda": "training runs on a GPU if there is one",
    "--optimizer sgd": "use --optim.name sgd",
    "--opt sgd": "use --optim.name sgd",
    "--data-dir x": "use --data-root DIR",
    "-b 64": "use --batch-size 128",
    "--per_device_train_batch_size 8": "use --batch-size 128",
    "--max_epochs 3": "use --epochs 8",
    "--trainer.max_epochs 3": "use --epochs 8",
    "--num_train_epochs 3": "use --epochs 8",
    "--seed 3": "use --seeds 0",
    "--weight-decay 0.1": "use --optim.weight-decay",
    "--momentum 0.9": "use --optim.momentum",
    "--sched cosine": "use --optim.schedule",
    "--lr_scheduler_type cosine": "use --optim.schedule",
    "--warmup-epochs 3": "use --optim.warmup '2 epochs'",
    "--clip-grad 1": "use --optim.clip 1.0",
    "--gradient_accumulation_steps 2": "use --optim.accumulate 4",
    "--accelerator gpu": "training runs on a GPU if there is one",
    "--strategy ddp": "use --parallel data",
    "--local_rank 0": "the launcher says it",
    "--pretrained": "training starts from random weights",
    "--log-wandb": "use --log.wandb online",
    "--torchcompile": "use --train.compile",
    "--logging_steps 5": "use --log.every '50 steps'",
    "--eval_steps 5": "use --eval.every '1 epochs'",
    "--save_total_limit 5": "use --checkpoint.keep 2",
    "--fast_dev_run": "use --check",
    "--num-classes 10": "leave it out: the data set says it",
    "--no-pictures": "use --log.no-pictures",
    "--depth 2": "use --arch.depth",
    "--every 2": "use --checkpoint.every or --eval.every or --log.every",
    "--archh cnn": "did you mean --arch?",
    "--epocs 2": "did you mean --epochs?",
    "--batchsize 2": "did you mean --batch-size?",
    "--qqqqqqq": "--help has every flag",
}


@pytest.mark.parametrize("typed", FOREIGN)
def test_a_flag_that_is_not_ours_has_one_hint(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command_line.parse(typed.split())
    (line,) = capsys.readouterr().err.splitlines()
    assert left.value.code == 2
    assert re.match(rf"error: no flag {re.escape(re.split('[ =]', typed)[0].replace('_', '-'))}; ", line)
    assert FOREIGN[typed] in line


def test_every_unknown_flag_is_named_and_values_are_none() -> None:
    with pytest.raises(ValueError, match=r"^no flag --gpus; .*\nno flag -x; --help has every flag$"):
        refuse_unknown(["--gpus=2", "--lr", "-1", "-x", "--gpus", "-.5", "--log.no_pictures"])
    refuse_unknown(["--tyro-print-completion", "bash", "-h", "--log.no-gif", "--lr=-1"])


def test_hints_name_flags_that_exist_for_flags_that_do_not() -> None:
    assert not {f"--{name}" for name in HINTS} & {*FLAGS, "--config", "--check", "--list", "--help"}
    others = {"--num", "--mixed", "--nodes", "--on", "--recipe", "--weights", "--check", "--list", "--help", "--config"}
    others |= {"--to"}  # of python -m launch export
    for hint in HINTS.values():
        assert set(re.findall(r"--[a-z][a-z0-9.-]*", hint)) <= {*FLAGS, "--retrain"} | others, hint


SPELLINGS = {
    "--arch STN-SLX --dataset MNIST-R": "--arch stn_slx --dataset mnist_r",
    "--arch.name=StnSlx --data.name mnistR": "--arch stn_slx --dataset mnist_r",
    "--dataset CIFAR-10 --net Cifar_Small": "--dataset cifar10 --net cifar_small",
    "--arch.transform TPS --precision=BF16": "--arch.transform tps --precision bf16",
    "--optim.name AdamW --optim.schedule one-cycle": "--optim.name adamw --optim.schedule onecycle",
    "--config Finnveden-R --arch CNN": "--config configs/finnveden_r.yaml --arch cnn",
}


@pytest.mark.parametrize("typed", SPELLINGS)
def test_another_spelling_is_the_same_experiment(typed: str) -> None:
    (other,), (ours,) = (command_line.parse(words.split()) for words in (typed, SPELLINGS[typed]))
    assert resolve(other) == resolve(ours)
    assert signature(resolve(other)) == signature(resolve(ours))


def test_other_spellings_in_yaml_are_the_same_experiment() -> None:
    keys = {"arch": {"name": "CNN", "net": "Finnveden-R"}, "dataset": "MNIST", "optim": {"schedule": "Cosine"}}
    config = build_config(normalise(keys, "x"), "x")
    assert (config.arch.name, config.arch.net, config.data.name) == ("cnn", "finnveden_r", "mnist")
    assert config.optim.schedule == "cosine"


MISSPELT = {
    "arch": {"stn_slz": "'stn_slx'", "stn-sxl": "'stn_slx'", "STN_DL": "'stn_dlx'", "cnnn": "'cnn'"},
    "dataset": {
        "mnsit": "'mnist'",
        "cifar": "'cifar10', 'cifar10_a', 'cifar10_mismatched' or 'cifar10_r'",
        "cifar_01": "'cifar10'",
        "mnist_rt": "'mnist_rts'",
    },
    "net": {"Finnveden": "'finnveden_r', 'finnveden_s' or 'finnveden_t'", "tutoral": "'tutorial'", "lennet": "'lenet'"},
}


@pytest.mark.parametrize(("kind", "word"), [(kind, word) for kind, words in MISSPELT.items() for word in words])
def test_a_misspelt_name_has_the_right_hint(kind: str, word: str) -> None:
    with pytest.raises(ValueError, match=f"no .* '{word}'; did you mean {re.escape(MISSPELT[kind][word])}\\?$"):
        registry.find(kind, word)


def test_a_name_that_might_be_two_is_neither() -> None:
    assert registry.same_name("A-B", ["a_b", "ab"]) == "A-B"
    assert registry.same_name("ab", ["a_b", "ab"]) == "ab"
    for entries in registry.entries.values():
        assert len({registry._letters(name) for name in entries}) == len(entries)


def test_a_recipe_is_found_by_name_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("s3", "S3", "s3.yaml", "configs/s3.yaml", str(RECIPES / "s3.yaml"), str(RECIPES / "s3")):
        assert find_recipe(name) == RECIPES / "s3.yaml"
    assert find_recipe("configs/sweeps/Smoke.yaml", RECIPES / "sweeps", "sweep") == RECIPES / "sweeps" / "smoke.yaml"
    for name in ("own/s3", f"{'x' * 300}.yaml", "a\0.yaml"):
        with pytest.raises(ValueError, match=f"^no file or recipe '{name[:1]}"):
            find_recipe(name)
    (tmp_path / "s3").mkdir()
    assert find_recipe("s3") == RECIPES / "s3.yaml"
    (tmp_path / "s3").rmdir()
    assert find_recipe("/dev/null") == Path("/dev/null")
    (tmp_path / "s3").write_text("lr: 1\n")
    assert find_recipe("s3") == Path("s3")


IN_NO_TIME = """
import runpy, sys
try:
    runpy.run_path("train.py", run_name="__main__")
finally:
    print(sorted({"torch", "numpy", "accelerate"} & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize("typed", ["--gpus 2", "--arch stn_slxx", "--arch cnn --arch.depth 1", "--list", "--lr x"])
def test_what_is_refused_or_listed_needs_no_torch(typed: str) -> None:
    words = [sys.executable, "-c", IN_NO_TIME, *typed.split()]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "[]"
    assert done.returncode == (0 if typed == "--list" else 2)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["one", "cpu2"])
def test_our_message_stands_below_the_launchers_traceback(launcher: str) -> None:
    words = command("--gpus", "2", launcher=launcher)
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: no flag --gpus; make train takes every GPU")
    assert done.stderr.count("error: no flag") == 2
