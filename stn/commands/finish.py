"""How a training command ends: status, pictures and the final table."""

import shlex
from contextlib import suppress
from pathlib import Path
from statistics import mean, stdev
from typing import NoReturn

from rich.table import Table

from stn.config.command_line import fail, is_main_process
from stn.config.schema import Config
from stn.config.seed_list import format_seeds
from stn.evaluation.pictures.draw import draw
from stn.multiseed.model import StackedModel
from stn.runs.directory import Row, RunDir
from stn.runs.trials import Trial, build_trials, count_finished, group_by_run
from stn.tracking.console import console, say
from stn.tracking.log import log_end
from stn.training import checkpoints
from stn.training.runtime import Runtime


def write_results(trials: list[Trial], model: StackedModel, facts: Row, fields: list[Row], writes: bool) -> list[Row]:
    """Write the final weights, then publish the result rows of a block; return these.

    ``facts`` are fields of all seeds, ``fields`` those of each.
    """
    results = []
    for s, trial in enumerate(trials):
        weights = model.weights(s)
        row = trial.identity() | facts | {"weights_sha256": checkpoints.digest(weights)}
        results.append(row | fields[s])
        if writes:
            checkpoints.save_weights(trial.run, trial.seed, "final", weights, row)
    for group in group_by_run(trials) if writes else []:
        group[0].run.sync_metrics()  # a seed with a result row is never trained again
        group[0].run.add_results([row for row in results if row["sig"] == group[0].sig])
    return results


def wrap_up(trials: list[Trial], stopped: str | None, trained: set[str]) -> int:
    """Write each status.json and return the exit code of this process; ``trained``: signatures trained just now."""
    rows: list[Row] = []
    groups = group_by_run(trials)
    for group in groups:
        finished = group[0].run.finished()
        group_rows = [finished[trial.seed] for trial in group if trial.seed in finished]
        _close(group, group_rows, stopped, group[0].sig in trained)
        rows += group_rows
    if stopped:
        for group in groups:  # in finished ones, too: the request was to the whole command
            group[0].run.stop.unlink(missing_ok=True)
        if len(rows) < len(trials):
            say(f"stopped ({stopped}); run the same command again to resume")
            return 0
    return 1 if any(row["status"] == "failed" for row in rows) else 0


def _close(group: list[Trial], rows: list[Row], stopped: str | None, trained: bool) -> None:
    """Bring the files of one run directory to their final or stopped state and release its lease."""
    config, sig, run = group[0].config, group[0].sig, group[0].run
    run.close_metrics()
    failed = [row["seed"] for row in rows if row["status"] == "failed"]
    facts = {"finished": len(rows) - len(failed), "failed": failed}
    if stopped and len(rows) < len(group):
        run.write_end("stopped", reason=stopped, **facts)
        run.lease.release()
        return
    status, end = run.read_status(), "failed" if failed else "finished"
    begun = bool(status or run.rows())  # else its seeds have finished in another block
    if trained or (begun and (status.get("state") != end or "reason" in status)):  # a reason: of an earlier start
        if trained and not run.may_write():
            return  # another copy has taken over, and finishes it
        checkpoints.drop_temporary_files(run, has_lease=trained)  # left by a kill after the last row
        run.publish_pending()
        for row in rows:
            checkpoints.drop_steps(run, row["seed"])
        if config.log.pictures:
            draw(config, run)
        run.write_status(end, **facts)
        log_end(config, sig, run)
    else:
        checkpoints.drop_temporary_files(run, has_lease=False)  # of a start that could write nothing more
        seeds = format_seeds([trial.seed for trial in group])
        say(f"finished before: nothing to do for seeds {seeds} of {config.log.name} ({sig})")
    run.lease.release()


def record_failure(trials: list[Trial], error: Exception | KeyboardInterrupt) -> NoReturn:
    """Record the error in status.json, if that can still be written, and exit or re-raise it."""
    interrupted = isinstance(error, KeyboardInterrupt)
    state, reason = ("stopped", "SIGINT twice") if interrupted else ("failed", f"{type(error).__name__}: {error}")
    with suppress(OSError):
        for group in group_by_run(trials):
            if group[0].run.lease.token:  # otherwise another process holds it
                group[0].run.write_end(state, reason=reason)
    if interrupted:
        fail("interrupted; run the same command again to resume from the last checkpoint", code=130)
    if isinstance(error, OSError):
        fail(error, code=1, everywhere=True)
    raise error


