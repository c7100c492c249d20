"""The seed axis: a seed beside others, in parts and on other rows is the seed alone."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stn.config.dataset import build_dataset
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data, Optim, Train
from stn.data.stream import Stream
from stn.models.build import build_network
from stn.multiseed import stacked
from stn.multiseed.equivalence import check_equivalence
from stn.multiseed.model import StackedModel, with_penalty
from stn.multiseed.rules.layers import ThinConv
from stn.multiseed.stacked import SeedOps, Stacked
from stn.training.optimizer import SeedOptimiser, clip_gradients
from tests.support.networks import BATCH_NORM

ARCHS = ["cnn", "stn_c0", "stn_c0_coord", "stn_cx", "stn_dlx", "stn_slx"]


def ops(seed: int, step: int, rows: Tensor) -> SeedOps:
    return SeedOps([seed], torch.tensor([seed]), step, rows)


@pytest.mark.parametrize(
    ("channels", "kernel", "padding", "groups"),
    [(1, (5, 5), (0, 0), 1), (2, (3, 5), (1, 2), 1), (1, (7, 3), (2, 0), 3), (2, (5, 5), 1, 2)],
)
def test_thin_convolution_has_the_gradients_of_conv2d(
    channels: int, kernel: tuple, padding: tuple, groups: int
) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, groups * channels, 11, 12, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(groups * 4, channels, *kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(groups * 4, dtype=torch.float64, requires_grad=True)
    ours, theirs = ThinConv.apply(x, weight, bias, padding, groups), F.conv2d(x, weight, bias, 1, padding, 1, groups)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    up = torch.randn_like(theirs)
    for a, b in zip(
        torch.autograd.grad(ours, (x, weight, bias), up),
        torch.autograd.grad(theirs, (x, weight, bias), up),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "options", [{}, {"padding": 1}, {"stride": 2}, {"padding": "same"}, {"dilation": 2}, {"bias": False}]
)
def test_convolutions_of_any_kind_train_as_without_the_replacement(options: dict) -> None:
    layer = nn.Conv2d(1, 3, 3, **options).double()
    results = []
    for replaced in (False, True):
        x = torch.linspace(-1, 1, 2 * 81, dtype=torch.float64).view(2, 1, 9, 9).sin().requires_grad_()
        if replaced:
            with ops(0, 0, torch.arange(2)):
                out = layer(x)
        else:
            out = layer(x)
        results.append(torch.autograd.grad((out * out.detach().cos()).sum(), (x, *layer.parameters())))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


@pytest.mark.parametrize("layer", [nn.Dropout(0.3), nn.Dropout2d(0.3)])
def test_dropout_is_a_function_of_seed_step_and_row(layer: nn.Module) -> None:
    x = torch.ones(40, 50, 4, 4)

    def out(seed: int, step: int, rows: Tensor) -> Tensor:
        with ops(seed, step, rows):
            return layer(x[: len(rows)])

    whole = out(1, 2, torch.arange(40))
    assert torch.equal(out(1, 2, torch.arange(10, 30)), whole[10:30])
    assert not torch.equal(out(1, 3, torch.arange(40)), whole)
    assert not torch.equal(out(2, 2, torch.arange(40)), whole)
    assert sorted(whole.unique().tolist()) == pytest.approx([0.0, 1 / 0.7])
    assert whole.mean() == pytest.approx(1, abs=0.05)
    if isinstance(layer, nn.Dropout2d):
        assert (whole.flatten(2).std(-1) == 0).all()
    layer.eval()
    assert torch.equal(out(1, 2, torch.arange(40)), x)
    layer.train()


def test_two_calls_of_dropout_draw_two_masks() -> None:
    x = torch.ones(10, 100)
    with ops(0, 0, torch.arange(10)):
        assert not torch.equal(F.dropout(x), F.dropout(x))


def test_torchs_own_generator_is_a_function_of_seed_step_and_rows_too_and_is_given_back() -> None:
    def two(seed: int, step: int, first: int) -> list[Tensor]:
        with ops(seed, step, torch.arange(first, first + 4)):
            return [torch.rand(5), torch.randn(5)]

    state = torch.get_rng_state()
    whole = two(1, 2, 0)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, two(1, 2, 0), whole))
    for other in (two(2, 2, 0), two(1, 3, 0), two(1, 2, 4)):
        assert not torch.equal(other[0], whole[0])
    with ops(1, 2, torch.arange(4)):
        assert not torch.equal(torch.rand(5), torch.rand(5))


# ---- operations, one by one


class Op(nn.Module):
    """An operation between weights and logits."""

    def __init__(self, act: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.act, self.w = act, nn.Parameter(torch.randn(4))
        self.shift: Tensor
        self.register_buffer("shift", torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x.mul(self.w.view(4, 1, 1)) + self.shift[:, None, None], self.w).flatten(1)


def modified(y: Tensor, change: Callable[[Tensor], object]) -> Tensor:
    y = y * 1
    change(y)
    return y


ONES = torch.ones(6, 4, 5, 5, dtype=torch.float64)
WORDS = torch.tensor([0, 3, 1, 0, 2, 2])
KNOWN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "operators": lambda y, w: (2 - y / 3) ** 2 + (-y).abs() * (y > 0) - y.detach() // 2 + (1 / (2 + y * y)),
    "broadcast": lambda y, w: y + w.view(4, 1, 1) + w.sum() * torch.ones(5) + w[0],
    "functions": lambda y, w: F.gelu(y) + F.leaky_relu(y, 0.2) + torch.tanh(y).clamp(-0.5, max=0.5) + F.softplus(y),
    "where": lambda y, w: torch.where(y > 0, y, w.view(4, 1, 1)) + torch.maximum(y, y.detach().flip(-1)),
    "in place": lambda y, w: modified(y, lambda z: z.mul_(2).add_(w[1]).relu_()),
    "view": lambda y, w: y.view(-1, 2, 2, 25).reshape((len(y), 4, -1)).transpose(1, 2).contiguous().flatten(-2),
    "permute": lambda y, w: y.permute(0, 2, 3, 1) * w + y.permute((0, 3, 1, 2))[..., :4].mT[..., None, 0].mean(),
    "index": lambda y, w: y[:, 1:3, ..., None, 2] + y[:, 0, None, :, -1, None],
    "parts": lambda y, w: torch.cat([*y.split(2, 1), *y.chunk(2, dim=-3)], 1)[:, ::2] + torch.stack(y.unbind(1), 1),
    "cat with a constant": lambda y, w: torch.cat([y, torch.ones(y.shape)], dim=1),
    "sums": lambda y, w: y.sum((1, 2)) + y.mean(-1).amax(1) + y.max() - y.std(),
    "softmax": lambda y, w: y.softmax(1) + F.log_softmax(y, -1) + torch.logsumexp(y, dim=2, keepdim=True),
    "pools": lambda y, w: F.max_pool2d(y, 2).mean((2, 3)) + F.avg_pool2d(y, 3).sum((2, 3)),
    "adaptive pool": lambda y, w: F.adaptive_avg_pool2d(y, 1)[..., 0, 0] + F.adaptive_max_pool2d(y, (2, 1))[:, :, 0, 0],
    "linear": lambda y, w: F.linear(y, w.expand(3, 4).repeat(1, 2)[:, :5], w[:3]),
    "convolution": lambda y, w: F.conv2d(y, w.expand(2, 3, 2, 4).permute(0, 3, 1, 2), w[:2], padding=1),
    "groups": lambda y, w: F.conv2d(y, w.expand(3, 3, 4).permute(2, 0, 1)[:, None], None, groups=4),
    "constant input": lambda y, w: y[:, :2, :3, :2] + F.conv2d(ONES[:1, :1], w.expand(2, 1, 3, 4)),
    "batch norm": lambda y, w: F.batch_norm(y, None, None, w, None, True),
    "batch norm of rows": lambda y, w: F.batch_norm(y.mean((2, 3)), None, None, training=True),
    "sampling": lambda y, w: F.grid_sample(y, torch.stack([y[:, 0], y[:, 1]], -1), align_corners=False),
    "sampling a constant": lambda y, w: F.grid_sample(ONES, y[:, :2].permute(0, 2, 3, 1).tanh(), align_corners=True),
    "a filter that seeds share": lambda y, w: F.conv2d(y, ONES[:2, :, :3, :3]),
    "dropout": lambda y, w: F.dropout2d(F.dropout(y)),
    "types": lambda y, w: (
        y.softmax(1, torch.float32)
        + y.float().to(torch.float64)
        + y.type_as(w)
        + torch.zeros_like(y)
        + y.new_ones(y.shape)
    ),
    "view of what a layer made": lambda y, w: F.conv2d(y, w.expand(3, 3, 4, 4).permute(2, 3, 0, 1)).view(6, -1),
    "roll": lambda y, w: torch.roll(y, 1, -1) + y.roll((1, 2), dims=(0, -2)),
    "einsum": lambda y, w: torch.einsum("bchw,c->bhw", y, w) + torch.einsum("b c ..., c -> b ...", [y, w]) + w[0],
    "einsum of a constant": lambda y, w: torch.einsum("bchw,bcij->bchw", ONES, y),
    "group norm": lambda y, w: (
        F.group_norm(y, 2, w) + F.group_norm(y.flatten(2), 4, w, w).mean((1, 2))[:, None, None, None]
    ),
    "layer norm": lambda y, w: (
        F.layer_norm(y, (5, 5))
        + F.layer_norm(y.transpose(1, 3), (4,), w, w).mT.mean()
        + F.layer_norm(y, y.shape[1:], y[0])
    ),
    "instance norm": lambda y, w: F.instance_norm(y, weight=w, bias=w) + F.instance_norm(y.flatten(2))[..., None, :5],
    "products": lambda y, w: (
        y @ y.mT + torch.matmul(y.transpose(1, 3), w.expand(5, 4).T).transpose(1, 3)[:, :1] + ONES @ y + y @ ONES[0, 0]
    ),
    "products of weights": lambda y, w: (
        w.view(1, 4) @ y.flatten(2) + torch.bmm(y[:, 0], y[:, 1])[:, :1].repeat(1, 1, 5)
    ),
    "attention": lambda y, w: (
        F.scaled_dot_product_attention(y, y * w[0], y)
        + F.scaled_dot_product_attention(y, ONES, y, is_causal=True)
        + F.scaled_dot_product_attention(y, y, y, attn_mask=ONES[0, 0] * w[1])
        + F.scaled_dot_product_attention(y, y, y, ONES[:, :1].tril() > 0)
    ),
    "convolution in one dimension": lambda y, w: F.conv1d(y[:, 0], w.expand(2, 5, 4), w[:2], padding=1),
    "convolution in three": lambda y, w: F.conv3d(y[:, None], w.view(1, 1, 4, 1, 1), stride=(1, 2, 1)),
    "transposed convolution": lambda y, w: (
        F.conv_transpose2d(y, w.expand(2, 3, 4, 4).permute(3, 0, 1, 2), w[:2], stride=2, padding=1, output_padding=1)
        + F.conv_transpose2d(y, w.view(4, 1, 1, 1).expand(4, 1, 4, 5), groups=2, padding=(1, 1)).mean()
    ),
    "patches": lambda y, w: (
        F.fold(F.unfold(y, 3, padding=1) * w[0], (5, 5), 3, padding=1) + y.unfold(2, 5, 1)[..., 0, :]
    ),
    "embedding": lambda y, w: (
        F.embedding(WORDS, w.view(4, 1) * y[0, 0, 0]) + F.embedding(y.argmax(-1) % 4, w[:, None]).sum()
    ),
    "embedding in a constant": lambda y, w: F.embedding(y.argmax(-1), ONES[0, 0]) * w[0],
    "fourier": lambda y, w: (
        torch.fft.irfft2(torch.fft.rfft2(y) * w[0], s=(5, 5))
        + torch.fft.fft(y, dim=1).abs()
        + torch.fft.ifft2(torch.fft.fft2(y, dim=(1, 2)), dim=(-3, -2)).abs()
    ),
    "one dimension less": lambda y, w: y.squeeze() + y.unsqueeze(1).squeeze(1) + y.expand_as(y),
}
UNKNOWN: dict[str, tuple[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "keywords": ("softmax add", lambda y, w: torch.softmax(input=y, dim=1) + torch.add(input=y, other=w[0])),
    "filling": ("masked_fill", lambda y, w: y.masked_fill(y > 1, w[0])),
    "roll of all": ("roll", lambda y, w: torch.roll(y, 1)),
    "einsum without an arrow": ("einsum", lambda y, w: torch.einsum("bchw,c", y, w)),
    "instance norm with statistics": (
        "instance_norm",
        lambda y, w: F.instance_norm(y, w.detach() * 0, w.detach() * 0 + 1, w, None, False),
    ),
    "padded embedding": ("embedding", lambda y, w: F.embedding(WORDS, w.view(4, 1) * y[0, 0, 0], padding_idx=0)),
    "product with a vector": ("matmul", lambda y, w: y.transpose(1, 3) @ w),
    "one row": ("conv1d", lambda y, w: y + F.conv1d(y[0, :, 0], w.expand(4, 4)[..., None]).mean()),
    "one image": ("conv2d", lambda y, w: y + F.conv2d(y[0], w.expand(4, 4)[..., None, None])),
    "index by a tensor": ("", lambda y, w: y[:, torch.tensor([0, 2]), :, torch.tensor([1, 1])]),
    "assignment": ("", lambda y, w: modified(y, lambda z: z.__setitem__((slice(None), 0), w[0]))),
    "sort": ("sort", lambda y, w: y.sort(-1).values * y.sort(-1)[0]),
}


def stack_alone(model: StackedModel, x_SBCHW: Tensor, step: int, row_B: Tensor) -> Tensor:
    """Return the logits of every seed's network, run by itself."""
    return torch.stack([with_penalty(model.alone(s, x_BCHW, step, row_B))[0] for s, x_BCHW in enumerate(x_SBCHW)])


