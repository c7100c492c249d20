"""Measure, in parts, what needs a GPU; then print predictions beside measurements.

    python benchmarks/gpu.py [--parts tests,step,...] [--out FOLDER] [--again]      (make gpu)

    tests     the tests marked gpu
    step      train.py with 64 seeds: time to the first step, choice of convolutions, number of seeds by trial
    kernels   the ten kernels that take most of a step, stn_slx and tutorial
    fused     benchmarks/fused.py --quick: many seeds in a graph against one, and against plain loops
    headline  benchmarks/headline.py: the paper's R column, projected from 2 % of its steps (cnn, stn_slx)

Each part ends within nine minutes and writes FOLDER/<part>.json with device, versions and commit; a part with a file is
not run again. wandb need not be installed. The folder is benchmarks/results/gpu/<device> by default.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import ROOT, Parser, console, fail, machine, names_from
from rich.table import Table

from stn.runs.files import read_json

LIMIT_S = 535
PYTHON = sys.executable
Record = dict[str, Any]


def run(*words: object, limit_s: float = LIMIT_S) -> Record:
    """Run Python; return exit code, seconds and output."""
    start, line = time.perf_counter(), ["timeout", "--kill-after=5", str(round(limit_s)), PYTHON, *map(str, words)]
    done = subprocess.run(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return {"rc": done.returncode, "seconds": time.perf_counter() - start, "output": done.stdout.splitlines()}


def tests(folder: Path) -> Record:
    words = ("-n8", "-v", "-m", "gpu", "-p", "no:benchmark", "--durations=10", "tests/gpu", "tests/models")
    done = run("-m", "pytest", *words)
    return done | {"output": done["output"][-200:]}  # with -v the verdicts stand there even if time ran out


def step(folder: Path) -> Record:
    """Train 64 seeds: one step, then 200 steps of three networks, one of them in bf16 too."""
    runs: Record = {}
    cases = (("stn_slx", "fp32", 1), ("stn_slx", "fp32", 200), ("stn_slx", "bf16", 200), ("cnn", "fp32", 200))
    for arch, precision, steps in (*cases, ("stn_cx", "fp32", 200)):
        with tempfile.TemporaryDirectory() as where:
            words = f"train.py --config configs/finnveden_r.yaml --arch {arch} --seeds 0-63 --steps {steps}"
            words += f" --precision {precision} --limit-test 1000 --optim.schedule constant"
            words += f" --log.wandb disabled --log.no-pictures --runs {where}"
            done = run(*words.split(), limit_s=LIMIT_S / 5)
        told = [line for line in done["output"] if re.search(r"convolution of|as one network|replayed|rror", line)]
        runs[f"{arch} {precision}, {steps} steps"] = done | {"output": told + done["output"][-5:]}
    return {"rc": max(done["rc"] for done in runs.values()), "runs": runs}


def kernels(folder: Path) -> Record:
    found: Record = {}
    for network in ("stn_slx", "tutorial"):
        done = run("benchmarks/kernels.py", network, 64, limit_s=LIMIT_S / 2)
        found[network] = json.loads(done["output"][-1]) if not done["rc"] else done
    return {"rc": max(value.get("rc", 0) for value in found.values()), "networks": found}


def benchmark(folder: Path, *words: str) -> Record:
    record = folder / "record.json"
    done = run(*words, "--json", record)
    text = record.read_text() if record.exists() else ""
    record.unlink(missing_ok=True)
    return done | {"output": done["output"][-40:], "record": json.loads(text) if text else None}


def fused(folder: Path) -> Record:
    words = "benchmarks/fused.py --quick --networks tutorial,stn_slx --seeds-at-once 1,8,64"
    return benchmark(folder, *words.split())


def headline(folder: Path) -> Record:
    return benchmark(folder, "benchmarks/headline.py", "--fraction", "0.02", "--nets", "cnn,stn_slx")


PARTS: dict[str, Callable[[Path], Record]] = {part.__name__: part for part in (tests, step, kernels, fused, headline)}


PREDICTED = {
    "seconds of a run of one step, stn_slx, 64 seeds": "under 20",
    "ms of kernels a step, stn_slx, 64 seeds": "16 to 18 grouped, 6.5 unfolded",
    "ms of kernels a step, tutorial, 64 seeds": "6 to 8.5 grouped",
    "slowest kernel of stn_slx": "conv_depthwise2d_grad_weight, unless unfolded",
    "thousand images/s, stn_slx, 1 seed": "90 to 115",
    "thousand images/s, stn_slx, 64 seeds": "230 to 260 grouped",
    "thousand images/s, tutorial, 64 seeds": "480 to 650 grouped",
    "64 seeds over 1, stn_slx, both in a graph": "at least 5",
    "hours of R for cnn and stn_slx, projected": "under 0.1",
}
"""What was predicted without a GPU, for an H100 in fp32, within a factor of two."""


def measurements(records: Record) -> dict[str, Any]:
    """Return the measurement of each prediction; None where its part has not run or has failed."""

    def at(*path: str | int) -> Any:
        value: Any = records
        for key in path:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def speed(network: str, seeds: int) -> float | None:
        rows = at("fused", "record", network) or []
        like = {"kind": "fused", "seeds": seeds, "graph": True, "precision": "fp32"}
        return next((row["median"] / 1e3 for row in rows if like.items() <= row["form"].items()), None)

    one, many, projected_s = speed("stn_slx", 1), speed("stn_slx", 64), at("headline", "record", "projected_s")
    values = [
        at("step", "runs", "stn_slx fp32, 1 steps", "seconds"),
        at("kernels", "networks", "stn_slx", "ms_a_step"),
        at("kernels", "networks", "tutorial", "ms_a_step"),
        at("kernels", "networks", "stn_slx", "kernels", 0, "kernel"),
        one,
        many,
        speed("tutorial", 64),
        many / one if one and many else None,
        projected_s / 3600 if projected_s else None,
    ]
    return dict(zip(PREDICTED, values, strict=True))


def draw(records: Record) -> None:
    table = Table(title="Predicted without a GPU (H100, fp32), and measured here", title_justify="left")
    for heading in ("quantity", "predicted", "measured"):
        table.add_column(heading)
    for quantity, value in measurements(records).items():
        shown = "not measured" if value is None else value if isinstance(value, str) else f"{value:,.2f}"
        table.add_row(quantity, PREDICTED[quantity], shown)
    console.print(table)


def device() -> str:
    asked = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    return subprocess.run([PYTHON, "-c", asked], capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    parser = Parser(__doc__)
    parser.add_argument("--parts", type=names_from(PARTS), default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--out", type=Path, metavar="FOLDER")
    parser.add_argument("--again", action="store_true", help="run parts again that have a file")
    arguments = parser.parse_args()
    gpu = device()
    if not gpu:
        fail("there is no CUDA device here")
    if not shutil.which("timeout"):
        fail("the command 'timeout' of coreutils is needed")
    slug = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")
    folder = arguments.out or ROOT / "benchmarks" / "results" / "gpu" / slug
    folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.parts:
        file = folder / f"{name}.json"
        if read_json(file) and not arguments.again:
            console.print(f"{name}: {file} exists; --again runs it again")
            continue
        console.print(f"{name} ...")
        record = machine(gpu) | PARTS[name](folder)
        scratch = file.with_suffix(".tmp")
        scratch.write_text(json.dumps(record, indent=1) + "\n")
        scratch.replace(file)  # a part that was killed while it wrote is run again
        console.print(f"{name}: exit code {record['rc']}, {file}")
    records = {name: record for name in PARTS if (record := read_json(folder / f"{name}.json"))}
    draw(records)
    return int(any(record.get("rc") for record in records.values()))


if __name__ == "__main__":
    sys.exit(main())
