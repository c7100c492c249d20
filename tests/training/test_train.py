"""Whole runs through the real command line: results, resuming, two ranks, failures."""

import json
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stn.__main__ import main
from tests.support.trainer import (
    QUICK,
    SMALL,
    TWO_THREADS,
    Run,
    assert_close,
    command,
    environment,
    only_run,
    start_training,
    train,
    wait_for_train_rows,
)

ROW = {
    "sig", "seed", "arch", "dataset", "status", "params", "steps", "epochs", "test_acc", "test_error", "test_loss",
    "macro_f1", "best_test_acc", "best_epoch", "wall_s", "images_per_s", "mode", "world_size", "precision",
    "weights_sha256", "row_sha256",
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with pictures, as the quick start makes it, but small."""
    runs = tmp_path_factory.mktemp("trained")
    done = train(
        "--arch", "stn_slx", "--epochs", 2, "--limit-train", 6400, "--limit-test", 1000, "--log.wandb", "disabled",
        launcher="one", runs=runs,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (runs / "out.txt").write_text(done.stdout)
    return runs


def test_a_start_leaves_out_what_is_slow_to_import(tmp_path: Path) -> None:
    done = train("--steps", 1, *SMALL, runs=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert {"torch", "accelerate", "stn.training.optimizer"} <= imported
    slow = {
        "torch._dynamo",
        "torch.distributed.tensor",
        "torch.utils.flop_counter",
        "wandb",
        "matplotlib",
        "torchvision",
    }
    assert not slow & imported


def test_a_run_leaves_everything_that_is_promised(trained: Path) -> None:
    run = only_run(trained)
    row = run.results()[0]
    assert set(row) >= ROW
    assert row["status"] == "finished"
    assert row["test_acc"] > 0.85
    assert row["test_error"] == pytest.approx(1 - row["test_acc"])
    assert row["best_test_acc"] >= row["test_acc"]
    assert (row["steps"], row["epochs"], row["params"], row["test_count"]) == (100, 2, 53984, 1000)
    assert run.path.parent.name == row["sig"]
    assert run.status()["state"] == "finished"
    environment_facts = json.loads((run.path / "env.json").read_text())
    assert environment_facts["packages"]["torch"]
    assert set(environment_facts) >= {"device", "commit", "dirty", "command", "threads"}
    drawn = {p.stem for p in (run.path / "pictures").iterdir()}
    assert drawn == {"curves", "confusion", "warp", "object", "region"}
    assert all(p.read_bytes()[:4] == b"\x89PNG" for p in (run.path / "pictures").iterdir())
    assert [p.name for p in run.path.rglob("*.safetensors")] == ["final.safetensors"]
    evaluations = [r for r in run.rows() if r["kind"] == "eval"]
    assert [r["epoch"] for r in evaluations] == [1, 2]
    assert evaluations[-1]["test_acc"] == row["test_acc"]
    assert evaluations[-1]["test_top5_acc"] == row["test_top5_acc"] > row["test_acc"]
    out = (trained / "out.txt").read_text()
    assert "results.jsonl" in out
    assert "pictures" in out
    assert "\x1b[" not in out  # plain lines where the output is no terminal


def test_the_same_command_again_says_finished_and_does_nothing(trained: Path) -> None:
    run = only_run(trained)
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in run.path.rglob("*") if p.is_file()}
    done = train(
        "--arch", "stn_slx", "--epochs", 2, "--limit-train", 6400, "--limit-test", 1000, "--log.wandb", "disabled",
        runs=trained,
    )  # fmt: skip
    assert done.returncode == 0
    assert "finished before: nothing to do" in done.stdout
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in run.path.rglob("*") if p.is_file()} == before


def test_evaluate_gives_the_recorded_figures(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = only_run(trained)

    def evaluate(*words: object) -> tuple[int, str]:
        code = main(["evaluate", *map(str, words)])
        return code, capsys.readouterr().out

    code, out = evaluate(run.path)
    assert code == 0
    assert f"test_acc {run.results()[0]['test_acc']:.6f}" in out
    assert f"test_loss {run.results()[0]['test_loss']:.6f}" in out
    assert "as recorded" in out
    assert "  as recorded (after 1 iterations)" in evaluate(run.path, "--test-iterations", 1)[1]
    assert "NOT as recorded (after 4 iterations)" in evaluate(run.path, "--test-iterations", 4)[1]
    with pytest.raises(SystemExit) as exit_:
        evaluate(run.path, "--test-iterations", 0)
    assert exit_.value.code == 2
    assert "error: arch: test_iterations: input should be greater than 0" in capsys.readouterr().err

    other = tmp_path / "run"
    shutil.copytree(run.path, other)
    row = run.results()[0]
    row["confusion"][0][0] -= 1
    (other / "results.jsonl").write_text(json.dumps(row | {"row_sha256": None}) + "\n")
    code, out = evaluate(other)
    assert (code, "NOT as recorded" in out) == (1, True)
    with pytest.raises(SystemExit) as exit_:
        evaluate(tmp_path)
    assert exit_.value.code == 2
    assert "is no run directory" in capsys.readouterr().err


def test_confusion_matrix_and_scores_agree_with_scikit_learn(trained: Path) -> None:
    from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

    row = only_run(trained).results()[0]
    truth, predicted = [], []
    for i, line in enumerate(row["confusion"]):
        for j, n in enumerate(line):
            truth += [i] * n
            predicted += [j] * n
    assert len(truth) == row["test_count"]
    assert row["test_acc"] == pytest.approx(accuracy_score(truth, predicted))
    assert row["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    recall: Any = precision_recall_fscore_support(truth, predicted)[1]  # an array, with an element for each class
    assert row["per_class_acc"] == pytest.approx(recall.tolist())


@pytest.mark.slow
def test_seeds_side_by_side_are_the_seeds_alone_and_finished_ones_stay(tmp_path: Path) -> None:
    common = ("--steps", 12, "--precision", "fp64", *QUICK, *TWO_THREADS, *SMALL)
    assert train(*common, "--seeds", "3-5", "--fuse", 3, runs=tmp_path / "a").returncode == 0
    assert train(*common, "--seeds", "3-5", "--fuse", 1, runs=tmp_path / "b").returncode == 0
    together, alone = only_run(tmp_path / "a").results(), only_run(tmp_path / "b").results()
    assert sorted(together) == [3, 4, 5]
    assert len({row["weights_sha256"] for row in together.values()}) == 3
    assert {row["fused"] for row in alone.values()} == {1}
    for seed in (3, 4, 5):
        assert_close(only_run(tmp_path / "a").weights(seed), only_run(tmp_path / "b").weights(seed))
        assert together[seed]["test_loss"] == pytest.approx(alone[seed]["test_loss"], rel=1e-12)
    done = train(*common, "--seeds", "4-6", runs=tmp_path / "a")  # 4 and 5 are finished in another block
    assert done.returncode == 0
    (block,) = (tmp_path / "a").glob("*/*/4-6")
    assert sorted(Run(block).results()) == [6]


def test_a_diverging_seed_is_marked_failed_and_not_tried_again(tmp_path: Path) -> None:
    words = ("--steps", 20, "--optim.name", "sgd", "--lr", "1e12", "--log.every", "5 steps", *SMALL)
    done = train(*words, runs=tmp_path)
    run = only_run(tmp_path)
    row = run.results()[0]
    assert (done.returncode, row["status"], row["test_acc"]) == (1, "failed", None)
    assert "non-finite loss at step" in row["reason"]
    assert not {"bypass_acc", "pose_determinant"} & row.keys(), "measured on weights that are no numbers"
    assert [r["step"] for r in run.rows() if r["kind"] == "warp"] == [0]
    assert run.status()["state"] == "failed"
    assert "NaN" not in (run.path / "metrics.jsonl").read_text()
    again = train(*words, runs=tmp_path)
    assert again.returncode == 1
    assert "nothing to do" in again.stdout


@pytest.mark.slow
def test_the_stop_file_and_the_time_limit_stop_and_the_same_command_goes_on(tmp_path: Path) -> None:
    words = ("--steps", 400, "--log.every", "47 steps", "--eval.every", "200 steps", *QUICK, *SMALL)
    assert train(*words, runs=tmp_path / "whole").returncode == 0
    reference = only_run(tmp_path / "whole")
    done = train(*words, "--train.time-limit", "1e-6", runs=tmp_path / "cut")
    run = only_run(tmp_path / "cut")
    assert (done.returncode, run.status()["state"], run.status()["reason"]) == (0, "stopped", "time limit")
    assert "run the same command again to resume" in done.stdout
    process = start_training(*words, runs=tmp_path / "cut")
    wait_for_train_rows(tmp_path / "cut", 1)
    (run.path / "stop").touch()
    assert process.wait(60) == 0
    assert (run.status()["state"], run.status()["reason"]) == ("stopped", "stop file")
    assert not (run.path / "stop").exists()
    assert 0 < max(int(p.stem[5:]) for p in run.path.rglob("step-*.safetensors")) < 400
    assert train(*words, runs=tmp_path / "cut").returncode == 0
    assert run.metrics_without_clock() == reference.metrics_without_clock()
    assert run.results()[0]["weights_sha256"] == reference.results()[0]["weights_sha256"]


@pytest.mark.slow
def test_a_full_disk_is_one_message_and_nothing_is_lost(tmp_path: Path) -> None:
    words = ("--steps", 30, "--checkpoint.every", "10 steps", *SMALL)

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = subprocess.run(
        command(*words, runs=tmp_path / "full"),
        capture_output=True, text=True, env=environment(), preexec_fn=small_files, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "error: [Errno 27] File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "full").rglob("*.safetensors")) == []
    assert list((tmp_path / "full").rglob("*.tmp")) == []
    assert train(*words, runs=tmp_path / "full").returncode == 0
    assert train(*words, runs=tmp_path / "whole").returncode == 0
    assert only_run(tmp_path / "full").metrics_without_clock() == only_run(tmp_path / "whole").metrics_without_clock()


@pytest.mark.slow
def test_killed_at_ten_random_moments_the_run_is_bit_identical(tmp_path: Path) -> None:
    """SIGKILL between and during saves: at every second step there is one."""
    words = ("--steps", 300, "--checkpoint.every", "2 steps", "--log.every", "3 steps", "--eval.every", "50 steps",
             *QUICK, *SMALL)  # fmt: skip
    assert train(*words, runs=tmp_path / "whole").returncode == 0
    took, chance = only_run(tmp_path / "whole").results()[0]["wall_s"], random.Random(time.time_ns())
    for _ in range(10):
        process = start_training(*words, runs=tmp_path / "killed")
        while not any(Run(p).status().get("pid") == process.pid for p in (tmp_path / "killed").glob("*/*/*")):
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.01)
        time.sleep(chance.uniform(0.01, 0.08) * took)
        assert process.poll() is None, "it ended before it was killed"
        process.kill()
        process.wait()
    assert train(*words, runs=tmp_path / "killed").returncode == 0
    killed, whole = only_run(tmp_path / "killed"), only_run(tmp_path / "whole")
    assert killed.metrics_without_clock() == whole.metrics_without_clock()
    assert killed.results()[0]["weights_sha256"] == whole.results()[0]["weights_sha256"]
    assert list(killed.path.rglob(".*.tmp")) == []


def clocks_apart(row: dict) -> dict:
    return {k: v for k, v in row.items() if k not in ("wall_s", "images_per_s", "name")}


@pytest.mark.slow
def test_three_ranks_stopped_by_sigterm_go_on_bit_for_bit(tmp_path: Path) -> None:
    """With more than two the order in which gradients are added up begins to matter."""
    words = ("--steps", 100, "--checkpoint.every", "25 steps", "--log.every", "4 steps", "--eval.every", "50 steps",
             "--processes", 3, *QUICK, *SMALL)  # fmt: skip
    accelerate = [str(Path(sys.executable).parent / "accelerate"), "launch", "--multi_gpu", "--num_processes", "3"]

    def three(name: str) -> subprocess.Popen:
        line = [*accelerate, "--main_process_port", "0", *command(*words, runs=tmp_path / name)[1:]]
        return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())

    assert three("whole").wait(200) == 0
    reference = only_run(tmp_path / "whole")
    assert reference.results()[0]["world_size"] == 3
    process = three("cut")
    wait_for_train_rows(tmp_path / "cut", 3)
    process.terminate()
    process.wait(120)
    run = only_run(tmp_path / "cut")
    assert (run.status()["state"], run.status()["reason"]) == ("stopped", "SIGTERM")
    assert 0 < max(int(p.stem[5:]) for p in run.path.rglob("step-*.safetensors")) < 100
    assert three("cut").wait(200) == 0
    assert run.metrics_without_clock() == reference.metrics_without_clock()
    assert clocks_apart(run.results()[0]) == clocks_apart(reference.results()[0])


@pytest.mark.slow
def test_two_ranks_train_as_one_and_count_every_test_image_once(tmp_path: Path) -> None:
    for precision, limit in (("fp64", 1e-12), ("fp32", 1e-4)):
        losses, rows = [], []
        for name, launcher in (("one", None), ("two", "cpu2")):
            runs = tmp_path / precision / name
            # 50 steps of the default schedule: the first of 3,752.
            words = ("--log.every", "1 steps", "--eval.every", "50 steps", "--limit-test", 777,
                     "--log.wandb", "disabled", "--steps", 50, "--optim.warmup", "49 steps", "--lr", 2e-4,
                     "--precision", precision, "--optim.clip", 1.0, "--log.no-pictures")  # fmt: skip
            done = train(*words, launcher=launcher, runs=runs)
            assert done.returncode == 0, done.stderr
            losses.append([row["loss"] for row in only_run(runs).rows() if row["kind"] == "train"])
            rows.append(only_run(runs).results()[0])
        assert [row["world_size"] for row in rows] == [1, 2]
        assert [sum(map(sum, row["confusion"])) for row in rows] == [777, 777]
        assert max(abs(a - b) for a, b in zip(*losses, strict=True)) < limit
        if precision == "fp64":
            assert rows[0]["confusion"] == rows[1]["confusion"]


def test_two_processes_share_out_seeds(tmp_path: Path) -> None:
    words = ("--steps", 10, "--seeds", "0-2", "--precision", "fp64", *SMALL)
    assert train(*words, launcher="cpu2", runs=tmp_path / "two").returncode == 0
    assert train(*words, runs=tmp_path / "one").returncode == 0
    alone = only_run(tmp_path / "one").results()
    blocks = [Run(p).results() for p in sorted((tmp_path / "two").glob("*/*/*"))]
    assert [sorted(b) for b in blocks] == [[0], [1, 2]]
    assert {r["mode"] for b in blocks for r in b.values()} == {"seeds"}
    for block in blocks:
        for seed, row in block.items():
            assert row["test_loss"] == pytest.approx(alone[seed]["test_loss"], rel=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("--precision", "bf16"),
        ("--train.compile", "--net", "tutorial", "--arch", "stn_c0"),
        ("--optim.accumulate", "3", "--optim.clip", "1", "--optim.label-smoothing", "0.1"),
        ("--train.deterministic", "--arch", "stn_cx"),
        ("--data.rotate", "15", "--data.scale", "0.9", "1.1", "--data.shear", "5", "--data.translate", "0.1"),
        ("--arch.iterations", "2", "--arch.identity", "residual", "--optim.loc-lr-multiplier", "0.1"),
        ("--dataset", "mnist_t", "--arch", "stn_cx", "--batch-size", "16"),
        ("--dataset", "mnist_s", "--arch", "stn_dlx", "--batch-size", "16"),
        ("--data.validation", "1000"),
        ("--log.tensorboard",),
    ],
    ids=" ".join,
)
def test_options_train(words: tuple[str, ...], tmp_path: Path) -> None:
    done = train("--steps", 10, *words, *SMALL, runs=tmp_path)
    assert done.returncode == 0, done.stderr
    row = only_run(tmp_path).results()[0]
    assert row["status"] == "finished"
    assert ("val_acc" if "--data.validation" in words else "test_acc") in row
    if "--log.tensorboard" in words:
        assert list(tmp_path.rglob("events.out.tfevents*"))


@pytest.mark.slow
def test_accumulation_does_not_change_the_result(tmp_path: Path) -> None:
    losses = []
    for parts in (1, 3):
        runs = tmp_path / str(parts)
        train("--steps", 10, "--precision", "fp64", "--optim.accumulate", parts, *SMALL, runs=runs)
        losses.append(only_run(runs).results()[0]["test_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


@pytest.mark.slow
def test_no_network_at_all(tmp_path: Path) -> None:
    """In a network namespace of its own nothing answers, not even the loopback."""
    probe = subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("unshare -n is not permitted here")
    words = command("--steps", 20, "--limit-train", 1280, "--limit-test", 300, launcher="one", runs=tmp_path)
    done = subprocess.run(
        ["unshare", "-n", *words], capture_output=True, text=True, env=environment(), timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert only_run(tmp_path).results()[0]["status"] == "finished"


@pytest.mark.slow
def test_ranks_that_share_blocks_of_seeds_stop_together(tmp_path: Path) -> None:
    """A wish that comes too late for one block must reach all ranks before the next."""
    words = ("--parallel", "data", "--seeds", "0-60", "--steps", 9, "--log.every", "1 steps",
             "--batch-size", 1280, "--eval.every", "9 steps", *SMALL)  # fmt: skip
    process = start_training(*words, launcher="cpu2", runs=tmp_path)
    wait_for_train_rows(tmp_path, 3)
    (only_run(tmp_path).path / "stop").touch()
    process.wait(90)
    assert (process.returncode, only_run(tmp_path).status()["state"]) == (0, "stopped")


@pytest.mark.slow
def test_compiled_seeds_compile_once_are_the_plain_ones_and_resume_bit_for_bit(tmp_path: Path) -> None:
    # Without a transformer: where sampling points start on pixels, another rounding takes the other side of a kink.
    words = ("--net", "tutorial", "--arch", "cnn", "--seeds", "0-1", "--steps", 20, "--checkpoint.every", "5 steps",
             "--precision", "fp64", *SMALL)  # fmt: skip
    compiled = (*words, "--train.compile")
    whole = train(*compiled, runs=tmp_path / "whole", TORCH_LOGS="recompiles")
    assert whole.returncode == 0
    assert whole.stderr.count("Recompiling function forward") == 0, whole.stderr
    assert train(*compiled, "--train.time-limit", "1e-3", runs=tmp_path / "cut").returncode == 0
    assert train(*compiled, runs=tmp_path / "cut").returncode == 0
    assert train(*words, runs=tmp_path / "plain").returncode == 0
    rows = {name: only_run(tmp_path / name).results() for name in ("whole", "cut", "plain")}
    for seed in (0, 1):
        assert rows["whole"][seed]["weights_sha256"] == rows["cut"][seed]["weights_sha256"]
        assert rows["whole"][seed]["weights_sha256"] != rows["plain"][seed]["weights_sha256"]
        assert rows["whole"][seed]["test_loss"] == pytest.approx(rows["plain"][seed]["test_loss"], abs=1e-9)
        assert rows["whole"][seed]["fused"] == 2


def test_a_last_step_that_diverges_is_a_failure(tmp_path: Path) -> None:
    words = ("--steps", 1, "--optim.name", "sgd", "--lr", "1e38", "--optim.schedule", "constant", *SMALL)
    assert train(*words, runs=tmp_path).returncode == 1
    assert only_run(tmp_path).results()[0]["status"] == "failed"
    assert "NaN" not in (only_run(tmp_path).path / "results.jsonl").read_text()


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("ACCELERATE_MIXED_PRECISION", "bf16", "use --precision bf16"),
        ("ACCELERATE_DYNAMO_BACKEND", "EAGER", "does not support"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "use --optim.accumulate instead"),
    ],
)
def test_what_the_launcher_asks_for_is_not_ignored(variable: str, value: str, message: str, tmp_path: Path) -> None:
    done = subprocess.run(
        command("--precision", "fp32", *SMALL, runs=tmp_path / "runs"),
        capture_output=True, text=True, env=environment() | {variable: value}, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_second_copy_waits_and_finds_nothing_to_do(tmp_path: Path) -> None:
    words = ("--steps", 600, "--log.every", "10 steps", "--eval.every", "600 steps", *QUICK, *SMALL)
    first = start_training(*words, runs=tmp_path)
    wait_for_train_rows(tmp_path, 20)
    first.send_signal(signal.SIGSTOP)  # until the second has come, however long that takes on a busy machine
    line = command(*words, runs=tmp_path)
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment(PYTHONUNBUFFERED="1")) as second:
        assert second.stdout
        told = next((text for text in second.stdout if "is training" in text), "")
        first.send_signal(signal.SIGCONT)
        told += second.stdout.read()
    assert (first.wait(240), second.wait(240)) == (0, 0)
    assert f"another process ({socket.gethostname()}:{first.pid}) is training" in told
    assert "nothing to do" in told
    steps = [row["step"] for row in only_run(tmp_path).rows() if row["kind"] == "train"]
    assert steps == list(range(10, 601, 10))
