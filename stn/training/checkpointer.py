"""Saving a block of trials and going on from what was saved. Must not know what is trained."""

from dataclasses import dataclass

from stn.config.seed_list import format_seeds
from stn.multiseed.model import StackedModel
from stn.runs.trials import Trial, group_by_run
from stn.training import checkpoints
from stn.training.optimizer import SeedOptimiser
from stn.training.running_metrics import RunningMetrics
from stn.training.runtime import Runtime


@dataclass
class Checkpointer:
    """A block's model, optimiser and metrics as one thing that can be saved and loaded."""

    trials: list[Trial]
    runtime: Runtime
    model: StackedModel
    optimiser: SeedOptimiser
    metrics: RunningMetrics
    steps: int

    def load(self) -> int:
        """Go on from the newest checkpoint, as the writing rank finds it; the step, 0 where there is none."""
        places = [(trial.run, trial.seed) for trial in self.trials]
        saved = self.runtime.from_writer(checkpoints.load_newest(places) if self.runtime.writes else [])
        step = saved[0].progress["step"] if saved else 0
        for s, one in enumerate(saved):
            self.model.load_weights(s, one.model)
            self.optimiser.load_state_of(s, one.optimiser)
        if saved:
            self.metrics.load([one.progress for one in saved])
            if scaler := self.runtime.accelerator.scaler:  # of fp16
                scaler.load_state_dict(saved[0].progress["scaler"])
        if self.runtime.writes:
            for run, seed in places:
                checkpoints.drop_steps(run, seed, after=step)
            for group in group_by_run(self.trials):
                group[0].run.cut_metrics([trial.seed for trial in group], step or -1)
            self._tell(step)
        return step

    def save(self, step: int, keep: int) -> None:
        self.metrics.tick(training=True)
        states, scaler = self.metrics.states(), self.runtime.accelerator.scaler
        if self.runtime.writes:
            for group in group_by_run(self.trials):
                group[0].run.sync_metrics()
            for s, trial in enumerate(self.trials):
                if not trial.run.may_write():
                    continue
                progress = states[s] | {"step": step, "scaler": scaler and scaler.state_dict()}
                saved = checkpoints.Saved(self.model.weights(s), self.optimiser.state_of(s), progress)
                checkpoints.save_seed(trial.run, trial.seed, step, saved, keep)
            self._tell(step)
        self.metrics.tick(training=False)

    def _tell(self, step: int) -> None:
        for group in group_by_run(self.trials):
            seeds = format_seeds([trial.seed for trial in group])
            group[0].run.write_status("running", seeds=seeds, step=step, steps=self.steps)
