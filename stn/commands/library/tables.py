"""The rows of many runs: as a pandas DataFrame, or as a list. Never imports torch."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args, overload

from stn.config.registry import nearest
from stn.config.yaml_files import load_yaml
from stn.runs.directory import Row, RunDir, find_runs
from stn.runs.files import parse_rows, read_text
from stn.runs.predictions import faults
from stn.runs.records import Metric, valid
from stn.runs.same_code import refuse_mixture
from stn.tracking.console import warn

Experiment = tuple[Path, str]
"""Parent of run directories, and their signature: side by side there may be several that were moved there."""


def run_dirs(paths: tuple[str | Path, ...]) -> list[RunDir]:
    """Return the run directories at and below these paths; names of experiments are looked for in runs/, too."""
    runs: dict[Path, RunDir] = {}
    for path in paths or ("runs",):
        where = path if Path(path).exists() else Path("runs", path)
        found = find_runs([str(where)]) if str(path) else []
        if not found:
            raise ValueError(f"{path} is no run directory, and has none below it")
        runs |= {run.path: run for run in found}
    return list(runs.values())


def _table(rows: list[Row], frame: bool | None) -> Any:
    """Return rows as a DataFrame: if ``frame``, or with None if pandas is installed."""
    if not (find_spec("pandas") if frame is None else frame):
        return rows
    try:
        return import_module("pandas").DataFrame(rows)
    except ModuleNotFoundError:
        raise ValueError("frame=True needs pandas: pip install pandas") from None


def _rows_by_run(paths: tuple[str | Path, ...], unfinished: bool) -> list[tuple[RunDir, Experiment, dict[int, Row]]]:
    """Return run directories with their result rows that count; ``unfinished``: those without rows, too."""
    counted: dict[Experiment, dict[int, Row]] = {}
    found = []
    for run in run_dirs(paths):
        own = run.rows()
        if not own and not unfinished:
            continue  # its configuration need not be one of ours
        experiment = run.path.parent, run.find_sig(own.values())
        known = counted.setdefault(experiment, {})
        rows = {seed: row for seed, row in sorted(own.items()) if seed not in known}
        found.append((run, experiment, rows))
        known |= rows
    for (folder, _), rows in counted.items():
        refuse_mixture({seed: row for seed, row in rows.items() if row["status"] == "finished"}, folder)
    return found


@overload
def results(*paths: str | Path, frame: Literal[False]) -> list[Row]: ...
@overload
def results(*paths: str | Path, frame: bool | None = None) -> Any: ...
def results(*paths: str | Path, frame: bool | None = None) -> Any:
    """Return the result rows at and below these paths (default: runs), a row per seed, with the path of its run.

    Args:
        paths: Run directories, folders of them, or names of experiments and sweeps in runs/.
        frame: True: a pandas DataFrame; False: a list of dicts; None: a DataFrame where pandas is installed.
    """
    found = _rows_by_run(paths, unfinished=False)
    for run, _, rows in found:
        for fault in faults(run.path, rows, whole=False):
            warn(f"{fault}; its row is read without it")
    return _table([row | {"path": str(run.path)} for run, _, rows in found for row in rows.values()], frame)


@overload
def metrics(*paths: str | Path, kind: str | None = None, frame: Literal[False]) -> list[Row]: ...
@overload
def metrics(*paths: str | Path, kind: str | None = None, frame: bool | None = None) -> Any: ...
def metrics(*paths: str | Path, kind: str | None = None, frame: bool | None = None) -> Any:
    """Return the rows of metrics.jsonl at and below these paths (default: runs), with what was trained.

    Args:
        paths: As in ``results``.
        kind: train, eval, warp or pose; None: all.
        frame: As in ``results``.
    """
    if kind not in (None, *(kinds := get_args(Metric.model_fields["kind"].annotation))):
        raise ValueError(f"no kind {kind!r:.80} of rows; {nearest(str(kind), kinds)}")
    table: list[Row] = []
    whats: dict[Experiment, Row] = {}
    found = _rows_by_run(paths, unfinished=True)
    counted: dict[Experiment, set[int]] = {}
    for _, experiment, rows in found:
        counted.setdefault(experiment, set()).update(rows)
    for run, experiment, rows in found:
        if experiment not in whats:  # its blocks have one configuration, which takes time to read
            config = load_yaml(run.config)
            what = {"name": config.log.name, "sig": experiment[1], "arch": config.arch.name}
            whats[experiment] = what | {"dataset": config.data.label}
        elsewhere = counted[experiment] - rows.keys()
        lines = [line for line in read_text(run.metrics).splitlines() if kind is None or f'"{kind}"' in line[:40]]
        points = [row for row in valid(parse_rows(lines), Metric) if kind in (None, row["kind"])]
        table += [whats[experiment] | row for row in points if row["seed"] not in elsewhere]
    return _table(table, frame)
