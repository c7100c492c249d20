"""The sinks that show a run elsewhere: TensorBoard and W&B."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stn.config.schema import Config
from stn.runs.directory import Row, RunDir
from stn.tracking.pictures import Ending, can_draw_confusion, confusion_image, image_summary, warps_of
from stn.tracking.wandb_run import KINDS, SeedRun, logged_in


class TensorBoardSink:
    """One folder of events per seed, under the run directory."""

    shows_pictures = True

    def __init__(self, run: RunDir, seeds: list[int], start: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter  # an extra; imported when asked for

        self.run, purge = run, start + 1 if start else start  # what was logged at the step to resume from stays
        self.writers = {s: SummaryWriter(str(run.path / f"tensorboard/seed-{s}"), purge_step=purge) for s in seeds}

    def _add_image(self, seed: int, name: str, image: Path | Any, step: int) -> None:
        if (file := self.writers[seed].file_writer) is not None:  # not add_image, which compresses pixels anew
            file.add_summary(image_summary(name, image), step)

    def write(self, rows: list[Row]) -> None:
        for row in rows:
            for key, value in row.items():
                if isinstance(value, float):
                    self.writers[row["seed"]].add_scalar(f"{row['kind']}/{key}", value, row["step"])
            if path := warps_of(self.run, row):
                self._add_image(row["seed"], "warps", path, row["step"])

    def close(self, results: list[Row]) -> None:
        for row in results:
            if can_draw_confusion(row):
                self._add_image(row["seed"], "confusion", confusion_image(row["confusion"]), row["steps"])
        for writer in self.writers.values():
            writer.close()

    def show(self, end: Ending, result: Row) -> None:
        """Show what the run directory ends with, and close."""
        for name, path in end.pictures.items():
            self._add_image(end.seed, f"pictures/{name}", path, result["steps"])
        self.close([])


class WandbSink:
    """One W&B run per seed with a stable id, so that a resumed seed continues its run."""

    unreachable = False
    """Whether the server has failed to answer: then this process stays offline."""

    def __init__(self, run: RunDir, config: Config, sig: str, seeds: list[int], warn: Callable[[str], None]) -> None:
        import wandb  # takes half a second

        self.runs: dict[int, SeedRun] = {}
        mode = self.mode(wandb, config)
        if mode == "disabled":
            return
        if mode == "online" and not WandbSink.unreachable:
            try:
                ours = [row for row in run.read_metrics() if row.get("seed") in seeds]
                for seed in seeds:
                    self.runs[seed] = SeedRun(wandb, config, sig, seed, "online", run, str(run.path))
                    if (at := self.runs[seed].next) and not any(row["seed"] == seed for row in ours):
                        rows = f"rows up to step {(at - 1) // len(KINDS)} as {self.runs[seed].id}"
                        why = "of an earlier start, or of another training, which another --name tells apart"
                        warn(f"W&B has {rows}, and takes none before them: {why}")
                self.write(ours)  # what a kill, or a time without network, kept from the server
                return
            except wandb.Error as error:
                WandbSink.unreachable = True
                warn(f"W&B does not answer or refuses, logging offline: {str(error).splitlines()[0]}")
            wandb.teardown()  # the client's service keeps the ids of these runs, and would refuse them
        self.runs = {seed: SeedRun(wandb, config, sig, seed, "offline", run, str(run.path)) for seed in seeds}

    @staticmethod
    def mode(wandb: Any, config: Config) -> str:
        """Return online, offline or disabled."""
        if config.log.wandb != "auto":
            return config.log.wandb
        if variable := os.environ.get("WANDB_MODE"):
            return variable
        kept = wandb.setup(wandb.Settings(silent=True)).settings.mode  # by `wandb offline` or `wandb disabled`
        return kept if kept != "online" else "online" if logged_in(wandb) else "offline"

    @property
    def shows_pictures(self) -> bool:
        return bool(self.runs)

    def write(self, rows: list[Row]) -> None:
        for row in rows:
            if row["seed"] in self.runs:
                self.runs[row["seed"]].send([row])

    def close(self, results: list[Row]) -> None:
        """Close all runs; after one whose pictures or weights could not be sent, the others with numbers alone."""
        rows, failure = {row["seed"]: row for row in results}, None
        for seed, run in self.runs.items():
            try:
                run.finish(rows.get(seed), extras=failure is None)
            except Exception as error:  # each layer of the client has its own classes
                failure = failure or error
        if failure:
            raise failure

    @staticmethod
    def show(run: RunDir, config: Config, sig: str, end: Ending) -> None:
        """Show what a run directory ends with, but not offline: two files of one run would overwrite each other."""
        if config.log.wandb == "disabled" or WandbSink.unreachable:
            return
        import wandb

        if WandbSink.mode(wandb, config) == "online":
            seed_run = SeedRun(wandb, config, sig, end.seed, "online", run, str(run.path))
            # W&B takes no row after a later one: send those that an earlier block could not.
            seed_run.send([row for row in run.read_metrics() if row.get("seed") == end.seed])
            seed_run.finish(run.rows()[end.seed], end)
