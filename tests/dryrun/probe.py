"""A program on a stand-in for CUDA's runtime, whose kernels do nothing: probe.py JSON PROGRAM ARGUMENTS.

Puts right what kernels that compute nothing would break, and writes to JSON: captures that succeeded and failed, calls
that are not allowed while capturing, copies to the host inside a capture, launches outside of graphs and replayed, and
of the last graph its nodes, its depthwise weight gradients and the kernels of Triton.
Losses, accuracies and "failed" marks mean nothing.
"""

import atexit
import ctypes
import json
import math
import os
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

report, program = Path(sys.argv[1]), sys.argv[2]
sys.argv = sys.argv[2:]
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

import stn.evaluation.accuracy
import stn.runs.directory
import stn.runs.results
from stn.training.running_metrics import RunningMetrics

runtime = ctypes.CDLL(None)
runtime.fakecuda_count.restype = ctypes.c_long
captures = {"ok": 0, "failed": 0}


def finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return 0.0
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def counted(capture_end: Callable) -> Callable:
    def end(self: object, *arguments: object) -> object:
        try:
            result = capture_end(self, *arguments)
        except RuntimeError:
            captures["failed"] += 1
            raise
        captures["ok"] += 1
        return result

    return end


def lines(rows: list[dict]) -> str:
    return "".join(json.dumps(finite(row)) + "\n" for row in rows)


@atexit.register
def write_report() -> None:
    log = Path(os.environ["FAKECUDA_LOG"])
    text = log.read_text(errors="replace") if log.exists() else ""
    graphs = re.split(r"^BEGIN capture", text, flags=re.MULTILINE)[1:]
    nodes = [int(n) for n in re.findall(r"^END capture \d+ ok nodes (\d+)", text, flags=re.MULTILINE)]
    facts = {
        "nodes": nodes[-1] if nodes else 0,
        "slow weight gradients": graphs[-1].count("conv_depthwise2d_grad_weight") if graphs else 0,
        "triton": len(re.findall(r"^N triton ", graphs[-1], flags=re.MULTILINE)) if graphs else 0,
        "captured": captures["ok"],
        "failed": captures["failed"],
        "not allowed": text.count("ILLEGAL"),
        "host copies": text.count("HOSTCOPY"),
        "launches": runtime.fakecuda_count(0),
        "replayed": runtime.fakecuda_count(1),
        "allocated": torch.cuda.max_memory_allocated(),
        "imported dynamo": "torch._dynamo" in sys.modules,
        "reserved": torch.cuda.max_memory_reserved(),
        "kept": torch.cuda.memory_reserved(),
    }
    report.write_text(json.dumps(facts))


torch.cuda.CUDAGraph.capture_end = counted(torch.cuda.CUDAGraph.capture_end)
invert, scores = torch.linalg.pinv, stn.evaluation.accuracy.scores
torch.linalg.pinv = lambda x, *a, **k: invert(torch.rand(x.shape, dtype=x.dtype), *a, **k).to(x.device)
torch.exp2 = torch.exp  # is compiled on the device at its first use
stn.runs.directory.lines = stn.runs.results.lines = lines
stn.evaluation.accuracy.scores = lambda *a, **k: finite(scores(*a, **k))
RunningMetrics.find_failed = lambda self: None
Path(os.environ["FAKECUDA_LOG"]).unlink(missing_ok=True)
runtime.fakecuda_logging(1)
runpy.run_path(program, run_name="__main__")
