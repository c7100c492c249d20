"""A convolution of groups in three passes, each in a way of its own: the maps, the filters' gradient, the image's.

They are custom operators, so that torch.compile does not trace into them and derive slow gradients. The backward pass
keeps nothing but image and filters, and makes matrices again. All maps are contiguous.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stn.models.kernels.operators import differentiate, on_any_device
from stn.multiseed.products import Product

Sizes = Sequence[int]
How = tuple[Sizes, Sizes, Sizes]
"""Stride, padding and dilation."""
PASSES = ("forward", "filters", "image")


def forward(way: str, x: Tensor, weight: Tensor, bias: Tensor | None, how: How, G: int) -> Tensor:
    if way == "triton":
        from stn.models.kernels.convolution import convolve

        return convolve(x, weight, bias, how[1], G)
    if way == "grouped":
        return F.conv2d(x.contiguous(), weight, bias, *how, G).contiguous()  # type: ignore[call-overload]
    out = Product(x, weight, *how, G, way).convolve(x, weight)
    return out if bias is None else out.add_(bias.view(-1, 1, 1))


class Backward:
    """The gradients of a convolution; products of one kind share their matrix of the output's gradient."""

    def __init__(self, grad: Tensor, x: Tensor, weight: Tensor, how: How, G: int) -> None:
        self.grad, self.x, self.weight, self.how, self.G = grad, x, weight, how, G
        self._products: dict[str, tuple[Product, Tensor]] = {}

    def filters(self, way: str, has_bias: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return the gradients of filters and bias."""
        if way == "triton":
            from stn.models.kernels.convolution import filter_gradient

            return filter_gradient(self.grad, self.x, self.weight, self.how[1], self.G, has_bias)
        if way == "grouped":
            filters = self._grouped(False, True)[1]
        else:
            product, grad_GRN = self._product(way)
            filters = product.taps(product.windows(self.x).mT @ grad_GRN).reshape(self.weight.shape)
        return filters, self.grad.sum((0, 2, 3)) if has_bias else None

    def image(self, way: str) -> Tensor:
        if way == "triton":
            from stn.models.kernels.convolution import image_gradient

            return image_gradient(self.grad, self.weight, self.how[1], self.G)
        if way == "grouped":
            return self._grouped(True, False)[0].contiguous()
        product, grad_GRN = self._product(way)
        return product.fold(grad_GRN @ product.filters(self.weight).mT)

    def _grouped(self, *needs: bool) -> tuple[Tensor, ...]:
        x, (stride, padding, dilation) = self.x.contiguous(), self.how
        return torch.ops.aten.convolution_backward(
            self.grad, x, self.weight, None, stride, padding, dilation, False, [0, 0], self.G, [*needs, False]
        )

    def _product(self, way: str) -> tuple[Product, Tensor]:
        if way not in self._products:
            product = Product(self.x, self.weight, *self.how, self.G, way)
            self._products[way] = product, product.rows_of(self.grad)
        return self._products[way]


def _result(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sizes, padding: Sizes, dilation: Sizes, G: int, ways: str
) -> Tensor:
    return x.new_empty(Product(x, weight, stride, padding, dilation, G, "rows").size)


@on_any_device("convolve", _result)
def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sizes, padding: Sizes, dilation: Sizes, G: int, ways: str
) -> Tensor:
    """Return the convolution; ``ways`` are those of PASSES, as rows/rows/whole, and the last one is of the rest too."""
    return forward(ways.split("/")[0], x, weight, bias, (stride, padding, dilation), G)


def _like(grad: Tensor, x: Tensor, weight: Tensor, *how: Any) -> tuple[Tensor, ...]:
    given = zip((x, weight, weight[:, 0, 0, 0]), how[-1], strict=True)
    return tuple(tensor.new_empty(tensor.shape if needed else 0) for tensor, needed in given)


@on_any_device("convolve_gradients", _like)
def _gradients(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    G: int,
    ways: str,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of image, filters and bias; an empty tensor for what is not needed."""
    backward = Backward(grad.contiguous(), x, weight, (stride, padding, dilation), G)
    parts = ways.split("/")
    _, filters, image = (parts + parts[-1:] * 2)[:3]
    made = (
        backward.image(image) if needs[0] else None,
        *(backward.filters(filters, needs[2]) if needs[1] else (None, grad.sum((0, 2, 3)) if needs[2] else None)),
    )
    return tuple(grad.new_empty(0) if tensor is None else tensor for tensor in made)  # type: ignore[return-value]


def _keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.how = inputs[3:]


def _backward(ctx: Any, grad: Tensor) -> tuple:
    needs = ctx.needs_input_grad[:3]
    grads = _gradients(grad, *ctx.saved_tensors, *ctx.how, needs)
    return *(g if needed else None for g, needed in zip(grads, needs, strict=True)), *[None] * len(ctx.how)


differentiate("convolve", _backward, _keep)
