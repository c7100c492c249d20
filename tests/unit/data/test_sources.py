"""Sources of images: packed, downloaded, damaged or missing."""

import lzma
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from stn.data import sources
from tests.support.paths import CIFAR, needs_cifar


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


def write_layout(root: Path, images: Sequence[torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Write 500 training and 100 test images as torchvision does, which is not to check them."""
    from torchvision.datasets import CIFAR10

    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    train_x, train_y, test_x, test_y = images
    parts = {f"data_batch_{i + 1}": (train_x[i * 100 :][:100], train_y[i * 100 :][:100]) for i in range(5)}
    for name, (x, y) in (parts | {"test_batch": (test_x, test_y)}).items():
        (folder / name).write_bytes(pickle.dumps({"data": x.reshape(-1, 3072).numpy(), "labels": y.tolist()}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr(CIFAR10, "train_list", [[name, None] for name in parts])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", None]])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": None})


@needs_cifar
def test_cifar10_in_torchvisions_layout_gives_the_same_tensors(tmp_path: Path, monkeypatch) -> None:
    assert CIFAR is not None
    images = sources.cifar10(str(CIFAR))
    write_layout(tmp_path, [x[:500] if len(x) > 10_000 else x[:100] for x in images], monkeypatch)
    found = sources.cifar10(str(tmp_path))
    assert torch.equal(found.train_x, images.train_x[:500])
    assert torch.equal(found.test_y, images.test_y[:100])


@pytest.mark.parametrize("others", [False, True])
def test_a_download_appears_whole_however_many_processes_start_it(others: bool, tmp_path: Path, monkeypatch) -> None:
    import torchvision.datasets.cifar as module

    images = [torch.arange(n, dtype=torch.uint8).expand(3072, n).T.contiguous() for n in (100, 50)]
    images = [images[0].repeat(5, 1), torch.arange(500) % 10, images[1].repeat(2, 1), torch.arange(100) % 10]
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"cut off by a kill")
    roots = []

    def download(url: str, root: str, **_: object) -> None:
        roots.append(Path(root))
        if others:  # another process is done before
            write_layout(tmp_path, images, monkeypatch)
        assert (tmp_path / "cifar-10-batches-py").exists() == others
        write_layout(Path(root), images, monkeypatch)

    monkeypatch.setattr(module, "download_and_extract_archive", download)
    found = sources.cifar10(str(tmp_path))
    assert torch.equal(found.train_x.reshape(500, 3072), images[0])
    assert [root.parent for root in roots] == [tmp_path]
    assert {path.name for path in tmp_path.iterdir()} == {"cifar-10-batches-py", "cifar-10-python.tar.gz"}


def test_missing_cifar10_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets.cifar as module

    def no_network(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(module, "download_and_extract_archive", no_network)
    with pytest.raises(ValueError, match=r"cifar-10-batches-bin .*--data-root or STN_DATA"):
        sources.cifar10(str(tmp_path / "nothing"))
