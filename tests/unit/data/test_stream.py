"""The stream: every epoch is an order of all images, a batch a pure function of seed, step and rank."""

import pytest
import torch

from stn.config.dataset import build_dataset
from stn.config.schema import Data
from stn.data import sources
from stn.data.stream import Stream

MNIST = ["mnist", "mnist_r", "mnist_t", "mnist_s", "mnist_rts", "mnist_p", "mnist_e", "mnist_h"]


def stream(name: str = "mnist", seeds=(0,), rank: int = 0, world: int = 1, **data) -> Stream:
    return Stream(Data(name=name, **data), build_dataset(name), list(seeds), rank=rank, world=world)


def test_every_epoch_visits_every_image_once_in_an_order_of_its_own() -> None:
    s = stream(seeds=(3, 4), limit_train=1000, batch_size=64)
    assert s.steps_per_epoch == 16
    labels, sizes = [], []
    for step in range(32):
        batch = s.batch(step)
        sizes.append(batch.y_SB.shape[1])
        labels.append(batch.y_SB)
    assert sizes == ([64] * 15 + [40]) * 2
    epochs = torch.cat(labels, 1).view(2, 2, 1000)
    truth = sources.mnist().train_y[:1000].bincount()
    assert all(torch.equal(e.bincount(), truth) for e in epochs.flatten(0, 1))
    for epoch in (0, 1):
        s.seek(epoch * s.steps_per_epoch)
        order = s._order_SN.clone()
        assert torch.equal(order.sort().values, torch.arange(1000).expand(2, -1))
    assert not torch.equal(epochs[0, 0], epochs[0, 1])
    assert not torch.equal(epochs[0, 0], epochs[1, 0])


@pytest.mark.parametrize("alternate", [False, True])
@pytest.mark.parametrize("name", MNIST)
def test_batch_is_a_pure_function_of_seed_step_and_rank(name: str, alternate: bool) -> None:
    options = {"limit_train": 500, "batch_size": 30, "rotate": 10.0, "crop": 2, "cutout": 5, "flip": True}
    options["alternate_flip"] = alternate
    whole = stream(name, (5,), **options)
    fused = stream(name, (4, 5), **options)
    for step in (16, 3, 16):  # 16: the smaller batch at the end of the epoch, 20 images
        alone, together = whole.batch(step), fused.batch(step)
        assert torch.equal(alone.x_SBCHW[0], together.x_SBCHW[1])
        assert torch.equal(alone.y_SB[0], together.y_SB[1])
        parts = [stream(name, (5,), rank, 3, **options).batch(step) for rank in range(3)]
        assert torch.equal(torch.cat([p.x_SBCHW for p in parts], 1), alone.x_SBCHW)
        assert torch.cat([p.row_B for p in parts]).tolist() == alone.row_B.tolist()
        assert torch.cat([p.weight_B for p in parts]).sum().item() == pytest.approx(3)


@pytest.mark.parametrize("alternate", [False, True])
def test_alternating_flips_mirror_every_image_between_two_epochs(alternate: bool) -> None:
    s = stream("mnist", (3, 4), limit_train=200, batch_size=200, flip=True, alternate_flip=alternate)
    epochs = []
    for epoch in range(3):
        x_SNCHW = s.batch(epoch).x_SBCHW
        epochs.append(torch.stack([x[order.argsort()] for x, order in zip(x_SNCHW, s._order_SN, strict=True)]))
    mirrored = (epochs[1] == epochs[0].flip(-1)).flatten(2).all(2).float().mean(1)
    assert (mirrored == 1).all() if alternate else ((mirrored > 0.3) & (mirrored < 0.7)).all()
    assert torch.equal(epochs[2], epochs[0]) == alternate
    assert not torch.equal(epochs[0][0], epochs[0][1])


def test_a_rank_without_images_takes_part_without_weight() -> None:
    batches = [stream("mnist", (0,), rank, 4, limit_train=65, batch_size=64).batch(1) for rank in range(4)]
    assert [len(b.row_B) for b in batches] == [1, 1, 1, 1]
    assert sorted(b.weight_B.item() for b in batches) == [0, 0, 0, 4]


@pytest.mark.parametrize("ranks", [2, 3])
def test_images_of_a_smaller_last_batch_have_weights_of_their_own(ranks: int) -> None:
    """Batches of 13 and 12 give the first of two ranks the same rows."""
    streams = [stream("mnist", (0,), rank, ranks, limit_train=25, batch_size=13) for rank in range(ranks)]
    for step in (0, 1, 2, 3):
        weights = [s.batch(step).weight_B for s in streams]
        assert torch.cat(weights).sum().item() == pytest.approx(ranks)


def test_parts_of_a_batch_add_up() -> None:
    batch = stream(limit_train=100, batch_size=10).batch(0)
    parts = list(batch.parts(4))
    assert torch.equal(torch.cat([p.x_SBCHW for p in parts], 1), batch.x_SBCHW)
    assert torch.equal(torch.cat([p.weight_B for p in parts]), batch.weight_B)


@pytest.mark.parametrize("name", MNIST)
def test_test_set_is_fixed_and_divided_exactly(name: str) -> None:
    s, facts = stream(name, limit_test=250), build_dataset(name)
    whole = torch.cat([b.x_BCHW for b in s.test_batches(64)])
    other_seed = stream(name, (77,), limit_test=250, limit_train=10)
    shared = [b.x_BCHW for rank in range(3) for b in other_seed.test_batches(100, rank, 3)]
    assert torch.equal(whole, torch.cat(shared))
    assert whole.shape == (250, *facts.shape)
    assert stream(name).test_count == 10_000 * facts.replicas
    if facts.replicas > 1:
        a, b = (s.test_images(torch.tensor([i])) for i in (7, 10_007))
        assert a.y_B == b.y_B
        assert not torch.equal(a.pose_BP, b.pose_BP)
        assert a.pose_BP.shape == (1, len(facts.pose))


def test_normalisation_constants_fit_the_perturbations() -> None:
    for name in MNIST:
        x = stream(name, batch_size=2000).batch(0).x_SBCHW
        assert abs(x.mean()) < 0.03, name
        assert 0.9 < x.std() < 1.03, name


def test_validation_holds_out_training_images() -> None:
    s = stream(validation=1000)
    assert len(s.x) == 59_000
    assert s.test_count == 1000
    assert len(s._pool) == 59_000, "clutter is of none that is held out"
    assert len(stream(limit_train=9)._pool) == 60_000, "clutter is of any training image"
    images = sources.mnist()
    held = torch.cat([b.y_B for b in s.test_batches(500)])
    assert torch.equal(held, images.train_y[59_000:])
