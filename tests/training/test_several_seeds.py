"""Many seeds at once through the real command line: blocks, settings, isolation, what a step asks of the host."""

import random
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import ks_2samp, ttest_rel
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from launch import train as launch_train
from stn.commands.check import check
from stn.commands.finish import wrap_up
from stn.config.dataset import build_dataset
from stn.config.registry import register
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data, Log, Optim, Train
from stn.config.seed_list import parse_seeds
from stn.data.stream import Stream
from stn.models.build import build_network
from stn.models.wirings import cnn
from stn.multiseed.model import StackedModel
from stn.runs.trials import Trial, block_label, blocks, build_trials, group_by_run
from stn.training import blocks as training_blocks
from stn.training import optimizer
from stn.training.running_metrics import RunningMetrics
from stn.training.runtime import Runtime
from stn.training.stop import Stop
from tests.support.networks import BATCH_NORM, batch_norm
from tests.support.paths import ROOT
from tests.support.trainer import (
    QUIET,
    SMALL,
    TWO_THREADS,
    Run,
    assert_close,
    environment,
    only_run,
    start_training,
    train,
    wait_for_train_rows,
)


@register("arch")
def rolling(make_net, shape, classes) -> nn.Module:
    """A classifier with an operation that no rule knows."""

    class Rolling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = cnn(batch_norm, shape, classes)

        def forward(self, x: Tensor) -> Tensor:
            return F.group_norm(torch.roll(self.body(x), 1, 1), 2)

    return Rolling()


@register("arch")
def branching(make_net, shape, classes) -> nn.Module:
    """A classifier whose path depends on its values."""

    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(784, classes)

        def forward(self, x: Tensor) -> Tensor:
            y = self.last(x.flatten(1))
            return y if y.mean() > 0 else -y

    return Branching()


def trials(runs: Path, *configs: Config) -> list[Trial]:
    return build_trials(
        [resolve(c.model_copy(update={"log": c.log.model_copy(update={"runs": str(runs)})})) for c in configs]
    )


def config(arch: str = "cnn", seeds: str = "0-9", **fields) -> Config:
    return Config(arch=Arch(name=arch, net=BATCH_NORM), train=Train(seeds=seeds, steps=3, **fields))


# ---- which seeds train together


def test_blocks_are_equal_and_keep_apart_what_cannot_go_on_together(tmp_path: Path) -> None:
    ten = trials(tmp_path, config())

    def sizes(most: int, saved: list[set[int]]) -> list[list[int]]:
        return [[trial.seed for trial in block] for block in blocks(ten, most, saved)]

    assert [len(block) for block in sizes(4, [set()] * 10)] == [3, 3, 4]
    assert sizes(64, [set()] * 10) == [list(range(10))]
    # Killed while it saved step 40: seeds 0 to 2 have it, 3 to 5 have 30 as the others, 6 to 9 have not begun.
    saved = [{30, 40}] * 3 + [{20, 30}] * 3 + [set()] * 4
    assert sizes(64, saved) == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9]]
    assert sizes(64, [{30, 40}, {20, 30}, {20}, {20, 10}, *[set()] * 6]) == [[0, 1], [2, 3], [4, 5, 6, 7, 8, 9]]


def test_settings_share_blocks_and_have_run_directories_of_their_own(tmp_path: Path) -> None:
    two = trials(tmp_path, config(seeds="0-2"), config(seeds="0-2").model_copy(update={"optim": Optim(lr=0.5)}))
    (block,) = blocks(two, 8, [set()] * 6)
    assert [(trial.config.optim.lr, trial.seed) for trial in block] == [
        (lr, s) for lr in (0.001, 0.5) for s in range(3)
    ]
    assert len(group_by_run(block)) == 2
    assert block_label(block) == "cnn mnist seed 0-2 x 2 settings"
    shares = [build_trials([two[0].config, two[3].config], process, 2) for process in (0, 1)]
    assert [(trial.config.optim.lr, trial.seed) for trial in shares[1]] == [(0.5, 0), (0.5, 1), (0.5, 2)]
    assert {trial.run.path.name for trial in shares[0]} == {"0-2"}


