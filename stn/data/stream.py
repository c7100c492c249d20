"""Batches as a pure function of (seed, step, rank): resident images, perturbed on the device.

S seed, B this rank's part of the batch, M = S * B rows, N training images, C channel, H, W.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from stn.config.dataset import Dataset
from stn.config.schema import Data
from stn.config.seed_list import share
from stn.data.augment import random_affine, random_crop, random_flip
from stn.data.geometry import unit
from stn.data.rng import Draws, Site

TEST_SEED = 20_040_678  # fixes the test perturbations for good
CACHED = 2**18
"""Test pixels per batch on a CPU: 1.3 times as fast as 1,000 images of 60x60, 2 times as 1,000 of 112x112."""


class Batch(NamedTuple):
    x_SBCHW: Tensor
    y_SB: Tensor
    weight_B: Tensor
    """Weight of each row in the mean over the whole batch, times the number of ranks."""
    row_B: Tensor
    """Position in the whole batch, the key of random numbers such as dropout's."""

    def parts(self, n: int) -> list["Batch"]:
        """Split the batch in n parts; weights are of the whole batch, so losses and gradients add up."""
        split = zip(*(each.tensor_split(n, min(each.dim(), 2) - 1) for each in self), strict=True)
        return [part for part in map(Batch._make, split) if len(part.row_B)]


class TestBatch(NamedTuple):
    x_BCHW: Tensor
    y_B: Tensor
    pose_BP: Tensor


