"""Time column R of Finnveden et al. (arXiv 2004.11678), 5 networks x 10 seeds, at a fraction of its length.

    python benchmarks/headline.py [--fraction 0.001] [--seeds 0-9] [--nets cnn,stn_slx] [--processes N]
                                  [--runs DIR] [--json FILE]

Runs the real command line with configs/finnveden_r.yaml, one network after the other, and projects
the wall time of the full schedule. A run has fraction x 70,000 steps with the milestone scaled, one
evaluation at the end (on at least the first 10,000 test images), no intermediate checkpoints, no
pictures and no W&B. The projection is for the slowest process: start-up and warm-up as measured,
training at the median images/s of the log's intervals without the first, and the recipe's 14
evaluations of 100,000 images at the measured speed. ACCELERATE_USE_CPU=true keeps it off a GPU.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import CORES, DISTURBED, ROOT, Parser, console, fail, machine, names_from, others_s, positive, save
from rich.table import Table

from stn.config.fields import steps_of
from stn.config.resolve import resolve
from stn.config.seed_list import parse_seeds
from stn.config.yaml_files import load_yaml
from stn.runs.files import read_rows

RECIPE = ROOT / "configs" / "finnveden_r.yaml"
NETS = ("cnn", "stn_c0", "stn_cx", "stn_dlx", "stn_slx")
TEST_IMAGES = 100_000
GPU = (
    "import torch, accelerate.utils as a; on_cpu = a.parse_flag_from_env('ACCELERATE_USE_CPU'); "
    "print(torch.cuda.get_device_name() if torch.cuda.is_available() and not on_cpu else '')"
)


def fraction(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} must be above 0 and at most 1")
    return value


def seeds(text: str) -> str:
    try:
        parse_seeds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def train(net: str, arguments: argparse.Namespace, sizes: dict[str, int], runs: Path) -> tuple[float, float]:
    """Run the real command line; return its seconds, and how many cores other processes used meanwhile."""
    python = [sys.executable]
    if arguments.processes > 1:
        python += ["-m", "accelerate.commands.launch", "--config_file", "configs/accelerate/cpu2.yaml"]
        python += ["--num_processes", str(arguments.processes)]
    steps, whole = sizes["steps"], load_yaml(RECIPE).train.steps
    words = f"train.py --config {RECIPE.relative_to(ROOT)} --arch {net} --seeds {arguments.seeds}"
    words += f" --fraction {arguments.fraction} --eval.every {whole}steps --checkpoint.every {steps}steps"
    words += f" --log.every {max(1, steps // 5)}steps --limit-test {sizes['test']}"
    words += " --log.no-pictures --log.wandb disabled"
    where = ["--runs", str(runs), "--name", f"{net}-mnist_r"]
    start, before = time.perf_counter(), others_s()
    done = subprocess.run([*python, *words.split(), *where], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        )
    wall_s = time.perf_counter() - start
    return wall_s, max(0.0, others_s() - before) / wall_s


def read(runs: Path, net: str, sizes: dict[str, int]) -> dict[str, Any]:
    """Return the test error, and the seconds of the slowest process."""
    errors, processes, images = [], [], sizes["steps"] * sizes["batch"]
    for file in (runs / f"{net}-mnist_r").glob("*/*/results.jsonl"):  # one file per process
        rows, log = read_rows(file), read_rows(file.with_name("metrics.jsonl"))
        errors += [100 * row["test_error"] for row in rows]
        wall_s = train_s = steady_s = 0.0
        for row in rows:  # all seeds of a block share its times: divide by their number
            speeds = [r["images_per_s"] for r in log if r["kind"] == "train" and r["seed"] == row["seed"]][1:]
            wall_s += row["wall_s"] / row["fused"]
            train_s += images / row["images_per_s"]
            steady_s += images / statistics.median(speeds or [row["images_per_s"]])
        processes.append((wall_s, train_s, steady_s))
    wall_s, train_s, steady_s = max(processes)
    return {
        "n": len(errors),
        "test_error": statistics.mean(errors),
        "images_per_s": len(errors) * images / steady_s,
        "train_s": train_s,
        "steady_s": steady_s,
        "evaluation_s": wall_s - train_s,
    }


def main() -> int:
    parser = Parser(__doc__)
    parser.add_argument("--fraction", type=fraction, default=0.001)
    parser.add_argument("--seeds", type=seeds, default="0-9")
    parser.add_argument("--nets", type=names_from(NETS), default=list(NETS), help=", ".join(NETS))
    parser.add_argument("--processes", type=positive, help="default: one per core, at most one per seed; on a GPU 1")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="keep the run directories there")
    arguments = parser.parse_args()
    if arguments.runs and arguments.runs.exists() and (not arguments.runs.is_dir() or any(arguments.runs.iterdir())):
        fail(f"'{arguments.runs}' is not an empty folder: finished runs in it would not be measured")
    gpu = subprocess.run([sys.executable, "-c", GPU], capture_output=True, text=True, check=True).stdout.strip() or None
    count = len(parse_seeds(arguments.seeds))
    arguments.processes = arguments.processes or (1 if gpu else min(CORES, count))
    if arguments.processes > count:
        fail(f"{count} seeds cannot keep {arguments.processes} processes busy")

    recipe, part = resolve(load_yaml(RECIPE)), arguments.fraction
    whole = recipe.train.steps or 0
    tested = TEST_IMAGES * whole // steps_of(recipe.eval.every)
    sizes = {
        "steps": max(1, round(part * whole)),
        "batch": recipe.data.batch_size,
        "test": min(TEST_IMAGES, max(10_000, round(part * tested))),
    }
    record = machine(gpu) | {"processes": arguments.processes, "whole_steps": whole, **sizes, "networks": {}}
    console.print(
        f"Run: {len(arguments.nets)} network(s) x {count} seed(s) x {sizes['steps']} of {whole:,} steps of "
        f"{sizes['batch']} images, {arguments.processes} process(es), {gpu or 'CPU'}; "
        f"load before: {record['load_before']}"
    )
    table = Table(title="Measured, and projected to the full schedule", title_justify="left")
    for heading in ("net", "n", "test error %", "images/s", "wall s", "start-up s", "training s", "evaluation s"):
        table.add_column(heading, justify="left" if heading == "net" else "right")
    table.add_column("whole, h (projected)", justify="right")
    with tempfile.TemporaryDirectory() as folder:
        for net in arguments.nets:
            runs = (arguments.runs or Path(folder)).resolve()
            try:
                wall, others = train(net, arguments, sizes, runs)
                row = read(runs, net, sizes)
            except RuntimeError as error:
                record["networks"][net] = {"error": str(error)}
                console.print(f"{net} failed: {error}")
                continue
            start_s = wall - row["train_s"] - row["evaluation_s"]
            projected = start_s + row["train_s"] + row["steady_s"] * (whole / sizes["steps"] - 1)
            projected += row["evaluation_s"] * tested / sizes["test"]
            record["networks"][net] = row | {"wall_s": wall, "start_s": start_s, "projected_s": projected}
            record["networks"][net]["others_cores"] = round(others, 3)
            busy = f"; unreliable: other processes used {others:.1f} cores" if others > DISTURBED else ""
            console.print(f"{net}: {wall:.0f} s{busy}")
            times = [f"{t:.1f}" for t in (wall, start_s, row["train_s"], row["evaluation_s"])]
            error = f"{row['test_error']:.2f}"
            table.add_row(net, str(row["n"]), error, f"{row['images_per_s']:,.0f}", *times, f"{projected / 3600:.2f}")
    console.print(table)
    finished = [row for row in record["networks"].values() if "error" not in row]
    record["wall_s"], record["projected_s"] = (sum(row[key] for row in finished) for key in ("wall_s", "projected_s"))
    console.print(
        f"Measured: {record['wall_s']:.0f} s for {len(finished)} network(s). Projected, not run: "
        f"{record['projected_s'] / 3600:.1f} h for the same networks and seeds at {whole:,} steps."
    )
    save(arguments.json, record)
    return int(len(finished) < len(arguments.nets))


if __name__ == "__main__":
    sys.exit(main())
