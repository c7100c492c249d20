"""The operations that operations.py times, each as a network with the shape of its input, and why some are slower."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from operation_networks import (
    HALVES,
    MAPS,
    PER_HEAD,
    ROWS,
    SCORES,
    SEQUENCES,
    VIDEOS,
    Attention,
    B,
    C,
    Call,
    ChannelsLast,
    D,
    H,
    Residual,
    T,
    mixed,
    mlp,
    sampled,
    windows,
    words,
)
from torch import Tensor, nn


class Timed(nn.Module):
    """An operation and a parameter that it does not use: a stacked model needs one."""

    def __init__(self, operation: nn.Module) -> None:
        super().__init__()
        self.operation, self.unused = operation, nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.operation(x)


@dataclass(frozen=True)
class Operation:
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    """Of one seed's input."""
    by_channels: bool
    """Whether the input is in memory as convolutions of several seeds make it: the channels of all side by side."""

    def build(self) -> nn.Module:
        return Timed(self.make())


def call(function: Callable[..., Tensor], *weight: int) -> Callable[[], nn.Module]:
    return lambda: Call(function, *weight)


def _maps(*shape: int, **makers: Callable[[], nn.Module]) -> dict[str, Operation]:
    return {name: Operation(make, shape, True) for name, make in makers.items()}


def _rows(*shape: int, **makers: Callable[[], nn.Module]) -> dict[str, Operation]:
    return {name: Operation(make, shape, False) for name, make in makers.items()}


