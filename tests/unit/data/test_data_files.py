"""Data sets from files: what is read, what is known of it, and what is said of files that cannot be used."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stn.config import dataset
from stn.config.dataset import build_dataset
from stn.config.resolve import resolve, signature
from stn.config.schema import Config, Data
from stn.data import files
from stn.data.stream import Stream


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    dataset.forget_files()
    files._arrays.cache_clear()
    return tmp_path / "cache" / "stn"


def arrays(n: int = 40, side: int = 12, channels: int = 1, classes: int = 4) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    found = {}
    for part, count in (("train", n), ("test", n // 2)):
        found[f"x_{part}"] = rng.integers(0, 256, (count, side, side, channels), dtype=np.uint8)
        found[f"y_{part}"] = np.arange(count) % classes
    return found


def save(path: Path, **given: Any) -> str:
    np.savez(path, **given)
    return f"npz:{path}"


def write_folder(path: Path, given: dict[str, Any], test: str = "test") -> str:
    for part, name in (("train", "train"), ("test", test)):
        for i, (x, y) in enumerate(zip(given[f"x_{part}"], given[f"y_{part}"], strict=True)):
            (path / name / f"class{y}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(x.squeeze()).save(path / name / f"class{y}" / f"{i}.png")
    return f"folder:{path}"


@pytest.mark.parametrize("channels", [1, 3])
def test_the_facts_are_those_of_the_arrays(tmp_path: Path, channels: int) -> None:
    given = arrays(channels=channels)
    dataset = build_dataset(save(tmp_path / "a.npz", **given))
    share = given["x_train"].astype(np.float64) / 255
    assert dataset.shape == (channels, 12, 12)
    assert (dataset.train, dataset.test, dataset.classes, dataset.side) == (40, 20, 4, 12)
    assert dataset.mean == pytest.approx(share.mean((0, 1, 2)), abs=1e-6)
    assert dataset.std == pytest.approx(share.std((0, 1, 2)), abs=1e-6)
    train_x, train_y, test_x, test_y = dataset.load(None)
    np.testing.assert_array_equal(train_x.numpy(), np.moveaxis(given["x_train"], 3, 1))
    np.testing.assert_array_equal(test_x.numpy(), np.moveaxis(given["x_test"], 3, 1))
    np.testing.assert_array_equal(train_y.numpy(), given["y_train"])
    np.testing.assert_array_equal(test_y.numpy(), given["y_test"])
    x_SBCHW = Stream(Data(batch_size=40), dataset, [0]).batch(0).x_SBCHW
    assert abs(float(x_SBCHW.mean())) < 1e-4
    assert float(x_SBCHW.std()) == pytest.approx(1, abs=1e-3)


def test_other_layouts_and_names_are_the_same_data_set(tmp_path: Path) -> None:
    given = arrays(channels=3)
    first = {name: np.moveaxis(x, 3, 1) if x.ndim == 4 else x for name, x in given.items()}
    medmnist = dict(zip(files.KEYS[2], (x[:, None] if x.ndim == 1 else x for x in given.values()), strict=True))
    content = build_dataset(save(tmp_path / "a.npz", **given)).content
    assert build_dataset(save(tmp_path / "b.npz", **first)).content == content
    assert build_dataset(save(tmp_path / "c.npz", **medmnist)).content == content
    grey = arrays()
    flat = {name: x.squeeze(-1) if x.ndim == 4 else x for name, x in grey.items()}
    contents = {build_dataset(save(tmp_path / f"{i}.npz", **x)).content for i, x in enumerate((grey, flat))}
    assert len(contents) == 1
    assert content not in contents


@pytest.mark.parametrize("test", ["test", "val"])
def test_a_folder_is_decoded_once_and_its_classes_are_mixed(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, test: str
) -> None:
    given = arrays()
    name = write_folder(tmp_path / "images", given, test)
    known = build_dataset(name)
    train_x, train_y, test_x, _ = known.images(None)
    assert known.classes == 4
    originals = {x.tobytes(): int(y) for x, y in zip(given["x_train"], given["y_train"], strict=True)}
    assert {x.numpy().tobytes(): int(y) for x, y in zip(train_x, train_y, strict=True)} == originals
    assert len(test_x) == 20
    assert train_y.tolist() != sorted(train_y.tolist())
    assert len(set(train_y[-10:].tolist())) > 1  # held out for validation
    dataset.forget_files()
    files._arrays.cache_clear()
    monkeypatch.setattr(files.image_folder, "read", lambda path: pytest.fail("decoded again"))
    again = build_dataset(name)
    assert again.content == known.content
    np.testing.assert_array_equal(again.load(None)[0].numpy(), train_x.numpy())
    assert {path.suffix for path in cache.iterdir()} == {".json", ".npz"}


def test_the_signature_is_of_what_is_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = arrays(side=28)
    (tmp_path / "b").mkdir()
    names = [save(tmp_path / "a.npz", **given), save(tmp_path / "b" / "c.npz", **given)]
    monkeypatch.chdir(tmp_path)
    sigs = [signature(resolve(Config(data=Data(name=name)))) for name in [*names, "NPZ:a.npz"]]
    assert len(set(sigs)) == 1
    assert sigs[0] != signature(resolve(Config()))
    given["x_test"][0, 0, 0] ^= 1
    dataset.forget_files()
    assert signature(resolve(Config(data=Data(name=save(tmp_path / "a.npz", **given))))) not in sigs
    config = resolve(Config(data=Data(name="npz:b/c.npz")))
    assert config.data.name == f"npz:{tmp_path / 'b' / 'c.npz'}"
    assert (config.data.label, config.log.name) == ("c", "stn_slx-c")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x_train": None}, "it needs x_train, y_train, x_test, y_test or"),
        ({"x_train": np.zeros((40, 12, 12))}, r"x_train is float64 \[40, 12, 12\]; images must be uint8"),
        ({"x_train": np.zeros((40, 12, 10), np.uint8)}, "square ones of 1 or 3 channels are needed"),
        ({"x_test": np.zeros((20, 14, 14), np.uint8)}, r"training images are \[1, 12, 12\], test images \[1, 14, 14\]"),
        ({"y_train": np.zeros(39, int)}, r"y_train is int64 \[39\]; each of 40 images needs a whole number"),
        ({"y_train": np.zeros(40)}, "y_train is float64"),
        ({"y_train": np.zeros(40, int), "y_test": np.zeros(20, int)}, "labels must be 0 to K - 1"),
        ({"y_test": np.full(20, -1)}, "labels must be 0 to K - 1"),
        ({"y_test": np.full(20, 4)}, "the test labels go up to 4, the training labels to 3"),
        ({"x_train": np.zeros((40, 12, 12), np.uint8)}, "the training images have one value everywhere"),
        ({"x_train": np.array([object()] * 40)}, "cannot read .*Object arrays cannot be loaded"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, change: dict, said: str) -> None:
    given = {name: array for name, array in (arrays() | change).items() if array is not None}
    with pytest.raises(ValueError, match=said):
        build_dataset(save(tmp_path / "a.npz", **given))


def test_what_is_no_data_set_says_so(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello")
    whole = save(tmp_path / "cut.npz", **arrays()).removeprefix("npz:")
    Path(whole).write_bytes(Path(whole).read_bytes()[:1000])
    np.save(tmp_path / "one.npy", arrays()["x_train"])
    for name in ("text.npz", "cut.npz", "one.npy", "/dev/zero", "."):
        with pytest.raises(ValueError, match=r"it is no \.npz file"):
            build_dataset(f"npz:{tmp_path / name}")
    np.savez_compressed(tmp_path / "damaged.npz", **arrays())
    content = (tmp_path / "damaged.npz").read_bytes()
    for i in range(200, len(content) - 600, 97):
        (tmp_path / "damaged.npz").write_bytes(content[:i] + bytes([content[i] ^ 255]) + content[i + 1 :])
        with suppress(ValueError):  # nothing else is raised
            files.npz(str(tmp_path / "damaged.npz"))
    with pytest.raises(ValueError, match="nosuchuser"):
        resolve(Config(data=Data(name="npz:~nosuchuser/a.npz")))
    with pytest.raises(ValueError, match=r"cannot read .*nix\.npz: No such file"):
        build_dataset(f"npz:{tmp_path / 'nix.npz'}")
    with pytest.raises(ValueError, match="no folder train with a folder for each class"):
        build_dataset(f"folder:{tmp_path}")
    (tmp_path / "train" / "a").mkdir(parents=True)
    with pytest.raises(ValueError, match="train has no images: it needs CLASS/NAME"):
        build_dataset(f"folder:{tmp_path}")
    for name, said in (("zip:x", "no kind of data file 'zip'; known: folder, npz"), ("npz:", "needs a path behind")):
        with pytest.raises(ValueError, match=said):
            resolve(Config(data=Data(name=name)))


def test_images_that_do_not_fit_are_named(tmp_path: Path) -> None:
    name = write_folder(tmp_path / "images", arrays())
    odd = tmp_path / "images" / "test" / "class1" / "odd.png"
    Image.new("L", (9, 12)).save(odd)
    with pytest.raises(ValueError, match=r"most are 12x12, .*odd\.png is 9x12"):
        build_dataset(name)
    odd.write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"cannot read the image .*odd\.png"):
        build_dataset(name)
    for mode in ("I;16", "F"):
        Image.new(mode, (12, 12)).save(odd := odd.with_suffix(".tiff"))
        with pytest.raises(ValueError, match=r"odd\.tiff: it has more than 8 bits a pixel"):
            build_dataset(name)
    odd.unlink()
    odd.with_suffix(".png").unlink()
    (tmp_path / "images" / "train" / ".empty").mkdir()
    assert files.folder(str(tmp_path / "images")).classes == 4
    (tmp_path / "images" / "test" / "class9").mkdir()
    Image.new("L", (12, 12)).save(tmp_path / "images" / "test" / "class9" / "x.png")
    with pytest.raises(ValueError, match="class 'class9' has no training images"):
        build_dataset(name)


def test_without_a_home_it_is_read_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert build_dataset(write_folder(tmp_path / "images", arrays())).train == 40
