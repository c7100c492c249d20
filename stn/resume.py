"""Saving a block of seeds and going on from what was saved. Must not know what is trained."""

import torch

from stn import checkpoint, optim
from stn.config import format_seeds
from stn.meter import Meter
from stn.rundir import RunDir
from stn.runtime import Runtime
from stn.seeds import Seeds


class Progress:
    """A block's model, optimiser and meter as one thing that can be saved and loaded."""

    def __init__(
        self, run: RunDir, runtime: Runtime, model: Seeds, optimiser: torch.optim.Optimizer, meter: Meter, steps: int
    ) -> None:
        self.run, self.runtime, self.model, self.steps = run, runtime, model, steps
        self.optimiser, self.meter = optimiser, meter

    def load(self) -> int:
        """Go on from the newest checkpoint, as the writing rank finds it; the step, 0 where there is none."""
        seeds = self.model.seeds
        found = checkpoint.load_newest(self.run, seeds) if self.runtime.writes else {}
        saved = self.runtime.from_writer(found)
        step = saved[seeds[0]].progress["step"] if saved else 0
        for seed, one in zip(seeds, self.model.models, strict=True):
            if saved:
                one.load_state_dict(saved[seed].model)
                optim.load_optimiser_tensors(self.optimiser, one, saved[seed].optimiser)
            if self.runtime.writes:
                checkpoint.drop_steps(self.run, seed, after=step)
        if saved:
            self.meter.load({seed: saved[seed].progress for seed in seeds})
            self.runtime.load_scaler(saved[seeds[0]].progress["scaler"])
        if self.runtime.writes:
            self.run.cut_metrics(seeds, step)
            self._tell(step)
        return step

    def save(self, step: int, keep: int) -> None:
        self.meter.tick(training=True)
        states = self.meter.states()
        if self.runtime.writes:
            self.run.sync_metrics()
            for seed, one in zip(self.model.seeds, self.model.models, strict=True):
                progress = states[seed] | {"step": step, "scaler": self.runtime.scaler_state()}
                tensors = optim.optimiser_tensors(self.optimiser, one)
                checkpoint.save_seed(self.run, seed, step, checkpoint.Saved(one.state_dict(), tensors, progress), keep)
            self._tell(step)
        self.meter.tick(training=False)

    def _tell(self, step: int) -> None:
        self.run.write_status("running", seeds=format_seeds(self.model.seeds), step=step, steps=self.steps)
