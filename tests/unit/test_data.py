"""Sources, perturbations, augmentation and the stream."""

import lzma
import math
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from stn.config.dataset import build_dataset
from stn.config.schema import Data
from stn.data import augment, geometry, perturbations, sources
from stn.data.rng import Draws
from stn.data.stream import Stream
from stn.models.grids import affine_grid, sample
from tests.support.networks import invert_affine
from tests.support.paths import CIFAR, needs_cifar

MNIST = ["mnist", "mnist_r", "mnist_t", "mnist_s", "mnist_rts", "mnist_p", "mnist_e", "mnist_h"]


def stream(name: str = "mnist", seeds=(0,), rank: int = 0, world: int = 1, **data) -> Stream:
    return Stream(Data(name=name, **data), build_dataset(name), list(seeds), rank=rank, world=world)


def test_mnist_is_whole() -> None:
    images = sources.mnist()
    assert images.train_x.shape == (60_000, 1, 28, 28)
    assert images.test_x.shape == (10_000, 1, 28, 28)
    assert images.train_y[:5].tolist() == [5, 0, 4, 1, 9]
    assert images.train_y.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert abs(images.train_x.double().mean() / 255 - 0.1307) < 1e-4


def packed_mnist(tmp_path: Path) -> Path:
    shipped = Path(sources.__file__).parent / "mnist_xz"
    return shutil.copytree(shipped, tmp_path / "mnist_xz", ignore=shutil.ignore_patterns("*-ubyte"))


def test_mnist_is_unpacked_once_and_what_is_kept_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, unpacked = "t10k-labels-idx1-ubyte", []
    packed, sha256 = packed_mnist(tmp_path) / f"{name}.xz", sources._MNIST[name]
    decompress = lzma.decompress
    monkeypatch.setattr(sources.lzma, "decompress", lambda content: unpacked.append(1) or decompress(content))
    first = sources._unpacked(packed, sha256)
    assert sources._unpacked(packed, sha256) == first
    assert (len(first), len(unpacked)) == (10_008, 1)
    packed.with_suffix("").write_bytes(bytes(10_008))  # damaged: unpacked again
    assert sources._unpacked(packed, sha256) == first
    assert packed.with_suffix("").read_bytes() == first
    packed.with_suffix("").unlink()
    monkeypatch.setattr(sources, "write_atomic", lambda path, content: (_ for _ in ()).throw(PermissionError(path)))
    assert sources._unpacked(packed, sha256) == first
    assert len(unpacked) == 3


@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "other contents"])
def test_damaged_mnist_is_refused(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = packed_mnist(tmp_path)
    labels = folder / "t10k-labels-idx1-ubyte.xz"
    content = bytearray(labels.read_bytes())
    if damage == "flipped bit":
        content[2000] ^= 1
    elif damage == "truncated":
        del content[2000:]
    else:
        content = bytearray(lzma.compress(bytes(10_008)))
    labels.write_bytes(content)
    monkeypatch.setattr(sources.resources, "files", lambda _: tmp_path)
    sources.mnist.cache_clear()
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte\.xz is damaged"):
        sources.mnist()
    sources.mnist.cache_clear()


@needs_cifar
def test_cifar10_binary(tmp_path: Path) -> None:
    images = sources.cifar10(str(CIFAR))
    assert images.train_x.shape == (50_000, 3, 32, 32)
    assert images.test_y.bincount().tolist() == [1000] * 10
    channel_means = images.train_x.double().mean((0, 2, 3)) / 255
    torch.testing.assert_close(channel_means, torch.tensor([0.4914, 0.4822, 0.4465]).double(), atol=2e-4, rtol=0)

    assert CIFAR is not None
    damaged = tmp_path / "cifar-10-batches-bin"
    shutil.copytree(CIFAR / "cifar-10-batches-bin", damaged)
    with (damaged / "data_batch_3.bin").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(ValueError, match=r"data_batch_3.bin is damaged"):
        sources.cifar10(str(tmp_path))
    (damaged / "data_batch_3.bin").unlink()
    with pytest.raises(ValueError, match=r"cannot read .*data_batch_3.bin"):
        sources.cifar10(str(tmp_path))


@needs_cifar
def test_cifar10_in_torchvisions_layout_gives_the_same_tensors(tmp_path: Path, monkeypatch) -> None:
    from torchvision.datasets import CIFAR10

    assert CIFAR is not None
    folder, md5 = tmp_path / "cifar-10-batches-py", {}
    folder.mkdir()
    images = sources.cifar10(str(CIFAR))
    for name, x, y in [
        *((f"data_batch_{i + 1}", images.train_x[i * 100 :][:100], images.train_y[i * 100 :][:100]) for i in range(5)),
        ("test_batch", images.test_x[:100], images.test_y[:100]),
    ]:
        (folder / name).write_bytes(pickle.dumps({"data": x.reshape(-1, 3072).numpy(), "labels": y.tolist()}))
        md5[name] = None
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr(CIFAR10, "train_list", [[n, None] for n in md5 if n != "test_batch"])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", None]])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": None})
    found = sources.cifar10(str(tmp_path))
    assert torch.equal(found.train_x, images.train_x[:500])
    assert torch.equal(found.test_y, images.test_y[:100])


