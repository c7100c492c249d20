"""Train one architecture: one or many seeds, on one or many processes.

    accelerate launch train.py --arch stn_slx --dataset mnist --seeds 0

Read ``train_block`` from top to bottom: it is the whole loop. S seed, B batch, C channel, H, W, K class.
"""

import gc
import signal
import sys
from functools import partial

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C leaves no traceback until Stop listens
    gc.disable()  # imports make no garbage: this saves 0.5 s of 2.6
from stn.commands.begin import begin

# Before torch is imported: --help, --list and bad input answer at once.
commands, neighbours = begin(sys.argv[1:], draws=__name__ == "__main__")

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stn.commands.check import check
from stn.commands.finish import leave, record_failure, summarise, wrap_up, write_results
from stn.commands.network import try_network
from stn.commands.unfinished import lock_unfinished
from stn.config.command_line import fail
from stn.config.dataset import build_dataset
from stn.config.fields import steps_of
from stn.config.resolve import resolve_all
from stn.config.schema import Config
from stn.data.stream import Batch, Stream
from stn.evaluation.accuracy import evaluate_images
from stn.evaluation.pictures.snapshot import snapshot_png
from stn.evaluation.predictions import save_predictions
from stn.evaluation.transformer_metrics import final_transformer_metrics, transform_snapshots
from stn.models.build import build_network
from stn.multiseed.model import StackedModel, with_penalty
from stn.runs.trials import Trial, build_trials, group_by_run
from stn.tracking.console import warn
from stn.tracking.log import Log
from stn.training import profiler
from stn.training.blocks import plan_blocks
from stn.training.checkpointer import Checkpointer
from stn.training.fingerprint import stamp
from stn.training.optimizer import SeedOptimiser, clip_gradients, learning_rate
from stn.training.replay.recorded_step import replayed
from stn.training.running_metrics import RunningMetrics
from stn.training.runtime import Runtime
from stn.training.stop import Stop, ignore_signals


def seed_losses(config: Config, forward: nn.Module, batch: Batch, clock: Tensor) -> tuple[Tensor, Tensor]:
    """Return each seed's mean loss and accuracy over a batch, [S]; for a part of a batch, what it adds to them."""
    logits_SBK, penalty_SB = with_penalty(forward(batch.x_SBCHW, clock, batch.row_B))
    S, B, K = logits_SBK.shape
    logits_MK, y_M = logits_SBK.reshape(S * B, K), batch.y_SB.reshape(S * B)
    loss_M = F.cross_entropy(logits_MK, y_M, reduction="none", label_smoothing=config.optim.label_smoothing)
    loss_S = ((loss_M.view(S, B) + penalty_SB) * batch.weight_B).sum(1)
    return loss_S, (logits_MK.detach().argmax(-1).eq(y_M).view(S, B) * batch.weight_B).sum(1)


def backward(config: Config, runtime: Runtime, forward: nn.Module, batch: Batch, clock: Tensor) -> tuple:
    """Accumulate the gradients of a batch; return each seed's mean loss and accuracy, [S]."""
    sums = []
    parts = batch.parts(config.optim.accumulate)
    for i, part in enumerate(parts):
        with runtime.sync(forward, last=i == len(parts) - 1):
            loss_S, hits_S = seed_losses(config, forward, part, clock)
            runtime.backward(loss_S.sum())
        sums.append((loss_S.detach(), hits_S))
    return sums[0] if len(sums) == 1 else tuple(torch.stack(values).sum(0) for values in zip(*sums, strict=True))


def due(every: str, step: int, steps: int) -> bool:
    return step % steps_of(every) == 0 or step == steps


