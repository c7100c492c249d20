"""Images and grids to sample, and gradients of samplers."""

import torch
import torch.nn.functional as F
from torch import Tensor

PADDINGS = ["zeros", "border", "reflection"]


def points(kind: str, H: int, W: int, out: tuple[int, int], align_corners: bool, n: int = 4) -> Tensor:
    """Return points in and far outside the image, or on pixel centres, on borders and between them."""
    torch.manual_seed(1)
    if kind == "anywhere":
        return torch.randn(n, *out, 2, dtype=torch.float64) * 1.5
    centres = torch.stack([torch.randint(-2 * m, 3 * m, (n, *out)) for m in (W, H)], dim=-1) / 2
    size = torch.tensor([W, H])
    return centres * 2 / (size - 1) - 1 if align_corners else (centres * 2 + 1) / size - 1


def example(
    kind: str = "anywhere", align_corners: bool = True, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """Return images, a grid of another size and a gradient of the sampled images."""
    H, W, out = 8, 5, (7, 9)
    grid = points(kind, H, W, out, align_corners).to(dtype)
    return torch.randn(4, 3, H, W).to(dtype), grid, torch.randn(4, 3, *out).to(dtype)


def gradients(function, x: Tensor, grid: Tensor, out_gradient: Tensor, padding: str, align_corners: bool):
    x, grid = x.clone().requires_grad_(), grid.clone().requires_grad_()
    out = function(x, grid, padding, align_corners)
    return out.detach(), *torch.autograd.grad(out, (x, grid), out_gradient)


def native(x: Tensor, grid: Tensor, padding: str, align_corners: bool) -> Tensor:
    return F.grid_sample(x, grid, padding_mode=padding, align_corners=align_corners)
