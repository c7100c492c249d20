"""Every architecture on every data set: counts, wiring, identity start, gradients."""

import copy

import pytest
import torch

from stn.commands.check import layers
from stn.config import registry
from stn.config.dataset import build_dataset
from stn.models.layers import CoordConv2d, conv, shape_after
from stn.models.wirings import Transformed, count_parameters
from stn.multiseed.checks.as_written import runs_as_written
from tests.support.networks import has_one_result, localisation, seeded_network

COUNTS = {  # of the paper's Table VI, counted
    "mnist_r": {"cnn": 54122, "stn_c0": 53744, "stn_cx": 53984, "stn_dlx": 55296, "stn_slx": 53984},
    "mnist_t": {"cnn": 66692, "stn_c0": 67138, "stn_cx": 67108, "stn_dlx": 66820, "stn_slx": 65508},
    "mnist_s": {"cnn": 136674, "stn_c0": 136448, "stn_cx": 137072, "stn_dlx": 138384, "stn_slx": 137072},
}
COUNTS["mnist"] = COUNTS["mnist_r"]
NAMES = ["cnn", "stn_c0", "stn_c0_coord", "stn_cx", "stn_dlx", "stn_slx"]
DATASETS = ["mnist", "mnist_r", "mnist_t", "mnist_s", "mnist_rts", "mnist_h", "cifar10"]


@pytest.mark.parametrize("dataset", COUNTS)
def test_parameter_counts_are_the_papers(dataset: str) -> None:
    assert {arch: count_parameters(seeded_network(arch, dataset)) for arch in COUNTS[dataset]} == COUNTS[dataset]


def test_tutorial_network_has_its_published_count() -> None:
    assert count_parameters(seeded_network("stn_c0", net="tutorial")) == 27_360


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("arch", NAMES)
def test_shapes_gradients_and_identity_start(arch: str, dataset: str) -> None:
    model, facts = seeded_network(arch, dataset), build_dataset(dataset)
    x = torch.randn(3, *facts.shape)
    if isinstance(model, Transformed):
        with torch.no_grad():
            (warp,) = model.warps(x)
        warped = warp.image_BCHW
        assert torch.equal(warp.theta_BP, torch.tensor([1.0, 0, 0, 0, 1, 0]).expand(3, 6))
        seen = model._run(x, 0, model.at[0])
        if warped.shape == seen.shape:
            torch.testing.assert_close(warped, seen, atol=1e-4, rtol=0)  # of noise, in fp32
        # The head's last weights are zero, so nothing before them has a gradient yet: move them.
        torch.nn.init.normal_(localisation(model).last.weight, std=0.01)
    assert runs_as_written(lambda: seeded_network(arch, dataset), facts.shape)
    if dataset in ("mnist", "cifar10"):
        has_one_result(lambda: seeded_network(arch, dataset), facts.shape)
    logits = model(x)
    assert logits.shape == (3, facts.classes)
    torch.nn.functional.cross_entropy(logits, torch.tensor([1, 2, 3])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("arch", ["stn_c0", "stn_cx", "stn_slx"])
def test_residual_identity_starts_at_the_identity_with_zero_bias(arch: str) -> None:
    model = seeded_network(arch, identity="residual")
    assert isinstance(model, Transformed)
    assert localisation(model).last.bias.abs().sum() == 0
    (warp,) = model.warps(torch.randn(2, 1, 28, 28))
    assert torch.equal(warp.theta_BP[0], torch.tensor([1.0, 0, 0, 0, 1, 0]))


def test_slx_is_the_papers_formula_and_shares_its_trunk() -> None:
    model = seeded_network("stn_slx").double()
    assert isinstance(model, Transformed)
    torch.nn.init.normal_(localisation(model).last.weight, std=0.05)
    x = torch.randn(4, 1, 28, 28, dtype=torch.float64)
    trunk, rest = model.stages[0], model.stages[1:]
    theta = localisation(model).last(localisation(model).head(trunk(x))).view(-1, 2, 3)
    grid = torch.nn.functional.affine_grid(theta, [4, 1, 28, 28], align_corners=True)
    warped = torch.nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=True)
    y = trunk(warped)
    for stage in rest:
        y = stage(y)
    torch.testing.assert_close(model(x), y, atol=1e-12, rtol=0)


def test_dlx_trunk_starts_as_a_copy_and_is_its_own() -> None:
    model = seeded_network("stn_dlx")
    assert isinstance(model, Transformed)
    copied, original = localisation(model).trunk[0][0].weight, model.stages[0][0].weight  # type: ignore[index]
    assert torch.equal(copied, original)
    assert copied.data_ptr() != original.data_ptr()


