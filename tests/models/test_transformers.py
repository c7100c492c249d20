"""What networks do with transforms: sizes, depths, several at a time, and what makes no sense."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data, Log, Optim, Train
from stn.data.sources import mnist
from stn.models.wirings import count_parameters
from stn.multiseed.checks.equivalence import check_equivalence
from stn.runs.trials import build_trials
from stn.training.runtime import Runtime
from stn.training.stop import Stop
from tests.support.trainer import only_run
from tests.support.transforms import FAMILIES, make

# ---- what networks do with them


@pytest.mark.parametrize("arch", ["stn_c0", "stn_c0_coord", "stn_cx", "stn_dlx", "stn_slx"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_wiring_takes_every_transform(arch: str, name: str) -> None:
    model = make(arch, net="tutorial", transform=name)
    for head in (st.heads[0] for st in model.st):  # type: ignore[union-attr, index]
        torch.nn.init.normal_(head.last.weight, std=0.01)  # type: ignore[union-attr, arg-type]
    out = model(torch.randn(2, 1, 28, 28))
    out.square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("align_corners", [True, False])
def test_antialiased_shrinking_is_the_mean_of_what_a_pixel_covers(align_corners: bool) -> None:
    """Of an image with a wave at every other pixel, plain sampling sees one phase only."""
    images = mnist().test_x[:1].float()
    wave = torch.zeros_like(images)
    wave[..., ::2] = 1.0
    outs = {}
    for antialias in (False, True):
        model = make("stn_c0", "mnist", size=14, net="jaderberg_fcn", antialias=antialias, align_corners=align_corners)
        with torch.no_grad():
            outs[antialias] = model.warps(wave)[0].image_BCHW
    assert outs[True].shape == outs[False].shape == (1, 1, 14, 14)
    assert outs[True].std() < 0.3 * max(0.2, float(outs[False].std()))
    if not align_corners:
        x = torch.randn(1, 1, 28, 28)
        with torch.no_grad():
            warped = model.warps(x)[0].image_BCHW
        torch.testing.assert_close(warped, F.avg_pool2d(x, 2), atol=1e-5, rtol=0)


def test_an_output_size_reaches_the_classifier() -> None:
    plain, small = make("stn_c0", "mnist_t"), make("stn_c0", "mnist_t", size=40)
    assert plain.warps(torch.zeros(1, 1, 60, 60))[0].image_BCHW.shape[-1] == 30
    assert small.warps(torch.zeros(1, 1, 60, 60))[0].image_BCHW.shape[-1] == 40
    assert small(torch.zeros(2, 1, 60, 60)).shape == (2, 10)


def test_intermediate_heads_see_images_of_the_input_size() -> None:
    (warp,) = make("stn_c0", "mnist_t", iterations=3).warps(torch.zeros(1, 1, 60, 60))
    assert [step.shape[-1] for step in warp.steps] == [60, 60, 30]


def test_theta_fed_forward_reaches_the_last_layer() -> None:
    cases: list[tuple[str, dict[str, Any], int]] = [
        ("stn_c0", {}, 6),
        ("stn_slx", {"transform": "tps"}, 32),
        ("stn_cx", {"depth": (0, 1)}, 12),
        ("stn_c0", {"parallel": 2}, 12),
    ]
    for arch, options, more in cases:
        net = "finnveden_r"
        plain, fed = make(arch, net=net, **options), make(arch, net=net, feed_theta=True, **options)
        assert count_parameters(fed) == count_parameters(plain) + 10 * more
        x = torch.randn(2, 1, 28, 28)
        weight = fed.stages[-1][-1].weight  # type: ignore[index, union-attr]
        before = fed(x).detach()
        with torch.no_grad():
            weight[:, -more:] += 1.0  # type: ignore[operator, index]
        theta = torch.cat([warp.theta_BP for warp in fed.warps(x)], 1)
        torch.testing.assert_close(fed(x) - before, theta.sum(1, keepdim=True).expand(2, 10), atol=1e-5, rtol=0)


def test_theta_decay_pulls_to_the_identity() -> None:
    model = make("stn_c0", theta_decay=0.1)
    with torch.no_grad():
        model.st[0].heads[0].last.bias.add_(0.5)  # type: ignore[union-attr, index, operator]
    x = torch.randn(4, 1, 28, 28)
    logits, penalty = model.train()(x)
    assert logits.shape == (4, 10)
    torch.testing.assert_close(penalty, torch.full((4,), 0.1 * 6 * 0.25))
    assert isinstance(model.eval()(x), torch.Tensor)
    assert isinstance(make("stn_c0").train()(x), torch.Tensor)


def test_theta_decay_is_part_of_the_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    import train as script

    away = {}
    for decay in (0.0, 1.0):
        log = Log(runs=str(tmp_path / str(decay)), wandb="disabled", pictures=False)
        data = Data(limit_train=640, limit_test=50, batch_size=16)
        arch = Arch(name="stn_c0", net="tutorial", theta_decay=decay)
        optim = Optim(name="sgd", lr=0.05, momentum=0.0, schedule="constant")
        config = resolve(Config(arch=arch, data=data, optim=optim, log=log, train=Train(seeds="0-1", steps=40)))
        assert script.train(Runtime(config, 2), Stop([], None, None), build_trials([config])) == 0
        rows = [row for row in only_run(tmp_path / str(decay)).rows() if row["kind"] == "warp" and row["step"] == 40]
        theta = torch.tensor([row["theta"] for row in rows])
        away[decay] = float((theta - torch.tensor([1.0, 0, 0, 0, 1, 0])).norm())
    assert 0 < away[1.0] < 0.8 * away[0.0]


def test_parallel_transformers_stand_side_by_side() -> None:
    model = make("stn_c0", net="tutorial", parallel=2)
    with torch.no_grad():
        model.st[0].heads[1].last.bias.copy_(torch.tensor([-1.0, 0, 0, 0, 1, 0]))  # type: ignore[union-attr, index]
        x = torch.randn(2, 1, 28, 28)
        (warp,) = model.warps(x)
    assert warp.image_BCHW.shape == (2, 2, 28, 28)
    torch.testing.assert_close(warp.image_BCHW[:, 1:], x.flip(-1), atol=1e-5, rtol=0)
    assert warp.theta_BP.shape == (2, 12)


def test_several_depths_compose_on_the_image_and_follow_each_other_on_maps() -> None:
    torch.manual_seed(4)
    x = torch.randn(2, 1, 28, 28)
    turns = torch.tensor([[0.9, 0.1, 0.05, -0.1, 0.9, 0.0], [1.2, 0.0, 0.1, 0.3, 1.0, -0.2]])
    for arch in ("stn_slx", "stn_dlx"):
        model = make(arch, net="finnveden_r", depth=(0, 1))
        assert len(model.st) == 1
        with torch.no_grad():
            for head, turn in zip(model.st[0].heads, turns, strict=True):  # type: ignore[union-attr]
                head.last.bias.copy_(turn)  # type: ignore[union-attr]
            (warp,) = model.warps(x)
        last = torch.tensor([[0.0, 0, 1]])
        first, second = (torch.cat([turn.view(2, 3), last]) for turn in turns)
        torch.testing.assert_close(warp.theta_BP[0].view(2, 3), (first @ second)[:2], atol=1e-6, rtol=0)
        assert len(warp.steps) == 2
    model = make("stn_cx", net="finnveden_r", depth=(0, 1))
    assert model.at == (0, 1)
    assert len(model.warps(x)) == 2
    assert len({id(head) for st in model.st for head in st.heads}) == 2  # type: ignore[union-attr]


@pytest.mark.parametrize("options", [{"transform": "tps"}, {"theta_decay": 0.1}, {"parallel": 2}, {"iterations": 2}])
def test_transformers_of_many_seeds_run_as_one_without_slow_operations(options: dict) -> None:
    found = check_equivalence(lambda: make("stn_c0", net="tutorial", **options), (1, 28, 28))
    assert (found.fault, found.slow) == (None, set())


def test_combinations_that_make_no_sense_are_refused() -> None:
    faults = {
        "parallel transforms need depth 0": ("stn_slx", {"parallel": 2}),
        "different depths in rising order": ("stn_slx", {"depth": (1, 0)}),
        "arch.depth 3 is not possible here: 0 to 2": ("stn_cx", {"depth": (0, 3)}),
        "ends in a linear layer": ("stn_c0", {"net": "dilated", "feed_theta": True}),
        "there is no map to warp": ("stn_cx", {"net": "jaderberg_fcn"}),
        "cannot read images of both sizes": ("stn_slx", {"net": "jaderberg_fcn", "size": 14}),
        "cnn has no option 'transform'": ("cnn", {"transform": "tps"}),
        "arch.points means nothing to arch.transform affine": ("stn_c0", {"points": 3}),
        "smaller than 28 pixels, this one has 28": ("stn_c0", {"antialias": True}),
        "no convolution that could see coordinates": ("stn_c0_coord", {"net": "jaderberg_fcn"}),
        r"arch.depth \(\) needs different depths": ("stn_slx", {"depth": ()}),
    }
    for message, (arch, options) in faults.items():
        with pytest.raises(ValueError, match=message):
            make(arch, **options)
