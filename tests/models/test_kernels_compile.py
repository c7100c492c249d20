"""Triton's kernels compile for GPUs, on a machine without one: its interpreter does not say so."""

from typing import Any

import pytest

triton = pytest.importorskip("triton", reason="PyTorch has no Triton here")
pytestmark = pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
CONVOLUTION = {"C": 1, "M": 16, "H": 28, "W": 28, "h": 20, "w": 20, "k": 9, "l": 9, "top": 0, "left": 0, "BIAS": True,
               "N": 16, "K": 32, "SUM": triton.language.float32, "PARTS": "tf32x3"}  # fmt: skip
MAP = {"H": 21, "W": 20, "k": 2, "BLOCK": 512}


def compiled(
    kernel: Any, pointers: dict[str, str], numbers: str, constants: dict[str, Any], capability: int, **options: Any
) -> str:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = pointers | dict.fromkeys(numbers.split(), "i32") | dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, signature={name: signature[name] for name in kernel.arg_names}, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["ptx"]


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_passes_and_pools_compile_in_every_precision(dtype: str, capability: int) -> None:
    from stn.models.kernels import convolution, pooling

    x, sums = f"*{dtype}", "*fp32"
    maps = {"x_ptr": x, "filters_ptr": x, "bias_ptr": x, "out_ptr": x}
    compiled(convolution._convolve, maps, "B G", CONVOLUTION | {"R": 256}, capability)
    parts = {"x_ptr": x, "grad_ptr": x, "out_ptr": sums, "bias_ptr": sums}
    compiled(convolution._correlate, parts, "B G rows", CONVOLUTION | {"R": 32}, capability)
    compiled(pooling._forward, {"x_ptr": x, "out_ptr": x, "place_ptr": "*i8"}, "n", MAP, capability)
    compiled(pooling._backward, {"grad_ptr": x, "place_ptr": "*i8", "out_ptr": x}, "n", MAP, capability)


def test_samples_compile_without_a_fused_operation() -> None:
    from stn.models.kernels import resampling

    pointers = {"image_ptr": "*u8", "x_ptr": "*fp32", "y_ptr": "*fp32", "out_ptr": "*fp32"}
    sizes = {"C": 1, "h": 28, "w": 28, "BLOCK": 512}
    fused, plain = (compiled(resampling._sample, pointers, "P", sizes, 90, enable_fp_fusion=on) for on in (True, False))
    assert "div.rn.f32" in plain
    assert "fma.rn.f32" in fused
    assert "fma.rn.f32" not in plain