def test_cx_warps_the_feature_map_with_one_grid() -> None:
    model = seeded_network("stn_cx")
    assert isinstance(model, Transformed)
    with torch.no_grad():
        localisation(model).last.bias.copy_(torch.tensor([-1.0, 0, 0, 0, 1, 0]))  # mirror left to right
        x = torch.randn(2, 1, 28, 28)
        features = model.stages[0](x)
        (warp,) = model.warps(x)
    torch.testing.assert_close(warp.image_BCHW, features.flip(-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("arch", ["stn_cx", "stn_dlx", "stn_slx"])
@pytest.mark.parametrize("depth", [0, 1, 2, 3, 4, 5])
def test_a_warp_may_stand_between_any_two_stages(arch: str, depth: int) -> None:
    model = seeded_network(arch, "cifar10", depth=depth)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    if depth == 0:
        assert count_parameters(model) == count_parameters(seeded_network("stn_c0", "cifar10"))


def test_iterations_compose_and_resample_the_original() -> None:
    model = seeded_network("stn_c0", iterations=2, test_iterations=3).double()
    assert isinstance(model, Transformed)
    with torch.no_grad():
        localisation(model).last.bias.copy_(torch.tensor([0.9, 0.1, 0.0, -0.1, 0.9, 0.05]))
    x = torch.randn(2, 1, 28, 28, dtype=torch.float64)
    one = torch.eye(3, dtype=torch.float64)
    one[:2] = localisation(model).last.bias.detach().view(2, 3)
    for training, n in ((True, 2), (False, 3)):
        model.train(training)
        (warp,) = model.warps(x)
        whole = torch.linalg.matrix_power(one, n)[:2]
        torch.testing.assert_close(warp.theta_BP[0].view(2, 3), whole, atol=1e-12, rtol=0)
        assert len(warp.steps) == n
        grid = torch.nn.functional.affine_grid(whole.expand(2, 2, 3), [2, 1, 28, 28], align_corners=True)
        expected = torch.nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=True)
        torch.testing.assert_close(warp.image_BCHW, expected, atol=1e-12, rtol=0)


def test_coordconv_equals_a_convolution_over_appended_channels() -> None:
    for first in (False, True):
        layer = CoordConv2d(2, 5, 3, padding=1, first=first, radius=True, centre=0.5).double()
        x = torch.randn(4, 2, 7, 9, dtype=torch.float64)
        coordinates = layer.coordinates(x).expand(4, -1, -1, -1)
        joined = torch.cat([coordinates, x] if first else [x, coordinates], 1)
        # Padding pads the coordinates with zeros too, as an ordinary convolution would.
        expected = torch.nn.functional.conv2d(joined, layer.weight, layer.bias, padding=1)
        torch.testing.assert_close(layer(x), expected, atol=1e-12, rtol=0)
    row, column = CoordConv2d(1, 1, 1).coordinates(torch.zeros(1, 1, 3, 5))[0]
    assert row[:, 0].tolist() == [-1, 0, 1]
    assert column[0].tolist() == [-1, -0.5, 0, 0.5, 1]


def test_depth_that_does_not_fit_says_so() -> None:
    with pytest.raises(ValueError, match=r"depth 3 is not possible here: 0 to 2"):
        seeded_network("stn_slx", "mnist", depth=3)
    with pytest.raises(ValueError, match="the localisation net cannot read this depth"):
        seeded_network("stn_slx", "mnist_t", depth=2)
    with pytest.raises(ValueError, match="5x5 convolution does not fit a 1x4x4 map"):
        conv(3, 5)((1, 4, 4))


def test_registry_refuses_duplicates_and_points_at_typos() -> None:
    with pytest.raises(ValueError, match="registered twice"):
        registry.register("arch")(registry.find("arch", "cnn").function)
    with pytest.raises(ValueError, match=r"no architecture 'stn_slxx'; did you mean 'stn_slx'\?"):
        registry.find("arch", "stn_slxx")


def test_layers_count_a_shared_trunk_once() -> None:
    model = seeded_network("stn_slx")
    rows = layers(copy.deepcopy(model), (1, 28, 28))
    assert sum(row[3] for row in rows) == count_parameters(model)
    assert [row[0] for row in rows].count("stages.0.0") == 2


def test_shape_after_leaves_the_mode_alone() -> None:
    layer = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Dropout())
    assert shape_after(layer, (1, 8, 8)) == (2, 6, 6)
    assert layer.training