def test_missing_cifar10_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets.cifar as module

    def no_network(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(module, "download_and_extract_archive", no_network)
    with pytest.raises(ValueError, match=r"cifar-10-batches-bin .*--data-root or STN_DATA"):
        sources.cifar10(str(tmp_path / "nothing"))


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


@pytest.mark.parametrize("name", MNIST)
def test_batch_is_a_pure_function_of_seed_step_and_rank(name: str) -> None:
    options = {"limit_train": 500, "batch_size": 30, "rotate": 10.0, "crop": 2, "flip": True}
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


def test_a_rank_without_images_takes_part_without_weight() -> None:
    batches = [stream("mnist", (0,), rank, 4, limit_train=65, batch_size=64).batch(1) for rank in range(4)]
    assert [len(b.row_B) for b in batches] == [1, 1, 1, 1]
    assert sorted(b.weight_B.item() for b in batches) == [0, 0, 0, 4]


def test_parts_of_a_batch_add_up() -> None:
    batch = stream(limit_train=100, batch_size=10).batch(0)
    parts = list(batch.parts(4))
    assert torch.equal(torch.cat([p.x_SBCHW for p in parts], 1), batch.x_SBCHW)
    assert torch.equal(torch.cat([p.weight_B for p in parts]), batch.weight_B)


@pytest.mark.parametrize("name", MNIST)
def test_test_set_is_fixed_and_shared_out_exactly(name: str) -> None:
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
    assert len(s._pool) == len(stream(limit_train=9)._pool) == 60_000, "clutter is of any training image"
    images = sources.mnist()
    held = torch.cat([b.y_B for b in s.test_batches(500)])
    assert torch.equal(held, images.train_y[59_000:])


def digits(n: int) -> torch.Tensor:
    return sources.mnist().test_x[:n]


def test_rotation_is_uniform_and_says_what_it_did() -> None:
    x, degrees = perturbations.rotate(digits(5000), Draws(1, torch.arange(5000)), digits(10))
    assert degrees.min() < -89
    assert degrees.max() > 89
    assert abs(degrees.mean()) < 3
    assert abs(degrees.std() - 180 / 12**0.5) < 1
    # The sampling matrix of the opposite angle undoes it, except for the blur of two resamplings.
    angle = torch.deg2rad(degrees[:, 0])
    theta = torch.stack([angle.cos(), -angle.sin(), 0 * angle, angle.sin(), angle.cos(), 0 * angle], 1).view(-1, 2, 3)
    back = sample(x, affine_grid(invert_affine(theta), (28, 28), True), "zeros", True)
    original = digits(5000).float() / 255
    error = (back - original).abs().mean()
    assert error < 0.03
    assert (x - original).abs().mean() > 4 * error


def test_rotation_by_90_degrees_is_counter_clockwise() -> None:
    class Quarter(Draws):
        def uniform(self, n: int, low: float = 0, high: float = 1) -> torch.Tensor:
            return torch.full((1, 1), high)

    x, degrees = perturbations.rotate(digits(1), Quarter(0), digits(1))
    assert degrees.item() == 90
    torch.testing.assert_close(x, torch.rot90(digits(1).float() / 255, 1, (2, 3)), atol=1e-4, rtol=0)


def test_translation_places_the_digit_where_it_says() -> None:
    n = 3000
    x, pose = perturbations.translate_in_clutter(digits(n), Draws(2, torch.arange(n)), digits(100))
    assert x.shape == (n, 1, 60, 60)
    assert x.max() <= 1
    assert pose.unique().tolist() == list(range(-16, 17))
    for i in range(20):
        left, top = (int(v) + 16 for v in pose[i])
        window = x[i, 0, top : top + 28, left : left + 28]
        assert (window >= digits(n)[i, 0].float() / 255 - 1e-6).all()  # clutter only adds
    added = x.sum((1, 2, 3)) - digits(n).float().sum((1, 2, 3)) / 255
    assert added.mean() > 5
    assert added.min() > -30  # clamping takes a little


def test_scaling_says_the_area_and_keeps_the_centre() -> None:
    n = 2000
    x, pose = perturbations.scale_in_clutter(
        digits(n), Draws(3, torch.arange(n)), torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    )
    assert x.shape == (n, 1, 112, 112)
    assert -2 <= pose.min() < -1.9
    assert 3.9 < pose.max() <= 4
    assert abs(pose.mean() - 1) < 0.15
    mass = digits(n).float().sum((1, 2, 3)) / 255
    large = pose[:, 0] > 0  # small ones alias: bilinear sampling skips pixels
    torch.testing.assert_close((x.sum((1, 2, 3)) / mass)[large].log2(), pose[large, 0], atol=0.12, rtol=0)


def six(x_M1HW: torch.Tensor, each: float, spread: float) -> None:
    """The sum over a canvas is the sum of six independent draws with this mean and standard deviation."""
    total, n = 255 * x_M1HW.double().sum((1, 2, 3)), len(x_M1HW)
    assert abs(total.mean() - 6 * each) < 4 * 6**0.5 * spread / n**0.5 + 1e-4
    assert abs(total.std() / (6**0.5 * spread) - 1) < 0.1


def power(k: int) -> float:
    """Return the mean of f^k, where f is 2^U(-1, 2)."""
    return (4**k - 0.5**k) / (3 * k * math.log(2))


WIDTH = {
    "mnist_t": ((55**2 - 1) + (6**2 - 1)) ** 0.5 / 60,
    "mnist_s": (112**2 - 12 * 112 * power(3) / power(2) + 72 * power(4) / power(2)) ** 0.5 / 112,
}
"""Of where clutter lies, beside that of the canvas: crops lie whole on it."""


@pytest.mark.parametrize("name", ["mnist_t", "mnist_s"])
def test_clutter_is_six_crops_of_any_place_of_any_training_image(name: str) -> None:
    """Without a digit, and too dark to be clamped, a canvas sums to the sum of its crops."""
    make, n = build_dataset(name).perturb, 1500
    assert make
    black, draws = torch.zeros(n, 1, 28, 28).byte(), lambda: Draws(4, torch.arange(n))
    mean, square = (power(2), power(4)) if name == "mnist_s" else (1.0, 1.0)
    ones = torch.ones(1, 1, 28, 28).byte()
    images = torch.arange(1, 42).byte().view(-1, 1, 1, 1).expand(-1, 1, 28, 28)
    across = torch.arange(28).byte().expand(1, 1, 28, 28)
    for pool, value, variance in (
        (ones, 1.0, 0.0),  # six, of 36 pixels, each as large as it should be
        (images, 21.0, (41**2 - 1) / 12),  # of all images alike
        (across, 13.5, (23**2 - 1) / 12),  # from all columns alike
        (across.transpose(2, 3), 13.5, (23**2 - 1) / 12),
    ):
        spread = 36 * (square * (value**2 + variance) - (mean * value) ** 2) ** 0.5
        x, _ = make(black, draws(), pool)
        if spread == 0:
            assert torch.equal((255 * x).sum((1, 2, 3)).round(), torch.full((n,), 6.0 * 36))
        else:
            six(x, 36 * mean * value, spread)
    seen = make(black, draws(), ones)[0].double().mean((0, 1)) * 255
    for profile in (seen.sum(0), seen.sum(1)):
        at = torch.arange(len(profile)) - (len(profile) - 1) / 2
        middle = (profile * at).sum() / profile.sum()
        width = ((profile * (at - middle) ** 2).sum() / profile.sum()) ** 0.5
        assert abs(middle) < 0.02 * len(profile)
        assert abs(12**0.5 * width / len(profile) - WIDTH[name]) < 0.02


def test_random_affine_without_range_is_the_identity() -> None:
    x = digits(8).float() / 255
    same = augment.random_affine(x, Draws(1, torch.arange(8)), Data())
    torch.testing.assert_close(same, x, atol=1e-4, rtol=0)


def test_random_affine_agrees_with_torchvision() -> None:
    from torchvision.transforms.functional import InterpolationMode, affine

    class Fixed(Draws):
        values = (20.0, 5.0, 1.2, 0.1, 0.05)

        def uniform(self, n: int, low: float = 0, high: float = 1) -> torch.Tensor:
            self._drawn += 1
            return torch.full((8, 1), self.values[self._drawn - 1])

    x = digits(8).float() / 255
    ours = augment.random_affine(x, Fixed(0), Data(rotate=30, translate=0.2, scale=(0.8, 1.3), shear=10))
    shift: Any = [2.8, 1.4]  # torchvision's annotation says integers, its documentation does not
    theirs = affine(x, -20.0, shift, 1.2, [-5.0, 0.0], InterpolationMode.BILINEAR)
    difference = (ours - theirs).abs().mean()
    assert difference < 0.25 * (ours - x).abs().mean(), float(difference)


def test_crop_and_flip_move_pixels_only() -> None:
    x = torch.arange(2 * 3 * 8 * 8).view(2, 3, 8, 8).float() + 1
    flipped = augment.random_flip(x.repeat(50, 1, 1, 1), Draws(1, torch.arange(100)))
    mirrored = (flipped[:, 0, 0, 0] == x.repeat(50, 1, 1, 1)[:, 0, 0, 7]).float().mean()
    assert 0.3 < mirrored < 0.7
    cropped = augment.random_crop(x, Draws(2, torch.arange(2)), 2)
    assert cropped.shape == x.shape
    assert set(cropped.unique().tolist()) <= {0.0, *x.unique().tolist()}


def test_functions_of_a_row_do_not_depend_on_its_place_in_the_batch() -> None:
    """fp32 exp2 does: its vector and scalar forms differ in the last bit."""
    x = torch.linspace(-90, 90, 1003)
    for function in (lambda v: torch.stack(geometry.cos_sin(v), -1), lambda v: geometry.exp2(v / 45)):
        assert torch.equal(function(x), torch.cat([function(x[i : i + 1]) for i in range(len(x))]))