def leave(runtime: Runtime, configs: list[Config], stopped: str | None) -> None:
    """Leave the process group, which waits for all processes; meanwhile the main one shows how many seeds are done."""
    waits = runtime.processes > 1 and is_main_process() and not stopped
    done, total = count_finished(build_trials(configs)) if waits else (0, 0)
    if done == total:
        return runtime.end()
    text = f"waiting for the other processes: {done} of {total} seeds done"
    if not console.is_terminal:
        say(text)
    with console.status(text):
        runtime.end()


def summarise(code: int, configs: list[Config], stopped: str | None) -> int:
    """Print the final table of all processes' seeds, from the main one, unless they were stopped; return the code."""
    groups = group_by_run(build_trials(configs)) if is_main_process() else []
    rows, runs, missing = list[Row](), dict[Path, RunDir](), 0
    for group in groups:
        seeds, blocks = {trial.seed for trial in group}, group[0].run.blocks()
        finished = group[0].run.finished()
        rows += [finished[seed] for seed in sorted(seeds & finished.keys())]
        runs |= {run.path: run for run in blocks if seeds & run.rows().keys()}
        missing += len(seeds - finished.keys())
    if groups and not (stopped and missing):
        print_summary(rows, list(runs.values()))
    return code


def _statistics(rows: list[Row], columns: list[tuple[str, str, str]]) -> list[list[str]]:
    """Return lines of mean and standard deviation of the accuracies of finished seeds, where there are several."""
    lines = []
    finished = [row for row in rows if row["status"] == "finished"]
    for sig in dict.fromkeys(row.get("sig") for row in finished):
        group = [row for row in finished if row.get("sig") == sig]
        for name, statistic in (("mean", mean), ("SD", stdev)) if len(group) > 1 else ():
            cells = {"seed": name, "status": f"n = {len(group)}"}
            for _, key, form in columns:
                values = [row[key] for row in group if row.get(key) is not None]
                if key.endswith(("_acc", "macro_f1")) and len(values) > 1:
                    cells[key] = format(statistic(values), form)
                elif key in ("lr", "weight_decay") and values:
                    cells[key] = format(values[0], form)
            lines.append([cells.get(key, "") for _, key, _ in columns])
    return lines


def print_summary(rows: list[Row], runs: list[RunDir]) -> None:
    """Print the final table, where the results are, and what to type next."""
    split = "val" if any("val_acc" in row for row in rows) else "test"
    settings = [key for key in ("lr", "weight_decay") if len({row.get(key) for row in rows}) > 1]
    columns = [
        ("seed", "seed", "d"),
        *((key.replace("_", " "), key, "g") for key in settings),
        ("status", "status", "s"),
        ("last acc", f"{split}_acc", ".2%"),
        ("best acc", f"best_{split}_acc", ".2%"),
        ("at epoch", "best_epoch", ".4g"),
        ("macro F1", "macro_f1", ".4f"),
        ("images/s", "images_per_s", ",.0f"),
        ("seconds", "wall_s", ".1f"),
    ]
    table = Table(title=f"{len(rows)} seed{'s' * (len(rows) != 1)}", box=None, padding=(0, 1), title_justify="left")
    for heading, _, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*("-" if row.get(key) is None else format(row[key], form) for _, key, form in columns))
    for line in _statistics(rows, columns):
        table.add_row(*line)
    console.print(table)
    for run in runs:
        for name, path in (("results", run.results), ("pictures", run.pictures)):
            if path.exists():
                say(f"{name:9s} {path}")
    for experiment in dict.fromkeys(run.path.parent.parent for run in runs):
        say(f"compare   python -m launch report {shlex.quote(str(experiment))}")
        if any(run.path.parent.parent == experiment and any(run.path.glob("wandb/offline-run-*")) for run in runs):
            say(f"upload    python -m launch wandb-sync {shlex.quote(str(experiment))}")
    for row in rows:
        if row["status"] == "failed":
            advice = "; rerun with a lower --lr or --optim.clip" * row["reason"].startswith("non-finite loss")
            say(f"seed {row['seed']} of {row['sig']} failed: {row['reason']}{advice}")
