"""Perturbed data sets: test sets whose bits never change, and training images that stay plain."""

import hashlib
import os
import subprocess
import sys

import pytest
import torch

from stn.config.dataset import build_dataset
from stn.config.resolve import resolve, signature
from stn.config.schema import Config, Data
from stn.data import sources
from stn.data.stream import Stream
from tests.support.paths import CIFAR, needs_cifar

SHA256 = {  # of 200 test images from the first to the last, and of their poses
    "mnist_r": "6de446daf329a6db",
    "mnist_t": "cf1b6f540e579be7",
    "mnist_s": "d866094337443d98",
    "mnist_tc": "cf1b6f540e579be7",
    "mnist_rts": "4e817a6c34ea9cda",
    "mnist_p": "692384dfe5779a38",
    "mnist_e": "97230ed173fcda27",
    "mnist_h": "2d8ad40f6807845c",
    "cifar10_r": "675e5c16417d6dc2",
    "cifar10_a": "3fa39156ddf570d8",
}


def stream(name: str, seeds=(0,), **data) -> Stream:
    return Stream(Data(name=name, root=str(CIFAR), **data), build_dataset(name), list(seeds))


def with_cifar(names) -> list:
    return [pytest.param(name, marks=needs_cifar) if name.startswith("cifar") else name for name in names]


# ---- the bits of the test sets


def digest(name: str) -> str:
    s = stream(name)
    images = s.test_images(torch.arange(200) * (s.test_count - 1) // 199)
    return hashlib.sha256(images.x_BCHW.numpy().tobytes() + images.pose_BP.numpy().tobytes()).hexdigest()[:16]


def test_every_perturbed_set_has_a_digest() -> None:
    from stn.config import registry

    assert {name for name in registry.entries["dataset"] if build_dataset(name).perturb} == set(SHA256)


@pytest.mark.parametrize("name", with_cifar(SHA256))
def test_test_sets_never_change(name: str) -> None:
    """If these change, all published numbers of the data set belong to another data set."""
    assert digest(name) == SHA256[name]


def test_test_sets_are_the_same_without_vector_instructions() -> None:
    names = [name for name in SHA256 if CIFAR or not name.startswith("cifar")]
    code = f"from tests.unit.data import test_perturbed_sets as t; print(*map(t.digest, {names}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"ATEN_CPU_CAPABILITY": "default", "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [SHA256[name] for name in names]


@pytest.mark.slow
@pytest.mark.parametrize("name", with_cifar(SHA256))
def test_an_image_does_not_depend_on_its_batch_or_the_threads(name: str) -> None:
    s, index = stream(name), torch.arange(9_900, 10_100) % stream(name).test_count
    whole = s.test_images(index)
    threads = torch.get_num_threads()
    for size, n in ((1, 1), (7, 2), (200, 1), (200, 2)):
        torch.set_num_threads(n)
        parts = [s.test_images(i) for i in index.split(size)]
        torch.set_num_threads(threads)
        assert torch.equal(torch.cat([p.x_BCHW for p in parts]), whole.x_BCHW)
        assert torch.equal(torch.cat([p.pose_BP for p in parts]), whole.pose_BP)


@pytest.mark.parametrize("name", with_cifar(SHA256))
def test_test_images_know_nothing_of_training(name: str) -> None:
    index = torch.arange(20)
    a, b = stream(name).test_images(index), stream(name, (5, 6), limit_train=9, rotate=20.0, flip=True)
    b.batch(0)
    assert torch.equal(a.x_BCHW, b.test_images(index).x_BCHW)
    assert a.x_BCHW.shape[1:] == build_dataset(name).shape
    assert a.pose_BP.shape == (20, len(build_dataset(name).pose))


def test_the_cluttered_set_of_jaderberg_is_finnvedens() -> None:
    a, b = (stream(name).test_images(torch.arange(5)) for name in ("mnist_t", "mnist_tc"))
    assert torch.equal(a.x_BCHW, b.x_BCHW)


# ---- the stream


def test_training_images_may_stay_as_they_are() -> None:
    a, b = stream("mnist_p", perturb_train=False), stream("mnist_p")
    x = a.as_image(a.batch(0).x_SBCHW[0])
    order = a._order_SN[0, :128]
    torch.testing.assert_close(x, sources.mnist().train_x[order].float() / 255, atol=1e-6, rtol=0)
    assert not torch.equal(a.batch(0).x_SBCHW, b.batch(0).x_SBCHW)
    index = torch.arange(9)
    assert torch.equal(a.test_images(index).x_BCHW, b.test_images(index).x_BCHW)


def test_plain_training_images_must_have_the_size_of_test_images() -> None:
    with pytest.raises(ValueError, match="perturb_train cannot be off: plain images are 28 pixels wide, mnist_t's 60"):
        resolve(Config(data=Data(name="mnist_t", perturb_train=False)))
    with pytest.raises(ValueError, match="perturb_train cannot be off: mnist is not perturbed"):
        resolve(Config(data=Data(name="mnist", perturb_train=False)))
    for name in ("mnist_e", "cifar10_a"):
        on, off = (resolve(Config(data=Data(name=name, perturb_train=p))) for p in (True, False))
        assert signature(on) != signature(off)


@pytest.mark.parametrize("name", with_cifar(["mnist", *SHA256]))
def test_plain_images_stand_in_the_middle_of_the_canvas(name: str) -> None:
    s, facts = stream(name), build_dataset(name)
    index = torch.tensor([3, s.test_count - 1])
    plain = s.as_image(s.plain_images(index))
    assert plain.shape == (2, *facts.shape)
    edge = (facts.shape[1] - facts.side) // 2
    middle = plain[:, :, edge : edge + facts.side, edge : edge + facts.side]
    source = facts.load(str(CIFAR)).test_x
    torch.testing.assert_close(middle, source[[3, len(source) - 1]].float() / 255, atol=1e-6, rtol=0)
    assert plain.sum().item() == pytest.approx(middle.sum().item(), abs=0.02)


@needs_cifar
def test_each_half_of_the_mismatched_set_has_figures_of_its_own() -> None:
    usual, other = stream("cifar10", validation=100), stream("cifar10_mismatched", validation=100)
    assert torch.equal(usual.batch(0).x_SBCHW, other.batch(0).x_SBCHW)
    mean = torch.tensor([0.4942, 0.4851, 0.4504]).view(3, 1, 1)
    std = torch.tensor([0.2467, 0.2429, 0.2616]).view(3, 1, 1)
    images = sources.cifar10(str(CIFAR))
    index = torch.arange(10)
    for s, plain in ((other, images.train_x[-100:]), (stream("cifar10_mismatched"), images.test_x)):
        bright = plain[:10].float() / 255
        torch.testing.assert_close(s.test_images(index).x_BCHW, (bright - mean) / std)
        torch.testing.assert_close(s.as_image(s.test_images(index).x_BCHW), bright)
        torch.testing.assert_close(s.as_image(s.plain_images(index)), bright)