class Stream:
    """A data set on the device, as training batches and test batches."""

    def __init__(
        self,
        data: Data,
        dataset: Dataset,
        seeds: list[int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        images = dataset.load(data.root)
        self.data, self.dataset, self.rank, self.world = data, dataset, rank, world
        self.device, self.dtype = torch.device(device), dtype
        self._pool = images.train_x.to(device)  # clutter is cut from all training images, whatever the limits
        last = len(images.train_x) - data.validation
        first = min(data.limit_train or last, last)
        self.x, self.y = self._pool[:first], images.train_y[:first].to(device)
        if data.validation:
            self._test_x, self._test_y = self._pool[last:], images.train_y[last:].to(device)
        else:
            self._test_x, self._test_y = images.test_x.to(device), images.test_y.to(device)
        total = len(self._test_x) * dataset.replicas
        self.test_count = min(data.limit_test or total, total)
        self.steps_per_epoch = -(-first // data.batch_size)
        self._seed_S1 = torch.tensor(seeds, device=device).unsqueeze(1)
        self._epoch, self._size = -1, 0
        self._order_SN = torch.empty(len(seeds), first, dtype=torch.int64, device=device)
        self.clock = torch.zeros((), dtype=torch.int64, device=device)
        """The current step, on the device."""
        self._affine = bool(data.rotate or data.translate or data.shear) or data.scale != (1.0, 1.0)
        self._augments = self._affine or data.crop > 0 or data.flip
        usual = dataset.mean, dataset.std
        self._figures = torch.tensor(usual, device=device)[..., None, None]
        self._test_mean_std = torch.tensor(dataset.test_mean_std or usual, device=device)[..., None, None]

    def batch_size(self, step: int) -> int:
        """Return the images per seed in the global batch of a step; the last batch of an epoch may be smaller."""
        start = step % self.steps_per_epoch * self.data.batch_size
        return min(self.data.batch_size, len(self.x) - start)

    def seek(self, step: int) -> int:
        """Move the clock to a step; return the images per seed in its global batch."""
        epoch = step // self.steps_per_epoch
        if self._epoch != epoch:  # each seed has its own order of the training images
            draws = Draws(self._seed_S1[:, 0], Site.ORDER, epoch, device=self.device)
            self._order_SN.copy_(draws.permutation(len(self.x)))
            self._epoch = epoch
        self.clock.fill_(step)
        self._size = self.batch_size(step)
        return self._size

    def draw(self) -> Batch:
        """Return this rank's part of the global batch at the clock's step, without a host sync."""
        rows = share(self._size, self.rank, self.world)
        weight = self.world / self._size
        if not rows:  # fewer images than ranks: one of weight 0, so that every rank takes part
            rows, weight = range(1), 0.0
        row_B = torch.arange(rows.start, rows.stop, device=self.device)
        place_B = self.clock % self.steps_per_epoch * self.data.batch_size + row_B
        index_SB = self._order_SN.index_select(1, place_B)
        S, B = index_SB.shape
        index_M = index_SB.view(-1)
        # index of this image within the whole run
        position_B = self.clock // self.steps_per_epoch * len(self.x) + place_B
        x_MCHW = self.x[index_M]
        if self.data.perturb_train:
            x_MCHW, _ = self._perturb(x_MCHW, self._seed_S1, Site.PERTURB, position_B)
        else:
            x_MCHW = unit(x_MCHW)
        if self._augments:
            x_MCHW = self._augment(x_MCHW, self._draws(self._seed_S1, Site.AUGMENT, position_B))
        return Batch(
            self._normalise(x_MCHW, self._figures).view(S, B, *x_MCHW.shape[1:]),
            self.y[index_M].view(S, B),
            torch.full((B,), weight, device=self.device, dtype=self.dtype),
            row_B,
        )

    def batch(self, step: int) -> Batch:
        """Return this rank's part of the global batch of a step."""
        self.seek(step)
        return self.draw()

    def _draws(self, *keys: int | Tensor) -> Draws:
        return Draws(*keys, device=self.device).flat()

    def _perturb(self, x_MCHW: Tensor, *keys: int | Tensor) -> tuple[Tensor, Tensor]:
        if self.dataset.perturb is None:
            return unit(x_MCHW), torch.zeros(len(x_MCHW), 0, device=self.device)
        return self.dataset.perturb(x_MCHW, self._draws(*keys), self._pool)

    def _augment(self, x_MCHW: Tensor, draws: Draws) -> Tensor:
        d = self.data
        if self._affine:
            x_MCHW = random_affine(x_MCHW, draws, d.rotate, d.translate, d.scale, d.shear, d.interpolation)
        if d.crop:
            x_MCHW = random_crop(x_MCHW, draws, d.crop)
        return random_flip(x_MCHW, draws) if d.flip else x_MCHW

    def _normalise(self, x_MCHW: Tensor, figures: Tensor) -> Tensor:
        mean, std = figures
        return x_MCHW.sub_(mean).div_(std).to(self.dtype)

    def as_input(self, x_MCHW: Tensor) -> Tensor:
        """Normalise images in [0, 1] as test images."""
        return self._normalise(x_MCHW, self._test_mean_std)

    def as_image(self, x_MCHW: Tensor) -> Tensor:
        """Undo the normalisation of test images."""
        mean, std = self._test_mean_std
        return x_MCHW * std + mean

    def at_once(self, size: int) -> int:
        """Return how many test images to take at a time; on a CPU fewer large ones, whose maps stay in its caches."""
        return max(1, min(size, CACHED // math.prod(self.dataset.shape[1:]))) if self.device.type == "cpu" else size

    def test_batches(self, size: int, rank: int = 0, world: int = 1) -> Iterator[TestBatch]:
        """Yield this rank's part of the test set; over all ranks every image comes once."""
        rows = share(self.test_count, rank, world)
        for start in range(rows.start, rows.stop, size):
            yield self.test_images(torch.arange(start, min(start + size, rows.stop), device=self.device))

    def test_images(self, index_B: Tensor) -> TestBatch:
        """Return test images by number: n is image n mod N under its perturbation n div N."""
        n = len(self._test_x)
        image_B = index_B % n
        site = Site.VALIDATION if self.data.validation else Site.TEST
        x_BCHW, pose_BP = self._perturb(self._test_x[image_B], TEST_SEED, site, index_B // n, image_B)
        return TestBatch(self.as_input(x_BCHW), self._test_y[image_B], pose_BP)

    def plain_images(self, index_B: Tensor) -> Tensor:
        """Return the unperturbed images of the same numbers, centred on a canvas of the same size."""
        x_BChw = unit(self._test_x[index_B % len(self._test_x)])
        _, H, W = self.dataset.shape
        below, right = (H - x_BChw.shape[2]) // 2, (W - x_BChw.shape[3]) // 2
        return self.as_input(F.pad(x_BChw, (right, right, below, below)))
