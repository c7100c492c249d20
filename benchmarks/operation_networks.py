"""What operation_list.py makes its networks of.

Maps are [64, 32, 14, 14] and sequences [64, 49, 64], as inside an ordinary small network on batches of 64 images.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

B, C, H, T, D, HEADS = 64, 32, 14, 49, 64, 4
MAPS, HALVES, SEQUENCES, ROWS = (B, C, H, H), (B, C, H // 2, H // 2), (B, T, D), (B, 512)
SCORES, VIDEOS, PER_HEAD = (B, HEADS, T, T), (16, 8, 8, H, H), (B, HEADS, T, D // HEADS)


class Call(nn.Module):
    """A function of the input, and of a parameter where ``weight`` has a shape."""

    def __init__(self, function: Callable[..., Tensor], *weight: int) -> None:
        super().__init__()
        self.function, self.has_weight = function, bool(weight)
        if weight:
            self.weight = nn.Parameter(torch.randn(weight) / weight[0] ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.weight) if self.has_weight else self.function(x)


class Attention(nn.Module):
    """Self-attention of four heads: by softmax, as it is written in many networks, or by PyTorch's function."""

    def __init__(self, function: bool) -> None:
        super().__init__()
        self.function, self.qkv, self.out = function, nn.Linear(D, 3 * D), nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(len(x), T, 3, HEADS, D // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        if self.function:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = (q @ k.transpose(-2, -1) * (D // HEADS) ** -0.5).softmax(-1) @ v
        return self.out(y.transpose(1, 2).reshape(len(x), T, D))


class Residual(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class ChannelsLast(nn.Module):
    """Layers between two permutations, as in ConvNeXt."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def words(x: Tensor) -> Tensor:
    """Return a word for each number."""
    return (x.detach() * 40).long().remainder(256)


def sampled(x: Tensor) -> Tensor:
    grid = F.affine_grid(x[:, :6, 0, 0].reshape(-1, 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def windows(x: Tensor) -> Tensor:
    """Return the 7x7 windows of a map as sequences, as in Swin."""
    parts = x.view(len(x), C, 2, 7, 2, 7).permute(0, 2, 4, 3, 5, 1)
    return parts.reshape(-1, 49, C)


def mixed(x: Tensor, weight: Tensor) -> Tensor:
    """Filter maps in the frequency domain, as in GFNet."""
    return torch.fft.irfft2(torch.fft.rfft2(x, norm="ortho") * weight, s=(H, H), norm="ortho")


def mlp() -> list[nn.Module]:
    return [nn.LayerNorm(D), nn.Linear(D, 2 * D), nn.GELU(), nn.Linear(2 * D, D)]
