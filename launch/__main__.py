"""python -m launch: one training on this machine; sweeps, their status, reports, uploads and exports."""

import os
import signal
import sys
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Annotated

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports leaves no traceback
import tyro

from launch import train
from launch.export.command import PACKAGES
from launch.export.command import export as export_seeds
from launch.sweep.commands import Runs, retry, run_task, start_sweep, status
from launch.sweep.plan import find_plan
from launch.wandb import sync
from stn.config.command_line import fail, one_line_errors
from stn.config.registry import nearest
from stn.config.yaml_files import build_config
from stn.tracking.console import say

Paths = tyro.conf.Positional[tuple[str, ...]]
WORSE = 3
"""Exit code of a report against an earlier one, if anything got worse."""
FORMATS = ("latex",)
"""Formats of a report besides page, Markdown and CSV."""
Format = Annotated[str, tyro.conf.arg(metavar=f"{{{','.join(FORMATS)}}}")]
TRAINED = ("check", "list", "evaluate", "show")
"""Commands of the other package, for a hint."""
Points = Annotated[str | None, tyro.conf.arg(metavar="POINTS")]
To = Annotated[str, tyro.conf.arg(metavar=f"{{{','.join(PACKAGES)}}}")]


def _runs_folder(path: str, runs: str) -> str:
    """Return the folder of run directories that a sweep's name, or a path, stands for."""
    if Path(path).is_dir() and not Path(path, "manifest.jsonl").is_file():
        return path
    return str(find_plan(path, runs).experiment)


def _folders(paths: tuple[str, ...], runs: str) -> list[str]:
    """Return the named folders of run directories; by default the folder of all runs."""
    if not paths and not Path(runs).is_dir():
        raise ValueError(f"there is no folder {runs}; name a sweep or a run directory, or give --runs DIR")
    return [_runs_folder(path, runs) for path in paths or [runs]]


def wandb_sync(sweeps: Paths, /, project: str | None = None, entity: str | None = None, runs: Runs = "runs") -> int:
    """Upload what W&B does not have yet, from a machine that reaches it; safe to repeat.

    Args:
        sweeps: Names, files or folders of sweeps, or run directories.
        project: Project to send them to, instead of the one that they were trained with.
        entity: User or team to send them to, likewise.
    """
    named = {"wandb_project": project, "wandb_entity": entity}
    place = {key: name for key, name in named.items() if name is not None}
    build_config({"log": place}, "wandb-sync")
    run_dirs = sync.uploadable_runs([_runs_folder(path, runs) for path in sweeps])
    if not run_dirs:
        usage = "nothing; usage: python -m launch wandb-sync PATH..."
        raise ValueError(f"no run directory in {', '.join(sweeps) or usage}")
    try:
        synced = sync.sync(run_dirs, print, **place)
    except KeyboardInterrupt:
        fail("interrupted; nothing is lost, run the same command again", code=1)
    print(f"W&B: {synced.rows:,} rows of {synced.seeds} seeds sent, from {len(run_dirs)} run directories")
    return 1 if synced.problems else 0


def _margin(text: str) -> float:
    try:
        margin = float(text)
    except ValueError:
        margin = 0.0
    if not 0 < margin < 100:
        raise ValueError(f"--equal {text}: give a difference between 0 and 100 points, as in --equal 0.1")
    return margin


def report(
    paths: Paths,
    /,
    out: Path | None = None,
    equal: Points = None,
    format: Format = "",
    against: Path | None = None,
    wandb: bool = False,
    runs: Runs = "runs",
) -> int:
    """Compare architectures on paired seeds, and say which is better: index.html, report.md, rows.csv and figures.

    Args:
        paths: Sweeps, or folders of run directories; finished or not.
        out: Folder for the report; default: report/ in the first of the paths.
        equal: Differences of accuracies up to so many points do not matter: they are reported as equal.
        format: Write another format as well; latex: tables.tex (needs booktabs), and the figures as PDF.
        against: Earlier report, its rows.csv, or earlier run directories, to compare with; exit code 3 if anything is
            worse.
        wandb: Create or update the report on W&B as well (needs wandb-workspaces).
    """
    # Imported here: numpy and matplotlib take a second.
    from launch.report import build
    from launch.report.output import wandb_report

    margin = None if equal is None else _margin(equal)
    if format not in ("", *FORMATS):
        raise ValueError(f"no format '{format}'; {nearest(format, FORMATS)}")
    written = build.compare(_folders(paths, runs), out, margin, format == "latex", against)
    worse = WORSE if written.overview.against and written.overview.against.worse else 0
    if wandb:
        published, message = wandb_report.publish(written.sections, written.out, written.overview)
        say(message)
        return worse if published else worse or 1
    return worse


def export(paths: Paths, /, to: To = "", out: str = "", project: str = "", runs: Runs = "runs") -> int:
    """Write runs to another tracker or to tables, a run per seed; safe to repeat.

    Args:
        paths: Sweeps, run directories, or folders of them; finished or not.
        to: Which tracker, or kind of file.
        out: Folder, or for mlflow a tracking URI; default: export/ in the first of the paths, for mlflow and trackio
            their own.
        project: Experiment of mlflow, project of trackio; default: the name of each run's experiment.
    """
    return export_seeds(_folders(paths, runs), to, out, project, say)


def _deferred(command: Callable[..., int]) -> Callable[..., Callable[[], int]]:
    """Return a command that reads its arguments and returns a call to run later."""

    @wraps(command)
    def read(*arguments: object, **options: object) -> Callable[[], int]:
        return partial(command, *arguments, **options)

    return read


def main() -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    words = sys.argv[1:]
    commands = {"sweep": start_sweep, "status": status, "retry": retry, "report": report}
    commands |= {"wandb-sync": wandb_sync, "export": export, "task": run_task}
    about = "Sweeps of many seeds. One training: python -m launch train [arguments of train.py]."
    try:
        if words[:1] == ["train"]:
            launcher = train.command(words[1:])
            # Takes the place of this process, so that signals reach the launcher.
            os.execve(launcher[0], launcher, train.environment())
        if words and not words[0].startswith("-") and words[0] not in commands:
            hint = f"that is python -m stn {words[0]}" if words[0] in TRAINED else nearest(words[0], commands)
            raise ValueError(f"no command '{words[0]}'; {hint}")
        read = {name: _deferred(command) for name, command in commands.items()}
        with one_line_errors():
            command = tyro.extras.subcommand_cli_from_dict(read, prog="python -m launch", description=about, args=words)
        return command()
    except ValueError as error:
        fail(error)
    except OSError as error:
        fail(error, code=1)
    except KeyboardInterrupt:
        fail("interrupted", code=130)


if __name__ == "__main__":
    sys.exit(main())