def test_memory_and_what_was_asked_for_bound_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(Config(), 1)
    assert training_blocks.choose_block_size(trials(tmp_path, config()), runtime) == training_blocks.MOST["cpu"]
    assert training_blocks.choose_block_size(trials(tmp_path, config(fuse=7)), runtime) == 7
    assert training_blocks.choose_block_size(trials(tmp_path, config(fuse=1)), runtime) == 1
    assert training_blocks.choose_block_size(trials(tmp_path, config(seeds="3")), runtime) == 1
    one = trials(tmp_path, config())[0].config
    found = training_blocks.check_network(one)
    assert 20_000 < found.bytes_per_row < 200_000
    need = 2 * found.bytes_per_row * 129 + 4 * found.bytes_per_seed
    assert found.bytes_per_seed == 4 * StackedModel(lambda: build_network(one), [0]).count()
    for seeds in (1, 3):
        monkeypatch.setattr("psutil.virtual_memory", lambda n=seeds: type("", (), {"available": 2 * n * need + 1000}))
        assert training_blocks.choose_block_size(trials(tmp_path, config()), runtime) == seeds


def test_no_tensor_of_a_block_goes_beyond_32_bit_indices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = trials(tmp_path, config())[0].config
    elements = training_blocks.check_network(one).elements_per_row
    assert 28 * 28 < elements < 32 * 28 * 28
    monkeypatch.setattr(training_blocks, "MOST_ELEMENTS", 2 * elements * (one.data.batch_size + 1) + 1)
    for fuse in ("auto", 7):
        assert training_blocks.choose_block_size(trials(tmp_path, config(fuse=fuse)), Runtime(Config(), 1)) == 2
    assert "2 seeds at a time instead of 7: more would need tensors beyond 32-bit indices" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arch", "text"),
    [
        (
            "rolling",
            "note: no fused rule, hence slower: group_norm (vmap), roll (vmap)",
        ),
        ("branching", "warning: branching trains one seed at a time: TypeError: __bool__ reads a value of a tensor"),
        ("stn_slx", ""),
    ],
)
def test_one_note_says_what_is_slow(arch: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    most = training_blocks.choose_block_size(trials(tmp_path, config(arch)), Runtime(Config(), 1))
    said = capsys.readouterr().out
    assert said.startswith(text)
    assert len(said.splitlines()) == bool(text)
    assert most == (1 if arch == "branching" else 4)
    check([resolve(config(arch))])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("fused "))
    assert {"rolling": "yes; no fused rule", "branching": "no, one seed", "stn_slx": "yes"}[arch] in line


def test_a_number_that_is_none_leaves_seven_of_eight_bit_for_bit() -> None:
    seeds = 8

    def weights(poison: bool) -> StackedModel:
        one, facts = resolve(config("stn_slx")), build_dataset("mnist")
        stream = Stream(one.data, facts, list(range(seeds)))
        model = StackedModel(lambda: build_network(one), list(range(seeds)))
        optimiser = optimizer.SeedOptimiser([one.optim] * seeds, model, stream.clock, 3)
        for step in range(3):
            optimiser.zero_grad()
            batch = stream.batch(step)
            logits = model(batch.x_SBCHW, stream.clock, batch.row_B)
            if poison and step == 1:
                logits = logits + torch.tensor([float("nan") if s == 3 else 0.0 for s in range(seeds)]).view(-1, 1, 1)
            logits.square().mean((1, 2)).sum().backward()
            optimiser.step()
        return model

    clean, hurt = weights(False), weights(True)
    for s in range(seeds):
        same = [torch.equal(clean.weights(s)[name], hurt.weights(s)[name]) for name in clean.weights(s)]
        assert all(same) if s != 3 else not any(same[:1]), s


# ---- what a step asks of the host


