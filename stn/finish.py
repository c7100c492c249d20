"""How a run ends: its status, its pictures, the table at the end. Must not know how it was trained."""

from rich.table import Table

from stn import checkpoint, pictures
from stn.config import format_seeds
from stn.log import console, say
from stn.rundir import Row, RunDir
from stn.trials import Trial


def wrap_up(trials: list[Trial], stopped: str | None, trained: bool) -> int:
    """Say how the trials of a run directory ended, in status.json and on the console; the exit code."""
    (config, sig, _, run), seeds = trials[0], [trial.seed for trial in trials]
    rows = [row for seed, row in run.finished().items() if seed in seeds]
    failed = [row["seed"] for row in rows if row["status"] == "failed"]
    facts = {"finished": len(rows) - len(failed), "failed": failed}
    if stopped and len(rows) < len(seeds):
        run.write_status("stopped", reason=stopped, **facts)
        run.stop.unlink(missing_ok=True)
        say(f"stopped ({stopped}); the same command goes on")
        return 0
    if trained or run.read_status().get("state") == "running":
        for row in rows:
            checkpoint.drop_steps(run, row["seed"])
        if config.log.pictures:
            pictures.draw(config, run)
        run.write_status("failed" if failed else "finished", **facts)
    else:
        say(f"finished before: nothing to do for seeds {format_seeds(seeds)} of {config.log.name} ({sig})")
    run.unlock()
    summary(run, rows)
    return 1 if failed else 0


def summary(run: RunDir, rows: list[Row]) -> None:
    """The table at the end, with where everything is."""
    table = Table(title=f"{len(rows)} seed{'s' * (len(rows) != 1)}", box=None, padding=(0, 1), title_justify="left")
    for heading in ("seed", "status", "last acc", "best acc", "at epoch", "macro F1", "images/s", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        last = row.get("test_acc", row.get("val_acc"))
        best = row.get("best_test_acc", row.get("best_val_acc"))
        table.add_row(
            str(row["seed"]),
            row["status"],
            "-" if last is None else f"{last:.2%}",
            "-" if best is None else f"{best:.2%}",
            "-" if best is None else f"{row['best_epoch']:.4g}",
            "-" if last is None else f"{row['macro_f1']:.4f}",
            f"{row['images_per_s']:,.0f}",
            f"{row['wall_s']:.1f}",
        )
    console.print(table)
    for name, path in (("results", run.results), ("pictures", run.pictures)):
        if path.exists():
            say(f"{name:9s} {path}")
    for row in rows:
        if row["status"] == "failed":
            say(f"seed {row['seed']} failed: {row['reason']}")
