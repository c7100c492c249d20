"""Train one architecture: one or many seeds, on one or many processes.

    accelerate launch train.py --arch stn_slx --dataset mnist --seeds 0

Read ``train_block`` from top to bottom: it is the whole loop. S seed, B batch, C channel, H, W, K class.
"""

import sys

from stn.config import command_line

command = command_line.parse(sys.argv[1:])  # before torch is imported: --help and typos answer at once

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stn.commands.check import check
from stn.commands.finish import record_failure, wrap_up
from stn.commands.list import list_names
from stn.config.dataset import build_dataset
from stn.config.fields import steps_of
from stn.config.resolve import resolve
from stn.config.schema import Config
from stn.config.signature import signature
from stn.config.yaml_files import dump_yaml
from stn.data.stream import Batch, Stream
from stn.evaluation.accuracy import evaluate
from stn.evaluation.transformer_metrics import final_transformer_metrics, transform_snapshots
from stn.models.build import build_model
from stn.multiseed.model import StackedModel, with_penalty
from stn.runs import provenance
from stn.runs.directory import Row
from stn.runs.files import write_atomic
from stn.runs.trials import Trial, block_label, blocks, build_trials, group_by_run
from stn.tracking.console import say, warn
from stn.tracking.log import Log
from stn.training import checkpoints, optimizer
from stn.training.block_size import choose_block_size
from stn.training.checkpointer import Checkpointer
from stn.training.cuda_graph import GraphedStep
from stn.training.running_metrics import RunningMetrics
from stn.training.runtime import Runtime
from stn.training.stop import Stop


def gradients(config: Config, runtime: Runtime, forward: nn.Module, batch: Batch, clock: Tensor) -> tuple:
    """Add up the gradients of a batch, in parts if asked; each seed's mean loss and share of hits, [S]."""
    losses, hits = [], []
    parts = batch.parts(config.optim.accumulate)
    for i, part in enumerate(parts):
        with runtime.sync(forward, last=i == len(parts) - 1):
            logits_SBK, penalty_SB = with_penalty(forward(part.x_SBCHW, clock, part.row_B))
            S, B, K = logits_SBK.shape
            logits_MK, y_M = logits_SBK.reshape(S * B, K), part.y_SB.reshape(S * B)
            each_M = F.cross_entropy(logits_MK, y_M, reduction="none", label_smoothing=config.optim.label_smoothing)
            loss_S = ((each_M.view(S, B) + penalty_SB) * part.weight_B).sum(1)
            runtime.accelerator.backward(loss_S.sum())
        losses.append(loss_S.detach())
        hits.append((logits_MK.detach().argmax(-1).eq(y_M).view(S, B) * part.weight_B).sum(1))
    return torch.stack(losses).sum(0), torch.stack(hits).sum(0)


