"""Results that are equal but for rounding."""

from collections.abc import Sequence

from torch import Tensor


def are_equal(found: Sequence[Tensor], exact: Sequence[Tensor]) -> None:
    for ours, theirs in zip(found, exact, strict=True):
        assert float((ours - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())
