"""Bad command lines and files: one message, exit code 2, nothing on disk."""

import re
import sys
from pathlib import Path

import pytest

from stn.evaluation.pictures.painter import PAINTER
from tests.support.paths import ROOT
from tests.support.trainer import train

BAD: dict[str, tuple[str, str]] = {
    # arguments -> what the message must contain
    "--archh cnn": ("typo in a flag", "--arch"),
    "--arch stn_slxx": ("typo in an architecture", "did you mean 'stn_slx'?"),
    "--dataset mnst": ("typo in a data set", "did you mean 'mnist'?"),
    "--lr 0.1,0.1": ("a setting twice", "different values"),
    "--optim.weight-decay=0,": ("a setting that is missing", "different values"),
    "--lr 0.01,1e-2": ("a setting twice in other words", "the same"),
    "--lr 0.1,x": ("a setting that is no number", "lr"),
    "--fuse 0": ("no seed at a time", "fuse"),
    "--fuse all": ("a number in words", "fuse"),
    "--fuse 2 --precision fp16": ("fused fp16", "fp16 cannot fuse"),
    "--net finnveden_q": ("typo in a network", "did you mean 'finnveden_"),
    "--optim.name sgdd": ("typo in a choice", "sgd"),
    "--lr abc": ("a word for a number", "could not convert string to float: 'abc'"),
    "--lr -1": ("a negative learning rate", "lr: input should be greater than 0 (got -1.0)"),
    "--lr nan": ("not a number", "lr: input should be"),
    "--batch-size 0": ("no images", "batch_size: input should be greater than 0 (got 0)"),
    "--batch-size 1.5": ("half an image", "1.5"),
    "--limit-train 1e3": ("a whole number in another form", "could be instantiated from ['1e3']."),
    "--dataset mine.npz": ("a file for a data set", "npz:FILE, folder:DIR or --plugin MODULE brings your own"),
    "--dataset folder:nowhere": ("a folder that is not there", "there is no folder"),
    "--seeds 3-1": ("a range that runs backwards", "the range '3-1' ends before it begins"),
    "--seeds 0,x": ("a seed that is no number", "cannot read 'x'"),
    "--seeds 0,0": ("a seed twice", "names a seed twice"),
    "--epochs 1 --steps 5": ("two lengths", "give epochs or steps, not both"),
    "--epochs": ("a missing value", "--epochs"),
    "stray": ("a stray word", "stray"),
    "--eval.every 3": ("a duration without a unit", "a duration is a number of epochs or steps"),
    "--eval.every 0steps": ("a duration of nothing", "eval.every is less than one step"),
    "--arch cnn --arch.depth 1": ("an option of another architecture", "cnn has no option 'depth'"),
    "--arch.depth 7": ("an impossible depth", "arch.depth 7 is not possible here"),
    "--arch cnn --optim.loc-lr-multiplier 0.1": ("a group that is not there", "cnn has no localisation net"),
    "--optim.name adamw --optim.nesterov": ("an impossible combination", "nesterov needs optim.name sgd"),
    "--optim.schedule multistep": ("a schedule without its milestones", "needs optim.milestones"),
    "--optim.warmup 100epochs": ("a warm-up longer than the run", "shorten both with --fraction"),
    "--precision fp16": ("fp16 on a CPU", "fp16 needs a GPU"),
    "--parallel seeds --processes 2": ("another number of processes", "processes asked for: 2, running: 1"),
    "--data.validation 60000": ("nothing left to train on", "leaves nothing of 60000"),
    "--name ../x": ("a name that leaves the folder", "cannot be a folder's name"),
    "--config nope.yaml": ("a missing file", "no file or recipe 'nope.yaml'; known: best_cifar10"),
    "--config broken.yaml": ("broken YAML", "broken.yaml is not YAML"),
    "--config list.yaml": ("YAML of another form", "expected 'key: value' lines, got list"),
    "--config unknown.yaml": (
        "an unknown key",
        "unknown.yaml: optim: unknown key 'momentun'; did you mean 'momentum'?",
    ),
    "--config top.yaml": ("an unknown key at the top", "unknown key 'batchsize'; did you mean 'batch_size'?"),
    "--config type.yaml": ("a wrong type in YAML", "optim: lr: input should be a valid number"),
    "--config number.yaml": ("a number for a key", "number.yaml: optim: unknown key '1'"),
    "--config twice.yaml": ("a key given twice", "optim.lr is given twice"),
    "--config yes.yaml": ("a YAML boolean", "batch_size: True is not valid here"),
    "--config a.yaml --config b.yaml": ("two files", "give --config once"),
    "--seeds 0-99999999999": ("more seeds than there are", "goes beyond"),
    "--seeds 9223372036854775808": ("a seed beyond 64 bits", "goes beyond"),
    "--optim.schedule step --optim.step-every 0steps": ("a period of nothing", "step_every is less than one step"),
    "--optim.warmup 0.01%": ("a warm-up of nothing", "optim.warmup of 0.01 % is less than one step"),
    "--epochs 100000": ("more steps than learning rates", "46,900,000 steps are more than the 10,000,000"),
    "--optim.momentum 0.5": ("momentum for AdamW", "adamw takes no momentum"),
    "--data.crop 100": ("a crop as large as the image", "as large as the image"),
    "--data.cutout 28": ("a cutout as large as the image", "as large as the image"),
    "--arch cnn --net whitened_cifar": ("colours for a grey image", "whitened_cifar is for colour images"),
    "--data.cutout -1": ("a cutout of less than nothing", "cutout: input should be greater than or equal to 0"),
    "--data.alternate-flip": ("when to mirror, of images that are not", "needs --data.flip"),
    "--reprob 0.25": ("random erasing, as timm has it", "use --data.cutout"),
    "--config scalar.yaml": ("a value for a section", "'optim' needs keys of its own, got 3"),
    "--dataset cifar10 --data-root nowhere": ("a data set that is not there", "Put the official binary version there"),
}
FILES = {
    "broken.yaml": "a: [1,\n",
    "list.yaml": "- 1\n",
    "unknown.yaml": "optim: {momentun: 0.9}\n",
    "top.yaml": "batchsize: 3\n",
    "type.yaml": "lr: fast\n",
    "scalar.yaml": "optim: 3\n",
    "number.yaml": "optim: {1: 2}\n",
    "twice.yaml": "lr: 0.1\noptim: {lr: 0.2}\n",
    "yes.yaml": "batch_size: yes\n",
}


@pytest.mark.parametrize("typed", BAD, ids=lambda typed: BAD[typed][0])
def test_bad_input_is_one_message_exit_2_and_nothing_on_disk(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run in this process for speed; the next test runs some of them through the real command line."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(PAINTER, "start", lambda: None)  # its processes end with this one, behind the tests
    before = sorted(p.name for p in tmp_path.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["train.py", *typed.split()])
    source = compile((ROOT / "train.py").read_text(), "train.py", "exec")
    with pytest.raises(SystemExit) as left:
        exec(source, {"__name__": "__main__"})
    captured = capsys.readouterr()
    assert left.value.code == 2
    flat = " ".join(captured.err.replace("│", " ").split())
    assert BAD[typed][1] in flat
    assert flat.count("error: ") == 1
    assert "Traceback" not in captured.err + captured.out
    assert not re.search("Error parsing|Got errors|Argument helptext", flat)  # tyro's own words
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.parametrize("typed", ["--archh cnn", "--arch stn_slxx", "--lr -1", "--config nope.yaml", "--arch.depth 7"])
def test_bad_input_through_the_launcher(typed: str, tmp_path: Path) -> None:
    done = train(*typed.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr + done.stdout
    assert list(tmp_path.iterdir()) == []
