"""The progress of a command's processes, read from their run directories alone."""

from stn.config.seed_list import parse_seeds
from stn.runs.directory import Row, RunDir
from stn.runs.files import last_lines, parse_rows
from stn.runs.records import Metric, valid
from stn.runs.trials import Trial, count_finished, group_by_run
from stn.tracking.terminal import means

MOST_LINES = 4
"""Processes with a line of their own."""


def newest_means(run: RunDir, kind: str, seeds: set[int]) -> Row:
    """Return the newest row of a kind, with means over those of these seeds at its step; {} if there is none."""
    rows = valid(parse_rows(last_lines(run.metrics)), Metric)
    rows = [row for row in rows if row["kind"] == kind and row["seed"] in seeds]
    rows = [row for row in rows if row["step"] == rows[-1]["step"]]
    return rows[-1] | means(rows) if rows else {}


def _line(process: int, trials: list[Trial]) -> tuple[str, int, float]:
    """Return the line of a process, the number of seeds that it trains now and its images/s."""
    groups = group_by_run(trials)
    finished = {group[0].run.path: group[0].run.rows().keys() for group in groups}
    if all(trial.seed in finished[trial.run.path] for trial in trials):
        return f"process {process}: done", 0, 0.0
    statuses = [(group[0].run, group[0].run.read_status()) for group in groups]
    running = [(run, status) for run, status in statuses if status.get("state") == "running"]
    if not running:
        return f"process {process}: starting", 0, 0.0
    run, status = max(running, key=lambda pair: pair[1].get("time", 0.0))  # of several settings the current one
    name = status.get("seeds", "0")
    block = set(parse_seeds(name))
    train, evaluation = newest_means(run, "train", block), newest_means(run, "eval", block)
    step = max(status.get("step", 0), train.get("step", 0))
    facts = [f"seed {name if len(name) < 12 else f'{name[:11]}…'}", f"step {step:,}/{status.get('steps', 1):,}"]
    facts += [f"loss {train['loss']:.4f}"] if isinstance(train.get("loss"), float) else []
    for split in ("test", "val"):
        accuracy = evaluation.get(f"{split}_acc")
        facts += [] if accuracy is None else [f"{split} acc {accuracy:.2%}"]
    return f"process {process}: {'  '.join(facts)}", len(block - finished[run.path]), train.get("images_per_s") or 0.0


def process_lines(shares: list[list[Trial]]) -> list[str]:
    """Return a line on all processes, and one on each of the first after the main one; ``shares`` are their trials."""
    every = [trial for share in shares for trial in share]
    done, total = count_finished(list({trial.sig: trial for trial in every}.values()))
    if len(shares) == 1:
        return [f"{done} of {total} seeds done"]
    lines = [_line(process, share) for process, share in enumerate(shares)]
    running, rate = sum(n for _, n, _ in lines), sum(rate for _, _, rate in lines)
    text = f"{done} of {total} seeds done, {running} in training in {len(shares)} processes, {rate:,.0f} images/s"
    others = [line for line, _, _ in lines[1:]]
    more = len(others) - MOST_LINES
    return [text, *others[:MOST_LINES], *([f"and {more} more processes"] if more > 0 else [])]
