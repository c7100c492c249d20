"""What only a CUDA device can show. Skipped where there is none."""

import gzip
from pathlib import Path

import pytest
import torch

from stn.config.dataset import build_dataset
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data
from stn.data.rng import Draws
from stn.data.stream import Stream
from stn.models.build import build_network
from stn.multiseed.model import StackedModel
from stn.training.replay import cuda_graph
from stn.training.runtime import Runtime
from tests.support.trainer import QUIET, SMALL, noise_images, only_run, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


def test_random_numbers_are_the_cpus() -> None:
    rows = torch.arange(1000)
    assert torch.equal(Draws(1, 2, rows).bits(5), Draws(1, 2, rows.cuda(), device="cuda").bits(5).cpu())
    assert torch.equal(Draws(3).permutation(60_000), Draws(3, device="cuda").permutation(60_000).cpu())


@pytest.mark.parametrize("name", ["mnist", "mnist_r", "mnist_t", "mnist_s"])
def test_batches_are_the_cpus(name: str) -> None:
    def batch(device: str) -> torch.Tensor:
        return (
            Stream(Data(name=name, rotate=10, crop=2, cutout=4, flip=True), build_dataset(name), [0, 1], device)
            .batch(3)
            .x_SBCHW
        )

    difference = (batch("cuda").cpu() - batch("cpu")).abs()
    assert difference.mean() < 1e-5


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "fp64"])
def test_every_precision_trains(precision: str, tmp_path: Path) -> None:
    done = train("--epochs", 1, "--precision", precision, "--log.wandb", "disabled", runs=tmp_path)
    assert done.returncode == 0, done.stderr
    assert only_run(tmp_path).results()[0]["test_acc"] > 0.95


def test_deterministic_mode_repeats_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    words = ("--steps", 60, "--arch", "stn_cx", "--train.deterministic", "--checkpoint.every", "10 steps", *SMALL)
    for name in ("a", "b"):
        assert train(*words, runs=tmp_path / name).returncode == 0
    train(*words, "--train.time-limit", "1e-3", runs=tmp_path / "c")
    assert train(*words, runs=tmp_path / "c").returncode == 0
    weights = {only_run(tmp_path / name).results()[0]["weights_sha256"] for name in ("a", "b", "c")}
    assert len(weights) == 1


def test_cuda_follows_the_cpu_in_double_precision(tmp_path: Path) -> None:
    words = (
        "--steps",
        20,
        "--precision",
        "fp64",
        "--log.every",
        "1 steps",
        "--net",
        "tutorial",
        "--arch",
        "stn_c0",
        *SMALL,
    )
    assert train(*words, runs=tmp_path / "gpu").returncode == 0
    assert train(*words, runs=tmp_path / "cpu", CUDA_VISIBLE_DEVICES="").returncode == 0
    losses = [[row["loss"] for row in only_run(tmp_path / d).rows() if row["kind"] == "train"] for d in ("gpu", "cpu")]
    assert max(abs(a - b) for a, b in zip(*losses, strict=True)) < 1e-6


ARCHS = ["cnn", "stn_c0", "stn_c0_coord", "stn_cx", "stn_dlx", "stn_slx"]


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("arch", ARCHS)
def test_recorded_steps_are_the_plain_ones_and_fused_is_alone(arch: str, optimiser: str, tmp_path: Path) -> None:
    """1,000 images of noise (see test_other_roundings.py) in batches of 96.

    Whole batches and the shorter last one are recorded after four plain ones.
    """
    words = ("--arch", arch, "--net", "tutorial", "--optim.name", optimiser, "--lr", 0.002, "--precision", "fp64",
             "--dataset", noise_images(tmp_path), "--batch-size", 96, "--epochs", 8, "--optim.clip", 1.0,
             "--optim.weight-decay", 0.01, "--train.deterministic", *QUIET)  # fmt: skip
    runs = {
        "replayed": ("--seeds", "0-3"),
        "plain": ("--seeds", "0-3", "--train.no-cuda-graph"),
        "alone": ("--seeds", 2),
    }
    rows = {}
    for name, more in runs.items():
        done = train(*words, *more, runs=tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert "not replayed" not in done.stdout + done.stderr
        rows[name] = only_run(tmp_path / name).results()
    for seed in range(4):
        assert rows["replayed"][seed]["weights_sha256"] == rows["plain"][seed]["weights_sha256"]
    assert rows["replayed"][2]["test_loss"] == pytest.approx(rows["alone"][2]["test_loss"], abs=1e-9)


@pytest.mark.parametrize("words", [("--precision", "bf16"), ("--train.tf32",), ("--optim.accumulate", "2")], ids=str)
def test_options_train_many_seeds(words: tuple, tmp_path: Path) -> None:
    done = train("--epochs", 2, "--seeds", "0-15", "--arch", "stn_cx", *words, *QUIET, runs=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "not replayed" not in done.stdout + done.stderr
    assert min(row["test_acc"] for row in only_run(tmp_path).results().values()) > 0.95


def test_what_cannot_be_recorded_trains_all_the_same(tmp_path: Path) -> None:
    runtime = Runtime(Config(), 1)
    said: list[str] = []
    total = torch.zeros((), device=runtime.device)

    def asks() -> None:
        total.add_(1 if float(total) >= 0 else 2)

    replay = cuda_graph.GraphedStep(asks, runtime.device, True, said.append)
    for _ in range(10):
        replay(0)
    assert float(total) == 10
    assert len(said) == 1


def test_memory_grows_by_little_for_each_seed(tmp_path: Path) -> None:
    """Peak memory as the run itself sees it, in 32 and in 64 seeds, once its convolutions are chosen."""
    one = resolve(Config(arch=Arch(name="stn_c0", net="tutorial"), data=Data(batch_size=64)))
    facts = build_dataset("mnist")

    def peak_bytes(seeds: int) -> int:
        stream = Stream(one.data, facts, list(range(seeds)), "cuda")
        model = StackedModel(lambda: build_network(one), list(range(seeds)), "cuda")
        for step in range(2):
            batch = stream.batch(step)
            torch.cuda.reset_peak_memory_stats()
            model(batch.x_SBCHW, stream.clock, batch.row_B).square().mean().backward()
        return torch.cuda.max_memory_allocated()

    few, many = peak_bytes(32), peak_bytes(64)
    assert (many - few) / 32 < 25e6


@pytest.mark.parametrize("graph", ["--train.cuda-graph", "--train.no-cuda-graph"])
def test_a_profile_has_kernels_and_changes_no_number(graph: str, tmp_path: Path) -> None:
    words = ("--steps", 30, "--seeds", "0-1", "--train.deterministic", graph, *SMALL)
    assert train(*words, runs=tmp_path / "plain").returncode == 0
    done = train(*words, "--train.profile", 5, runs=tmp_path / "profiled")
    assert done.returncode == 0, done.stderr
    rows = [only_run(tmp_path / name).results() for name in ("plain", "profiled")]
    assert [row["weights_sha256"] for row in rows[0].values()] == [row["weights_sha256"] for row in rows[1].values()]
    file = only_run(tmp_path / "profiled").path / "profile" / "seeds-0-1.txt"
    table, trace = file.read_text(), gzip.decompress(file.with_suffix(".json.gz").read_bytes())
    assert "steps 11 to 15 on cuda" in table
    assert "Self CUDA" in table
    assert (b"cudaGraphLaunch" in trace) == (graph == "--train.cuda-graph"), table
    assert "ms a step; " in done.stdout
