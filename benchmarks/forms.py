"""The forms of training that fused.py compares, each as a function that trains one step.

S seed, B batch, C channel, H, W, K class, M = S * B.
"""

import itertools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from peer_forms import BATCH, LR  # finds stn, from any working directory
from torch import Tensor, nn

from stn.config.dataset import build_dataset
from stn.config.schema import Config
from stn.data.stream import Stream
from stn.models.build import build_network
from stn.multiseed.model import StackedModel
from stn.training.optimizer import SeedOptimiser
from stn.training.replay.recorded_step import replayed

STEPS = 50_000
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
        self.localisation = nn.Sequential(nn.Conv2d(1, 8, 7), pool, nn.ReLU(), nn.Conv2d(8, 10, 5), pool, nn.ReLU())
        last = nn.Linear(32, 6)
        last.weight.data.zero_()
        last.bias.data.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))
        self.regression = nn.Sequential(nn.Linear(90, 32), nn.ReLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        theta = self.regression(self.localisation(x).flatten(1)).view(-1, 2, 3)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        x = F.grid_sample(x, grid, align_corners=False)
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.drop(self.conv2(x)), 2))
        x = F.dropout(F.relu(self.fc1(x.flatten(1))), training=self.training)
        return F.log_softmax(self.fc2(x), dim=1)


def ordinary(config: Config) -> tuple[nn.Module, Callable[..., Tensor]]:
    """Return the ordinary network of one seed, and its loss function."""
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

    replay, steps = replayed(update, device, graph, refuse, plain_calls=1), itertools.cycle(range(STEPS))

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
