"""Convolutions of many groups as products of matrices: of unfolded patches, or with filters as bands.

A filter that slides along a row of W pixels is a matrix [W, w] with a band of its taps, and zeros elsewhere. Products
with the zeros, too, take W / l times the operations of the convolution for rows (one product for all rows of a map),
and (H * W) / (k * l) times for whole maps. It is the faster way all the same where filters are large beside their maps:
unfolded patches have k * l elements a pixel, windows of rows k, and whole maps one.

B batch, G groups, C channels in, M out, D = G * C, O = G * M, k x l kernel, H x W map in (padded), h x w out; V windows
of Y rows each, with v rows of the output each: h windows of k rows for rows, one of H for whole maps.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

MOST_WASTE = 8
"""Operations over those of the convolution, beyond which a product is slower in any case."""
Sizes = Sequence[int]


def waste(x_BDHW: Tensor, weight_OCkl: Tensor, way: str) -> float:
    """Return by how much more a way multiplies than a convolution without padding."""
    (H, W), (k, l) = x_BDHW.shape[2:], weight_OCkl.shape[2:]
    return {"whole": H * W / (k * l), "rows": W / l}.get(way, 1.0)


def scratch_elements(x_BDHW: Tensor, weight_OCkl: Tensor, way: str) -> int:
    """Return about how many elements the matrices of a way have."""
    k, l = weight_OCkl.shape[2:]
    filters = weight_OCkl[:, :, 0, 0].numel() * x_BDHW[0, 0].numel() ** 2 if way == "whole" else 0
    return x_BDHW.numel() * {"unfold": k * l, "rows": k}.get(way, 1) + filters


class Product:
    """The sizes of a convolution, and its tensors as matrices: R = B * V * X windows, N = M * v * w columns."""

    def __init__(self, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, G: int, way: str):
        self.B, self.G, self.C, self.M = len(x), G, x.shape[1] // G, len(weight) // G
        self.kernel, self.stride, self.padding, self.dilation = tuple(weight.shape[2:]), stride, padding, dilation
        self.H, self.W = (size + 2 * pad for size, pad in zip(x.shape[2:], padding, strict=True))
        spans = [d * (n - 1) + 1 for n, d in zip(self.kernel, dilation, strict=True)]
        sizes = zip((self.H, self.W), spans, stride, strict=True)
        self.out = [(n - span) // step + 1 for n, span, step in sizes]
        slides = {"unfold": (False, False), "rows": (False, True), "whole": (True, True)}[way]
        """Whether a filter slides inside of a window: down, across."""
        both = zip(slides, self.out, (self.H, self.W), self.kernel, dilation, strict=True)
        axes = [(1, n, full, d) if inside else (n, 1, k, 1) for inside, n, full, k, d in both]
        (self.V, self.v, Y, self.down), (self.X, self.w, Z, self.across) = axes
        self.step = [1 if inside else d for inside, d in zip(slides, dilation, strict=True)]
        self.window = self.C, Y, Z
        self.matrix = G, *self.window, self.M, self.v, self.w

    @property
    def size(self) -> tuple[int, ...]:
        return self.B, self.G * self.M, *self.out

    def convolve(self, x_BDHW: Tensor, weight_OCkl: Tensor) -> Tensor:
        out_GRN = self.windows(x_BDHW) @ self.filters(weight_OCkl)
        out_GBVXMvw = out_GRN.view(self.G, self.B, self.V, self.X, self.M, self.v, self.w)
        return out_GBVXMvw.permute(1, 0, 4, 2, 5, 3, 6).reshape(self.size)

    def rows_of(self, grad_BOhw: Tensor) -> Tensor:
        """Return an output's gradient as the product's, [G, R, N]."""
        grad_BGMVvXw = grad_BOhw.reshape(self.B, self.G, self.M, self.V, self.v, self.X, self.w)
        return grad_BGMVvXw.permute(1, 0, 3, 5, 2, 4, 6).reshape(self.G, self.B * self.V * self.X, -1)

    def windows(self, x_BDHW: Tensor) -> Tensor:
        """Return what each window sees, [G, R, C * Y * Z]."""
        top, left = self.padding
        x_BDHW = F.pad(x_BDHW, (left, left, top, top)).contiguous() if any(self.padding) else x_BDHW.contiguous()
        map_, row = self.H * self.W, self.W
        strides = [self.C * map_, self.G * self.C * map_, self.stride[0] * row, self.stride[1]]
        strides += [map_, self.step[0] * row, self.step[1]]
        x_GBVXCYZ = x_BDHW.as_strided((self.G, self.B, self.V, self.X, *self.window), strides)
        return x_GBVXCYZ.reshape(self.G, self.B * self.V * self.X, -1)

    def _band(self, matrix_GCYZMvw: Tensor) -> Tensor:
        """Return the elements of such a matrix that are the filters', [G, M, C, k, l, v, w]."""
        sG, sC, sY, sZ, sM, sv, sw = matrix_GCYZMvw.stride()
        strides = sG, sM, sC, self.down * sY, self.across * sZ, self.stride[0] * sY + sv, self.stride[1] * sZ + sw
        return matrix_GCYZMvw.as_strided((self.G, self.M, self.C, *self.kernel, self.v, self.w), strides)

    def filters(self, weight_OCkl: Tensor) -> Tensor:
        """Return the filters as a matrix, [G, C * Y * Z, N]."""
        matrix = weight_OCkl.new_zeros(self.matrix)
        self._band(matrix).copy_(weight_OCkl.reshape(self.G, self.M, self.C, *self.kernel, 1, 1))
        return matrix.view(self.G, -1, self.M * self.v * self.w)

    def taps(self, grad_GKN: Tensor) -> Tensor:
        """Return the gradient of the filters from that of their matrix."""
        return self._band(grad_GKN.view(self.matrix)).sum((-2, -1))

    def fold(self, grad_GRK: Tensor) -> Tensor:
        """Add up the gradients of the windows where these overlap; return the image's, [B, D, H, W]."""
        grad_GBVXCYZ = grad_GRK.view(self.G, self.B, self.V, self.X, *self.window)
        if self.X > 1:
            grad_BGCYZVX = grad_GBVXCYZ.permute(1, 0, 4, 5, 6, 2, 3)
            columns, size = grad_BGCYZVX.reshape(self.B, -1, self.V * self.X), (self.H, self.W)
            dilation, stride = tuple(self.dilation), tuple(self.stride)
            grad_BDHW = F.fold(columns, size, self.kernel, dilation, 0, stride)
        else:
            grad_BDHW = self._fold_rows(grad_GBVXCYZ.squeeze(3)).flatten(1, 2)
        (top, left), (H, W) = self.padding, (self.H, self.W)
        return grad_BDHW[:, :, top : H - top, left : W - left].contiguous()

    def _fold_rows(self, grad_GBVCYW: Tensor) -> Tensor:
        if self.V == 1:
            return grad_GBVCYW.squeeze(2).transpose(0, 1).contiguous()
        k, step = self.kernel[0], self.step[0]
        if self.stride[0] == 1:  # pixel y gets row i of window y - i * step: one sum over a view, from the last i on
            padded_GBVCYW = F.pad(grad_GBVCYW, [0] * 6 + [step * (k - 1)] * 2).contiguous()
            sG, sB, sV, sC, sY, sW = padded_GBVCYW.stride()
            size, strides = (self.B, self.G, self.C, self.H, self.W, k), (sB, sG, sC, sV, sW, step * sV - sY)
            return padded_GBVCYW.as_strided(size, strides, (k - 1) * sY).sum(-1)
        grad_BGCHW = grad_GBVCYW.new_zeros(self.B, self.G, self.C, self.H, self.W)
        for i in range(k):
            top, last = i * step, self.stride[0] * (self.V - 1) + 1
            grad_BGCHW[:, :, :, top : top + last : self.stride[0]] += grad_GBVCYW[:, :, :, :, i].permute(1, 0, 3, 2, 4)
        return grad_BGCHW
