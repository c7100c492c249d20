"""How a training command ends: status, pictures and the final table."""

from contextlib import suppress
from typing import NoReturn

from rich.table import Table

from stn.config import command_line
from stn.config.seed_list import format_seeds
from stn.runs.directory import Row
from stn.runs.trials import Trial, group_by_run
from stn.tracking.console import console, say
from stn.training import checkpoints


def wrap_up(trials: list[Trial], stopped: str | None, trained: set[str]) -> int:
    """Write each status.json, print how it ended and return the exit code; ``trained``: signatures trained just now."""
    done: list[tuple[Trial, Row]] = []
    for group in group_by_run(trials):
        finished = group[0].run.finished()
        rows = [(trial, finished[trial.seed]) for trial in group if trial.seed in finished]
        done += rows
        _close(group, [row for _, row in rows], stopped, group[0].sig in trained)
    if stopped:
        for group in group_by_run(trials):  # also for those that have finished: it was meant for the whole command
            group[0].run.stop.unlink(missing_ok=True)
    if stopped and len(done) < len(trials):
        say(f"stopped ({stopped}); run the same command again to resume")
        return 0
    summary(done)
    return 1 if any(row["status"] == "failed" for _, row in done) else 0


def _close(group: list[Trial], rows: list[Row], stopped: str | None, trained: bool) -> None:
    """Finish one run directory."""
    config, sig, _, run = group[0]
    failed = [row["seed"] for row in rows if row["status"] == "failed"]
    facts = {"finished": len(rows) - len(failed), "failed": failed}
    if stopped and len(rows) < len(group):
        run.write_end("stopped", reason=stopped, **facts)
        run.unlock()
        return
    if trained or run.read_status().get("state") == "running":
        checkpoints.drop_temporary_files(run, has_lease=trained)  # a kill after the last row leaves some
        run.mend_results()
        run.settle({row["seed"] for row in rows})
        for row in rows:
            checkpoints.drop_steps(run, row["seed"])
        if config.log.pictures:
            from stn.pictures.draw import draw  # here, because matplotlib takes half a second

            draw(config, run)
        run.write_status("failed" if failed else "finished", **facts)
    else:
        seeds = format_seeds([trial.seed for trial in group])
        say(f"finished before: nothing to do for seeds {seeds} of {config.log.name} ({sig})")
    run.unlock()


def record_failure(trials: list[Trial], error: Exception) -> NoReturn:
    """Record the error in status.json, if that can still be written, and exit or re-raise it."""
    with suppress(OSError):
        for group in group_by_run(trials):
            if group[0].run.lease.token:  # else another process's
                group[0].run.write_end("failed", reason=f"{type(error).__name__}: {error}")
    if isinstance(error, OSError):
        command_line.fail(error, code=1, everywhere=True)
    raise error


def summary(done: list[tuple[Trial, Row]]) -> None:
    """Print the final table and where the results are."""
    table = Table(title=f"{len(done)} seed{'s' * (len(done) != 1)}", box=None, padding=(0, 1), title_justify="left")
    own = [key for key in ("lr", "weight_decay") if len({getattr(t.config.optim, key) for t, _ in done}) > 1]
    for heading in ("seed", *own, "status", "last acc", "best acc", "at epoch", "macro F1", "images/s", "seconds"):
        table.add_column(heading.replace("_", " "), justify="right", no_wrap=True)
    for trial, row in done:
        last = row.get("test_acc", row.get("val_acc"))
        best = row.get("best_test_acc", row.get("best_val_acc"))
        table.add_row(
            str(row["seed"]),
            *(f"{getattr(trial.config.optim, key):g}" for key in own),
            row["status"],
            "-" if last is None else f"{last:.2%}",
            "-" if best is None else f"{best:.2%}",
            "-" if best is None else f"{row['best_epoch']:.4g}",
            "-" if last is None else f"{row['macro_f1']:.4f}",
            f"{row['images_per_s']:,.0f}",
            f"{row['wall_s']:.1f}",
        )
    console.print(table)
    for group in group_by_run([trial for trial, _ in done]):
        for name, path in (("results", group[0].run.results), ("pictures", group[0].run.pictures)):
            if path.exists():
                say(f"{name:9s} {path}")
    for _, row in done:
        if row["status"] == "failed":
            advice = "; rerun with a lower --lr or --optim.clip" * row["reason"].startswith("non-finite loss")
            say(f"seed {row['seed']} of {row['sig']} failed: {row['reason']}{advice}")
