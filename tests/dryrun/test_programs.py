"""Parts of the program on the stand-in for CUDA: failed captures, shared memory, launches of an evaluation."""

from pathlib import Path

import pytest

from tests.dryrun.conftest import Dry

pytestmark = pytest.mark.dryrun

EVALUATION = """
import ctypes
from functools import partial
from stn.config.dataset import build_dataset
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data
from stn.data.stream import Stream
from stn.evaluation.accuracy import evaluate
from stn.evaluation.pose import measure_poses
from stn.models.build import build_network
from stn.multiseed.model import StackedModel
from stn.training.runtime import Runtime

count = ctypes.CDLL(None).fakecuda_count
config = resolve(Config(arch=Arch(name="stn_slx"), data=Data(name="mnist_r")))
runtime, seeds = Runtime(config, 64), list(range(64))
stream = Stream(config.data, build_dataset("mnist_r"), seeds, runtime.device)
model = StackedModel(partial(build_network, config), seeds, runtime.device)
assert stream.test_count == 100_000
evaluate(model, stream, config.eval, runtime)
evaluated = count(0)
assert model.convolutions.chosen and not model.slow, "timed without gradients"
import stn.evaluation.pose
stn.evaluation.pose._summary = lambda *arguments: ({}, {})  # on the CPU, of numbers that mean nothing
measure_poses(model, stream, config.eval.batch_size)
print("launches", evaluated, count(0) - evaluated)
assert evaluated <= 8_000
assert count(0) - evaluated <= 20_000
"""


@pytest.mark.slow
def test_evaluation_and_poses_of_64_seeds_take_few_launches(dry: Dry, tmp_path: Path) -> None:
    script = tmp_path / "evaluation.py"
    script.write_text(EVALUATION)
    dry(script)


BROKEN = """
import sys, torch
from stn.training.replay.cuda_graph import WARM_UP, GraphedStep
device, told = torch.device("cuda"), []
x, noise = torch.zeros(1000, device=device), torch.zeros(1000, device=device)
def step():
    noise.uniform_()
    x.add_(1)
    if BREAKS:
        x.sum().item()  # syncs with the host
graphed = GraphedStep(step, device, True, told.append)
stream = torch.cuda.current_stream()
for _ in range(WARM_UP + 3):
    graphed(SIZE)
    assert torch.cuda.current_stream() == stream
torch.rand(10, device=device)
big = torch.empty(2**33, dtype=torch.uint8, device=device)
del big
torch.cuda.empty_cache()
assert torch.cuda.memory_reserved() < 2**33, "the allocator keeps what it has cached"
print(told)
"""


@pytest.mark.slow
def test_after_a_capture_that_failed_plain_calls_are_safe_and_the_cause_is_told(dry: Dry, tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text(BROKEN.replace("BREAKS", "True").replace("SIZE", "8"))
    counts, text = dry(script)
    assert counts["failed"] == 1
    assert "steps are not replayed as a CUDA graph: " in text
    assert "not permitted when stream is capturing" in text, "the cause, rather than that the capture is broken"


POOLS = """
import torch
from stn.training.replay.cuda_graph import WARM_UP, GraphedStep
device = torch.device("cuda")
def step():
    big = torch.empty(2**28, device=device)  # 1 GiB, for as long as the step
    big.add_(1)
graphed = GraphedStep(step, device, True, print)
for size in (64, 32, 16):
    for _ in range(WARM_UP + 2):
        graphed(size)
reserved = torch.cuda.memory_reserved() / 2**30
assert reserved < 2.5, f"{reserved:.1f} GiB reserved: a pool for each batch size"
"""


@pytest.mark.slow
def test_graphs_of_all_batch_sizes_share_one_pool_of_memory(dry: Dry, tmp_path: Path) -> None:
    script = tmp_path / "pools.py"
    script.write_text(POOLS)
    assert dry(script)[0]["captured"] == 3


ROOM = """
import torch
from stn.training.replay import cuda_graph
device = torch.device("cuda")
p = torch.zeros(2**26, device=device, requires_grad=True)
optimiser = torch.optim.SGD([p], lr=0.1)
def step():
    optimiser.zero_grad()
    (p * p).sum().backward()  # the gradient stays in the graph's memory
    optimiser.step()
graphed = cuda_graph.GraphedStep(step, device, True, print)
def train():
    for _ in range(cuda_graph.WARM_UP + 2):
        graphed(64)
    return torch.cuda.memory_reserved() / 2**30
before, held = torch.cuda.memory_reserved() / 2**30, train()
graphed.make_room(optimiser)
assert torch.cuda.memory_reserved() / 2**30 == held, "a small graph is freed"
cuda_graph.LARGE = 0
graphed.make_room(optimiser)
freed = torch.cuda.memory_reserved() / 2**30
assert freed <= before + 0.01 < held, f"{before:.2f}, {held:.2f} and then {freed:.2f} GiB reserved"
train()
"""


@pytest.mark.slow
def test_a_large_graph_makes_room_for_an_evaluation_and_is_captured_anew(dry: Dry, tmp_path: Path) -> None:
    script = tmp_path / "room.py"
    script.write_text(ROOM)
    counts, text = dry(script)
    assert (counts["captured"], counts["failed"], counts["not allowed"]) == (2, 0, 0), text


TRIALS = """
import runpy
import stn.multiseed.convolution, stn.training.block_size
stn.training.block_size.GAIN = 0  # times are noise here: try every number of seeds in every way
stn.multiseed.convolution.FAR = float("inf")
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["cnn", "stn_c0"])
def test_trials_of_as_many_seeds_as_fit_reserve_little_more_than_they_use(arch: str, dry: Dry, tmp_path: Path) -> None:
    script = tmp_path / "trials.py"
    script.write_text(TRIALS)
    small = ("--limit-test", 300, "--limit-train", 4096, "--log.wandb", "disabled", "--log.no-pictures")
    words = ("--config", "finnveden_s", "--arch", arch, "--seeds", "0-63", "--steps", 20, "--eval.every", "20steps")
    counts, text = dry(script, *words, "--optim.schedule", "constant", *small, "--runs", tmp_path / "runs")
    assert (counts["failed"], counts["not allowed"]) == (0, 0), text
    assert counts["reserved"] < 1.15 * counts["allocated"] < 50 * 2**30, text
    assert counts["kept"] < 2**30, "what a library keeps for ever holds a large segment"
