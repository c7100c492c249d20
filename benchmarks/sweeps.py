"""Measure expansion, status and retry of a sweep of 10,000 seeds with generated run directories.

    python benchmarks/sweeps.py [--seeds 100] [--repeat 5] [--json FILE]

Prints the median time of some runs of each command line, and its peak memory.
"""

import json
import tempfile
from pathlib import Path

import yaml
from measure import CORES, Parser, console, launched, machine, positive, save

from launch.sweep.expand import expand, write
from launch.sweep.plan import Plan
from stn.config.seed_list import parse_seeds
from stn.runs.directory import RunDir

LRS = [0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1]


def sweep_file(folder: Path, seeds: int) -> Path:
    """Write a sweep file of 100 cells: five architectures, two data sets, ten learning rates."""
    grid = {"arch": ["cnn", "stn_c0", "stn_cx", "stn_dlx", "stn_slx"], "dataset": ["mnist_r", "mnist_t"], "lr": LRS}
    path = folder / "large.yaml"
    path.write_text(yaml.safe_dump({"grid": grid, "seeds": f"0-{seeds - 1}", "seeds_per_job": 8}))
    return path


def generate(plan: Plan) -> None:
    """Write run directories of which nine in ten are finished; the others are running, stopped or failed."""
    confusion = [[10 * (i == j) for j in range(10)] for i in range(10)]
    for n, job in enumerate(plan.jobs):
        run, seeds = RunDir(plan.experiment / job.sig / job.block), parse_seeds(job.seeds)
        done = seeds if n % 10 else seeds[: n // 10 % 8]
        run.published.mkdir(parents=True)
        rows = []
        for seed in done:
            facts = {"sig": job.sig, "seed": seed, "arch": job.arch, "dataset": job.dataset, "steps": 1000}
            scores = {"test_acc": 0.9 + seed / 1e4, "per_class_acc": [0.9] * 10, "confusion": confusion}
            rows.append(json.dumps(facts | {"status": "finished" if seed % 97 else "failed"} | scores))
            (run.published / str(seed)).write_text(rows[-1] + "\n")
        run.results.write_text("".join(row + "\n" for row in rows))
        run.metrics.write_text("".join(json.dumps({"kind": "train", "seed": s, "step": 9}) + "\n" for s in seeds) * 20)
        state = "finished" if len(done) == len(seeds) else ("running", "stopped", "failed")[n // 10 % 3]
        run.write_status(state, seeds=job.seeds, step=500, steps=1000, reason="generated")


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--seeds", type=positive, default=100, help="seeds in each of the 100 cells")
    parser.add_argument("--repeat", type=positive, default=5, help="runs of each command line")
    arguments = parser.parse_args()
    record = machine(None)
    with tempfile.TemporaryDirectory() as folder:
        runs = ["--runs", str(Path(folder) / "runs")]
        path = sweep_file(Path(folder), arguments.seeds)
        commands = {"expansion": launched(arguments.repeat, "sweep", str(path), "--dry-run", *runs)}
        change = expand(str(path), runs[1])
        write(change)
        generate(change.plan)
        commands["expansion again"] = launched(arguments.repeat, "sweep", str(path), "--dry-run", *runs)
        commands["status"] = launched(arguments.repeat, "status", "large", *runs)
        commands["retry"] = launched(arguments.repeat, "retry", "large", "--dry-run", *runs)
    console.print(f"{100 * arguments.seeds:,} seeds in {len(change.plan.jobs):,} jobs, {CORES} cores")
    for name, cost in commands.items():
        console.print(f"{name:16s} {cost['seconds']:6.2f} s  {cost['mb']:5.0f} MB")
    save(arguments.json, record | {"seeds": 100 * arguments.seeds, "figures": commands})


if __name__ == "__main__":
    main()
