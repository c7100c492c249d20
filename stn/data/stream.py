"""Batches as a pure function of (seed, step, rank): resident images, perturbed on the device.

S seed, B this rank's part of the batch, M = S * B rows, N training images, C channel, H W map.
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
from stn.data.augment import alternate_flip, random_affine, random_crop, random_cutout, random_flip
from stn.data.geometry import unit
from stn.data.rng import Draws, Site

TEST_SEED = 20_040_678  # fixes the test perturbations for good
_CACHED_PIXELS = 2**18
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
        split = zip(*(tensor.tensor_split(n, min(tensor.dim(), 2) - 1) for tensor in self), strict=True)
        return [part for part in map(Batch._make, split) if len(part.row_B)]


class TestBatch(NamedTuple):
    x_BCHW: Tensor
    y_B: Tensor
    pose_BP: Tensor
    index_B: Tensor


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
        self.data, self.dataset, self.rank, self.world = data, dataset, rank, world
        self.device, self.dtype = torch.device(device), dtype
        train_x, train_y, test_x, test_y = (tensor.to(device) for tensor in dataset.images(data.root))
        held_out = len(train_x) - data.validation
        self._pool = train_x[:held_out]  # clutter is cut from all training images, whatever the limit
        N = min(data.limit_train or held_out, held_out)
        self.x, self.y = train_x[:N], train_y[:N]
        self._test_x, self._test_y = (train_x[held_out:], train_y[held_out:]) if data.validation else (test_x, test_y)
        self.test_originals = len(self._test_x)
        """Test images before the perturbation."""
        total = self.test_originals * dataset.replicas
        self.test_count = min(data.limit_test or total, total)
        self.steps_per_epoch = -(-N // data.batch_size)
        self._seed_S1 = torch.tensor(seeds, device=device).unsqueeze(1)
        self._epoch, self._size = -1, 0
        self._order_SN = torch.empty(len(seeds), N, dtype=torch.int64, device=device)
        self._draws_SN = {site: torch.empty_like(self._order_SN) for site in self._sites()}
        """Random streams of the epoch's images, in their order."""
        self._rows: dict[tuple[int, range], tuple[Tensor, Tensor, Tensor]] = {}
        self.clock = torch.zeros((), dtype=torch.int64, device=device)
        """The current step, on the device."""
        mean_std = dataset.mean, dataset.std
        self._mean_std = torch.tensor(mean_std, device=device)[..., None, None]
        self._test_mean_std = torch.tensor(dataset.test_mean_std or mean_std, device=device)[..., None, None]

    def _sites(self) -> list[Site]:
        """Return the uses of random numbers that training images have: perturbation, augmentation."""
        data = self.data
        augments = self._has_affine() or data.crop or data.cutout or (data.flip and not data.alternate_flip)
        perturbs = data.perturb_train and self.dataset.perturb is not None
        return [site for site, used in ((Site.PERTURB, perturbs), (Site.AUGMENT, augments)) if used]

    def _has_affine(self) -> bool:
        data = self.data
        return bool(data.rotate or data.translate or data.shear or data.scale != (1.0, 1.0))

    def seek(self, step: int) -> int:
        """Move the clock to a step; return the images per seed in its global batch, fewer at the end of an epoch."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        if self._epoch != epoch:  # each seed has its own order of the training images
            draws = Draws(self._seed_S1[:, 0], Site.ORDER, epoch, device=self.device)
            self._order_SN.copy_(draws.permutation(len(self.x)))
            in_run_N = epoch * len(self.x) + torch.arange(len(self.x), device=self.device)
            for site, draws_SN in self._draws_SN.items():
                draws_SN.copy_(Draws(self._seed_S1, site, in_run_N, device=self.device).state)
            self._epoch = epoch
        self.clock.fill_(step)
        self._size = min(self.data.batch_size, len(self.x) - step_in_epoch * self.data.batch_size)
        return self._size

    def draw(self) -> Batch:
        """Return this rank's part of the global batch at the clock's step, without a host sync."""
        row_B, position_B, weight_B = self._rows_of_rank()
        in_epoch_B = self.clock % self.steps_per_epoch * self.data.batch_size + position_B
        index_SB = self._order_SN.index_select(1, in_epoch_B)
        draws = {
            site: Draws.resume(draws_SN.index_select(1, in_epoch_B).view(-1))
            for site, draws_SN in self._draws_SN.items()
        }
        x_MCHW = self.x.index_select(0, index_SB.view(-1))
        x_MCHW = self._perturb(x_MCHW, draws[Site.PERTURB])[0] if Site.PERTURB in draws else unit(x_MCHW)
        if Site.AUGMENT in draws:
            x_MCHW = self._augment(x_MCHW, draws[Site.AUGMENT])
        if self.data.flip and self.data.alternate_flip:
            of_image = Draws(self._seed_S1, Site.FLIP, index_SB, device=self.device).state.view(-1)
            x_MCHW = alternate_flip(x_MCHW, Draws.resume(of_image), self.clock // self.steps_per_epoch)
        x_SBCHW = self.as_input(x_MCHW, self._mean_std).unflatten(0, index_SB.shape)
        return Batch(x_SBCHW, self.y[index_SB], weight_B, row_B)

    def _rows_of_rank(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return this rank's rows of the batch, their positions in it and their weights; kept for each size."""
        rows, weight = share(self._size, self.rank, self.world), self.world / self._size
        if not rows:  # fewer images than ranks: row -1, of weight 0, so that every rank takes part
            rows, weight = range(-1, 0), 0.0
        if (key := (self._size, rows)) not in self._rows:
            row_B = torch.arange(rows.start, rows.stop, device=self.device)
            weight_B = torch.full(row_B.shape, weight, device=self.device, dtype=self.dtype)
            self._rows[key] = row_B, row_B.clamp(min=0), weight_B
        return self._rows[key]

    def batch(self, step: int) -> Batch:
        """Return this rank's part of the global batch of a step."""
        self.seek(step)
        return self.draw()

    def _perturb(self, x_MCHW: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        if self.dataset.perturb is None:
            return unit(x_MCHW), torch.zeros(len(x_MCHW), 0, device=self.device)
        return self.dataset.perturb(x_MCHW, draws, self._pool)

    def _augment(self, x_MCHW: Tensor, draws: Draws) -> Tensor:
        if self._has_affine():
            x_MCHW = random_affine(x_MCHW, draws, self.data)
        if self.data.crop:
            x_MCHW = random_crop(x_MCHW, draws, self.data.crop)
        if self.data.cutout:
            x_MCHW = random_cutout(x_MCHW, draws, self.data.cutout, self._mean_std[0])
        return random_flip(x_MCHW, draws) if self.data.flip and not self.data.alternate_flip else x_MCHW

    def as_input(self, x_MCHW: Tensor, mean_std: Tensor | None = None) -> Tensor:
        """Normalise images in [0, 1], in place; by default as test images."""
        mean, std = self._test_mean_std if mean_std is None else mean_std
        return x_MCHW.sub_(mean).div_(std).to(self.dtype)

    def as_image(self, x_MCHW: Tensor) -> Tensor:
        """Undo the normalisation of test images."""
        mean, std = self._test_mean_std.to(x_MCHW.device)
        return x_MCHW * std + mean

    def test_batch_size(self, most: int) -> int:
        """Return how many test images to take at a time; on a CPU, few enough for feature maps to stay in cache."""
        if self.device.type != "cpu":
            return most
        return max(1, min(most, _CACHED_PIXELS // math.prod(self.dataset.shape[1:])))

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
        draws = Draws(TEST_SEED, site, index_B // n, image_B, device=self.device)
        x_BCHW, pose_BP = self._perturb(self._test_x[image_B], draws)
        return TestBatch(self.as_input(x_BCHW), self._test_y[image_B], pose_BP, index_B)

    def plain_images(self, index_B: Tensor) -> Tensor:
        """Return the unperturbed images of the same numbers, centred on a canvas of the same size."""
        x_BChw = unit(self._test_x[index_B % len(self._test_x)])
        _, H, W = self.dataset.shape
        above, left = (H - x_BChw.shape[2]) // 2, (W - x_BChw.shape[3]) // 2
        return self.as_input(F.pad(x_BChw, (left, left, above, above)))
