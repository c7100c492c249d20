"""The peers on PyTorch: each trains the ordinary network of an architecture as its own examples do.

The choices in their favour are the same for all of them: data are in memory, batches are gathered and perturbed as one
tensor (no PIL image, no transform per image, no worker), networks are channels_last where that is faster (1.6 times for
cnn alone), and nothing is logged. S seed, B batch, C channel, H, W.
"""
# pyright: reportMissingImports=false

from typing import Any

import torch
import torch.nn.functional as F
from configured import configure
from peer_forms import BATCH, LIMIT_DEGREES, LR, MEAN, STD, Meter, load
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from stn.models.build import build_network


def perturb(x_BCHW: Tensor, turn: bool) -> Tensor:
    """Return bytes as normalised images, each turned by an angle of its own."""
    x_BCHW = x_BCHW.float() / 255
    if turn:
        angle_B = torch.deg2rad(torch.empty(len(x_BCHW)).uniform_(-LIMIT_DEGREES, LIMIT_DEGREES))
        cos, sin, zero = angle_B.cos(), angle_B.sin(), torch.zeros_like(angle_B)
        theta_B23 = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3)
        grid = F.affine_grid(theta_B23, list(x_BCHW.shape), align_corners=False)
        x_BCHW = F.grid_sample(x_BCHW, grid, align_corners=False)
    return (x_BCHW - MEAN) / STD


class Images(Dataset):
    """MNIST in memory, which makes a whole batch at once."""

    def __init__(self, job: dict[str, Any], train: bool = True) -> None:
        x, y = load(job["root"], train)
        self.x_NCHW, self.y_N = torch.from_numpy(x).unsqueeze(1), torch.from_numpy(y).long()
        self.turn = job["network"][2] == "mnist_r"

    def __len__(self) -> int:
        return len(self.x_NCHW)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x_BCHW, y_B = self.__getitems__([index])
        return x_BCHW[0], y_B[0]

    def __getitems__(self, index: list[int]) -> tuple[Tensor, Tensor]:
        index_B = torch.tensor(index)
        return perturb(self.x_NCHW[index_B], self.turn), self.y_N[index_B]


def as_it_is(batch: Any) -> Any:
    return batch


def network(job: dict[str, Any], layout: torch.memory_format = torch.channels_last) -> nn.Module:
    return build_network(configure(*job["network"])).to(memory_format=layout)


@torch.no_grad()
def accuracy(model: nn.Module, job: dict[str, Any]) -> list[float]:
    test = Images(job, train=False)
    model.eval()
    hits = 0
    for first in range(0, len(test), 250):
        x, y = test.__getitems__(list(range(first, first + 250)))
        hits += int(model(x).argmax(1).eq(y).sum())
    model.train()
    return [hits / len(test)]


def accelerate(job: dict[str, Any]) -> Meter:
    """The loop of Accelerate's examples."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = network(job)
    meter = Meter(job, lambda: accuracy(model, job))
    optimiser = torch.optim.SGD(model.parameters(), lr=LR)
    batches = DataLoader(Images(job), BATCH, shuffle=True, collate_fn=as_it_is)
    forward, optimiser, batches = accelerator.prepare(model, optimiser, batches)
    while True:
        for x, y in batches:
            loss = F.cross_entropy(forward(x), y)
            accelerator.backward(loss)
            optimiser.step()
            optimiser.zero_grad()
            if meter.enough(len(y)):
                return meter


def lightning(job: dict[str, Any]) -> Meter:
    """Lightning's Trainer, without its logger, checkpoints and progress bar."""
    import lightning as L

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network(job)

        def training_step(self, batch: Any, _: int) -> Tensor:
            x, y = batch
            return F.cross_entropy(self.network(x), y)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=LR)

    class Count(L.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            trainer.should_stop = meter.enough(len(batch[1]))

    model = Module()
    meter = Meter(job, lambda: accuracy(model.network, job))
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = L.Trainer(accelerator="cpu", devices=1, max_epochs=-1, callbacks=[Count()], **dict.fromkeys(off, False))  # type: ignore[arg-type]
    trainer.fit(model, DataLoader(Images(job), BATCH, shuffle=True, collate_fn=as_it_is))
    return meter


def timm(job: dict[str, Any]) -> Meter:
    """The loop of timm's train.py, with its factories of loader, optimiser and scheduler."""
    from timm.data import create_loader
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2

    model = network(job)
    meter = Meter(job, lambda: accuracy(model, job))
    own = {"use_prefetcher": False, "num_workers": 0, "persistent_workers": False, "pin_memory": False}
    batches = create_loader(Images(job), (1, 28, 28), BATCH, is_training=True, collate_fn=as_it_is, **own)  # type: ignore[arg-type]
    optimiser = create_optimizer_v2(model, opt="momentum", lr=LR, weight_decay=0.0, momentum=0.0)
    constant = {"sched": "step", "decay_epochs": 10**6, "warmup_epochs": 0, "step_on_epochs": False}
    scheduler, _ = create_scheduler_v2(optimiser, updates_per_epoch=len(batches), **constant)  # type: ignore[arg-type]
    assert scheduler is not None
    loss_function = nn.CrossEntropyLoss()
    updates = 0
    while True:
        for x, y in batches:
            optimiser.zero_grad()
            loss_function(model(x), y).backward()
            optimiser.step()
            updates += 1
            scheduler.step_update(updates)
            if meter.enough(len(y)):
                return meter


def vmap(job: dict[str, Any]) -> Meter:
    """The ensemble of PyTorch's tutorial on torch.func: stacked weights, one vmap over networks, batches and labels."""
    data, seeds = Images(job), job["seeds"]
    networks = [network(job, torch.contiguous_format) for _ in range(seeds)]  # channels_last is slower under vmap
    parameters, buffers = torch.func.stack_module_state(networks)
    optimiser = torch.optim.SGD(parameters.values(), lr=LR)

    def loss_of(p: dict, b: dict, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(networks[0], (p, b), (x,)), y)

    def result() -> list[float]:
        found = []
        for s in range(seeds):
            networks[0].load_state_dict({name: p[s] for name, p in parameters.items()}, strict=False)
            found += accuracy(networks[0], job)
        return found

    losses = torch.func.vmap(loss_of, randomness="different")
    meter = Meter(job, result)
    while True:
        order_SN = torch.stack([torch.randperm(len(data)) for _ in range(seeds)])
        for index_SB in order_SN.split(BATCH, 1):
            x_BCHW = perturb(data.x_NCHW[index_SB.reshape(-1)], data.turn)
            x_SBCHW, y_SB = x_BCHW.unflatten(0, index_SB.shape), data.y_N[index_SB]
            losses(parameters, buffers, x_SBCHW, y_SB).sum().backward()
            optimiser.step()
            optimiser.zero_grad()
            if meter.enough(y_SB.numel()):
                return meter


def train(job: dict[str, Any]) -> Meter:
    torch.set_num_threads(1 if job["processes"] > 1 else job["threads"])
    torch.manual_seed(0)
    return {"accelerate": accelerate, "lightning": lightning, "timm": timm, "vmap": vmap}[job["kind"]](job)
