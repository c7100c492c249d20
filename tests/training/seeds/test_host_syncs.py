"""What a step asks of the host: nothing, so that it can be replayed."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stn.config.dataset import build_dataset
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data, Optim
from stn.data.stream import Stream
from stn.models.build import build_network
from stn.multiseed.model import StackedModel
from stn.training import optimizer
from stn.training.running_metrics import RunningMetrics
from stn.training.runtime import Runtime
from tests.support.networks import BATCH_NORM

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
def test_a_replayed_step_equals_the_step(arch: str, data: str) -> None:
    wish = Optim(name="sgd" if data == "mnist_t" else "adamw", weight_decay=0.1, clip=1.0, schedule="cosine", lr=0.002)
    augment = {"rotate": 5.0, "crop": 1, "cutout": 3, "flip": True, "alternate_flip": True} if data == "mnist" else {}
    net = BATCH_NORM if data == "mnist" else None
    one = resolve(Config(arch=Arch(name=arch, net=net), data=Data(name=data, batch_size=2, **augment), optim=wish))
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
        for step in range(4):
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
