"""The networks and batches of the programs that ours is compared with: the same as ours."""
# pyright: reportMissingImports=false

import measured
import numpy as np
import peers
import pytest
import torch


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("mnist")
    peers.unpack(str(folder))
    return str(folder)


@pytest.mark.parametrize("arch", measured.SIX)
def test_peers_on_torch_train_the_ordinary_network(arch: str) -> None:
    import peer_torch
    from configured import configure

    from stn.models.build import build_network

    job = {"network": peers.NETWORKS[arch]}
    theirs, ours = peer_torch.network(job), build_network(configure(*job["network"]))
    theirs.load_state_dict(ours.state_dict())
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.parameters())
    x = torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(theirs(x), ours(x), atol=1e-5, rtol=1e-5)


def test_a_batch_of_the_peers_is_turned_image_by_image(root: str) -> None:
    import peer_torch

    plain = peer_torch.Images({"root": root, "network": peers.NETWORKS["mnist"]})
    turned = peer_torch.Images({"root": root, "network": peers.NETWORKS["cnn"]})
    x, y = plain.__getitems__([3, 3])
    assert torch.equal(x[0], x[1])
    assert y.tolist() == [plain[3][1]] * 2
    x = turned.__getitems__([3, 3])[0]
    assert not torch.equal(x[0], x[1])
    assert x.shape == (2, 1, 28, 28)
    assert x.mean() == pytest.approx(plain[3][0].mean().item(), abs=0.1)


def as_flax(state: dict[str, torch.Tensor], arch: str) -> dict:
    """Return our weights under the names of the Flax network; its maps have their channels last."""
    tree: dict[str, dict] = {}

    def put(name: str, prefix: str, channels: int = 0, part: slice = slice(None)) -> None:
        weight, bias = state[f"{prefix}.weight"], state[f"{prefix}.bias"]
        if weight.dim() == 4:
            weight = weight[:, part].permute(2, 3, 1, 0)
        else:
            if channels:  # features are in the order C, H, W with us, and H, W, C there
                weight = weight.view(len(weight), channels, -1).transpose(1, 2).flatten(1)
            weight = weight.T
        *path, leaf = name.split("/")
        at = tree
        for key in path:
            at = at.setdefault(key, {})
        at[leaf] = {"kernel": weight.numpy()} | ({} if leaf == "coordinates" else {"bias": bias.numpy()})

    stages = "" if arch == "cnn" else "stages."
    for i in range(2):
        put(f"stages_{i}/image", f"{stages}{i}.0")
    put("out", f"{stages}2.1", 32)
    if arch == "cnn":
        return {"params": tree}
    head, trunk = "st.0.heads.0.head.0", "st.0.heads.0.trunk.0.0"
    if arch == "stn_dlx":
        put("trunk_0/image", trunk)
    if arch == "stn_c0_coord":
        for i, image in enumerate((1, 8)):
            put(f"trunk_{i}/image", f"st.0.heads.0.head.{i}.0", part=slice(0, image))
            put(f"trunk_{i}/coordinates", f"st.0.heads.0.head.{i}.0", part=slice(image, None))
        put("head_0", "st.0.heads.0.head.2.1", 10)
    else:
        for i in range(3):
            put(f"head_{i}", f"{head}.{2 * i + 1}", 0 if i or arch == "stn_c0" else 16)
    put("theta", "st.0.heads.0.last")
    return {"params": tree}


@pytest.mark.parametrize("arch", measured.SIX)
def test_the_network_on_jax_is_the_same(arch: str) -> None:
    pytest.importorskip("flax", reason="flax is not installed: pip install '.[peers]'")
    pytest.importorskip("optax", reason="optax is not installed: pip install '.[peers]'")
    import jax
    import peer_jax
    from configured import configure

    from stn.models.build import build_network

    ours = build_network(configure(*peers.NETWORKS[arch])).eval()
    with torch.no_grad():  # a transform that moves something, also beyond the border
        for name, p in ours.named_parameters():
            if ".last." in name:
                p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    x = torch.randn(16, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    weights = as_flax({name: p.detach() for name, p in ours.state_dict().items()}, arch)
    net = peer_jax.Network(arch)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32)))
    assert jax.tree.map(np.shape, weights) == jax.tree.map(np.shape, shapes)
    assert sum(map(np.size, jax.tree.leaves(weights))) == sum(p.numel() for p in ours.parameters())
    logits = np.asarray(net.apply(weights, x.permute(0, 2, 3, 1).numpy()))
    assert np.abs(logits - ours(x).detach().numpy()).max() < 1e-5
