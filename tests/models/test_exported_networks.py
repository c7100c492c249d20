"""Networks in ONNX and torch.export, and their FLOPs."""

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from stn.commands import export
from stn.commands.check import layers, mflop
from stn.models import grids
from stn.models import layers as model_layers
from stn.models.transforms import Linear
from tests.support.networks import seeded_network

WIRINGS = [
    *(("cnn", {}), ("stn_c0", {}), ("stn_c0_coord", {}), ("stn_cx", {}), ("stn_dlx", {}), ("stn_slx", {})),
    ("stn_slx", {"iterations": 2}),
    ("stn_slx", {"iterations": 2, "transform": "projective", "align_corners": False, "padding": "zeros"}),
    ("stn_c0", {"iterations": 2, "transform": "tps"}),
    ("stn_c0", {"net": "cifar_small", "parallel": 2, "feed_theta": True, "size": 14, "antialias": True}),
    ("stn_cx", {"depth": (0, 1), "identity": "residual", "transform": "tps"}),
]


def network_of(arch: str, options: dict) -> nn.Module:
    """With a transform that differs from image to image."""
    network = seeded_network(arch, **options).eval()
    for name, p in network.named_parameters():
        if ".last." in name:
            nn.init.normal_(p, std=0.05) if p.ndim > 1 else p.data.add_(0.05)
    return network


def images(n: int) -> torch.Tensor:
    return torch.randn(n, 1, 28, 28, generator=torch.Generator().manual_seed(n))


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "options"), WIRINGS)
def test_an_onnx_file_computes_the_same_for_any_batch(arch: str, options: dict, tmp_path: Path) -> None:
    import onnxruntime

    network = network_of(arch, options)
    export.write_onnx(network, images(3), tmp_path / "model.onnx")
    assert logging.getLogger("onnxscript.optimizer._constant_folding").level == logging.NOTSET
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for B in (1, 5):
        with torch.no_grad():
            wanted = network(images(B))
        (onnx,) = session.run(["logits"], {"images": images(B).numpy()})
        torch.testing.assert_close(torch.from_numpy(onnx), wanted, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_torch_export_leaves_a_fresh_network_unchanged() -> None:
    """Tensors that are created while torch.export traces have no values and must not be cached."""
    network = seeded_network("stn_c0_coord").eval()
    for constant in (grids._axis, model_layers._coordinates, Linear._basis):
        constant.known.clear()  # type: ignore[attr-defined]
    program = torch.export.export(network, (images(3),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    with torch.no_grad():
        wanted = network(images(1))
        assert type(wanted) is torch.Tensor
        torch.testing.assert_close(program.module()(images(1)), wanted)


def test_flops_are_those_of_the_formula() -> None:
    found = {row[0]: row[4] for row in layers(seeded_network("stn_c0_coord", net="tutorial_first"), (1, 28, 28))}
    assert found["st.0.heads.0.head.0.0"] == 2 * 8 * 22 * 22 * 3 * 7 * 7  # two of its channels are coordinates
    assert found["stages.1.0"] == 2 * 20 * 8 * 8 * 10 * 5 * 5
    assert found["stages.2.1"] == 2 * 10 * 50
    assert found["stages.0.1"] == 0
    assert mflop(seeded_network("stn_c0_coord", net="tutorial_first"), (1, 28, 28)) == sum(found.values()) / 1e6


def test_flops_count_every_run_and_no_grid() -> None:
    once = [row for row in layers(seeded_network("stn_slx"), (1, 28, 28)) if row[0] == "stages.0.0"]
    assert len(once) == 2
    assert once[0][4] == once[1][4] == 2 * 16 * 20 * 20 * 9 * 9
    tps, affine = (layers(seeded_network("stn_c0", transform=t, iterations=2), (1, 28, 28)) for t in ("tps", "affine"))
    last = "st.0.heads.0.last"
    assert [row[4] for row in tps if row[0] != last] == [row[4] for row in affine if row[0] != last]