OPERATIONS: dict[str, Operation] = {
    **_maps(
        *MAPS,
        conv2d=lambda: nn.Conv2d(C, C, 3, padding=1),
        conv2d_stride=lambda: nn.Conv2d(C, 2 * C, 3, 2, 1),
        conv2d_1x1=lambda: nn.Conv2d(C, 2 * C, 1),
        depthwise=lambda: nn.Conv2d(C, C, 3, padding=1, groups=C),
        depthwise_7x7=lambda: nn.Conv2d(C, C, 7, padding=3, groups=C),
        group_norm=lambda: nn.GroupNorm(8, C),
        instance_norm=lambda: nn.InstanceNorm2d(C, affine=True),
        batch_norm=lambda: nn.BatchNorm2d(C),
        layer_norm_maps=lambda: nn.LayerNorm([C, H, H]),
        layer_norm_channels=lambda: ChannelsLast(nn.LayerNorm(C)),
        relu=nn.ReLU,
        gelu=nn.GELU,
        silu=nn.SiLU,
        prelu=lambda: nn.PReLU(C),
        scale=call(lambda x, w: x * w.view(C, 1, 1), C),
        dropout=nn.Dropout,
        dropout2d=nn.Dropout2d,
        max_pool2d=lambda: nn.MaxPool2d(2),
        avg_pool2d=lambda: nn.AvgPool2d(2),
        adaptive_avg_pool2d=lambda: nn.AdaptiveAvgPool2d(7),
        adaptive_max_pool2d=lambda: nn.AdaptiveMaxPool2d(7),
        global_avg_pool=lambda: nn.AdaptiveAvgPool2d(1),
        global_max_pool=lambda: nn.AdaptiveMaxPool2d(1),
        mean=call(lambda x: x.mean((2, 3))),
        amax=call(lambda x: x.amax((2, 3))),
        pad=call(lambda x: F.pad(x, (1, 1, 1, 1))),
        pad_reflect=call(lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect")),
        cat=call(lambda x: torch.cat([x, x], 1)),
        roll=call(lambda x: x.roll((3, 3), (2, 3))),
        unfold=call(lambda x: F.unfold(x, 3, padding=1)),
        unfold_patches=call(lambda x: F.unfold(x, 2, stride=2)),
        tensor_unfold=call(lambda x: x.unfold(2, 7, 7).unfold(3, 7, 7).contiguous()),
        windows=call(windows),
        grid_sample=call(sampled),
        fft=call(mixed, C, H, H // 2 + 1),
        einsum_channels=call(lambda x, w: torch.einsum("bchw,co->bohw", x, w), C, 2 * C),
        normalize=call(lambda x: F.normalize(x, dim=1)),
        pixel_shuffle=lambda: nn.PixelShuffle(2),
        flatten_linear=lambda: nn.Sequential(nn.Flatten(), nn.Linear(C * H * H, 10)),
    ),
    **_maps(
        *HALVES,
        conv_transpose2d=lambda: nn.ConvTranspose2d(C, C // 2, 2, 2),
        conv_transpose2d_4x4=lambda: nn.ConvTranspose2d(C, C // 2, 4, 2, 1),
        interpolate_nearest=call(lambda x: F.interpolate(x, scale_factor=2)),
        interpolate_bilinear=call(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)),
    ),
    **_rows(
        *SEQUENCES,
        linear=lambda: nn.Linear(D, 2 * D),
        matmul=call(lambda x, w: x @ w, D, 2 * D),
        bmm=call(lambda x: torch.bmm(x, x.mT)),
        einsum_scores=call(lambda x: torch.einsum("bid,bjd->bij", x, x)),
        layer_norm=lambda: nn.LayerNorm(D),
        positions=call(lambda x, w: x + w, T, D),
        attention=lambda: Attention(False),
        attention_function=lambda: Attention(True),
        fft_tokens=call(lambda x: torch.fft.fft(torch.fft.fft(x, dim=-1), dim=1).real),
    ),
    **_maps(B, D, T, conv1d=lambda: nn.Conv1d(D, D, 3, padding=1), batch_norm_1d=lambda: nn.BatchNorm1d(D)),
    **_rows(B, T, embedding=call(lambda x, w: F.embedding(words(x), w), 256, D)),
    **_rows(*SCORES, softmax=lambda: nn.Softmax(-1), log_softmax=lambda: nn.LogSoftmax(-1)),
    **_rows(*PER_HEAD, scaled_dot_product_attention=call(lambda x: F.scaled_dot_product_attention(x, x, x))),
    **_maps(*VIDEOS, conv3d=lambda: nn.Conv3d(8, 16, 3, padding=1), max_pool3d=lambda: nn.MaxPool3d(2)),
    **_rows(*ROWS, linear_rows=lambda: nn.Linear(512, 128), batch_norm_rows=lambda: nn.BatchNorm1d(512)),
    **_maps(
        *MAPS,
        block_resnet=lambda: Residual(
            nn.Conv2d(C, C, 3, padding=1), nn.GroupNorm(8, C), nn.SiLU(), nn.Conv2d(C, C, 3, padding=1)
        ),
        block_convnext=lambda: Residual(
            nn.Conv2d(C, C, 7, padding=3, groups=C),
            ChannelsLast(nn.LayerNorm(C), nn.Linear(C, 4 * C), nn.GELU(), nn.Linear(4 * C, C)),
        ),
        block_unet=lambda: nn.Sequential(
            nn.Conv2d(C, 2 * C, 3, 2, 1), nn.InstanceNorm2d(2 * C), nn.ReLU(), nn.ConvTranspose2d(2 * C, C, 2, 2)
        ),
    ),
    **_rows(
        *SEQUENCES,
        block_transformer=lambda: nn.Sequential(Residual(nn.LayerNorm(D), Attention(True)), Residual(*mlp())),
    ),
}

REASONS = {
    "cache": "four seeds' maps of 6 MB leave the cache that holds one seed's, and nothing is computed meanwhile",
    "order": "maps of several seeds are channels last, and this needs the pixels of a channel side by side: a copy",
    "draws": "masks that depend on seed, step and row alone take 500 short operations: with two threads on busy cores",
    "calls": "a call for each seed: their weights differ, and torch's function takes a single set",
}
SLOWER = {
    **dict.fromkeys(("relu", "gelu", "silu", "scale", "dropout2d", "mean", "amax", "cat", "pad", "roll"), "cache"),
    **dict.fromkeys(("positions", "embedding", "bmm", "einsum_scores", "attention", "attention_function"), "cache"),
    **dict.fromkeys(("matmul", "block_transformer", "softmax", "log_softmax", "fft_tokens"), "cache"),
    **dict.fromkeys(("group_norm", "instance_norm", "layer_norm_maps", "unfold_patches", "tensor_unfold"), "order"),
    **dict.fromkeys(("flatten_linear", "grid_sample", "batch_norm_rows", "block_resnet"), "order"),
    "layer_norm": "calls",
    "dropout": "draws",
}
"""Operation -> the reason why its ratio may be under 0.9."""
