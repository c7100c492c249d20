"""Rows of run directories that a reader accepts, with little in them."""

from typing import Any


def result(seed: int, **more: Any) -> dict[str, Any]:
    return {"seed": seed, "status": "finished"} | more


def metric(seed: int, step: int, kind: str = "train", **more: Any) -> dict[str, Any]:
    return {"kind": kind, "seed": seed, "step": step, "epoch": step / 10} | more
