"""Names in other spellings, and errors that stand last."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from stn.config import command_line, registry
from stn.config.resolve import resolve, signature
from stn.config.yaml_files import RECIPES, build_config, find_recipe, normalise
from tests.support.paths import ROOT
from tests.support.trainer import command, environment

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
