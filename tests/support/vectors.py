"""The functions in C as a CPU without AVX-512 has them."""

import pytest

from stn.models.kernels import compiled


def take_vectors_of_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = compiled.library().shares
    built = compiled._load(["cc"], [*compiled._FLAGS, "-mno-avx512f", *["-fopenmp"] * shares])
    monkeypatch.setattr(compiled, "library", lambda: compiled.Library(built, shares=shares))
