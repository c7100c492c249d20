"""The seeds of run directories as an export sees them: a run each, with its configuration, curves and result."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from launch.report.analysis.cells import is_number
from stn.config.schema import Config
from stn.config.seed_list import format_seeds
from stn.config.yaml_files import load_yaml
from stn.runs.directory import Row, RunDir, find_runs
from stn.runs.files import parse_rows, read_text
from stn.runs.records import Metric, hash_of, valid
from stn.runs.same_code import refuse_mixture
from stn.tracking.pictures import Ending, ending, warps_of
from stn.tracking.wandb_run import KINDS, group, run_id, values

Say = Callable[[str], None]


def scalars(row: Row) -> Row:
    """Return a row's strings, and its numbers that fit in 64 bits."""
    return {
        key: value for key, value in row.items() if isinstance(value, str) or (is_number(value) and abs(value) < 2**63)
    }


@dataclass
class SeedRecord:
    """One seed: what was trained, its rows of training and evaluation, and its result if it has ended."""

    run: RunDir
    config: Config
    sig: str
    seed: int
    rows: list[Row]
    result: Row | None
    end: Ending | None
    """The final pictures and table of its run directory."""

    @property
    def id(self) -> str:
        """The seed's name in trackers, the same as its id on W&B."""
        return run_id(self.config, self.sig, self.seed)

    @property
    def group(self) -> str:
        return group(self.config, self.sig)

    @property
    def status(self) -> str:
        return self.result["status"] if self.result else "unfinished"

    @property
    def parameters(self) -> dict[str, Any]:
        """The resolved configuration as one level, with what identifies the seed."""
        sections = self.config.model_dump(mode="json")
        flat = {f"{section}.{key}": value for section, fields in sections.items() for key, value in fields.items()}
        return {"sig": self.sig, "seed": self.seed} | flat

    @cached_property
    def points(self) -> list[tuple[int, dict[str, float]]]:
        """Step and values of each row, named as on W&B."""
        named = [(row["step"], values(row)) for row in self.rows]
        return [(step, {k: float(v) for k, v in point.items() if k != "global_step"}) for step, point in named]

    @property
    def scalars(self) -> dict[str, Any]:
        """Numbers and strings of the result row."""
        return scalars({key: value for key, value in (self.result or {}).items() if key != "row_sha256"})

    @cached_property
    def pictures(self) -> dict[tuple[str, int], Path]:
        """Name and step -> a picture that W&B and TensorBoard show of it."""
        warps = {("warps", row["step"]): path for row in self.rows if (path := warps_of(self.run, row))}
        last = self.rows[-1]["step"] if self.rows else 0
        shown = self.end.pictures if self.end and self.end.seed == self.seed else {}
        return warps | {(f"pictures/{name}", last): path for name, path in shown.items()}

    @property
    def result_hash(self) -> str:
        """A hash of the result; "" while there is none."""
        return self.result.get("row_sha256") or hash_of(self.result) if self.result else ""

    @cached_property
    def digest(self) -> str:
        """A hash of all that is exported."""
        sizes = [(*name, path.stat().st_size) for name, path in self.pictures.items()]
        content = json.dumps([self.rows, self.result, sizes, self.parameters], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def read_seeds(paths: list[str], leave_out: Say) -> Iterator[SeedRecord]:
    """Yield every seed in these paths once; say what is left out and why."""
    seen: set[tuple[str, int]] = set()
    all_runs = sorted(find_runs(paths), key=lambda run: (run.path.parent, run.path))
    for folder, runs in groupby(all_runs, key=lambda run: run.path.parent):
        experiments: dict[str, list[tuple[RunDir, dict[int, Row]]]] = {}  # one, unless the directories were moved
        for run in runs:
            try:
                skipped, results = run.skipped_lines(), run.rows()
                experiments.setdefault(run.find_sig(results.values()), []).append((run, results))
            except (ValueError, OSError) as error:
                leave_out(f"left out: {error}")
                continue
            for text in skipped:
                leave_out(text)
        for sig, blocks in experiments.items():
            finished = {seed: row for _, results in reversed(blocks) for seed, row in results.items()}
            try:
                refuse_mixture({s: row for s, row in finished.items() if row["status"] == "finished"}, folder)
            except ValueError as error:
                leave_out(f"left out: {error}")
                continue
            for run, results in blocks:
                yield from _read_run(run, sig, results, set(finished), seen, leave_out)


def _read_run(
    run: RunDir, sig: str, results: dict[int, Row], finished: set[int], seen: set[tuple[str, int]], leave_out: Say
) -> Iterator[SeedRecord]:
    """Yield the seeds of a run directory that no earlier one had; ``finished`` are its experiment's."""
    try:
        config, lines = load_yaml(run.config), read_text(run.metrics).splitlines()
        if not config.log.name or not config.train.steps:
            raise ValueError(f"{run.config} is not the resolved configuration of a run")
    except (ValueError, OSError) as error:
        leave_out(f"left out: {error}")
        return
    rows: dict[int, list[Row]] = {seed: [] for seed in results}
    good = valid(parse_rows(lines), Metric)
    if len(lines) > len(good):
        leave_out(f"{run.metrics}: skipped {len(lines) - len(good)} damaged lines")
    for row in good:
        if row["kind"] in KINDS:
            rows.setdefault(row["seed"], []).append(row)
    # A seed without a result here may have been trained anew in another block, whose rows then count.
    here = sorted(rows.keys() - (finished - results.keys()))
    if again := [seed for seed in here if (sig, seed) in seen]:
        leave_out(f"{run.path}: skipped seeds {format_seeds(again)}, read from another run directory")
    end = ending(run)
    for seed in here:
        if (sig, seed) not in seen:
            seen.add((sig, seed))
            yield SeedRecord(run, config, sig, seed, rows.pop(seed), results.get(seed), end)
