"""The forms of training that fused.py compares. fused.py starts one process for each measurement.

The argument is a JSON object that names the form. The process prints when it is ready, waits for a
line on stdin and answers with one line of JSON. S seed, B batch, C channel, H, W, K class, M = S * B.
"""

import itertools
import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from measure import CORES
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from stn.config.dataset import build_dataset
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data, Optim
from stn.data.stream import Stream
from stn.models.build import build_network
from stn.multiseed.model import StackedModel
from stn.training.cuda_graph import GraphedStep
from stn.training.optimizer import SeedOptimiser

BATCH, LR, STEPS = 64, 0.01, 50_000
Step = Callable[[], int]
"""Run one training step and return how many images (or operations, or bytes) it processed."""
Batches = Iterator[tuple[Tensor, Tensor]]


class Tutorial(nn.Module):
    """The network of the PyTorch tutorial on spatial transformers, as it is written there."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 10, 5), nn.Conv2d(10, 20, 5)
        self.drop, self.fc1, self.fc2 = nn.Dropout2d(), nn.Linear(320, 50), nn.Linear(50, 10)
        pool = nn.MaxPool2d(2, 2)
        self.see = nn.Sequential(nn.Conv2d(1, 8, 7), pool, nn.ReLU(), nn.Conv2d(8, 10, 5), pool, nn.ReLU())
        last = nn.Linear(32, 6)
        last.weight.data.zero_()
        last.bias.data.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))
        self.place = nn.Sequential(nn.Linear(90, 32), nn.ReLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        theta = self.place(self.see(x).flatten(1)).view(-1, 2, 3)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        x = F.grid_sample(x, grid, align_corners=False)
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.drop(self.conv2(x)), 2))
        x = F.dropout(F.relu(self.fc1(x.flatten(1))), training=self.training)
        return F.log_softmax(self.fc2(x), dim=1)


def configure(arch: str, net: str, dataset: str) -> Config:
    published = {"padding": "zeros", "align_corners": False} if net == "tutorial" else {}
    return resolve(
        Config(
            arch=Arch(name=arch, net=net, **published),  # type: ignore[arg-type]
            data=Data(name=dataset, batch_size=BATCH),
            optim=Optim(name="sgd", lr=LR, momentum=0, schedule="constant"),
        )
    )


def ordinary(config: Config) -> tuple[nn.Module, Callable[..., Tensor]]:
    """The network of one seed, with its loss as the output."""
    if config.arch.net == "tutorial":
        return Tutorial(), F.nll_loss
    return build_network(config), F.cross_entropy


def loader(config: Config, root: str, workers: int, pin: bool) -> Batches:
    from torchvision import datasets, transforms  # slow to import

    turn = transforms.RandomRotation(90, transforms.InterpolationMode.BILINEAR)  # 2.5 times faster before ToTensor
    last = [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    transform = transforms.Compose([turn, *last] if config.data.name == "mnist_r" else last)
    data = datasets.MNIST(root, train=True, transform=transform)
    batches = torch.utils.data.DataLoader(data, BATCH, shuffle=True, num_workers=workers, pin_memory=pin)
    while True:
        yield from batches


def resident(config: Config, device: torch.device) -> Batches:
    stream = Stream(config.data, build_dataset(config.data.name), [0], device)
    for i in itertools.count():
        batch = stream.batch(i % STEPS)
        yield batch.x_SBCHW[0], batch.y_SB[0]


def plain(config: Config, device: torch.device, batches: Batches) -> Step:
    model, loss = ordinary(config)
    model = model.to(device).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=LR)

    def step() -> int:
        x, y = next(batches)
        x, y = x.to(device), y.to(device)
        optimiser.zero_grad()
        loss(model(x), y).backward()
        optimiser.step()
        return len(y)

    return step


def vmapped(config: Config, device: torch.device, seeds: int) -> Step:
    networks = [ordinary(config)[0].to(device).train() for _ in range(seeds)]
    loss = ordinary(config)[1]
    parameters, buffers = torch.func.stack_module_state(networks)
    parameters = {name: p.detach() for name, p in parameters.items()}
    stream = Stream(config.data, build_dataset(config.data.name), list(range(seeds)), device)

    def loss_of(p: dict, b: dict, x: Tensor, y: Tensor) -> Tensor:
        return loss(torch.func.functional_call(networks[0], (p, b), (x,)), y)

    gradients = torch.func.vmap(torch.func.grad_and_value(loss_of), randomness="different")
    steps = itertools.cycle(range(STEPS))

    def step() -> int:
        batch = stream.batch(next(steps))
        grads, _ = gradients(parameters, buffers, batch.x_SBCHW, batch.y_SB)
        for name, p in parameters.items():
            p.sub_(grads[name], alpha=LR)
        return batch.y_SB.numel()

    return step


def fused(config: Config, device: torch.device, count: int, bf16: bool, graph: bool) -> Step:
    """Train as train_block in train.py does, including the sums for its log."""
    seeds, dataset = list(range(count)), build_dataset(config.data.name)
    stream = Stream(config.data, dataset, seeds, device)
    model = StackedModel(lambda: build_network(config), seeds, device).train()
    optimiser = SeedOptimiser([config.optim] * count, model, stream.clock, STEPS)
    sums_2S = torch.zeros(2, count, dtype=torch.float64, device=device)

    def update() -> None:
        optimiser.zero_grad()
        batch = stream.draw()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits_SBK = model(batch.x_SBCHW, stream.clock, batch.row_B).float()
        S, B, K = logits_SBK.shape
        logits_MK, y_M = logits_SBK.reshape(S * B, K), batch.y_SB.reshape(S * B)
        loss_M = F.cross_entropy(logits_MK, y_M, reduction="none")
        loss_S = (loss_M.view(S, B) * batch.weight_B).sum(1)
        loss_S.sum().backward()
        optimiser.step()
        hits_S = (logits_MK.detach().argmax(-1).eq(y_M).view(S, B) * batch.weight_B).sum(1)
        sums_2S.add_(torch.stack([loss_S.detach(), hits_S]).double())

    def refuse(text: str) -> None:
        raise RuntimeError(text)

    replay, steps = GraphedStep(update, device, graph, refuse), itertools.cycle(range(STEPS))

    def step() -> int:
        size = stream.seek(next(steps))
        replay(size)
        return size * count

    return step


def product(device: torch.device, bf16: bool) -> Step:
    """Return a large matrix product; on a CPU a 3x3 convolution, since MKL reaches a third of its speed on AMD CPUs."""
    if device.type == "cpu":
        x = torch.rand(32, 256, 30, 30).to(memory_format=torch.channels_last)
        weight = torch.rand(256, 256, 3, 3)
        return lambda: F.conv2d(x, weight).numel() * 2 * weight[0].numel()
    n = 8192
    a, b = torch.rand(2, n, n, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out).numel() * 2 * n


def copy(device: torch.device) -> Step:
    source = torch.ones(2**26, device=device)  # 256 MiB, larger than most caches
    target = torch.zeros_like(source)

    return lambda: 2 * target.copy_(source).nbytes  # each byte is read and written


class Traffic(TorchDispatchMode):
    """Count the bytes of the tensors that each ATen operation reads and writes, without views.

    Each counts once per operation: as if no cache held anything between two operations, and as
    if within one nothing was read twice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view and func is not torch.ops.aten._unsafe_view.default:
            tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
            self.bytes += sum(min(x.nbytes, x.untyped_storage().nbytes()) for x in tensors)
        return out