def train_block(runtime: Runtime, stop: Stop, trials: list[Trial]) -> None:
    """Train a block of seeds as one network; write the results of those that finish or fail."""
    config, seeds = trials[0].config, [trial.seed for trial in trials]
    steps = config.train.steps
    assert steps is not None
    # ---- data, model, optimiser
    dataset = build_dataset(config.data.name)
    stream = Stream(config.data, dataset, seeds, runtime.device, runtime.dtype, runtime.rank, runtime.world)
    model = StackedModel(partial(build_network, config), seeds, runtime.device, runtime.dtype)
    model.compiled = {} if runtime.compiles else None
    fused = runtime.compiles and runtime.device.type == "cuda"  # into one kernel
    optimiser = SeedOptimiser([trial.config.optim for trial in trials], model, stream.clock, steps, compiles=fused)
    forward, stepper = runtime.prepare(model, optimiser)
    metrics = RunningMetrics(seeds, runtime, config.data.split, config.log.grad_norm)

    # ---- one step, without a host sync
    def update() -> None:
        stepper.zero_grad()
        loss_S, hits_S = backward(config, runtime, forward, stream.draw(), stream.clock)
        norm_S = None
        if config.optim.clip or config.log.grad_norm:
            runtime.accelerator.unscale_gradients(stepper)
            norm_S = clip_gradients(model, config.optim.clip)
        stepper.step()
        metrics.add(stream.clock, loss_S, hits_S, norm_S)

    replayed_step = replayed(update, runtime.device, runtime.can_replay(config), warn)

    # ---- resume
    checkpointer = Checkpointer(trials, runtime, model, optimiser, metrics)
    step, answers = checkpointer.load(), None

    # ---- the loop
    model.train()
    log = Log(trials, step, runtime.writes, runtime.shares, partial(snapshot_png, model, stream))
    with log, profiler.profiled(replayed_step, trials, runtime, step) as run_step:
        if step == 0:
            log.write([], transform_snapshots(model, stream, 0))
        metrics.tick(training=False)
        while step < steps and metrics.alive() and not stop.due(step):
            size = stream.seek(step)
            run_step(size)
            metrics.count_images(size * len(seeds))
            step += 1
            epoch = step / stream.steps_per_epoch
            log.advance(step, epoch, size * len(seeds), metrics.peek)
            if due(config.log.every, step, steps):
                lrs = [learning_rate(trial.config.optim, step - 1, steps) for trial in trials]
                log.write(metrics.train_rows(step, epoch, lrs))
            if due(config.eval.every, step, steps) or step == steps // 2:
                metrics.tick(training=True)
                rows = []
                if due(config.eval.every, step, steps):
                    replayed_step.make_room(stepper)
                    scores, answers = evaluate_images(model, stream, config.eval, runtime)
                    rows = metrics.eval_rows(step, epoch, scores)
                    if config.checkpoint.keep_best:
                        checkpointer.save_best()
                log.write(rows, transform_snapshots(model, stream, step, metrics.failed))
                metrics.tick(training=False)
            if due(config.checkpoint.every, step, steps) and step < steps:
                checkpointer.save(step)

        # ---- stopped: save; finished or failed: write the results
        if step < steps and metrics.alive():
            checkpointer.save(step)
        else:
            final = final_transformer_metrics(model, stream, step, config.eval, runtime, metrics.failed)
            log.write([], final[1])
            predictions = save_predictions(trials, answers, stream, runtime, metrics.failed)
            metrics.tick(training=False)
            facts = {"params": model.count_parameters(), "steps": step, "epochs": step / stream.steps_per_epoch}
            facts |= {"mode": runtime.mode, "world_size": runtime.processes}
            fields = [metrics.result(s) | final[0][s] | predictions[s] for s in range(len(trials))]
            log.close(write_results(trials, model, facts, fields, runtime.writes))


def train(runtime: Runtime, stop: Stop, trials: list[Trial]) -> int:
    """Train the seeds that are not finished, block by block; return the exit code."""
    unfinished = lock_unfinished(runtime, trials)
    for block in plan_blocks(runtime, unfinished, seed_losses):
        train_block(runtime, stop, block)
        runtime.accelerator.free_memory()
        if stop.reason:
            break
    return wrap_up(trials, stop.reason, {trial.sig for trial in unfinished}) if runtime.writes else 0


def main() -> int:
    gc.freeze()  # leave the imported objects out of later collections
    gc.enable()
    try:
        configs = resolve_all(commands)
        if commands[0].check:
            return check(configs, commands[0], commands[0].check == "full", seed_losses)
        runtime = Runtime(configs[0], len(build_trials(configs)), configs, neighbours)
        try_network(configs[0], runtime)
    except ValueError as error:
        fail(error)
    try:
        with runtime.accelerator.local_main_process_first():  # one process per machine downloads
            build_dataset(configs[0].data.name).images(configs[0].data.root)
        trials = build_trials(configs, *runtime.share)
        if runtime.writes:
            trials = stamp(trials, seed_losses)
    except (ValueError, OSError) as error:
        fail(error, everywhere=True)
    stop_requests = [group[0].run.stop_reason for group in group_by_run(trials)]
    stop = Stop(stop_requests, configs[0].train.time_limit, runtime.first_reason if runtime.world > 1 else None)
    stop.listen()
    try:
        code = train(runtime, stop, trials)
        leave(runtime, configs, stop.reason)
    except (Exception, KeyboardInterrupt) as error:
        record_failure(trials if runtime.writes else [], error)
    return summarise(code, configs, stop.reason)


if __name__ == "__main__":
    sys.exit(ignore_signals(main()))
