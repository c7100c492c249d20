"""Rules for norms; where ranks share a batch, batch norm uses the statistics of the whole batch, as in one process.

S seed, B this rank's rows, C channel, H, W.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stn.multiseed.rules.basic import rule
from stn.multiseed.rules.order import flatten_seeds, in_functorch, in_order, side_by_side, split_seeds
from stn.multiseed.stacked import Stacked, count_seeds, for_seeds

AllReduce = Callable[[Tensor], Tensor]
"""Return the sum of a tensor over the ranks."""


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, all_reduce: AllReduce) -> Tensor:  # type: ignore[override]
        ctx.all_reduce = all_reduce
        return all_reduce(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return ctx.all_reduce(grad), None


def _synchronised(all_reduce: AllReduce, used_B, x, running_mean, running_var, weight, bias, momentum, eps) -> Tensor:
    """Run F.batch_norm in training over the rows of all ranks; ``used_B`` is 0 for a row that only fills a part."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    over = [d for d in range(x.dim()) if d != 1]
    per_channel = [1, -1] + [1] * (x.dim() - 2)
    folded, rest = divmod(len(x), len(used_B))  # rows of x to an image, image by image, as after flatten(0, 1)
    if rest:
        raise ValueError(f"batch norm of {len(x)} rows, which are no multiple of {len(used_B)} images, over ranks")
    used = used_B.to(dtype).repeat_interleave(folded).view(-1, *[1] * (x.dim() - 1))
    pixels = folded * x[0, 0].numel()

    def mean_over_ranks(values: Tensor) -> Tensor:
        return _SumOverRanks.apply((values * used).sum(over), all_reduce) / count  # type: ignore[no-any-return]

    count = all_reduce(used_B.to(dtype).sum()) * pixels
    wide = x.to(dtype)
    mean_C = mean_over_ranks(wide)
    centred = wide - mean_C.view(per_channel)
    var_C = mean_over_ranks(centred.square())
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean_C.to(running_mean.dtype), momentum)
        if running_var is not None:
            running_var.lerp_((var_C * (count / (count - 1))).to(running_var.dtype), momentum)
    out = centred * (var_C + eps).rsqrt().view(per_channel)
    if weight is not None:
        out = out * weight.view(per_channel)
    if bias is not None:
        out = out + bias.view(per_channel)
    return out.to(x.dtype)


@rule("batch_norm", alone=True)
def _batch_norm(mode: Any, func: Any, /, input: Any, *args: Any, **kwargs: Any) -> Any:
    """Normalise the channels of all seeds; running statistics are [S, C] in memory and change in place."""
    values = (input, *args, *kwargs.values())
    if not any(isinstance(value, Stacked) for value in values):
        return _normalise(mode, input, *args, **kwargs)
    S = count_seeds(*values)

    def of_all(value: Any) -> Any:
        return flatten_seeds(value, S) if isinstance(value, Tensor) else value

    named = {key: of_all(value) for key, value in kwargs.items()}
    return split_seeds(_normalise(mode, side_by_side(for_seeds(input, S)), *map(of_all, args), **named), S)


def _normalise(
    mode, input, running_mean=None, running_var=None, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5
) -> Tensor:
    if training and mode is not None and not mode.whole_batch:
        raise ValueError("batch norm needs the whole batch; drop --optim.accumulate, use more ranks or a smaller batch")
    if not training or mode is None or mode.all_reduce is None:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    return _synchronised(
        mode.all_reduce, mode.row_B >= 0, input, running_mean, running_var, weight, bias, momentum, eps
    )


FEW_CHANNELS = 8


def _pixels_together(x: Tensor, channels: int) -> Tensor:
    """Return maps as [B, S * C, ...]; on a CPU a copy from channels last if few channels are normalised together.

    Torch adds up a few channels at each pixel: forward and backward 6.2 ms with 4 channels a group, 1.6 ms from maps
    that are not channels last (one core, 64 images of 14x14, 4 seeds of 32 channels). The copy takes 1.4 ms, and later
    layers keep its order.
    """
    if x.device.type == "cpu" and x.dim() == 5 and channels < FEW_CHANNELS:
        x = in_order(x, 1, 0, 2, 3, 4)
    return x.transpose(0, 1).flatten(1, 2)


@rule("group_norm", alone=True)
def _group_norm(mode: Any, func: Any, /, input: Any, num_groups: int, weight=None, bias=None, eps=1e-5) -> Any:
    channels = input.shape[1] // num_groups
    if not any(isinstance(value, Stacked) for value in (input, weight, bias)):
        if in_functorch(input):
            return F.group_norm(input, num_groups, weight, bias, eps)
        return F.group_norm(_pixels_together(input.unsqueeze(0), channels), num_groups, weight, bias, eps)
    S = count_seeds(input, weight, bias)
    x = _pixels_together(for_seeds(input, S), channels)
    return split_seeds(F.group_norm(x, num_groups * S, flatten_seeds(weight, S), flatten_seeds(bias, S), eps), S)


@rule("instance_norm", alone=True)
def _instance_norm(
    mode,
    func,
    /,
    input,
    running_mean=None,
    running_var=None,
    weight=None,
    bias=None,
    use_input_stats=True,
    momentum=0.1,
    eps=1e-5,
) -> Any:
    if not any(isinstance(value, Stacked) for value in (input, weight, bias)):
        plain = running_mean is None and running_var is None and use_input_stats and not in_functorch(input)
        if plain and len(input) == 1 and input.device.type == "cpu" and input[0, 0].numel() > 1:
            return F.group_norm(input, input.shape[1], weight, bias, eps)  # PyTorch's gradient of one row may be wrong
        return func(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    if running_mean is not None or running_var is not None:
        return NotImplemented
    S = count_seeds(input, weight, bias)
    x, weights, biases = _pixels_together(for_seeds(input, S), 1), flatten_seeds(weight, S), flatten_seeds(bias, S)
    if x.device.type == "cpu" and x.dtype == torch.float32 and use_input_stats and x[0, 0].numel() > 1:
        out = F.group_norm(x, x.shape[1], weights, biases, eps)  # 3 times faster, rounds differently
    else:
        out = F.instance_norm(x, None, None, weights, biases, use_input_stats, momentum, eps)
    return split_seeds(out, S)


@rule("layer_norm")
def _layer_norm(mode: Any, func: Any, /, input: Any, normalized_shape: Any, weight=None, bias=None, eps=1e-5) -> Any:
    S = count_seeds(input, weight, bias)
    x, weights, biases = for_seeds(input, S), *(None if t is None else for_seeds(t, S) for t in (weight, bias))
    if x.is_cuda or (weights is None and biases is None):
        return _normalise_layers(x, normalized_shape, weights, biases, eps)
    parts = [[None] * S if t is None else t.unbind() for t in (x, weights, biases)]
    return Stacked(torch.stack([F.layer_norm(x, normalized_shape, w, b, eps) for x, w, b in zip(*parts, strict=True)]))


def _normalise_layers(x: Tensor, shape: Any, weights: Tensor | None, biases: Tensor | None, eps: float) -> Stacked:
    """Normalise all seeds' rows as one batch, then multiply: two passes more, which cost less than launches on CUDA."""

    def beside(own: Tensor) -> Tensor:
        return own.view(len(x), *[1] * (x.dim() - own.dim()), *own.shape[1:])

    out = F.layer_norm(x, shape, None, None, eps)
    out = out if weights is None else out * beside(weights)
    return Stacked(out if biases is None else out + beside(biases))
