"""Saving and resuming a block of seeds: which files are written when, and in which order."""

from dataclasses import dataclass, field

import torch

from stn.config.seed_list import format_seeds
from stn.multiseed.model import StackedModel
from stn.runs.trials import Trial, block_label, group_by_run
from stn.tracking.console import say, warn
from stn.training import checkpoints
from stn.training.checkpoints import SeedCheckpoint, Tensors
from stn.training.optimizer import SeedOptimiser
from stn.training.running_metrics import RunningMetrics
from stn.training.runtime import Runtime


@dataclass
class Checkpointer:
    """Saves and loads a block's model, optimiser and running metrics. All methods are collective."""

    trials: list[Trial]
    runtime: Runtime
    model: StackedModel
    optimiser: SeedOptimiser
    metrics: RunningMetrics
    best: dict[int, Tensors] = field(default_factory=dict)
    """By index: the weights of the best evaluation, where they are kept."""

    def load(self) -> int:
        """Resume from the newest checkpoint that the writing rank finds; return its step, 0 if there is none."""
        members = [(trial.run, trial.seed) for trial in self.trials]
        shapes = checkpoints.shapes_of(self.model.weights(0), self.optimiser.seed_state(0))
        saved = self.runtime.from_writer(checkpoints.load_newest(members, shapes) if self.runtime.writes else [])
        step = saved[0].header["step"] if saved else 0
        for s, checkpoint in enumerate(saved):
            self.model.load_weights(s, checkpoint.model)
            self.optimiser.load_seed_state(s, checkpoint.optim)
        if saved:
            self.model.convolutions.keep(saved[0].header.get("convolutions", {}))
        self.metrics.load_state_dicts([checkpoint.header for checkpoint in saved])
        if scaler := self.runtime.accelerator.scaler:  # of fp16; it has served the block before this one
            scaler.load_state_dict(saved[0].header["scaler"] if saved else torch.amp.GradScaler("cpu").state_dict())
        if self.runtime.writes:
            keep_best = self.trials[0].config.checkpoint.keep_best
            for s, (run, seed) in enumerate(members):
                if not run.may_write():  # another copy has taken over: the files are its own
                    continue
                checkpoints.drop_steps(run, seed, after=step)
                if keep_best:
                    self._restore_best(s, saved[s].best if saved else {})
            for group in group_by_run(self.trials):
                group[0].run.cut_metrics([trial.seed for trial in group], step or -1)
            self._write_status(step)
            if step:
                say(f"{block_label(self.trials)} resumes at step {step} of {self.trials[0].config.train.steps}")
        return step

    def _restore_best(self, s: int, weights: Tensors) -> None:
        """Let best.safetensors be of the best evaluation so far: there may be one of a step that is trained again."""
        run, seed = self.trials[s].run, self.trials[s].seed
        best = self.metrics.best.get(s)
        if best and (weights := weights or checkpoints.load_best(run, seed, best[1])):
            self._write_best(s, weights)
            return
        run.final(seed).with_name("best.safetensors").unlink(missing_ok=True)
        if best:
            warn(f"seed {seed} lacks the weights of its best epoch so far: --checkpoint.keep-best was off")

    def save(self, step: int) -> None:
        """Write a checkpoint of every seed; status.json comes last and makes the step one to resume from."""
        self.metrics.tick(training=True)
        states, scaler = self.metrics.state_dicts(), self.runtime.accelerator.scaler
        if self.runtime.writes:
            for group in group_by_run(self.trials):
                group[0].run.sync_metrics()
            for s, trial in enumerate(self.trials):
                if not trial.run.lease.lost:
                    header = states[s] | {"scaler": scaler and scaler.state_dict(), "arch": trial.config.arch.name}
                    header["convolutions"] = self.model.convolutions.chosen
                    weights, optim = self.model.weights(s), self.optimiser.seed_state(s)
                    checkpoint = SeedCheckpoint(weights, optim, self.best.get(s, {}), header)
                    checkpoints.save_seed(trial.run, trial.seed, step, checkpoint, trial.config.checkpoint.keep)
            self._write_status(step)
        self.metrics.tick(training=False)

    def save_best(self) -> None:
        """Keep the weights of each seed whose last evaluation is its best so far."""
        for s in self.metrics.improved if self.runtime.writes else []:
            self._write_best(s, {name: tensor.clone() for name, tensor in self.model.weights(s).items()})

    def _write_best(self, s: int, weights: Tensors) -> None:
        self.best[s] = weights
        trial, split = self.trials[s], self.metrics.split
        accuracy, epoch = self.metrics.best[s]
        header = {f"{split}_acc": accuracy, "epoch": epoch, "chosen_on": split, "arch": trial.config.arch.name}
        checkpoints.save_weights(trial.run, trial.seed, "best", weights, header)

    def _write_status(self, step: int) -> None:
        for group in group_by_run(self.trials):
            seeds = format_seeds([trial.seed for trial in group])
            group[0].run.write_status("running", seeds=seeds, step=step, steps=group[0].config.train.steps)