def train_block(runtime: Runtime, stop: Stop, trials: list[Trial]) -> list[Row]:
    """Train a block of seeds as one network; result rows of those that finished or failed."""
    config, seeds = trials[0].config, [trial.seed for trial in trials]
    steps = config.train.steps
    assert steps is not None

    # ---- data, model, optimiser
    dataset = build_dataset(config.data.name)
    stream = Stream(config.data, dataset, seeds, runtime.device, runtime.dtype, runtime.rank, runtime.world)
    model = StackedModel(
        lambda: build_model(config.arch, dataset.shape, dataset.classes), seeds, runtime.device, runtime.dtype
    )
    if config.train.compile:
        model.compiled = {}
    optimiser = optimizer.SeedOptimiser([trial.config.optim for trial in trials], model, stream.clock, steps)
    forward, stepper = runtime.prepare(model, optimiser)
    metrics = RunningMetrics(seeds, runtime, "val" if config.data.validation else "test")

    # ---- one step, on the device alone
    def update() -> None:
        stepper.zero_grad()
        loss_S, hits_S = gradients(config, runtime, forward, stream.draw(), stream.clock)
        if config.optim.clip:
            runtime.accelerator.unscale_gradients(stepper)
            optimizer.clip_gradients(model, config.optim.clip)
        stepper.step()
        metrics.add(stream.clock, loss_S, hits_S)

    step_graph = GraphedStep(update, runtime.device, runtime.replays(config), warn)

    # ---- resume
    checkpointer = Checkpointer(trials, runtime, model, optimiser, metrics, steps)
    step = checkpointer.load()
    if step:
        say(f"{block_label(trials)} goes on at step {step} of {steps}")

    # ---- the loop
    model.train()
    with Log(trials, step, runtime.writes) as log:
        if step == 0 and runtime.writes:
            log.rows(transform_snapshots(model, stream, 0), sinks=False)
        metrics.tick(training=False)
        while step < steps and metrics.alive() and not stop.due(step):
            size = stream.seek(step)
            step_graph(size)
            metrics.count(size * len(seeds))
            step += 1

            epoch = step / stream.steps_per_epoch
            if due(config.log.every, step, steps):
                lrs = [optimizer.learning_rate(trial.config.optim, step - 1, steps) for trial in trials]
                log.rows(metrics.train_rows(step, epoch, lrs))
            if due(config.eval.every, step, steps):
                metrics.tick(training=True)
                scores = evaluate(model, stream, config.eval.batch_size, runtime)
                log.rows(metrics.eval_rows(step, epoch, scores))
                metrics.tick(training=False)
            if runtime.writes and (due(config.eval.every, step, steps) or step == steps // 2):
                log.rows(transform_snapshots(model, stream, step, metrics.failed), sinks=False)
            if due(config.checkpoint.every, step, steps) and step < steps:
                checkpointer.save(step, config.checkpoint.keep)

        # ---- leave
        rows: list[Row] = []
        if step < steps and metrics.alive():
            checkpointer.save(step, config.checkpoint.keep)
        else:
            looks, poses = final_transformer_metrics(
                model, stream, step, config.eval.batch_size, runtime, metrics.failed
            )
            log.rows(poses, sinks=False)
            for s, trial in enumerate(trials):
                weights = model.weights(s)
                facts = {"params": model.count(), "steps": step, "epochs": step / stream.steps_per_epoch}
                facts |= {"mode": runtime.mode, "world_size": runtime.processes}
                facts["weights_sha256"] = checkpoints.digest(weights)
                rows.append(trial.identity() | facts | metrics.result(s) | looks[s])
                if runtime.writes and trial.run.may_write():
                    checkpoints.save_final(trial.run, trial.seed, weights)
                    trial.run.add_result(rows[-1])
        log.close(rows)
    runtime.accelerator.free_memory()
    return rows


def due(every: str, step: int, steps: int) -> bool:
    return step % steps_of(every) == 0 or step == steps


def train(runtime: Runtime, stop: Stop, trials: list[Trial]) -> int:
    """Train the seeds that are not finished, block by block; the exit code."""
    todo: list[Trial] = []
    for group in group_by_run(trials):
        run, seeds = group[0].run, {trial.seed for trial in group}
        if runtime.writes and seeds - set(run.finished()):
            run.lock(tell=say)
            checkpoints.drop_torn(run)
            write_atomic(run.config, dump_yaml(group[0].config))
            write_atomic(run.env, provenance.environment_json(sig=group[0].sig, **runtime.facts()))
        # Under the lock: another copy may have finished some in the meantime.
        done = runtime.from_writer(set(run.finished()) if runtime.writes else set())
        todo += [trial for trial in group if trial.seed not in done]
    if todo:
        saved = [checkpoints.saved_steps(trial.run, trial.seed) for trial in todo] if runtime.writes else []
        most = choose_block_size(todo, runtime) if runtime.writes else 0
        for block in blocks(todo, runtime.from_writer(most), runtime.from_writer(saved)):
            train_block(runtime, stop, block)
            if stop.reason:
                break
    return wrap_up(trials, stop.reason, {trial.sig for trial in todo}) if runtime.writes else 0


def main() -> int:
    try:
        if command.list:
            return list_names()
        configs = [resolve(config) for config in command.configs]
        if len({signature(config) for config in configs}) < len(configs):
            raise ValueError("two of the settings are the same")
        if command.check:
            return check(configs)
        runtime = Runtime(configs[0], len(build_trials(configs)))
        dataset = build_dataset(configs[0].data.name)
        build_model(configs[0].arch, dataset.shape, dataset.classes)  # whatever is wrong, before there is a directory
    except ValueError as error:
        command_line.fail(error)
    try:
        with runtime.accelerator.local_main_process_first():  # one process of a machine downloads
            dataset.load(configs[0].data.root)
    except ValueError as error:
        command_line.fail(error, everywhere=True)
    trials = build_trials(configs, *runtime.share)
    wishes = [group[0].run.leave for group in group_by_run(trials)]
    stop = Stop(wishes, configs[0].train.time_limit, runtime.any_rank if runtime.world > 1 else None)
    stop.listen()
    try:
        code = train(runtime, stop, trials)
    except Exception as error:
        record_failure(trials if runtime.writes else [], error)
    runtime.end()
    return code


if __name__ == "__main__":
    sys.exit(main())
