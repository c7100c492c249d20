"""Grids, samplers and the spatial transformer. Every grid is made here, explicitly.

B batch, C channel, H W map, theta_B23 the affine matrix that moves sampling points
(so the image moves by its inverse). Must not know which architecture uses a transformer.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FAR = 1e6
"""No transform goes further: beyond it there is nothing to see."""


@lru_cache(maxsize=64)
def _axis(n: int, align_corners: bool, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Pixel centres of one side in [-1, 1]."""
    edge = 1.0 if align_corners else 1.0 - 1.0 / n
    return torch.linspace(-edge, edge, n, device=device, dtype=dtype)


def affine_grid(theta_B23: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Sampling points [B, H, W, 2]; elementwise, so exact in fp32 and cheap under vmap.

    Always finite: torch's grid_sample reads outside of memory (a segmentation fault, seen on
    CPU in 2.15) where a coordinate is not a number and padding is border or reflection.
    """
    if theta_B23.dtype != torch.float64:
        theta_B23 = theta_B23.float()  # a grid in bf16 would be off by whole pixels
    theta_B23 = torch.nan_to_num(theta_B23, 0.0, 0.0, 0.0).clamp(-_FAR, _FAR)
    y_H1 = _axis(size[0], align_corners, theta_B23.device, theta_B23.dtype).unsqueeze(-1)
    x_W = _axis(size[1], align_corners, theta_B23.device, theta_B23.dtype)
    a_B2, b_B2, c_B2 = theta_B23[..., None, None].unbind(2)
    return (a_B2 * x_W + b_B2 * y_H1 + c_B2).permute(0, 2, 3, 1)


def sample(x_BCHW: Tensor, grid_BHW2: Tensor, padding: str, align_corners: bool) -> Tensor:
    """Bilinear sampling in the grid's precision."""
    x_BCHW = x_BCHW.to(grid_BHW2.dtype)
    return F.grid_sample(x_BCHW, grid_BHW2, mode="bilinear", padding_mode=padding, align_corners=align_corners)


def compose(first_B23: Tensor, second_B23: Tensor) -> Tensor:
    """The 3x3 product first @ second of two affine matrices, elementwise (no TF32)."""
    a, b = first_B23[:, :, :2], second_B23
    product = a[:, :, :1] * b[:, :1, :] + a[:, :, 1:] * b[:, 1:, :]
    return torch.cat([product[:, :, :2], product[:, :, 2:] + first_B23[:, :, 2:]], dim=2)


def invert(theta_B23: Tensor) -> Tensor:
    """The affine matrix that undoes another one."""
    a, b, c, d = (theta_B23[:, i, j] for i in (0, 1) for j in (0, 1))
    inverse = torch.stack([d, -b, -c, a], dim=1).view(-1, 2, 2) / (a * d - b * c).view(-1, 1, 1)
    shift = (inverse * theta_B23[:, None, :, 2]).sum(-1, keepdim=True)
    return torch.cat([inverse, -shift], dim=2)


IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


class SpatialTransformer(nn.Module):
    """Localisation head -> affine matrix -> grid -> sampler, several times if asked.

    ``look`` turns an image into what the head reads; a transformer with a trunk of its own
    (a copy of the classifier's first layers) looks through that. Everything in here belongs
    to the localisation's parameter group.
    """

    def __init__(
        self,
        head: nn.Module,
        hidden: int,
        size: tuple[int, int],
        trunk: nn.Module | None = None,
        *,
        iterations: int = 1,
        test_iterations: int | None = None,
        padding: str = "border",
        align_corners: bool = True,
        identity: str = "bias",
    ) -> None:
        super().__init__()
        self.trunk, self.head, self.last = trunk, head, nn.Linear(hidden, 6)
        self.size, self.padding, self.align_corners = size, padding, align_corners
        self.train_iterations, self.test_iterations = iterations, test_iterations or iterations
        self.residual = identity == "residual"
        self.start: Tensor
        self.register_buffer("start", torch.tensor(IDENTITY), persistent=False)
        nn.init.zeros_(self.last.weight)
        with torch.no_grad():
            self.last.bias.copy_(self.start * float(not self.residual))

    def extra_repr(self) -> str:
        return f"size={self.size}, padding={self.padding}, iterations={self.train_iterations}"

    def _locate(self, x_BCHW: Tensor) -> Tensor:
        hidden = self.head(x_BCHW)
        with torch.autocast(hidden.device.type, enabled=False):  # bf16 next to 1 is a fifth of a pixel in 112
            theta = self.last(hidden.to(self.last.weight.dtype))
        return (theta + self.start if self.residual else theta).view(-1, 2, 3)

    def forward(self, x_BCHW: Tensor, look: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """The warped input and the whole transform; each iteration resamples the original input."""
        iterations = self.train_iterations if self.training else self.test_iterations
        look = look if self.trunk is None else self.trunk
        warped_BCHW, theta_B23 = x_BCHW, None
        for k in range(iterations):
            step_B23 = self._locate(look(warped_BCHW))
            theta_B23 = step_B23 if theta_B23 is None else compose(theta_B23, step_B23)
            size = self.size if k == iterations - 1 else (x_BCHW.shape[2], x_BCHW.shape[3])
            grid = affine_grid(theta_B23, size, self.align_corners)
            warped_BCHW = sample(x_BCHW, grid, self.padding, self.align_corners)
            # A transform that is no number makes no image, so that the loss tells.
            warped_BCHW = warped_BCHW + 0 * theta_B23.detach().sum((1, 2)).view(-1, 1, 1, 1)
        assert theta_B23 is not None
        return warped_BCHW, theta_B23


def is_localisation(name: str) -> bool:
    """Whether a parameter belongs to a transformer, by its full name: networks call it ``st``."""
    return "st" in name.split(".")
