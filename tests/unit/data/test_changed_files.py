"""Data sets that change under a training, or that are not what their own description says."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from stn.config import dataset, registry
from stn.config.dataset import Dataset, build_dataset
from stn.config.resolve import resolve
from stn.config.schema import Config, Data
from stn.data import files
from tests.unit.data.test_data_files import arrays, cache, save, write_folder  # noqa: F401  (cache is a fixture)


def test_a_process_trains_on_one_content(tmp_path: Path) -> None:
    name = save(tmp_path / "a.npz", **arrays())
    before = build_dataset(name)
    before.images(None)
    save(tmp_path / "a.npz", **(arrays() | {"x_train": arrays()["x_train"][::-1]}))
    assert build_dataset(name).content == before.content
    assert torch.equal(build_dataset(name).images(None)[0], before.images(None)[0])
    files._arrays.cache_clear()  # as another data set that was read in between would
    with pytest.raises(ValueError, match=r"a\.npz has changed since it was first read; start this again"):
        build_dataset(name).images(None)
    dataset.forget_files()  # another process
    assert build_dataset(name).content != before.content


def test_other_images_with_the_same_size_and_time_are_read_at_the_next_start(tmp_path: Path) -> None:
    name = save(tmp_path / "a.npz", **arrays())
    before, stat = build_dataset(name), (tmp_path / "a.npz").stat()
    save(tmp_path / "a.npz", **(arrays() | {"x_train": arrays()["x_train"][::-1]}))
    os.utime(tmp_path / "a.npz", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    files._arrays.cache_clear()
    dataset.forget_files()
    with pytest.raises(ValueError, match="start this again"):
        build_dataset(name).images(None)
    dataset.forget_files()
    assert build_dataset(name).content != before.content
    assert len(build_dataset(name).images(None)[0]) == 40


def test_a_file_may_be_deleted_once_it_has_been_read(tmp_path: Path) -> None:
    name = save(tmp_path / "a.npz", **arrays())
    build_dataset(name).images(None)
    (tmp_path / "a.npz").unlink()
    assert len(build_dataset(name).images(None)[0]) == 40


def test_hidden_folders_and_links_upwards_are_no_images(tmp_path: Path) -> None:
    name = write_folder(tmp_path / "images", arrays())
    content = build_dataset(name).content
    for folder in (tmp_path / "images" / "train").iterdir():
        (folder / "up").symlink_to("..")
        (folder / "self").symlink_to(folder)
        shutil.copytree(tmp_path / "images" / "test" / folder.name, folder / ".ipynb_checkpoints")
    dataset.forget_files()
    assert build_dataset(name).content == content


@pytest.mark.parametrize("linked", [False, True])
def test_images_in_folders_below_a_class_are_of_that_class(tmp_path: Path, linked: bool) -> None:
    name = write_folder(tmp_path / "images", arrays())
    flat = build_dataset(name)
    for folder in (tmp_path / "images" / "train").iterdir():
        folder.rename(tmp_path / folder.name)
        folder.mkdir()
        inner = folder / "sub"
        inner.symlink_to(tmp_path / folder.name) if linked else (tmp_path / folder.name).rename(inner)
    dataset.forget_files()
    deep = build_dataset(name)
    assert (deep.train, deep.classes) == (flat.train, flat.classes)
    assert sorted(deep.images(None)[1].tolist()) == sorted(flat.images(None)[1].tolist())


def _described(first: int = 0, kind: torch.dtype = torch.uint8, **facts: Any) -> Dataset:
    images, labels = torch.zeros(40, 1, 28, 28, dtype=kind), torch.arange(40) % 10
    labels[0] = first
    said: dict[str, Any] = {"train": 40, "test": 40} | facts
    return Dataset(lambda root: (images, labels, images, labels), (1, 28, 28), (0.5,), (0.5,), "tutorial", **said)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"train": 60_000}, r"40 training images .* its Dataset says train=60,000, test=40"),
        ({"test": 39}, "train=40, test=39"),
        ({"classes": 9}, "has a label 9; its Dataset says classes=9"),
        ({"first": -100}, "has a label -100; its Dataset says classes=10"),
        ({"kind": torch.float32}, r"images are float32 \[1, 28, 28\]; its Dataset says uint8 \[1, 28, 28\]"),
        ({"perturb": print, "side": 32}, r"images are uint8 \[1, 28, 28\]; its Dataset says uint8 \[1, 32, 32\]"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(facts: dict[str, Any], said: str) -> None:
    assert len(_described().images(None)) == len(_described(side=32).images(None)) == 4
    with pytest.raises(ValueError, match=said):
        _described(**facts).images(None)


def test_a_reader_says_what_is_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = registry.find("reader", "npz")
    monkeypatch.setattr(dataset, "find_dataset", lambda name: entry._replace(function=lambda path: _described()))
    with pytest.raises(ValueError, match=r"the reader of 'npz:a' gives no `content`"):
        build_dataset("npz:a")


def test_a_long_name_is_cut(tmp_path: Path) -> None:
    config = resolve(Config(data=Data(name=save(tmp_path / f"{'x' * 200}.npz", **arrays(side=28)))))
    assert config.data.label == "x" * 100
    assert config.log.name == f"stn_slx-{'x' * 100}"
