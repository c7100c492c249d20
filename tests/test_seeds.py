"""The seed axis: one seed alone, beside others, in parts and on other rows is the same seed."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stn.optim import build_optimiser, clip_gradients, learning_rate, set_learning_rate
from stn.schema import Optim
from stn.seeds import SeedOps, Seeds, _ThinConv


@pytest.mark.parametrize(
    ("channels", "kernel", "padding"), [(1, (5, 5), (0, 0)), (2, (3, 5), (1, 2)), (1, (7, 3), (2, 0))]
)
def test_thin_convolution_has_the_gradients_of_conv2d(channels: int, kernel: tuple, padding: tuple) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, channels, 11, 12, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, channels, *kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    ours, theirs = _ThinConv.apply(x, weight, bias, padding), F.conv2d(x, weight, bias, padding=padding)
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
            with SeedOps(0, 0, torch.arange(2)):
                out = layer(x)
        else:
            out = layer(x)
        results.append(torch.autograd.grad((out * out.detach().cos()).sum(), (x, *layer.parameters())))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


@pytest.mark.parametrize("layer", [nn.Dropout(0.3), nn.Dropout2d(0.3)])
def test_dropout_is_a_function_of_seed_step_and_row(layer: nn.Module) -> None:
    x = torch.ones(40, 50, 4, 4)

    def out(seed: int, step: int, rows: torch.Tensor) -> torch.Tensor:
        with SeedOps(seed, step, rows):
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
    with SeedOps(0, 0, torch.arange(10)):
        assert not torch.equal(F.dropout(x), F.dropout(x))


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Dropout2d(0.2), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))


def steps(seeds: list[int], optim: Optim, n: int = 5, parts: int = 1) -> Seeds:
    model = Seeds(small, seeds).double()
    optimiser = build_optimiser(optim, model)
    for step in range(n):
        x = torch.randn(6, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        for rows in torch.arange(6).tensor_split(parts):
            logits = model(x[rows].expand(len(seeds), *x[rows].shape), step, rows)
            (logits.logsumexp(-1).sum() / 6).backward()
        if optim.clip:
            clip_gradients(model, optim.clip)
        set_learning_rate(optimiser, learning_rate(optim, step, n))
        optimiser.step()
        optimiser.zero_grad()
    return model


@pytest.mark.parametrize("optim", [Optim(name="sgd", lr=0.1, clip=0.5), Optim(name="adamw", lr=0.01, weight_decay=0.1)])
def test_a_seed_beside_others_is_the_seed_alone(optim: Optim) -> None:
    together = steps([3, 4, 5], optim)
    for seed, beside in zip([3, 4, 5], together.models, strict=True):
        alone = steps([seed], optim).models[0]
        for a, b in zip(alone.parameters(), beside.parameters(), strict=True):
            assert torch.equal(a, b)
    assert not torch.equal(together.models[0][0].weight, together.models[1][0].weight)  # type: ignore[index]


def test_a_batch_in_parts_is_the_batch() -> None:
    whole, parts = steps([1], Optim(name="sgd", lr=0.1)), steps([1], Optim(name="sgd", lr=0.1), parts=3)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def test_initialisation_does_not_disturb_torchs_random_state() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = Seeds(small, [1]).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    for name, value in Seeds(small, [1]).state_dict().items():
        assert torch.equal(value, first[name])