def compare(act: Callable[[Tensor, Tensor], Tensor]) -> StackedModel:
    model = StackedModel(lambda: Op(act), [7, 8, 9], dtype=torch.float64)
    x = torch.linspace(-3, 3, 3 * 6 * 4 * 5 * 5, dtype=torch.float64).mul(9).sin().view(3, 6, 4, 5, 5)
    results = []
    for together in (True, False):
        rows = torch.arange(6)
        out = model(x, 5, rows) if together else stack_alone(model, x, 5, rows)
        grads = torch.autograd.grad((out * out.detach().cos()).sum(), list(model.parameters()), allow_unused=True)
        results.append([out, *grads])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)
    assert not torch.equal(results[0][0][0], results[0][0][1])
    return model


@pytest.mark.parametrize("name", KNOWN)
def test_a_rule_does_what_the_operation_does_alone(name: str) -> None:
    assert not compare(KNOWN[name]).slow


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_operation_without_a_rule_does_the_same_and_is_named(name: str) -> None:
    operations, act = UNKNOWN[name]
    assert compare(act).slow == set(operations.split())


def test_seeds_that_cannot_run_as_one_are_found_and_the_operation_is_named() -> None:
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):  # type: ignore[override]
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, grad):  # type: ignore[override]
            return 3 * ctx.saved_tensors[0] ** 2 * grad

    found = check_equivalence(lambda: Op(lambda y, w: y * len(y.clamp(0).nonzero())), (4, 5, 5))
    assert str(found.fault).startswith("RuntimeError: nonzero cannot run for several seeds at once: vmap")
    for draw in (
        lambda y: y * torch.rand_like(y),
        lambda y: y + torch.rand(5),
        lambda y: y + y.new_empty(y.shape).bernoulli_(),
    ):
        found = check_equivalence(lambda draw=draw: Op(lambda y, w: draw(y)), (4, 5, 5))
        assert str(found.fault).endswith("draws from torch's generator, and each seed has its own")
    found = check_equivalence(lambda: Op(lambda y, w: y * float(y.detach().sum())), (4, 5, 5))
    assert found.fault == "TypeError: __float__ reads a value of a tensor, and each seed has its own"
    assert check_equivalence(lambda: Op(lambda y, w: Cube.apply(y)), (4, 5, 5)).fault  # type: ignore[arg-type]
    assert check_equivalence(lambda: Op(lambda y, w: y if y.sum() > w.sum() else -y), (4, 5, 5)).fault
    calls = iter(range(100))
    found = check_equivalence(lambda: Op(lambda y, w: y * next(calls)), (4, 5, 5))
    assert found.fault == "together they do not compute what each computes alone"
    shared = torch.zeros(3, 100, dtype=torch.float64)
    found = check_equivalence(lambda: Op(lambda y, w: modified(shared, lambda z: z.add_(y.flatten(1)))), (4, 5, 5))
    assert found.fault == "TypeError: add_ would change a tensor that all seeds share"
    assert check_equivalence(
        lambda: Op(lambda y, w: F.conv2d(y, torch.ones(4, 4, 1, 1))), (4, 5, 5)
    ).fault  # not in float64
    assert not check_equivalence(lambda: Op(lambda y, w: y), (4, 5, 5)).fault