def count(config: Config) -> dict[str, float]:
    """Return the work per image in a training step (forward, backward, update) of one seed's ordinary network."""
    shape = build_dataset(config.data.name).shape
    batch = torch.rand(BATCH, *shape), torch.randint(10, (BATCH,))
    step = plain(config, torch.device("cpu"), itertools.repeat(batch))
    with FlopCounterMode(display=False) as flops:
        step()
    with Traffic() as traffic:
        step()
    parameters = sum(p.numel() for p in ordinary(config)[0].parameters())
    return {"parameters": parameters, "flop": flops.get_total_flops() / BATCH, "bytes": traffic.bytes / BATCH}


def facts(networks: dict[str, list[str]]) -> dict[str, Any]:
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on", "y", "t")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() and not on_cpu else None
    return {"gpu": gpu, "networks": {name: count(configure(*words)) for name, words in networks.items()}}


def prepare(job: dict[str, Any], device: torch.device) -> Step:
    """Return the step of a form, with PyTorch's default settings for plain forms and train.py's for fused ones."""
    kind, precision = job["kind"], job["precision"]
    torch.set_num_threads(1 if job["processes"] > 1 else job.get("threads", CORES))
    if kind in ("fused", "product"):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    if kind in ("product", "copy"):
        return product(device, precision == "bf16") if kind == "product" else copy(device)
    config = configure(*job["network"])
    if kind == "fused":
        from stn.training.runtime import _keep_freed_memory  # imports Accelerate

        torch.backends.cudnn.benchmark = True
        if device.type == "cpu":
            _keep_freed_memory()
        return fused(config, device, job["seeds"], precision == "bf16", job["graph"])
    if kind == "vmap":
        return vmapped(config, device, job["seeds"])
    if kind == "loader":
        return plain(config, device, loader(config, job["root"], job["workers"], device.type == "cuda"))
    return plain(config, device, resident(config, device))


def stretch(step: Step, device: torch.device, seconds: float) -> tuple[float, float]:
    """Return images/s over at least this many seconds, and images per second of CPU time."""
    start, cpu, images = time.perf_counter(), time.process_time(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        for _ in range(
            1 if device.type == "cpu" else 50
        ):  # the host runs ahead of a GPU: synchronise every 50 steps only
            images += step()
        if device.type == "cuda":
            torch.cuda.synchronize()
    return images / elapsed, images / (time.process_time() - cpu)


def main(job: dict[str, Any]) -> dict[str, Any]:
    if job["kind"] == "facts":
        return facts(job["networks"])
    device = torch.device("cuda" if job["cuda"] else "cpu")
    step = prepare(job, device)
    step()
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.perf_counter()
    stretches = [stretch(step, device, job["seconds"]) for _ in range(job["stretches"])]
    peak = (
        torch.cuda.max_memory_allocated() if job["cuda"] else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    speeds, cpu_speeds = map(list, zip(*stretches, strict=True))
    seconds = time.perf_counter() - start
    return {"images_per_s": speeds, "images_per_cpu_s": cpu_speeds, "seconds": seconds, "peak_mb": peak / 1e6}


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # PyTorch warns of more workers than cores, which we measure on purpose
    print(json.dumps(main(json.loads(sys.argv[1]))), flush=True)
