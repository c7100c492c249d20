"""Flags that do not exist, typed by habit from other programs or misspelt, have a hint each that does not mislead."""

import re

import pytest

from stn.config import command_line
from stn.config.flags import FLAGS, refuse_unknown
from stn.config.flags.foreign import HINTS

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
    "--gama 0.1": "did you mean --optim.gamma?",
    "--keep-bst": "did you mean --checkpoint.keep-best?",
    "--log.no-picture": "did you mean --log.no-pictures?",
    "--no-wandb": "use --log.wandb disabled",
    "--log.no-wandb": "use --log.wandb disabled",
    "--optim.no-clip": "use --optim.clip 0, the default: leave it out",
    "--arch.no-align-corners": "use --arch.align-corners VALUE",
    "--no-amp": "use --precision fp32",
    "--no-gradient-clip-val": "--help has every flag",
    "--model-ema-decay 0.9": "there is no moving average of the weights",
    "--min-lr 0": "use --optim.final-factor 0.01",
    "--warmup-lr 0": "use --optim.start-factor 0.04",
    "--drop 0.2": "no flag changes the layers of a network",
    "--start-epoch 3": "repeat the command; it resumes by itself",
    "--color-jitter 0.4": "no such augmentation; there are --data.rotate",
    "--arhc cnn": "did you mean --arch?",
    "--presicion bf16": "did you mean --precision?",
    "--scale 0.08 1": "use --data.scale 0.9 1.1, a range of the enlargement",
    "--with_tracking": "leave it out: runs are logged to W&B",
    "--project_dir x": "use --runs DIR",
    "--wandb-dir x": "leave it out: W&B's files are kept in the run directory",
    "--layer-decay 0.9": "--help has every flag",
    "--lr-cycle-decay 0.9": "--help has every flag",
    "--opt-eps 1": "--help has every flag",
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


@pytest.mark.parametrize("typed", ["/data --arch stn_slx", "--arch stn_slx /data", "--lr 1 images"])
def test_a_bare_word_is_told_the_flags_for_data(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_line.parse(typed.split())
    word = next(word for word in typed.split() if word in ("/data", "images"))
    told = f"error: {word} belongs to no flag; write --data-root DIR, or for your own images --dataset folder:DIR\n"
    assert capsys.readouterr().err == told
    with pytest.raises(SystemExit):
        command_line.parse(["--lr", "0.1", "0.2"])
    assert capsys.readouterr().err == "error: Unrecognized options: 0.2\n"