def test_a_number_of_one_seed_takes_part_in_full_precision() -> None:
    y = Stacked(torch.linspace(1, 2, 24).view(2, 3, 4).bfloat16())
    number = Stacked(torch.tensor([1.003, 2.0]))
    product, plain = y * number, [y.every[s] * number.every[s] for s in (0, 1)]
    assert isinstance(product, Stacked)
    found = product.every
    assert found.dtype == plain[0].dtype == torch.bfloat16
    assert torch.equal(found, torch.stack(plain))
    assert not torch.equal(found[0], y.every[0])


class Eval(nn.Module):
    """A network that does something else in evaluation."""

    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.act, self.last = act, nn.Linear(100, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(x.flatten(1))
        return y if self.training else self.act(y)


def test_the_check_looks_at_evaluation_and_at_buffers_too() -> None:
    assert not check_equivalence(lambda: Eval(lambda y: F.dropout(y, training=True)), (4, 5, 5)).fault
    assert check_equivalence(lambda: Eval(lambda y: y if y.mean() > 0 else -y), (4, 5, 5)).fault
    found = check_equivalence(
        lambda: Eval(lambda y: modified(torch.zeros(3, 4).double(), lambda z: z.add_(y))), (4, 5, 5)
    )
    assert found.fault == "TypeError: add_ would change a tensor that all seeds share"

    class Codebook(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(100, 4)
            self.mean: Tensor
            self.register_buffer("mean", torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            y = self.last(x.flatten(1))
            if self.training:
                self.mean.data.mul_(0.9).add_(y.detach().mean(0))
            return y

    assert not check_equivalence(Codebook, (4, 5, 5)).fault
    model = StackedModel(Codebook, [0, 1])
    model(torch.ones(2, 3, 4, 5, 5), 0, torch.arange(3))
    assert model.statistics["mean"].abs().min() > 0


@pytest.mark.parametrize("by_rule", [True, False])
def test_memory_that_runs_out_is_not_taken_for_an_operation_without_a_rule(by_rule: bool, monkeypatch) -> None:
    def too_much(*_: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    operation = torch.relu if by_rule else torch.erfinv
    if by_rule:
        monkeypatch.setitem(stacked.RULES, operation, too_much)
    else:
        monkeypatch.setattr(stacked, "_vmapped", too_much)
    with pytest.raises(torch.OutOfMemoryError):
        compare(lambda y, w: operation(y * w.view(4, 1, 1)))


def test_what_a_device_refuses_does_not_fall_through_to_a_slower_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Tensor:
        raise RuntimeError("Expected canUse32BitIndexMath(input) && canUse32BitIndexMath(output) to be true")

    monkeypatch.setitem(stacked.RULES, torch.relu, refuse)
    with pytest.raises(RuntimeError, match=r"^Expected canUse32BitIndexMath"):
        compare(lambda y, w: torch.relu(y * w.view(4, 1, 1)))


def test_a_gradient_that_should_be_zero_is_no_fault() -> None:
    def normed() -> nn.Module:
        return nn.Sequential(nn.Conv2d(4, 6, 3), nn.GroupNorm(6, 6), nn.Flatten(), nn.Linear(54, 3))

    found = check_equivalence(normed, (4, 5, 5))
    assert (found.fault, found.slow) == (None, set())


def test_buffers_that_are_assigned_to_are_kept() -> None:
    class Count(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(3))
            self.register_buffer("mean", torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            self.mean = 0.5 * self.mean + 0.5 * (x * self.w).mean(0).detach()
            return x * self.w + self.mean

    together, alone = StackedModel(Count, [0, 1]), StackedModel(Count, [0, 1])
    x = torch.randn(2, 5, 3)
    for step in range(2):
        a = together(x, step, torch.arange(5))
        b = stack_alone(alone, x, step, torch.arange(5))
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(together.statistics["mean"], alone.statistics["mean"])
    assert together.statistics["mean"].abs().sum() > 0


# ---- networks


def train(
    config: Config, seeds: list[int], n: int = 20, parts: int = 1, poison: int | None = None
) -> tuple[StackedModel, Tensor]:
    """n steps of a real stream; the model and the losses [n, S]."""
    facts = build_dataset(config.data.name)
    stream = Stream(config.data, facts, seeds, dtype=torch.float64)
    model = StackedModel(lambda: build_network(config), seeds, dtype=torch.float64)
    optimiser = SeedOptimiser([config.optim] * len(seeds), model, stream.clock, n)
    if poison is not None:
        with torch.no_grad():
            next(iter(model.stacked.values()))[poison] = math.nan
    losses = []
    for step in range(n):
        stream.seek(step)
        optimiser.zero_grad()
        total = torch.zeros(len(seeds), dtype=torch.float64)
        for part in stream.draw().parts(parts):
            logits = model(part.x_SBCHW, stream.clock, part.row_B).transpose(1, 2)
            loss = (F.cross_entropy(logits, part.y_SB, reduction="none") * part.weight_B).sum(1)
            loss.sum().backward()
            total += loss.detach()
        if config.optim.clip:
            clip_gradients(model, config.optim.clip)
        optimiser.step()
        losses.append(total)
    return model, torch.stack(losses)


def config(arch: str, optim: Optim, net: str | None = None, batch_size: int = 16) -> Config:
    data = Data(name="mnist_r", batch_size=batch_size, limit_train=640)
    return resolve(Config(arch=Arch(name=arch, net=net), data=data, optim=optim, train=Train(steps=20)))


@pytest.mark.parametrize("optim", [Optim(name="sgd", lr=0.05, clip=1.0), Optim(lr=0.003, weight_decay=0.01)], ids=str)
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("net", [BATCH_NORM, None])
def test_fused_is_alone_to_1e_12_in_every_loss_and_weight(arch: str, optim: Optim, net: str | None) -> None:
    one = config(arch, optim, net)
    together, losses = train(one, [3, 4, 5], 6)
    alone, loss = train(one, [4], 6)
    assert (loss[:, 0] - losses[:, 1]).abs().max() <= 1e-12
    for name, weight in alone.weights(0).items():
        assert (weight - together.weights(1)[name]).abs().max() <= 1e-12, name
    assert losses.std(1).min() > 1e-4, "the seeds are the same"
    assert not together.slow


def test_one_seed_is_the_ordinary_module_with_torchs_own_optimiser() -> None:
    one = config("stn_slx", Optim(name="adamw", lr=0.003, weight_decay=0.1, schedule="constant"))
    model, _ = train(one, [3])
    facts = build_dataset("mnist_r")
    plain = StackedModel(lambda: build_network(one), [3], dtype=torch.float64).network(0)
    module = build_network(one).double()
    module.load_state_dict(plain.state_dict())
    stream = Stream(one.data, facts, [3], dtype=torch.float64)
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.003, weight_decay=0.1)
    for step in range(20):
        batch = stream.batch(step)
        F.cross_entropy(module(batch.x_SBCHW[0]), batch.y_SB[0]).backward()
        optimiser.step()
        optimiser.zero_grad()
    for name, weight in module.state_dict().items():
        torch.testing.assert_close(weight, model.weights(0)[name], atol=1e-11, rtol=0)


def test_a_seed_that_is_no_number_leaves_the_others_bit_for_bit() -> None:
    one = config("stn_cx", Optim(name="adamw", lr=0.003, clip=0.5), BATCH_NORM)
    clean, _ = train(one, [0, 1, 2, 3], 5)
    hurt, losses = train(one, [0, 1, 2, 3], 5, poison=2)
    assert losses[:, 2].isnan().all()
    for s in (0, 1, 3):
        for name, weight in clean.weights(s).items():
            assert torch.equal(weight, hurt.weights(s)[name]), name


def test_a_batch_in_parts_is_the_batch() -> None:
    one = config("stn_c0", Optim(name="sgd", lr=0.1), "tutorial")
    whole, parts = train(one, [1, 2], 5)[0], train(one, [1, 2], 5, parts=3)[0]
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def test_initialisation_does_not_disturb_torchs_random_state() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = StackedModel(lambda: nn.Linear(3, 2), [1]).weights(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    for name, value in StackedModel(lambda: nn.Linear(3, 2), [0, 1]).weights(1).items():
        assert torch.equal(value, first[name])


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit the network"):
        StackedModel(lambda: nn.Linear(3, 2), [1]).load_weights(0, {"weight": torch.zeros(2, 3)})


def test_weights_that_two_modules_share_stay_one() -> None:
    def tied() -> nn.Module:
        net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        net[2].weight = net[0].weight
        return net

    model = StackedModel(tied, [0, 1])
    assert len(list(model.parameters())) == 3
    assert set(model.weights(0)) == set(tied().state_dict())
    x = torch.randn(2, 5, 4)
    alone = stack_alone(model, x, 0, torch.arange(5))
    torch.testing.assert_close(model(x, 0, torch.arange(5)), alone)
