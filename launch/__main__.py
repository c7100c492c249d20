"""python -m launch: one training on this machine, sweeps here or on Slurm, and where they stand."""

import os
import sys
from pathlib import Path

import tyro

from launch import train
from launch.sweep import plan as plans
from launch.sweep.commands import Runs, retry, run_task, start_sweep, status
from launch.sweep.table import plural
from launch.wandb import sync
from stn.config.command_line import fail
from stn.tracking.console import say

Paths = tyro.conf.Positional[tuple[str, ...]]


def upload(sweeps: Paths, /, runs: Runs = "runs") -> int:
    """Upload what W&B does not have yet, from a machine that reaches it; as often as you like.

    Args:
        sweeps: Names, files or folders of sweeps, or run directories.
    """
    found = sync.find([_folder(one, runs) for one in sweeps])
    if not found:
        raise ValueError(
            f"no run directory in {', '.join(sweeps) or 'nothing; usage: python -m launch wandb-sync PATH...'}"
        )
    os.environ.setdefault("WANDB_SILENT", "true")  # what is to be said is said here
    try:
        synced = sync.sync(found, print)
    except KeyboardInterrupt:
        fail("interrupted; nothing is lost, call again", code=1)
    print(f"W&B: {synced.rows:,} rows of {synced.seeds} seeds sent, from {len(found)} run directories")
    return 1 if synced.problems else 0


def _folder(text: str, runs: str) -> str:
    """Where the run directories are of what was named."""
    path = Path(text)
    if path.is_dir() and not (path / "manifest.jsonl").is_file():
        return text
    return str(plans.find_plan(text, runs).experiment)


def report(paths: Paths, /, out: Path | None = None, wandb: bool = False, runs: Runs = "runs") -> int:
    """Compare architectures on paired seeds: index.html, report.md, rows.csv and figures.

    Args:
        paths: Sweeps, or folders of run directories; finished or not.
        out: Folder for the report; report/ in the first of them, unless told otherwise.
        wandb: Make or update it on W&B as well (needs wandb-workspaces).
    """
    from launch.report import build
    from launch.report.analysis import read
    from launch.report.output import wandb_report  # what they need takes a second to import

    folders = [_folder(one, runs) for one in paths or [runs]]
    found, out = read.load(folders), out or Path(folders[0]) / "report"
    sections = build.write_report(found, out)
    seeds = sum(len(cell.rows) for cell in found.cells)
    say(f"{plural(len(found.cells), 'cell')}, {plural(seeds, 'seed')}: {out / 'index.html'}")
    if wandb:
        say(wandb_report.publish(sections, out))
    return 0


def main() -> int:
    words = sys.argv[1:]
    if words[:1] == ["train"]:
        train.train(words[1:])
    commands = {"sweep": start_sweep, "status": status, "retry": retry, "report": report}
    commands |= {"wandb-sync": upload, "task": run_task}
    try:
        about = "Sweeps of many seeds. One training: python -m launch train [arguments of train.py]."
        return tyro.extras.subcommand_cli_from_dict(commands, prog="python -m launch", description=about, args=words)
    except ValueError as error:
        fail(error)
    except OSError as error:
        fail(error, code=1)


if __name__ == "__main__":
    sys.exit(main())