class Recording(TorchDispatchMode):
    """What a CUDA graph does, on a CPU: every operation with its tensors, to be done again in the same memory.

    Fails where an operation would wait for the device. Numbers that Python has computed are fixed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        assert not any(bad in name for bad in ("_local_scalar_dense", "nonzero", "equal.default")), name
        out = func(*args, **(kwargs or {}))
        self.done.append((func, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        for func, args, kwargs, out in self.done:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(new, Tensor) and new.data_ptr() != old.data_ptr():
                    old.copy_(new)


@pytest.mark.parametrize(
    ("arch", "data"),
    [
        ("cnn", "mnist"),
        ("stn_c0_coord", "mnist"),
        ("stn_slx", "mnist_r"),
        ("stn_cx", "mnist_t"),
        ("stn_dlx", "mnist_s"),
    ],
)
def test_a_step_that_is_replayed_is_the_step(arch: str, data: str) -> None:
    wish = Optim(name="sgd" if data == "mnist_t" else "adamw", weight_decay=0.1, clip=1.0, schedule="cosine", lr=0.002)
    augment = {"rotate": 5.0, "crop": 1, "flip": True} if data == "mnist" else {}
    net = BATCH_NORM if data == "mnist" else None
    one = resolve(Config(arch=Arch(name=arch, net=net), data=Data(name=data, batch_size=4, **augment), optim=wish))
    facts = build_dataset(data)
    outcomes = []
    for replayed in (False, True):
        stream = Stream(one.data, facts, [0, 1], dtype=torch.float64)
        model = StackedModel(lambda: build_network(one), [0, 1], dtype=torch.float64)
        stepper = optimizer.SeedOptimiser([wish, wish.model_copy(update={"lr": 0.1})], model, stream.clock, 20_000)
        meter = RunningMetrics([0, 1], Runtime(Config(), 1), "test", grad_norm=True)

        def update(stream=stream, model=model, stepper=stepper, meter=meter) -> None:
            stepper.zero_grad()
            batch = stream.draw()
            logits = model(batch.x_SBCHW, stream.clock, batch.row_B)
            loss = (F.cross_entropy(logits.transpose(1, 2), batch.y_SB, reduction="none") * batch.weight_B).sum(1)
            loss.sum().backward()
            norm_S = optimizer.clip_gradients(model, 1.0)
            stepper.step()
            meter.add(stream.clock, loss.detach(), loss.detach(), norm_S)

        recording = Recording()
        for step in range(5):
            stream.seek(15_000 * (step > 2) + step)  # another epoch of 15,000 steps
            if replayed and step == 1:
                with recording:
                    update()
            elif replayed and step > 1:
                with torch.no_grad():
                    recording.replay()
            else:
                update()
        outcomes.append([*model.flat.split(500), *model.statistics.values(), meter._sums_NS])
    for a, b in zip(*outcomes, strict=True):
        assert torch.equal(a, b)


# ---- whole runs


@pytest.mark.slow
def test_several_learning_rates_train_beside_each_other_as_alone(tmp_path: Path) -> None:
    words = (
        "--arch",
        "stn_cx",
        "--net",
        "tutorial",
        "--optim.name",
        "sgd",
        "--steps",
        12,
        "--precision",
        "fp64",
        *TWO_THREADS,
        *SMALL,
    )
    done = train(*words, "--lr", "0.01,1e200", "--optim.weight-decay", "0,0.1", "--seeds", "0-1", "--fuse", 8,
                 runs=tmp_path / "a")  # fmt: skip
    assert done.returncode == 1  # a seed failed
    rows = [row for path in (tmp_path / "a").glob("*/*/*") for row in Run(path).rows("results.jsonl")]
    assert len({row["sig"] for row in rows}) == 4
    found = {(row["lr"], row["weight_decay"], row["seed"]): row for row in rows}
    assert sorted(found) == [(lr, wd, s) for lr in (0.01, 1e200) for wd in (0, 0.1) for s in (0, 1)]
    assert {row["status"] for row in rows if row["lr"] == 1e200} == {"failed"}
    assert all("at step" in row["reason"] for row in rows if row["lr"] == 1e200)
    assert {row["fused"] for row in rows} == {8}
    train(*words, "--lr", 0.01, "--optim.weight-decay", 0.1, "--seeds", 1, runs=tmp_path / "b")
    alone = only_run(tmp_path / "b").results()[1]
    beside = found[0.01, 0.1, 1]
    for key in ("sig", "status"):
        assert alone[key] == beside[key]
    (block,) = (tmp_path / "a").glob(f"*/{beside['sig']}/*")
    assert_close(Run(block).weights(1), only_run(tmp_path / "b").weights(1))
    assert alone["test_loss"] == pytest.approx(beside["test_loss"], rel=1e-12)  # filters of all seeds side by side
    again = train(*words, "--lr=0.01,1e200", "--optim.weight_decay=0,0.1", "--seeds", "0-1", runs=tmp_path / "a")
    assert again.stdout.count("finished before") == 4


def test_a_network_that_cannot_be_fused_trains_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    import train as script

    runtime, stop = Runtime(Config(), 1), Stop([], None, None)
    log = Log(runs=str(tmp_path), wandb="disabled", pictures=False)
    words = Config(data=Data(limit_train=640, limit_test=50), log=log)
    one = words.model_copy(update={"arch": Arch(name="branching"), "train": Train(seeds="0-1", steps=3)})
    assert script.train(runtime, stop, build_trials([resolve(one)])) == 0
    rows = only_run(tmp_path).results()
    assert {row["fused"] for row in rows.values()} == {1}
    assert rows[0]["weights_sha256"] != rows[1]["weights_sha256"]


def test_a_stop_file_is_taken_away_from_settings_that_have_finished_too(tmp_path: Path) -> None:
    two = trials(tmp_path, config(seeds="0"), config(seeds="0").model_copy(update={"optim": Optim(lr=0.5)}))
    for trial in two:
        trial.run.write_status("running", step=1)
    row = two[0].identity() | dict.fromkeys(("test_acc", "best_test_acc", "best_epoch", "macro_f1"), 0.5)
    two[0].run.add_results([row | {"status": "finished", "images_per_s": 1.0, "wall_s": 1.0}])
    two[0].run.stop.touch()
    assert wrap_up(two, "stop file", {trial.sig for trial in two}) == 0
    assert not two[0].run.stop.exists()
    assert two[1].run.read_status()["state"] == "stopped"


def test_a_setting_that_had_finished_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = trials(tmp_path, config(seeds="0"), config(seeds="0").model_copy(update={"optim": Optim(lr=0.5)}))
    for trial in two:
        row = trial.identity() | dict.fromkeys(("test_acc", "best_test_acc", "best_epoch", "macro_f1"), 0.5)
        trial.run.add_results([row | {"status": "finished", "images_per_s": 1.0, "wall_s": 1.0}])
        trial.run.write_status("finished", written_by="somebody else")
    left = two[0].run.path / f".status.json.{socket.gethostname()}-999999998-1.tmp"
    left.touch()
    assert wrap_up(two, None, {two[1].sig}) == 0
    assert [trial.run.read_status().get("written_by") for trial in two] == ["somebody else", None]
    assert capsys.readouterr().out.count("finished before: nothing to do") == 1
    assert not left.exists()


@pytest.mark.slow
def test_killed_at_random_and_restarted_in_other_blocks(tmp_path: Path) -> None:
    words = ("--seeds", "0-7", "--arch", "stn_slx", "--net", "tutorial", "--steps", 40, "--precision", "fp64",
             "--batch-size", 16, "--checkpoint.every", "4 steps", "--log.every", "2 steps", *SMALL)  # fmt: skip
    assert train(*words, runs=tmp_path / "whole").returncode == 0
    for size, lines in ((1, 10), (8, 60)):
        process = start_training(*words, "--fuse", size, runs=tmp_path / "cut", launcher=None)
        wait_for_train_rows(tmp_path / "cut", lines)
        time.sleep(random.random() * 2)
        process.kill()
        process.wait()
    assert train(*words, "--fuse", 3, runs=tmp_path / "cut").returncode == 0
    cut, whole = only_run(tmp_path / "cut"), only_run(tmp_path / "whole")
    assert [row["seed"] for row in cut.rows("results.jsonl")] == list(range(8))
    for seed in range(8):
        assert_close(cut.weights(seed), whole.weights(seed))
    for seed in range(8):  # each step of each seed once
        steps = [row["step"] for row in cut.rows() if row["kind"] == "train" and row["seed"] == seed]
        assert steps == list(range(2, 41, 2))


@pytest.mark.slow
def test_fused_and_alone_reach_the_same_accuracies_in_single_precision(tmp_path: Path) -> None:
    words = ("--seeds", "0-19", "--arch", "stn_c0", "--net", "tutorial", "--steps", 60, "--limit-train", 1920,
             "--batch-size", 32, "--lr", 0.02, "--limit-test", 400, "--eval.every", "60 steps", *QUIET)  # fmt: skip
    accuracy = {}
    for size in (1, 5):
        assert train(*words, "--fuse", size, runs=tmp_path / str(size)).returncode == 0
        rows = only_run(tmp_path / str(size)).results()
        assert {row["fused"] for row in rows.values()} == {size}
        accuracy[size] = [rows[s]["test_acc"] for s in range(20)]
    assert min(accuracy[1]) > 0.5
    assert accuracy[1] != accuracy[5], "not single precision"
    for test in (ks_2samp, ttest_rel):
        result: Any = test(accuracy[1], accuracy[5])  # scipy's annotations leave out its fields
        assert result.pvalue > 0.01, test.__name__


# ---- the local launcher


@pytest.mark.parametrize(
    ("words", "gpus", "expected"),
    [
        ("--seeds 0-7", 0, ("cpu2.yaml", "3")),
        ("--seeds 0-1", 0, ("cpu2.yaml", "2")),
        ("--seeds 4", 0, ("one.yaml", "1")),
        ("--seeds 0-1 --lr 0.1,0.2", 0, ("cpu2.yaml", "3")),
        ("--seeds 0-7 --processes 2", 0, ("cpu2.yaml", "2")),
        ("--seeds 0-7 --check", 0, ("one.yaml", "1")),
        ("--seeds 0-7", 4, ("gpus.yaml", "4")),
        ("--seeds 4", 4, ("one.yaml", "1")),
    ],
)
def test_the_launcher_takes_a_process_per_device_but_no_more_than_seeds(
    words: str, gpus: int, expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_train, "cores", lambda: 3)
    monkeypatch.setattr(launch_train, "gpus", lambda: gpus)
    line = launch_train.command(words.split())
    assert (Path(line[line.index("--config_file") + 1]).name, line[line.index("--num_processes") + 1]) == expected
    assert line[-len(words.split()) :] == words.split()


def test_gpus_are_counted_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    for visible, count in (("", 0), ("-1", 0), ("0", 1), ("2,3", 2)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert launch_train.gpus() == count
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert launch_train.gpus() == 0


@pytest.mark.parametrize(
    ("script", "count"),
    [
        (
            "echo 'GPU 0: NVIDIA H100 (UUID: GPU-1)'; echo '  MIG 1g.10gb Device 0:'; echo 'GPU 1: NVIDIA'",
            2,
        ),
        ("echo 'NVIDIA-SMI has failed because it could not communicate with the driver'; exit 9", 0),
        ("echo 'No devices were found'", 0),
    ],
)
def test_gpus_are_counted_by_the_drivers_own_tool(
    script: str, count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("ACCELERATE_USE_CPU", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(variable, raising=False)
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    launch_train._count_gpus.cache_clear()
    assert launch_train.gpus() == count
    launch_train._count_gpus.cache_clear()


@pytest.mark.usefixtures("every_core")
def test_the_launcher_trains_seeds_in_processes(tmp_path: Path) -> None:
    words = ["--seeds", "0-3", "--steps", "4", *SMALL, "--runs", str(tmp_path)]
    line = [sys.executable, "-m", "launch", "train", *words]
    env = environment(ACCELERATE_USE_CPU="true")
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    rows = [row for path in tmp_path.glob("*/*/*") for row in Run(path).rows("results.jsonl")]
    assert sorted(row["seed"] for row in rows) == parse_seeds("0-3")
    processes = min(4, launch_train.cores())
    assert {(row["mode"], row["world_size"]) for row in rows} == {("seeds" if processes > 1 else "single", processes)}
