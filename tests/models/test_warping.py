"""A plain module that says how it warps is measured as a network of ours with the same transform."""

from typing import Any

import pytest
import torch
from torch import nn

from stn.config.dataset import build_dataset
from stn.config.resolve import resolve
from stn.config.schema import Arch, Config, Data
from stn.data.stream import Stream
from stn.evaluation.pictures import warps
from stn.evaluation.pictures.subject import Subject
from stn.evaluation.pose import measure_poses
from stn.models.build import build_network
from stn.models.transformer import Warp
from stn.models.warping import PlainWarping, check_warps, warping
from stn.models.wirings import Transformed
from stn.multiseed.checks.equivalence import check_equivalence
from stn.multiseed.model import StackedModel


class Plain(nn.Module):
    """One of our networks behind the plain interface."""

    def __init__(self, inner: Transformed) -> None:
        super().__init__()
        self.inner, self.align_corners = inner, True

    def warps(self, x_BCHW: torch.Tensor) -> list[Warp]:
        warp = self.inner.warps(x_BCHW)[0]
        return [Warp(warp.image_BCHW, warp.grid_BHW2)]

    def forward(self, x_BCHW: torch.Tensor) -> Any:
        return self.inner(x_BCHW)


def build(seed: int = 0) -> Transformed:
    config = resolve(Config(arch=Arch(name="stn_c0", net="tutorial"), data=Data(name="mnist_rts")))
    torch.manual_seed(seed)
    model = build_network(config)
    assert isinstance(model, Transformed)
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return model.eval()


def test_a_plain_module_is_measured_as_ours_is() -> None:
    data = Data(name="mnist_rts", limit_test=200)
    stream = Stream(data, build_dataset("mnist_rts"), [0, 1])
    ours = measure_poses(StackedModel(lambda: build(), [0, 1]), stream, 100)
    plain = measure_poses(StackedModel(lambda: Plain(build()), [0, 1]), stream, 100)
    for (metrics, points), (expected, expected_points) in zip(plain, ours, strict=True):
        agreement = metrics.pop("feature_agreement"), expected.pop("feature_agreement")
        assert None not in agreement  # of the warped image, where ours is of the first stage's map
        assert len(expected) > 5
        assert metrics == pytest.approx(expected, rel=1e-5)
        assert points.keys() == expected_points.keys()


def test_pictures_show_where_a_plain_module_looks() -> None:
    stream = Stream(Data(name="mnist_rts", limit_test=200), build_dataset("mnist_rts"), [0])
    model = build()
    said = warping(Plain(model), (1, 42, 42))
    assert isinstance(said, PlainWarping)
    assert warping(nn.Linear(2, 2), (1, 42, 42)) is None
    plain, ours = (Subject(network, stream, "", [0, 1, 2], []) for network in (said, model))
    with torch.no_grad():
        torch.testing.assert_close(plain.grids(plain.x_BCHW)[0], ours.grids(ours.x_BCHW)[0], rtol=0, atol=1e-5)
        shown, expected = (s.warped(s.x_BCHW, s.theta(s.x_BCHW))[0] for s in (plain, ours))
        torch.testing.assert_close(shown, expected, rtol=0, atol=1e-4)
        for make in (warps.warp, warps.objects, warps.region, warps.poses):
            assert make(plain) is not None, make
        assert warps.iterations(plain) is None


def says(answer: Any) -> nn.Module:
    class Odd(nn.Linear):
        def warps(self, x_BCHW: torch.Tensor) -> Any:
            return answer(x_BCHW)

    return Odd(2, 2)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: x, "must return a list with one stn.Warp"),
        (lambda x: [Warp(x, x), Warp(x, x)], "must return a list with one stn.Warp"),
        (lambda x: [Warp(x, x)], r"returns an image of \[2, 1, 8, 8\] and a grid of \[2, 1, 8, 8\]"),
        (lambda x: x.nothing, r"its warps\(x\) fails: AttributeError"),
    ],
)
def test_what_it_says_is_checked_before_training(answer: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_warps(says(answer), (1, 8, 8))


class Tutorial(nn.Module):
    """A spatial transformer as torch's tutorial writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.loc, self.body = nn.Linear(64, 6), nn.Linear(64, 10)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        theta = 0.1 * self.loc(x_BCHW.flatten(1)).view(-1, 2, 3) + torch.eye(2, 3)
        grid = nn.functional.affine_grid(theta, list(x_BCHW.shape), align_corners=False)
        return self.body(nn.functional.grid_sample(x_BCHW, grid, align_corners=False).flatten(1))


def test_affine_grid_has_a_rule() -> None:
    found = check_equivalence(Tutorial, (1, 8, 8))
    assert found.fault is None
    assert not found.slow
