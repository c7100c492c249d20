"""The ways to convolve several seeds: equal to each other, and chosen by timing where there is a device."""

from itertools import product

import pytest
import torch
from torch import Tensor

from stn.config.dataset import build_dataset
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data, Train
from stn.models.build import build_network
from stn.multiseed import convolution
from stn.multiseed.convolution import Convolutions
from stn.multiseed.model import StackedModel
from stn.multiseed.ways import WAYS
from stn.training.runtime import Runtime

SEEDS, ROWS = 2, 1
ARCHS = ("cnn", "stn_c0", "stn_c0_coord", "stn_cx", "stn_dlx", "stn_slx")


def shapes() -> list[tuple]:
    """Every convolution of every network and architecture: input, filters, stride, padding, dilation, groups."""
    found: set[tuple] = set()

    def note(x: Tensor, weight: Tensor, bias: Tensor | None, *how: object) -> None:
        found.add((tuple(x.shape), tuple(weight.shape), bias is not None, *how))

    for dataset in ("mnist", "mnist_t"):
        for arch in ARCHS:
            config = resolve(Config(arch=Arch(name=arch), data=Data(name=dataset)))
            model = StackedModel(lambda c=config: build_network(c), list(range(SEEDS)))
            model.convolutions = note  # type: ignore[assignment]
            model(torch.randn(SEEDS, ROWS, *build_dataset(dataset).shape), 0, torch.arange(ROWS))
    more = [
        ((2, 12, 9, 9), (6, 4, 3, 3), False, 2, 1, 1, 3),
        ((2, 12, 11, 8), (6, 4, 3, 2), True, (2, 1), (1, 0), (2, 1), 3),
        ((1, 3, 5, 5), (3, 1, 5, 5), True, 1, 0, 1, 3),
        ((2, 6, 7, 7), (8, 3, 3, 3), True, 1, 1, 1, 2),
    ]
    return sorted(found, key=str) + more


def run(way: str, shape: tuple, memory_format: torch.memory_format = torch.contiguous_format) -> list[Tensor]:
    x_shape, w_shape, has_bias, stride, padding, dilation, groups = shape
    generator = torch.Generator().manual_seed(1)
    make = [torch.randn(s, generator=generator, dtype=torch.float64) for s in (x_shape, w_shape, w_shape[:1])]
    make[0] = make[0].contiguous(memory_format=memory_format)
    x, weight, bias = (tensor.requires_grad_() for tensor in make)
    out = Convolutions(way)(x, weight, bias if has_bias else None, stride, padding, dilation, groups)  # type: ignore[arg-type]
    assert out is not None
    out.sin().sum().backward()
    grads = [x.grad, weight.grad] + ([bias.grad] if has_bias else [])
    return [out.detach(), *(grad for grad in grads if grad is not None)]


def test_every_way_is_the_grouped_one_for_the_shapes_of_all_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "free_bytes", lambda device: 10**12)
    cases = shapes()
    assert len(cases) > 15
    for shape in cases:
        expected = run("grouped", shape)
        arguments = torch.empty(shape[0], device="meta"), torch.empty(shape[1], device="meta"), None, *shape[3:6]
        ways = [way for way in WAYS if way != "triton"]
        ways = [way for way in ways if convolution._worth_trying(way, arguments, shape[6]) or shape[0][-1] < 12]
        for way, memory_format in product(ways, (torch.contiguous_format, torch.channels_last)):
            for a, b in zip(run(way, shape, memory_format), expected, strict=True):
                assert float((a - b).abs().max()) <= 1e-12 * max(1.0, float(b.abs().max())), (way, shape)


@pytest.mark.parametrize("way", ["unfold", "rows", "whole"])
def test_the_backward_pass_computes_only_what_is_asked_for(way: str) -> None:
    x, weight = torch.randn(2, 4, 6, 6), torch.randn(4, 2, 3, 3, requires_grad=True)
    out = Convolutions(way)(x, weight, None, 1, 0, 1, 2)  # type: ignore[arg-type]
    assert out is not None
    out.sum().backward()
    assert weight.grad is not None
    assert x.grad is None


@pytest.mark.parametrize("way", ["unfold", "rows", "whole"])
def test_the_columns_are_not_kept_for_the_backward_pass(way: str) -> None:
    kept: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    x, weight = torch.randn(2, 4, 20, 20, requires_grad=True), torch.randn(4, 2, 5, 5, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        Convolutions(way)(x, weight, None, 1, 0, 1, 2)  # type: ignore[arg-type]
    assert max(kept) == x.numel()


def test_one_seed_and_a_cpu_have_no_choice() -> None:
    x, weight = torch.randn(2, 4, 6, 6), torch.randn(4, 2, 3, 3)
    assert Convolutions("unfold")(x, torch.randn(4, 4, 3, 3), None, 1, 0, 1, 1) is None
    assert Convolutions("auto")(x, weight, None, 1, 0, 1, 2) is None
    assert Convolutions("unfold")(x, weight, None, 1, "same", 1, 2) is None


def test_passes_in_different_ways_are_one_convolution() -> None:
    shape = ((2, 4, 9, 9), (6, 2, 3, 3), True, 1, 1, 1, 2)
    expected = run("grouped", shape)
    for ways in ("unfold/rows", "rows/grouped/whole", "grouped/whole/unfold"):
        for a, b in zip(run(ways, shape), expected, strict=True):
            assert torch.allclose(a, b, atol=1e-12), ways


@pytest.mark.parametrize(
    ("words", "wish"),
    [({}, "auto"), ({"deterministic": True}, "grouped"), ({"deterministic": True, "conv": "loop"}, "loop")],
    ids=str,
)
def test_deterministic_runs_do_not_choose_by_time(words: dict, wish: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "_configure_torch", lambda *_: None)  # is for the whole process
    assert Runtime(Config(train=Train(**words)), 1).convolutions.wish == wish
