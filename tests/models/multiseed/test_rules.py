"""An operation over several seeds does what it does for each seed alone, by a rule or by vmap."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stn.multiseed.stacked import Stacked
from tests.support.one_operation import compare, modified

ONES = torch.ones(6, 4, 5, 5, dtype=torch.float64)
WORDS = torch.tensor([0, 3, 1, 0, 2, 2])
KNOWN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "operators": lambda y, w: (2 - y / 3) ** 2 + (-y).abs() * (y > 0) - y.detach() // 2 + (1 / (2 + y * y)),
    "broadcast": lambda y, w: y + w.view(4, 1, 1) + w.sum() * torch.ones(5) + w[0],
    "functions": lambda y, w: F.gelu(y) + F.leaky_relu(y, 0.2) + torch.tanh(y).clamp(-0.5, max=0.5) + F.softplus(y),
    "where": lambda y, w: torch.where(y > 0, y, w.view(4, 1, 1)) + torch.maximum(y, y.detach().flip(-1)),
    "in place": lambda y, w: modified(y, lambda z: z.mul_(2).add_(w[1]).relu_()),
    "view": lambda y, w: y.view(-1, 2, 2, 25).reshape((len(y), 4, -1)).transpose(1, 2).contiguous().flatten(-2),
    "permute": lambda y, w: y.permute(0, 2, 3, 1) * w + y.permute((0, 3, 1, 2))[..., :4].mT[..., None, 0].mean(),
    "index": lambda y, w: y[:, 1:3, ..., None, 2] + y[:, 0, None, :, -1, None],
    "parts": lambda y, w: torch.cat([*y.split(2, 1), *y.chunk(2, dim=-3)], 1)[:, ::2] + torch.stack(y.unbind(1), 1),
    "cat with a constant": lambda y, w: torch.cat([y, torch.ones(y.shape)], dim=1),
    "sums": lambda y, w: y.sum((1, 2)) + y.mean(-1).amax(1) + y.max() - y.std(),
    "softmax": lambda y, w: y.softmax(1) + F.log_softmax(y, -1) + torch.logsumexp(y, dim=2, keepdim=True),
    "pools": lambda y, w: F.max_pool2d(y, 2).mean((2, 3)) + F.avg_pool2d(y, 3).sum((2, 3)),
    "adaptive pool": lambda y, w: F.adaptive_avg_pool2d(y, 1)[..., 0, 0] + F.adaptive_max_pool2d(y, (2, 1))[:, :, 0, 0],
    "linear": lambda y, w: F.linear(y, w.expand(3, 4).repeat(1, 2)[:, :5], w[:3]),
    "convolution": lambda y, w: F.conv2d(y, w.expand(2, 3, 2, 4).permute(0, 3, 1, 2), w[:2], padding=1),
    "groups": lambda y, w: F.conv2d(y, w.expand(3, 3, 4).permute(2, 0, 1)[:, None], None, groups=4),
    "constant input": lambda y, w: y[:, :2, :3, :2] + F.conv2d(ONES[:1, :1], w.expand(2, 1, 3, 4)),
    "batch norm": lambda y, w: F.batch_norm(y, None, None, w, None, True),
    "batch norm of rows": lambda y, w: F.batch_norm(y.mean((2, 3)), None, None, training=True),
    "sampling": lambda y, w: F.grid_sample(y, torch.stack([y[:, 0], y[:, 1]], -1), align_corners=False),
    "sampling a constant": lambda y, w: F.grid_sample(ONES, y[:, :2].permute(0, 2, 3, 1).tanh(), align_corners=True),
    "a filter that seeds share": lambda y, w: F.conv2d(y, ONES[:2, :, :3, :3]),
    "dropout": lambda y, w: F.dropout2d(F.dropout(y)),
    "types": lambda y, w: (
        y.softmax(1, torch.float32)
        + y.float().to(torch.float64)
        + y.type_as(w)
        + torch.zeros_like(y)
        + y.new_ones(y.shape)
    ),
    "view of what a layer made": lambda y, w: F.conv2d(y, w.expand(3, 3, 4, 4).permute(2, 3, 0, 1)).view(6, -1),
    "roll": lambda y, w: torch.roll(y, 1, -1) + y.roll((1, 2), dims=(0, -2)),
    "einsum": lambda y, w: torch.einsum("bchw,c->bhw", y, w) + torch.einsum("b c ..., c -> b ...", [y, w]) + w[0],
    "einsum of a constant": lambda y, w: torch.einsum("bchw,bcij->bchw", ONES, y),
    "group norm": lambda y, w: (
        F.group_norm(y, 2, w) + F.group_norm(y.flatten(2), 4, w, w).mean((1, 2))[:, None, None, None]
    ),
    "layer norm": lambda y, w: (
        F.layer_norm(y, (5, 5))
        + F.layer_norm(y.transpose(1, 3), (4,), w, w).mT.mean()
        + F.layer_norm(y, y.shape[1:], y[0])
    ),
    "instance norm": lambda y, w: F.instance_norm(y, weight=w, bias=w) + F.instance_norm(y.flatten(2))[..., None, :5],
    "products": lambda y, w: (
        y @ y.mT + torch.matmul(y.transpose(1, 3), w.expand(5, 4).T).transpose(1, 3)[:, :1] + ONES @ y + y @ ONES[0, 0]
    ),
    "products of weights": lambda y, w: (
        w.view(1, 4) @ y.flatten(2) + torch.bmm(y[:, 0], y[:, 1])[:, :1].repeat(1, 1, 5)
    ),
    "attention": lambda y, w: (
        F.scaled_dot_product_attention(y, y * w[0], y)
        + F.scaled_dot_product_attention(y, ONES, y, is_causal=True)
        + F.scaled_dot_product_attention(y, y, y, attn_mask=ONES[0, 0] * w[1])
        + F.scaled_dot_product_attention(y, y, y, ONES[:, :1].tril() > 0)
    ),
    "convolution in one dimension": lambda y, w: F.conv1d(y[:, 0], w.expand(2, 5, 4), w[:2], padding=1),
    "convolution in three": lambda y, w: F.conv3d(y[:, None], w.view(1, 1, 4, 1, 1), stride=(1, 2, 1)),
    "transposed convolution": lambda y, w: (
        F.conv_transpose2d(y, w.expand(2, 3, 4, 4).permute(3, 0, 1, 2), w[:2], stride=2, padding=1, output_padding=1)
        + F.conv_transpose2d(y, w.view(4, 1, 1, 1).expand(4, 1, 4, 5), groups=2, padding=(1, 1)).mean()
    ),
    "patches": lambda y, w: (
        F.fold(F.unfold(y, 3, padding=1) * w[0], (5, 5), 3, padding=1) + y.unfold(2, 5, 1)[..., 0, :]
    ),
    "embedding": lambda y, w: (
        F.embedding(WORDS, w.view(4, 1) * y[0, 0, 0]) + F.embedding(y.argmax(-1) % 4, w[:, None]).sum()
    ),
    "embedding in a constant": lambda y, w: F.embedding(y.argmax(-1), ONES[0, 0]) * w[0],
    "fourier": lambda y, w: (
        torch.fft.irfft2(torch.fft.rfft2(y) * w[0], s=(5, 5))
        + torch.fft.fft(y, dim=1).abs()
        + torch.fft.ifft2(torch.fft.fft2(y, dim=(1, 2)), dim=(-3, -2)).abs()
    ),
    "one dimension less": lambda y, w: y.squeeze() + y.unsqueeze(1).squeeze(1) + y.expand_as(y),
}
UNKNOWN: dict[str, tuple[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "keywords": ("softmax add", lambda y, w: torch.softmax(input=y, dim=1) + torch.add(input=y, other=w[0])),
    "filling": ("masked_fill", lambda y, w: y.masked_fill(y > 1, w[0])),
    "roll of all": ("roll", lambda y, w: torch.roll(y, 1)),
    "einsum without an arrow": ("einsum", lambda y, w: torch.einsum("bchw,c", y, w)),
    "instance norm with statistics": (
        "instance_norm",
        lambda y, w: F.instance_norm(y, w.detach() * 0, w.detach() * 0 + 1, w, None, False),
    ),
    "padded embedding": ("embedding", lambda y, w: F.embedding(WORDS, w.view(4, 1) * y[0, 0, 0], padding_idx=0)),
    "product with a vector": ("matmul", lambda y, w: y.transpose(1, 3) @ w),
    "one row": ("conv1d", lambda y, w: y + F.conv1d(y[0, :, 0], w.expand(4, 4)[..., None]).mean()),
    "one image": ("conv2d", lambda y, w: y + F.conv2d(y[0], w.expand(4, 4)[..., None, None])),
    "index by a tensor": ("", lambda y, w: y[:, torch.tensor([0, 2]), :, torch.tensor([1, 1])]),
    "assignment": ("", lambda y, w: modified(y, lambda z: z.__setitem__((slice(None), 0), w[0]))),
    "sort": ("sort", lambda y, w: y.sort(-1).values * y.sort(-1)[0]),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_rule_does_what_the_operation_does_alone(name: str) -> None:
    assert not compare(KNOWN[name]).slow


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_operation_without_a_rule_does_the_same_and_is_named(name: str) -> None:
    operations, act = UNKNOWN[name]
    assert compare(act).slow == set(operations.split())


def test_a_number_of_one_seed_takes_part_in_full_precision() -> None:
    y = Stacked(torch.linspace(1, 2, 24).view(2, 3, 4).bfloat16())
    number = Stacked(torch.tensor([1.003, 2.0]))
    product, plain = y * number, [y.every[s] * number.every[s] for s in (0, 1)]
    assert isinstance(product, Stacked)
    found = product.every
    assert found.dtype == plain[0].dtype == torch.bfloat16
    assert torch.equal(found, torch.stack(plain))
    assert not torch.equal(found[0], y.every[0])
